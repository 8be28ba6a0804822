package codec

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
)

// AppendClose appends a CLOSE frame. The sender closes after it.
//
//	u16 code | UTF-8 reason, 0 to MaxReason bytes
//
// A longer reason is cut at a character boundary, and invalid UTF-8 is replaced by
// U+FFFD, so that the peer always accepts it.
func AppendClose(dst []byte, code Code, reason string) []byte {
	return appendCoded(dst, OpClose, code, reason)
}

// ParseClose returns the content of a CLOSE. An empty payload is CodePeerClosed
// without a reason. Unknown codes are accepted.
//
// An error is an ErrBody: a payload of one byte, or a reason that is longer
// than MaxReason or not UTF-8.
func ParseClose(payload []byte) (Code, string, error) {
	if len(payload) == 0 {
		return CodePeerClosed, "", nil
	}
	return parseCoded(OpClose, payload)
}

// AppendError appends an ERROR frame: one frame was refused, the connection stays
// open. Layout and limits are those of AppendClose.
func AppendError(dst []byte, code Code, text string) []byte {
	return appendCoded(dst, OpError, code, text)
}

// ParseError returns the content of an ERROR. Unknown codes are accepted.
//
// An error is an ErrBody: a payload of less than two bytes, or a text that is longer
// than MaxReason or not UTF-8.
func ParseError(payload []byte) (Code, string, error) {
	return parseCoded(OpError, payload)
}

func appendCoded(dst []byte, op Op, code Code, text string) []byte {
	text = clip(text)
	dst = appendHeader(dst, op, 2+len(text))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, text...)
}

func parseCoded(op Op, payload []byte) (Code, string, error) {
	if len(payload) < 2 {
		return 0, "", bodyError(op, "code is %d of 2 bytes", len(payload))
	}
	text := payload[2:]
	if len(text) > MaxReason {
		return 0, "", bodyError(op, "reason is %d bytes, at most %d are allowed", len(text), MaxReason)
	}
	if !utf8.Valid(text) {
		return 0, "", bodyError(op, "reason %.32q is not UTF-8", text)
	}
	return Code(binary.BigEndian.Uint16(payload)), string(text), nil
}

// clip makes s a reason: valid UTF-8, at most MaxReason bytes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= MaxReason {
		return s
	}
	end := MaxReason
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
