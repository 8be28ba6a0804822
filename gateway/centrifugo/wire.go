package centrifugo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/centrifugal/protocol"
	"github.com/centrifugal/protocol/cfjson"
)

// A Format is one of the two encodings of the protocol.
type Format uint8

// In JSON several messages of a frame are separated by newlines, in Protobuf
// each has its length, a varint, in front.
const (
	JSON Format = iota
	Protobuf
)

func (f Format) String() string {
	if f == Protobuf {
		return "protobuf"
	}
	return "json"
}

var (
	errEmpty     = errors.New("centrifugo: empty frame")
	errTruncated = errors.New("centrifugo: the frame ends inside a command")
	errTooDeep   = errors.New("centrifugo: JSON is nested too deeply")
)

// decode returns the first command of frame, and where the next begins. What it
// returns does not point into frame.
func decode(f Format, frame []byte, maxDepth int) (cmd *protocol.Command, next int, err error) {
	if len(frame) == 0 {
		return nil, 0, errEmpty
	}
	if f == Protobuf {
		return decodeProtobuf(frame)
	}
	line, next := frame, len(frame)
	if i := bytes.IndexByte(frame, '\n'); i >= 0 {
		line, next = frame[:i], i+1
	}
	if tooDeep(line, maxDepth) {
		return nil, next, errTooDeep
	}
	cmd = new(protocol.Command)
	if err := cfjson.Unmarshal(line, cmd, 0); err != nil {
		return nil, next, err
	}
	return cmd, next, nil
}

func decodeProtobuf(frame []byte) (cmd *protocol.Command, next int, err error) {
	size, n := binary.Uvarint(frame)
	if n <= 0 || size > uint64(len(frame)-n) {
		return nil, 0, errTruncated
	}
	next = n + int(size)
	cmd = new(protocol.Command)
	if err := cmd.UnmarshalCF(frame[n:next]); err != nil {
		return nil, next, err
	}
	return cmd, next, nil
}

// tooDeep reports whether arrays and objects of a JSON text are nested more than
// most deep. It need not be valid.
func tooDeep(text []byte, most int) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > most {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}

// commandID returns the id that a JSON command which cannot be decoded begins
// with, 0 if it does not.
func commandID(line []byte) uint32 {
	line, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t\r"), []byte(`{"id":`))
	if !ok {
		return 0
	}
	id := uint32(0)
	for i, c := range line {
		if c < '0' || c > '9' {
			if i == 0 || i > 9 || c != ',' {
				return 0
			}
			return id
		}
		id = id*10 + uint32(c-'0')
	}
	return 0
}

// AppendReply appends one message, in Protobuf with its length in front. Between
// JSON messages of a frame belongs a newline, which is the caller's. It fails if
// data for a JSON client is not JSON. Safe for concurrent use.
func AppendReply(dst []byte, f Format, r *protocol.Reply) ([]byte, error) {
	if f == Protobuf {
		return appendProtobuf(dst, r)
	}
	if !hasData(r) {
		return r.AppendJSON(dst), nil
	}
	b, err := protocol.DefaultJsonReplyEncoder.Encode(r)
	return append(dst, b...), err
}

func appendProtobuf(dst []byte, r *protocol.Reply) ([]byte, error) {
	size := r.SizeCF()
	dst = binary.AppendUvarint(dst, uint64(size))
	start := len(dst)
	dst = slices.Grow(dst, size)[:start+size]
	_, err := r.MarshalToSizedBufferCF(dst[start:])
	return dst, err
}

// hasData reports whether a reply has data of an application inside.
func hasData(r *protocol.Reply) bool {
	return r.Push != nil || r.Connect != nil || r.Subscribe != nil || r.Presence != nil || r.History != nil ||
		r.Rpc != nil
}

// AppendPublication appends the push of a publication as AppendReply does, without
// allocating. The data of a JSON client must be JSON: see ValidData. Safe for
// concurrent use.
func AppendPublication(dst []byte, f Format, channel string, pub *protocol.Publication) []byte {
	push := protocol.Push{Channel: channel, Pub: pub}
	reply := protocol.Reply{Push: &push}
	if f == Protobuf {
		dst, _ = appendProtobuf(dst, &reply)
		return dst
	}
	return reply.AppendJSON(dst)
}

// AppendDisconnect appends the push that says d, for transports without a close
// frame. Safe for concurrent use.
func AppendDisconnect(dst []byte, f Format, d Disconnect) []byte {
	push := protocol.Push{Disconnect: &protocol.Disconnect{Code: d.Code, Reason: d.Reason}}
	dst, _ = AppendReply(dst, f, &protocol.Reply{Push: &push}) // it has no data that could be wrong
	return dst
}

// ValidData reports whether data may go to a JSON client as it is: one JSON value
// in UTF-8 and nothing else. Safe for concurrent use.
func ValidData(data []byte) bool { return len(data) > 0 && cfjson.Valid(data) }

// AppendPing appends the message that asks for a sign of life. Safe for
// concurrent use.
func AppendPing(dst []byte, f Format) []byte {
	if f == Protobuf {
		return append(dst, 0)
	}
	return append(dst, "{}"...)
}
