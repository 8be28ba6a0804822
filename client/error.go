package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"heartwheel/codec"
)

var (
	// ErrClosed is returned by calls after Close.
	ErrClosed = errors.New("client: closed")
	// ErrLost is matched by the error of a call whose connection ended before the
	// call did. The server may or may not have seen the frame.
	ErrLost = errors.New("client: the connection was lost")
	// ErrSilent: no byte arrived for 10 s after a beat.
	ErrSilent = errors.New("no byte arrived for 10 s after a beat: the server or the network path is dead")
	// ErrStalled: the kernel took no byte for 10 s.
	ErrStalled = errors.New("no byte could be sent for 10 s: the server does not read, or the network path is dead")
	// ErrFrameTooLarge: the frame is larger than the server accepts.
	ErrFrameTooLarge = errors.New("client: the frame is larger than the server accepts")
)

// A CodeError is a code from the server: it ended the connection (CLOSE or GOAWAY)
// or refused a frame (ERROR).
type CodeError struct {
	Code   codec.Code
	Reason string
}

func (e *CodeError) Error() string {
	text := fmt.Sprintf("the server said %d %s", uint16(e.Code), e.Code)
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// A StatusError is an answer to a Request with a status other than 0.
type StatusError struct {
	Status uint8
	Body   []byte // of the answer; owned by the caller
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("client: the request was answered with status %d", e.Status)
}

// An Error says why there is no connection.
type Error struct {
	URL string // as given to Dial
	Err error  // what happened
	// Final: the client does not try again, as that would end the same way. The
	// address is wrong, the server speaks another protocol, or its code is final.
	Final bool
}

func (e *Error) Error() string {
	text := "client: " + e.URL + ": " + explain(e.Err)
	if e.Final {
		return text + " (trying again would not help)"
	}
	return text + " (temporary: trying again can help)"
}

// Unwrap returns what happened.
func (e *Error) Unwrap() error { return e.Err }

// A handshakeError describes an answer to HELLO that is not a WELCOME.
type handshakeError struct {
	text string
	err  error
}

func (e *handshakeError) Error() string { return e.text }
func (e *handshakeError) Unwrap() error { return e.err }

// A tokenError is an error of Config.TokenFunc. It is temporary, whatever it wraps.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return "the token: " + e.err.Error() }
func (e *tokenError) Unwrap() error { return e.err }

// A brokenError is the end of the stream after WELCOME.
type brokenError struct{ err error }

func (e *brokenError) Error() string {
	switch {
	case errors.Is(e.err, io.EOF):
		return "the server closed the connection without giving a reason"
	case errors.Is(e.err, syscall.ECONNRESET):
		return "the connection was reset"
	}
	return explain(e.err)
}

func (e *brokenError) Unwrap() error { return e.err }

// final reports whether an attempt that failed with err would fail again. If
// welcomed, a heartwheel server has answered at this address before, and only a
// final code is final.
func final(err error, welcomed bool) bool {
	var (
		code   *CodeError
		token  *tokenError
		http   *httpError
		closed *webCloseError
		hs     *handshakeError
		frame  *webError
	)
	switch {
	case errors.As(err, &token):
		return false
	case errors.As(err, &code):
		return !code.Code.Reconnect()
	case errors.As(err, &http):
		return http.final(welcomed)
	case errors.As(err, &closed):
		return closed.final()
	case welcomed:
		return false
	}
	return errors.As(err, &hs) || errors.As(err, &frame) || isCertificateError(err)
}

func isCertificateError(err error) bool {
	var (
		verify *tls.CertificateVerificationError
		host   x509.HostnameError
		op     *net.OpError
	)
	return errors.As(err, &verify) || errors.As(err, &host) ||
		errors.As(err, &op) && isAlert(op) && strings.Contains(op.Err.Error(), "certificate")
}

// isAlert reports whether the peer ended TLS with an alert. With TLS 1.3 that a client
// certificate is missing or wrong comes in place of the first answer.
func isAlert(op *net.OpError) bool { return op.Op == "remote error" }

// explainTLS returns the error of a TLS handshake with to.
func (to target) explainTLS(err error) error {
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header) && to.web:
		return &handshakeError{text: "the server does not speak TLS; use ws://", err: err}
	case errors.As(err, &header):
		return &handshakeError{text: "the server does not speak TLS; use tcp://", err: err}
	}
	return err
}

// checkProtocol is what to do about a server that says nothing: one for TLS, or for
// WebSocket, has no words for others.
const checkProtocol = "check that it speaks this protocol and that the scheme of the address is right"

// explain returns what happened and what to do about it.
func explain(err error) string {
	var (
		dns    *net.DNSError
		op     *net.OpError
		broken *brokenError
		token  *tokenError
		hs     *handshakeError
	)
	switch {
	case errors.As(err, &token):
		return token.Error()
	case errors.As(err, &hs):
		return hs.Error()
	case errors.As(err, &broken):
		return broken.Error()
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("the name %q has no address: check the spelling and the network", dns.Name)
	case errors.As(err, &dns):
		return fmt.Sprintf("the name %q could not be looked up: %s", dns.Name, dns.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: nothing listens there; check the port, or start the server"
	case errors.As(err, &op) && op.Op == "dial" && errors.Is(err, syscall.ENOENT):
		return "no such socket: nothing listens there; check the path, or start the server"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), isTimeout(err):
		return "no connection in time: the host does not answer; check the address and firewalls"
	case errors.Is(err, io.EOF):
		return "the server closed the connection without giving a reason; " + checkProtocol
	case errors.Is(err, syscall.ECONNRESET):
		return "the connection was reset; " + checkProtocol + ", and that it has room"
	case errors.As(err, &op) && isAlert(op):
		return "the server refused TLS: " + strings.TrimPrefix(op.Err.Error(), "tls: ") + "; check the certificates"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

// deliberate reports whether one side closed the connection on purpose: its end
// says nothing about the network.
func deliberate(err error) bool {
	var (
		code   *CodeError
		closed *webCloseError
	)
	return errors.Is(err, ErrClosed) || errors.As(err, &code) || errors.As(err, &closed)
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
