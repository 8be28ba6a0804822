package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// maxResponse bounds the header of a server's HTTP response, in bytes.
const maxResponse = 16 << 10

var errNoUpgrade = errors.New("the server accepted the connection but did not answer the WebSocket request in time; " +
	"check that it is a heartwheel server and not overloaded")

// upgrade asks for a WebSocket at addr and path until ctx ends. The token is not in
// the request, which proxies log, but in HELLO.
func upgrade(ctx context.Context, nc net.Conn, to target, addr string, maxFrame int) (w *webConn, err error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() && err == nil { // the deadline may be set at any time now
			err = ctx.Err()
		}
	}()
	head := &responseHead{Conn: nc}
	u := &url.URL{Scheme: to.address.Scheme, Host: addr, Path: to.address.Path}
	rest, _, err := ws.Dialer{Host: hostHeader(to.address.Scheme, addr)}.Upgrade(head, u)
	if err != nil {
		return nil, head.explain(err, to)
	}
	var frames []byte
	if rest != nil {
		frames, _ = rest.Peek(rest.Buffered())
		defer ws.PutReader(rest)
	}
	return newWebConn(nc, frames, maxFrame), nil
}

// hostHeader returns the Host of a request to addr: without a zone, which is of this
// machine, and without the scheme's own port.
func hostHeader(scheme, addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	host, _, _ = strings.Cut(host, "%")
	addr = net.JoinHostPort(host, port)
	if scheme == "ws" && port == "80" || scheme == "wss" && port == "443" {
		return strings.TrimSuffix(addr, ":"+port)
	}
	return addr
}

// A responseHead keeps what it reads, up to maxResponse.
type responseHead struct {
	net.Conn
	got []byte
	err error // of the last read
}

var errLongResponse = fmt.Errorf("the server's HTTP response has a header over %d bytes; check the port", maxResponse)

func (r *responseHead) Read(b []byte) (int, error) {
	if len(r.got) >= maxResponse {
		r.err = errLongResponse
		return 0, r.err
	}
	var n int
	n, r.err = r.Conn.Read(b[:min(len(b), maxResponse-len(r.got))])
	r.got = append(r.got, b[:n]...)
	return n, r.err
}

// explain returns why the server did not open a WebSocket.
func (r *responseHead) explain(err error, to target) error {
	if len(r.got) == 0 { // the request may have come too late for a server that refuses
		_, _ = r.Read(make([]byte, 512))
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && len(r.got) == 0:
		return errNoUpgrade
	case len(r.got) == 0:
		return err
	case !bytes.HasPrefix([]byte("HTTP/"), r.got[:min(len(r.got), 5)]):
		return &handshakeError{text: foreignWeb(r.got, to), err: err}
	}
	all := bufio.NewReader(io.MultiReader(bytes.NewReader(r.got), r))
	response, broken := http.ReadResponse(all, nil)
	switch {
	case broken != nil && r.err == errLongResponse:
		return &handshakeError{text: r.err.Error()}
	case broken != nil && r.err != nil:
		return errPartialResponse
	case broken != nil:
		return &handshakeError{text: "the server's answer is not HTTP; check the port", err: broken}
	case response.StatusCode == http.StatusSwitchingProtocols:
		return &handshakeError{text: "the server's WebSocket handshake is invalid: " + err.Error(), err: err}
	}
	return &httpError{
		status: response.StatusCode, after: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		text: refusal(response, to),
	}
}

var errPartialResponse = errors.New("the server sent only part of its HTTP response; the network path may be bad")

// foreignWeb describes the protocol that b, which is not HTTP, seems to be.
func foreignWeb(b []byte, to target) string {
	switch {
	case b[0] == 0x15 || b[0] == 0x16:
		return "the server speaks TLS; use wss://"
	case b[0] == 0 && to.tls:
		return "the server speaks this protocol without WebSocket; use tls://"
	case b[0] == 0:
		return "the server speaks this protocol without WebSocket; use tcp://"
	}
	return "the server speaks another protocol; check the port"
}

// An httpError is an HTTP response that is not a WebSocket.
type httpError struct {
	status int
	after  time.Duration // of Retry-After; 0: none
	text   string
}

func (e *httpError) Error() string { return e.text }

// final reports whether the same request would be refused again. If welcomed, the
// server has accepted one before, and only this client can be at fault.
func (e *httpError) final(welcomed bool) bool {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return true
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return e.status < 500 && !welcomed
}

// refusal says what a response means and what to do.
func refusal(r *http.Response, to target) string {
	text := fmt.Sprintf("the server answered with HTTP %d", r.StatusCode)
	if name := http.StatusText(r.StatusCode); name != "" {
		text += " " + name
	}
	switch code := r.StatusCode; {
	case code == http.StatusUnauthorized:
		return text + ": it needs another token"
	case code == http.StatusForbidden:
		return text + ": this client, or its origin, may not connect"
	case code == http.StatusNotFound:
		return fmt.Sprintf("%s: it has no WebSocket at %s; check the path", text, to.address.Path)
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable:
		return text + ": it is overloaded or shutting down"
	case code == http.StatusBadRequest && !to.tls:
		return text + ": it does not take this request; if it speaks TLS, use wss://"
	case code/100 == 3:
		return fmt.Sprintf("%s to %q, which is not followed; use that address if it is right",
			text, withoutQuery(r.Header.Get("Location")))
	case code/100 == 5:
		return text + ": a proxy cannot reach the server, or it fails"
	case code/100 == 2:
		return text + ": a web server answers there, and not with a WebSocket; check the port and the path"
	}
	return text + " in place of a WebSocket; check the port and the path"
}

// withoutQuery returns a URL without what may be a secret.
func withoutQuery(u string) string {
	u, _, _ = strings.Cut(u, "?")
	return u
}

// retryAfter reads a Retry-After: seconds or a date. It is 0 if there is none.
func retryAfter(text string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
