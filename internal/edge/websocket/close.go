package websocket

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"

	"heartwheel/codec"
)

// Close codes of RFC 6455, 7.4.1. Those of package codec, 3000 to 4999, are close
// codes as they are.
const (
	CloseNormal      = 1000
	CloseProtocol    = 1002
	CloseNoCode      = 1005 // never sent: the close frame was empty
	CloseInvalidText = 1007
	CloseTooLarge    = 1009
)

// maxReason is the longest reason of a close frame, in bytes.
const maxReason = maxControl - 2

// AppendClose appends a close frame with a code. A longer reason than 123 bytes is
// cut at a character boundary, and invalid UTF-8 is replaced by U+FFFD.
func (f *Framing) AppendClose(dst []byte, code uint16, reason string) []byte {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	for end := maxReason; len(reason) > maxReason; end-- {
		if utf8.RuneStart(reason[end]) {
			reason = reason[:end]
		}
	}
	var p [maxControl]byte
	binary.BigEndian.PutUint16(p[:], code)
	return f.Append(dst, p[:2+copy(p[2:], reason)], KindClose)
}

// AppendCloseAnswer appends the close frame that answers one with content p: the
// same code. It ends the closing handshake.
func (f *Framing) AppendCloseAnswer(dst, p []byte) []byte {
	return f.Append(dst, p[:min(len(p), 2)], KindClose)
}

// ParseClose returns the content of a close frame that Next has returned;
// CloseNoCode if it is empty.
func ParseClose(p []byte) (code uint16, reason string) {
	if len(p) < 2 {
		return CloseNoCode, ""
	}
	return binary.BigEndian.Uint16(p), string(p[2:])
}

// CodeOf returns how a close code of a peer counts: 3000 to 4999 as it is, all
// others, which say no more than that, as peer_closed.
func CodeOf(code uint16) codec.Code {
	if code >= 3000 && code <= 4999 {
		return codec.Code(code)
	}
	return codec.CodePeerClosed
}

// CloseCode returns the close code for an error that ends a connection. Those of
// Next have a code that WebSocket clients know, 1002, 1007 or 1009; any other
// *codec.Error has its own, the rest 3501.
func CloseCode(err error) uint16 {
	var e *codec.Error
	switch {
	case !errors.As(err, &e):
		return uint16(codec.CodeProtocolError)
	case e == ErrUTF8:
		return CloseInvalidText
	case e == ErrTooLarge:
		return CloseTooLarge
	case e == ErrReserved, e == ErrOpcode, e == ErrUnmasked, e == ErrMasked, e == ErrControl, e == ErrSplitControl,
		e == ErrLength, e == ErrContinuation, e == ErrInterleaved, e == ErrClose:
		return CloseProtocol
	}
	return uint16(e.Code)
}

// checkClose checks the content of a close frame.
func checkClose(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if len(p) == 1 || !validClose(binary.BigEndian.Uint16(p)) {
		return ErrClose
	}
	if !utf8.Valid(p[2:]) {
		return ErrUTF8
	}
	return nil
}

// validClose reports whether a peer may send the code: those of RFC 6455 and of
// IANA's registry that are not only for use inside a program, and what libraries
// (3000 to 3999) and applications (4000 to 4999) choose.
func validClose(code uint16) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
