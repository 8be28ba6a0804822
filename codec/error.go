package codec

import "fmt"

// Error is the type of every error of this package: the code to close the
// connection with, and a text for the log and the peer. An Error is immutable and
// safe for concurrent use.
type Error struct {
	Code Code
	Text string

	kind *Error // the more general error, for errors.Is; or nil
}

// Error returns "codec: " and the text.
func (e *Error) Error() string { return "codec: " + e.Text }

// Unwrap returns the more general error: ErrForeign for ErrTLS, ErrHTTP and
// ErrProxy, ErrBody for every error about a frame's content.
func (e *Error) Unwrap() error {
	if e.kind == nil {
		return nil
	}
	return e.kind
}

// The errors of Decode and FrameSize. They return these values themselves, so that
// refusing a frame allocates nothing.
var (
	// ErrForeign: the first byte is not 0, so these are not frames.
	ErrForeign = &Error{Code: CodeProtocolError,
		Text: "first byte is not 0: not this protocol, or a length in little-endian order"}
	// ErrTLS is the ErrForeign of a TLS handshake (first byte 0x16).
	ErrTLS = &Error{Code: CodeProtocolError, kind: ErrForeign,
		Text: "a TLS handshake where plain frames are expected: connect without TLS"}
	// ErrHTTP is the ErrForeign of a text protocol (first byte a letter), usually an
	// HTTP request or a WebSocket upgrade.
	ErrHTTP = &Error{Code: CodeProtocolError, kind: ErrForeign,
		Text: "text, such as an HTTP request, where frames are expected: neither HTTP nor WebSocket is spoken here"}
	// ErrProxy is the ErrForeign of a PROXY protocol header, version 1 or 2, which a
	// load balancer sends in front of its client's bytes. That client can do nothing
	// about it and comes back.
	ErrProxy = &Error{Code: CodeInternalError, kind: ErrForeign,
		Text: "a PROXY protocol header, which is not read here: set the load balancer not to send it"}
	// ErrFrameTooLarge: the length is above the limit.
	ErrFrameTooLarge = &Error{Code: CodeFrameTooLarge, Text: "frame is larger than the limit"}
	// ErrOp: the op byte is 0x00, reserved (0x0F-0x3F) or invalid (0x80-0xFF).
	ErrOp = &Error{Code: CodeProtocolError, Text: "op is not one of protocol version 1"}
	// ErrPing: a PING or PONG carries more than MaxPing bytes. It is an ErrBody.
	ErrPing = &Error{Code: CodeProtocolError, Text: "ping or pong carries more than 125 bytes", kind: ErrBody}
)

// ErrBody is matched by every error about the content of a frame. The errors of the
// parsers name the op, the member and its value.
var ErrBody = &Error{Code: CodeProtocolError, Text: "frame content is invalid"}

// bodyError returns an error that matches ErrBody.
func bodyError(op Op, format string, args ...any) error {
	return &Error{
		Code: CodeProtocolError,
		Text: op.String() + ": " + fmt.Sprintf(format, args...),
		kind: ErrBody,
	}
}
