package loadtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/address"
)

// probeTime bounds each step of the probe.
const probeTime = 3 * time.Second

// A probeResult is what the probe has learned of the target.
type probeResult struct {
	timeout       time.Duration // T; 0: unknown
	timeoutSource string        // "WELCOME", "--timeout" or "unknown"
}

// resolveTarget resolves tcp://HOST:PORT.
func resolveTarget(target string) (netip.AddrPort, error) {
	to, err := address.Parse(target, address.TCP)
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
	}
	welcome, err := exchange(target, first)
	if err != nil {
		return got, err
	}
	if p.Timeout != 0 {
		return got, nil
	}
	if !p.Hello {
		// A server that rejects this HELLO can still be tested without it.
		welcome, _ = exchange(target, codec.AppendHello(nil, codec.Hello{V: codec.Version}))
	}
	got.timeout, got.timeoutSource = time.Duration(welcome.TimeoutMS)*time.Millisecond, "WELCOME"
	if got.timeout == 0 {
		got.timeoutSource = "unknown"
	}
	return got, nil
}

// exchange sends one frame, or none, on a connection of its own and waits for an answer, WELCOME
// or not. No answer is no error: the run will count that. It returns once the target
// has closed the connection as well, as the run may need that slot.
func exchange(target netip.AddrPort, frame []byte) (welcome codec.Welcome, err error) {
	c, err := net.DialTimeout("tcp", target.String(), probeTime)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return welcome, fmt.Errorf("cannot reach the target tcp://%s: %w; is the server running there?", target, err)
	}
	defer func() {
		tc := c.(*net.TCPConn)
		_ = tc.SetDeadline(time.Now().Add(probeTime))
		_ = tc.CloseWrite()
		_, _ = io.Copy(io.Discard, tc)
		_ = tc.SetLinger(0)
		tc.Close()
	}()
	_ = c.SetDeadline(time.Now().Add(probeTime))
	_, err = c.Write(frame)
	var buf []byte
	for err == nil {
		f, n, decodeErr := codec.Decode(buf, codec.MaxFrameLimit)
		if decodeErr != nil {
			return welcome, nil // the run counts wrong answers
		}
		if n > 0 {
			switch f.Op {
			case codec.OpWelcome:
				welcome, _ = codec.ParseWelcome(f.Payload)
				return welcome, nil
			case codec.OpClose:
				code, reason, _ := codec.ParseClose(f.Payload)
				return welcome, refusal(target, code, reason)
			case codec.OpGoaway:
				g, _ := codec.ParseGoaway(f.Payload)
				return welcome, refusal(target, codec.Code(g.Code), g.Reason)
			}
			return welcome, nil
		}
		more := make([]byte, 4096)
		n, err = c.Read(more)
		buf = append(buf, more[:n]...)
	}
	var netErr net.Error
	if errors.As(err, &netErr) && netErr.Timeout() {
		return welcome, nil
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("end of stream")
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return welcome, fmt.Errorf("the target tcp://%s closes a connection at once, without an answer (%w): "+
		"does it speak frames with a length of 4 bytes?", target, err)
}

func refusal(target netip.AddrPort, code codec.Code, reason string) error {
	what := "see its log"
	switch code {
	case codec.CodeOverloaded:
		what = "it is at its connection limit: stop other clients, or raise the limit"
	case codec.CodeBadToken:
		what = "give --hello-token"
	case codec.CodeIncomplete:
		what = "it may require --hello"
	}
	return fmt.Errorf("the target tcp://%s closes a connection at once with %d %q; %s", target, code, reason, what)
}
