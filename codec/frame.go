package codec

import "encoding/binary"

// Version is the protocol version this package speaks: "v" in HELLO and WELCOME.
const Version = 1

// Limits, in bytes.
const (
	// HeaderSize is the length field in front of every frame.
	HeaderSize = 4
	// DefaultMaxFrame is the largest length accepted by default.
	DefaultMaxFrame = 65536
	// MaxFrameLimit is the largest length that can ever be accepted: the first
	// byte on the wire is always 0.
	MaxFrameLimit = 1<<24 - 1
	// MaxPing is the most a PING or PONG carries.
	MaxPing = 125
	// MaxReason is the longest reason of a CLOSE and text of an ERROR: with the
	// code it fits a WebSocket close frame.
	MaxReason = 123
	// MaxSubject is the longest subject of a REQ and the longest channel name.
	MaxSubject = 255
	// MaxSession is the longest session of WELCOME and resume of HELLO.
	MaxSession = 128
	// MaxControl is the largest JSON payload of HELLO, WELCOME, CONFIG, GOAWAY.
	MaxControl = 4096
)

// Frame is one decoded frame.
type Frame struct {
	Op Op
	// Payload is what follows the op byte; nil for OpBeat. It is a part of the
	// slice given to Decode, valid as long as that is; copy it to keep it.
	Payload []byte
}

// maxLength holds, for each op byte, the largest length of a frame, op included;
// 0 for an op that is refused. One comparison checks both the op and its limit.
var maxLength = func() (t [256]uint32) {
	for op := range t {
		if op := Op(op); op != OpBeat && op.String() != "invalid" {
			t[op] = MaxFrameLimit
		}
	}
	t[OpPing] = 1 + MaxPing
	t[OpPong] = 1 + MaxPing
	return t
}()

// Decode returns the first frame in b and its size n in bytes, header included.
// The frame's Payload is a part of b.
//
// n == 0 with a nil error means that b holds no complete frame yet: call again with
// the same bytes and more. How the stream is cut never changes what is decoded.
//
// max is the largest accepted length (the header's value), in bytes, and at most
// MaxFrameLimit.
//
// An invalid frame is refused as early as possible: with ErrForeign, ErrTLS or
// ErrHTTP from 1 byte on, or from the byte that sets it apart from a PROXY header,
// ErrFrameTooLarge from 4, ErrOp, ErrPing and ErrProxy from 5. There are no other
// errors. n is then 0, and the stream cannot be decoded further.
//
// Decode never allocates.
func Decode(b []byte, max int) (f Frame, n int, err error) {
	if len(b) < HeaderSize {
		return Frame{}, 0, checkFirst(b)
	}
	length := binary.BigEndian.Uint32(b)
	if int64(length) > int64(min(max, MaxFrameLimit)) {
		return Frame{}, 0, refuseLength(b, length)
	}
	if length == 0 {
		return Frame{}, HeaderSize, nil
	}
	if len(b) == HeaderSize {
		return Frame{}, 0, nil
	}
	op := b[HeaderSize]
	if length > maxLength[op] {
		return Frame{}, 0, refuseOp(op)
	}
	size := HeaderSize + int(length)
	if len(b) < size {
		return Frame{}, 0, nil
	}
	return Frame{Op: Op(op), Payload: b[HeaderSize+1 : size : size]}, size, nil
}

// DecodeBody returns the frame that a message of a framed transport carries, such as
// a WebSocket: what follows the header on a stream. An empty body is OpBeat. max and
// the errors are as for Decode, without those for other protocols. The frame's Payload
// is a part of body. It never allocates.
func DecodeBody(body []byte, max int) (Frame, error) {
	switch {
	case len(body) == 0:
		return Frame{}, nil
	case len(body) > min(max, MaxFrameLimit):
		return Frame{}, ErrFrameTooLarge
	case uint32(len(body)) > maxLength[body[0]]:
		return Frame{}, refuseOp(body[0])
	}
	return Frame{Op: Op(body[0]), Payload: body[1:len(body):len(body)]}, nil
}

