package websocket

import (
	"encoding/binary"

	"github.com/gobwas/ws"

	"heartwheel/codec"
)

// Kind says what a frame carries.
type Kind uint8

const (
	KindNone   Kind = iota // bytes after a close frame, which are ignored
	KindText               // a text message, or a fragment of it
	KindBinary             // a binary message, or a fragment of it
	KindPing               // answered with a pong of the same content
	KindPong               // a sign of life
	KindClose              // the last frame; see ParseClose
)

// maxControl is the longest content of a ping, pong or close frame, in bytes.
const maxControl = 125

// The bits and opcodes of RFC 6455, 5.2.
const (
	bitFin  = 0x80
	bitsRSV = 0x70
	bitMask = 0x80

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// The errors of Framing.Next. It returns these values themselves, so that refusing
// a frame allocates nothing. CloseCode gives the code of the close frame for each.
var (
	ErrReserved     = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: a reserved bit is set"}
	ErrOpcode       = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: unknown opcode"}
	ErrUnmasked     = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: frame of a client is not masked"}
	ErrControl      = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: control frame over 125 bytes"}
	ErrSplitControl = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: control frame in fragments"}
	ErrLength       = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: length not in its shortest form"}
	ErrContinuation = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: continuation of no message"}
	ErrInterleaved  = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: message inside another"}
	ErrClose        = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: close frame with a bad code"}
	ErrMasked       = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: frame of a server is masked"}
	ErrUTF8         = &codec.Error{Code: codec.CodeProtocolError, Text: "websocket: text is not UTF-8"}
	ErrTooLarge     = &codec.Error{Code: codec.CodeFrameTooLarge, Text: "websocket: message is larger than the limit"}
)

// A Framing reads the frames of one client and writes those of the server, or the
// other way round. Loop only.
type Framing struct {
	max  int       // bytes of a message
	size int       // bytes of the message's fragments before the frame at hand
	done int       // content of the frame at hand that is unmasked, and checked if it is text
	text utf8Check // of the message at hand
	kind Kind      // of the message that is being sent in fragments; KindNone between messages
	mask byte      // bitMask if the frames that are read have to be masked
	shut bool      // a close frame was read
}

// NewFraming returns a Framing that refuses messages over max bytes, however many
// fragments they have.
func NewFraming(max int) *Framing { return &Framing{max: max, mask: bitMask} }

// NewClientFraming is NewFraming for the client's side: it reads the frames of a
// server. Those of the client are appended by AppendMasked.
func NewClientFraming(max int) Framing { return Framing{max: max} }

// header is what the beginning of a frame says.
type header struct {
	op     byte
	fin    bool
	size   int // of the header
	length int // of the content
	mask   [4]byte
}

// control reports whether the frame is a ping, pong or close.
func (h *header) control() bool { return h.op >= opClose }

// Next returns the content of the first frame in in, and how many bytes the frame
// took: 0 if it is not whole. end says that p ends a message; it is true for every
// control frame, which may come between the fragments of a message. k is the
// message's kind for all of its fragments.
//
// p is a part of in and valid as long as that is. Next unmasks in place what has
// arrived of a frame: what it leaves, changed as it is, begins in of the next call.
// It refuses a frame as early as its bytes allow, and a message above the limit
// before its content. After an error it must not be called again. It never
// allocates.
func (f *Framing) Next(in []byte) (p []byte, k Kind, end bool, used int, err error) {
	if f.shut {
		return nil, KindNone, false, len(in), nil
	}
	h, err := f.header(in)
	if h.size == 0 || err != nil {
		return nil, 0, false, 0, err
	}
	p = in[h.size:min(len(in), h.size+h.length)]
	if k = f.kindOf(&h); len(p) > f.done {
		fresh := p[f.done:]
		if f.mask != 0 {
			ws.Cipher(fresh, h.mask, f.done)
		}
		f.done = len(p)
		if k == KindText && !f.text.add(fresh) {
			return nil, 0, false, 0, ErrUTF8
		}
	}
	if len(p) < h.length {
		return nil, 0, false, 0, nil
	}
	f.done = 0
	used = h.size + h.length
	p = p[:h.length:h.length]
	if h.control() {
		if f.shut = k == KindClose; f.shut {
			err = checkClose(p)
		}
		return p, k, true, used, err
	}
	if f.kind, f.size = k, f.size+h.length; h.fin {
		f.kind, f.size = KindNone, 0
		if !f.text.end() {
			return nil, 0, false, 0, ErrUTF8
		}
	}
	return p, k, h.fin, used, nil
}

// Need returns how many bytes in must have for Next to return its first frame, so
// that a reader can make room for it, and for how long it may take; or how many to
// know that.
func (f *Framing) Need(in []byte) int {
	switch h, err := f.header(in); {
	case f.shut || err != nil:
		return 0
	case h.size > 0:
		return h.size + h.length
	case len(in) < 2:
		return 2
	}
	return headerSize(in[1])
}

// headerSize returns how long the header of a frame with this second byte is.
func headerSize(second byte) int {
	size := 2 + maskSize(second)
	switch second &^ bitMask {
	case 126:
		return size + 2
	case 127:
		return size + 8
	}
	return size
}

// maskSize returns how many bytes of mask the header with this second byte has.
func maskSize(second byte) int { return int(second&bitMask) >> 5 }

// header reads the header that in begins with. Its size is 0 if it is not whole.
func (f *Framing) header(in []byte) (h header, err error) {
	if len(in) == 0 {
		return header{}, nil
	}
	h.fin, h.op = in[0]&bitFin != 0, in[0]&0x0F
	if err := f.checkFirst(in[0], &h); err != nil {
		return header{}, err
	}
	if len(in) == 1 {
		return header{}, nil
	}
	length := uint64(in[1] &^ bitMask)
	switch {
	case in[1]&bitMask != f.mask:
		return header{}, f.wrongMask()
	case h.control() && length > maxControl:
		return header{}, ErrControl
	}
	size := headerSize(in[1])
	if len(in) < size-maskSize(in[1]) {
		return header{}, nil
	}
	switch length {
	case 126:
		if length = uint64(binary.BigEndian.Uint16(in[2:])); length < 126 {
			return header{}, ErrLength
		}
	case 127:
		if length = binary.BigEndian.Uint64(in[2:]); length <= 0xFFFF || length>>63 != 0 {
			return header{}, ErrLength
		}
	}
	if !h.control() && length > uint64(f.max-f.size) {
		return header{}, ErrTooLarge
	}
	if len(in) < size {
		return header{}, nil
	}
	h.size, h.length = size, int(length)
	copy(h.mask[:], in[size-maskSize(in[1]):size])
	return h, nil
}

func (f *Framing) wrongMask() error {
	if f.mask == 0 {
		return ErrMasked
	}
	return ErrUnmasked
}

// checkFirst checks the first byte of a frame.
func (f *Framing) checkFirst(b byte, h *header) error {
	if b&bitsRSV != 0 {
		return ErrReserved
	}
	switch h.op {
	case opContinuation:
		if f.kind == KindNone {
			return ErrContinuation
		}
	case opText, opBinary:
		if f.kind != KindNone {
			return ErrInterleaved
		}
	case opClose, opPing, opPong:
		if !h.fin {
			return ErrSplitControl
		}
	default:
		return ErrOpcode
	}
	return nil
}

// kindOf returns the kind of a frame.
func (f *Framing) kindOf(h *header) Kind {
	switch h.op {
	case opContinuation:
		return f.kind
	case opText:
		return KindText
	case opBinary:
		return KindBinary
	case opPing:
		return KindPing
	case opPong:
		return KindPong
	}
	return KindClose
}

// opOf has the opcode for each kind.
var opOf = [...]byte{
	KindText: opText, KindBinary: opBinary, KindPing: opPing, KindPong: opPong, KindClose: opClose,
}

// Append appends to dst a frame with a whole message, or the content of a control
// frame. p is copied. It panics for KindNone and for over 125 bytes of control.
func (*Framing) Append(dst, p []byte, k Kind) []byte {
	return append(appendHeader(dst, len(p), k, 0), p...)
}

// AppendMasked is Append for the client's side. mask is as unpredictable as the
// client needs it to be: RFC 6455, 5.3.
func AppendMasked(dst, p []byte, k Kind, mask [4]byte) []byte {
	dst = append(appendHeader(dst, len(p), k, bitMask), mask[:]...)
	at := len(dst)
	dst = append(dst, p...)
	ws.Cipher(dst[at:], mask, 0)
	return dst
}

func appendHeader(dst []byte, n int, k Kind, mask byte) []byte {
	op := opOf[k]
	switch {
	case op == 0 || op >= opClose && n > maxControl:
		panic("websocket: no frame can carry that")
	case n < 126:
		return append(dst, bitFin|op, mask|byte(n))
	case n <= 0xFFFF:
		return binary.BigEndian.AppendUint16(append(dst, bitFin|op, mask|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, bitFin|op, mask|127), uint64(n))
}
