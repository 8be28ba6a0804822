package codec

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// FuzzDecode: a stream gives the same frames, the same error and the same
// number of bytes, whether it comes whole or in any pieces; and it gives what a
// slow reader of the specification makes of it.
func FuzzDecode(f *testing.F) {
	var all []byte
	for i, s := range samples {
		wire := unhex(f, s.wire)
		f.Add(wire, uint64(i), 64)
		all = append(all, wire...)
	}
	f.Add(all, uint64(1), DefaultMaxFrame)
	f.Add(all, uint64(2), 20)
	for i, tt := range refused {
		f.Add(append(all[:len(all):len(all)], unhex(f, tt.wire)...), uint64(i), tt.max)
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, max int) {
		whole := readWhole(t, stream, max)
		if pieces := readPieces(stream, seed, max); !whole.equal(pieces) {
			t.Errorf("whole: %v\nin pieces: %v", whole, pieces)
		}
		if slow := readSlow(stream, max); !whole.equal(slow) {
			t.Errorf("Decode: %v\nspecification: %v", whole, slow)
		}
	})
}

// reading is all that came out of a stream.
type reading struct {
	frames   []Frame
	consumed int
	err      error
}

func (r reading) equal(o reading) bool {
	if r.err != o.err || r.consumed != o.consumed || len(r.frames) != len(o.frames) {
		return false
	}
	for i := range r.frames {
		if r.frames[i].Op != o.frames[i].Op || !bytes.Equal(r.frames[i].Payload, o.frames[i].Payload) {
			return false
		}
	}
	return true
}

// readWhole decodes the whole stream at once, and checks each frame against
// FrameSize and against being written again.
func readWhole(t *testing.T, stream []byte, max int) (r reading) {
	for {
		rest := stream[r.consumed:]
		f, n, err := Decode(rest, max)
		if n == 0 {
			r.err = err
			return r
		}
		if err != nil {
			t.Errorf("Decode = %d bytes and %v", n, err)
		}
		if size, err := FrameSize(rest, max); size != n || err != nil {
			t.Errorf("FrameSize = %d, %v of a frame of %d", size, err, n)
		}
		if again := AppendFrame(nil, f.Op, f.Payload); !bytes.Equal(again, rest[:n]) {
			t.Errorf("%x decoded and written again is %x", rest[:n], again)
		}
		r.frames = append(r.frames, f)
		r.consumed += n
	}
}

// readPieces feeds the stream in pieces of a few bytes, by seed, to a reader
// that keeps what is left over.
func readPieces(stream []byte, seed uint64, max int) (r reading) {
	var buf []byte
	for len(stream) > 0 {
		seed = seed*6364136223846793005 + 1442695040888963407
		k := 1 + int(seed>>33)%len(stream)
		if seed>>63 == 0 {
			k = 1 + k%min(7, len(stream))
		}
		k = min(k, len(stream))
		buf = append(buf, stream[:k]...)
		stream = stream[k:]
		for {
			f, n, err := Decode(buf, max)
			if err != nil {
				r.err = err
				return r
			}
			if n == 0 {
				break
			}
			r.frames = append(r.frames, Frame{f.Op, bytes.Clone(f.Payload)})
			r.consumed += n
			buf = append([]byte(nil), buf[n:]...)
		}
	}
	return r
}

// readSlow reads the stream as SPEC.md says, in the plainest way.
func readSlow(stream []byte, max int) (r reading) {
	for {
		b := stream[r.consumed:]
		if len(b) >= 1 && b[0] != 0 {
			for _, signature := range []string{"PROXY", "\r\n\r\n\x00"} {
				if strings.HasPrefix(signature, string(b)) && len(b) < 5 {
					return r
				}
				if strings.HasPrefix(string(b), signature) {
					r.err = ErrProxy
					return r
				}
			}
			r.err = ErrForeign
			if b[0] == 0x16 {
				r.err = ErrTLS
			} else if c := b[0] &^ 0x20; c >= 'A' && c <= 'Z' {
				r.err = ErrHTTP
			}
			return r
		}
		if len(b) < 4 {
			return r
		}
		length := int(binary.BigEndian.Uint32(b))
		if length > max {
			r.err = ErrFrameTooLarge
			return r
		}
		if length == 0 {
			r.frames = append(r.frames, Frame{})
			r.consumed += 4
			continue
		}
		if len(b) < 5 {
			return r
		}
		op := Op(b[4])
		if op == 0 || op > OpPublish && op < 0x40 || op > 0x7F {
			r.err = ErrOp
			return r
		}
		if (op == OpPing || op == OpPong) && length-1 > 125 {
			r.err = ErrPing
			return r
		}
		if len(b) < 4+length {
			return r
		}
		r.frames = append(r.frames, Frame{op, b[5 : 4+length]})
		r.consumed += 4 + length
	}
}