// FrameSize returns the size in bytes, header included, of the first frame in b, so
// that a reader can make room for it; 0 if b has fewer than HeaderSize bytes. It is
// HeaderSize+1 while b may begin a PROXY header, which that byte decides. max is as
// for Decode.
//
// It does not look at the op and returns the errors that Decode would: ErrForeign,
// ErrTLS, ErrHTTP, ErrProxy, ErrFrameTooLarge. It never allocates.
func FrameSize(b []byte, max int) (size int, err error) {
	if len(b) < HeaderSize {
		return 0, checkFirst(b)
	}
	length := binary.BigEndian.Uint32(b)
	if int64(length) > int64(min(max, MaxFrameLimit)) {
		if err := refuseLength(b, length); err != nil {
			return 0, err
		}
		return HeaderSize + 1, nil
	}
	return HeaderSize + int(length), nil
}

// checkFirst checks the first byte, if any, of an incomplete header.
func checkFirst(b []byte) error {
	if len(b) == 0 || b[0] == 0 {
		return nil
	}
	return foreign(b)
}

// refuseLength returns the error for a length above the limit, or nil while b may
// begin a PROXY header.
func refuseLength(b []byte, length uint32) error {
	if length <= MaxFrameLimit {
		return ErrFrameTooLarge
	}
	return foreign(b)
}

// The first bytes of a PROXY protocol header, version 1 and 2. They are cut to the
// HeaderSize+1 bytes that a reader has to look at for any frame; nothing else is
// known to begin with them.
const (
	proxyV1 = "PROXY"
	proxyV2 = "\r\n\r\n\x00"
)

// foreign returns the error for bytes that do not begin with 0, or nil while they
// may begin a PROXY header.
func foreign(b []byte) error {
	start := b[:min(len(b), len(proxyV1))]
	switch {
	case string(start) == proxyV1, string(start) == proxyV2:
		return ErrProxy
	case string(start) == proxyV1[:len(start)], string(start) == proxyV2[:len(start)]:
		return nil
	}
	switch first := b[0]; {
	case first == 0x16:
		return ErrTLS
	case 'A' <= first && first <= 'Z', 'a' <= first && first <= 'z':
		return ErrHTTP
	}
	return ErrForeign
}

// refuseOp returns the error for a length above maxLength[op].
func refuseOp(op byte) error {
	if maxLength[op] == 0 {
		return ErrOp
	}
	return ErrPing
}

// AppendFrame appends one frame to dst and returns the extended slice. payload is
// copied; it must not overlap the free space of dst. OpBeat appends the empty frame.
// AppendFrame(nil, f.Op, f.Payload) restores the bytes that f was decoded from.
//
// The op and the content are not checked. It panics if the frame would be longer
// than MaxFrameLimit, or if op is OpBeat and payload is not empty.
func AppendFrame(dst []byte, op Op, payload []byte) []byte {
	if op == OpBeat {
		if len(payload) != 0 {
			panic("codec: AppendFrame: OpBeat carries no payload")
		}
		return AppendBeat(dst)
	}
	dst = appendHeader(dst, op, len(payload))
	return append(dst, payload...)
}

// AppendBeat appends the empty frame, 00 00 00 00: a heartbeat, or the answer
// to one.
func AppendBeat(dst []byte) []byte {
	return append(dst, 0, 0, 0, 0)
}

// AppendPing appends a PING with at most MaxPing opaque bytes, which are
// copied. It panics if there are more.
func AppendPing(dst, opaque []byte) []byte {
	if len(opaque) > MaxPing {
		panic("codec: AppendPing: more than MaxPing bytes")
	}
	dst = appendHeader(dst, OpPing, len(opaque))
	return append(dst, opaque...)
}

// AppendPong appends the answer to a PING: opaque is the PING's payload, at
// most MaxPing bytes, and is copied. It panics if there are more; a PING that
// Decode returned never has.
func AppendPong(dst, opaque []byte) []byte {
	if len(opaque) > MaxPing {
		panic("codec: AppendPong: more than MaxPing bytes")
	}
	dst = appendHeader(dst, OpPong, len(opaque))
	return append(dst, opaque...)
}

// AppendData appends a DATA frame with the application's bytes, which are
// copied. The peer's limit is its max_frame; it panics above MaxFrameLimit.
func AppendData(dst, payload []byte) []byte {
	dst = appendHeader(dst, OpData, len(payload))
	return append(dst, payload...)
}

// appendHeader appends the header and op byte of a frame with n more bytes to
// follow.
func appendHeader(dst []byte, op Op, n int) []byte {
	if n >= MaxFrameLimit {
		panic("codec: frame longer than MaxFrameLimit")
	}
	n++
	return append(dst, 0, byte(n>>16), byte(n>>8), byte(n), byte(op))
}
