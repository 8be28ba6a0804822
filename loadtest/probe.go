package loadtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/address"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// probeTime bounds each step of the probe.
const probeTime = 3 * time.Second

// A probeResult is what the probe has learned of the target.
type probeResult struct {
	timeout       time.Duration // T; 0: unknown
	timeoutSource string        // "WELCOME", "--timeout" or "unknown"
}

// resolveTarget finds the address of a target.
func resolveTarget(target string) (netip.AddrPort, error) {
	to, err := address.Parse(target, Schemes...)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("target %q: %w", target, err)
	}
	addr, err := net.ResolveTCPAddr("tcp", to.HostPort())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("cannot find the target %s: %w; "+
			"write an address, or a name that this machine can resolve", target, err)
	}
	a := addr.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

// probe connects once, as the connections of the plan will, and learns T. The error
// says why a run would be pointless, and what to do.
func probe(target netip.AddrPort, p *Plan) (probeResult, error) {
	got := probeResult{timeout: p.Timeout, timeoutSource: "--timeout"}
	first := codec.AppendBeat(nil)
	switch {
	case p.Hello:
		first = p.AppendHello(nil, 0)
	case p.ServerBeats:
		first = nil // the server begins
	case p.HasWebSocket():
		first = codec.AppendPing(nil, nil) // as an empty frame may not be answered
	}
	welcome, err := exchange(target, p, first)
	if err != nil {
		return got, err
	}
	if p.Timeout != 0 {
		return got, nil
	}
	if !p.Hello && p.Framing.Native() {
		// A server that rejects this HELLO can still be tested without it.
		welcome, _ = exchange(target, p, codec.AppendHello(nil, codec.Hello{V: codec.Version}))
	}
	got.timeout, got.timeoutSource = time.Duration(welcome.TimeoutMS)*time.Millisecond, "WELCOME"
	if got.timeout == 0 {
		got.timeoutSource = "unknown"
	}
	return got, nil
}

// exchange sends one frame, or none, on a connection of its own and waits for an answer,
// WELCOME or not. No answer is no error: the run will count that. It returns once the
// target has closed the connection as well, as the run may need that slot.
func exchange(at netip.AddrPort, p *Plan, frame []byte) (welcome codec.Welcome, err error) {
	target := p.targetText(at)
	c, err := p.Dial(at, probeTime)
	if err != nil {
		return welcome, dialError(err, target)
	}
	defer func() {
		c.SetDeadline(time.Now().Add(probeTime))
		c.Close()
	}()
	c.SetDeadline(time.Now().Add(probeTime))
	err = c.Write(frame)
	for err == nil {
		var f codec.Frame
		if f, err = c.Next(); err != nil {
			break
		}
		switch f.Op {
		case codec.OpWelcome:
			welcome, _ = codec.ParseWelcome(f.Payload)
		case codec.OpClose:
			code, reason, _ := codec.ParseClose(f.Payload)
			return welcome, refusal(target, code, reason)
		case codec.OpGoaway:
			g, _ := codec.ParseGoaway(f.Payload)
			return welcome, refusal(target, codec.Code(g.Code), g.Reason)
		case codec.OpPing:
			if p.HasWebSocket() && !p.ServerBeats { // the server's own, before its answer
				continue
			}
		}
		return welcome, nil
	}
	var frameErr *codec.Error
	var netErr net.Error
	if errors.As(err, &frameErr) && err != tlsedge.ErrClosed || errors.As(err, &netErr) && netErr.Timeout() {
		return welcome, nil // the run counts wrong answers
	}
	if errors.Is(err, io.EOF) || err == tlsedge.ErrClosed {
		err = errors.New("end of stream")
	}
	does := "does it speak frames with a length of 4 bytes?"
	if p.HasWebSocket() || !p.Framing.Native() {
		does = "does it speak what the plan says?"
	}
	return welcome, fmt.Errorf("the target %s closes a connection at once, without an answer (%w): %s",
		target, opError(err), does)
}

// opError is what went wrong with a connection, without its addresses.
func opError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// dialError says why no connection could be made, and what to do.
func dialError(err error, target string) error {
	var dial *net.OpError
	var refused *websocket.RefusedError
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &dial) && dial.Op == "dial":
		return fmt.Errorf("cannot reach the target %s: %w; is the server running there?", target, dial.Err)
	case errors.As(err, &certificate):
		return fmt.Errorf("the certificate of the target %s is not right: %w; "+
			"give --ca or --server-name, or do without with --insecure", target, certificate.Err)
	case errors.As(err, &refused):
		what := "see its log"
		switch refused.Status {
		case http.StatusServiceUnavailable, http.StatusTooManyRequests:
			what = "it is at its limit: stop other clients, or raise the limit"
		case http.StatusUnauthorized:
			what = "give a token with --header or --hello-token"
		case http.StatusForbidden:
			what = "it may want another --header 'Origin: …'"
		case http.StatusNotFound, http.StatusOK, http.StatusUpgradeRequired:
			what = "is the path right?"
		}
		return fmt.Errorf("the target %s: %w; %s", target, refused, what)
	}
	return fmt.Errorf("the target %s: %w", target, opError(err))
}

func refusal(target string, code codec.Code, reason string) error {
	what := "see its log"
	switch code {
	case codec.CodeOverloaded:
		what = "it is at its connection limit: stop other clients, or raise the limit"
	case codec.CodeBadToken:
		what = "give --hello-token"
	case codec.CodeIncomplete:
		what = "it may require --hello"
	}
	return fmt.Errorf("the target %s closes a connection at once with %d %q; %s", target, code, reason, what)
}
