package micro

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"heartwheel/codec"
)

// readSize is how much of the stream one read brings. Every decoder gets its
// bytes in such reads, which copy, as from a socket.
const readSize = 4096

// endless is a stream without an end.
type endless struct {
	stream []byte
	off    int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.stream[e.off:])
	if e.off += n; e.off == len(e.stream) {
		e.off = 0
	}
	return n, nil
}

// A decoder returns the body of the next frame, which is good until it is called
// again.
type decoder func() ([]byte, error)

// decoders has all of them.
var decoders = []struct {
	name string
	make func(r io.Reader) decoder
}{
	{"codec", func(r io.Reader) decoder {
		return sliced(r, func(b []byte) ([]byte, int, error) {
			_, n, err := codec.Decode(b, codec.DefaultMaxFrame)
			return b[min(codec.HeaderSize, n):n], n, err
		})
	}},
	{"bufio+binary", func(r io.Reader) decoder {
		br, buf := bufio.NewReaderSize(r, readSize), make([]byte, codec.DefaultMaxFrame)
		var head [4]byte
		return func() ([]byte, error) {
			return readFrame(br, head[:], func(n int) []byte { return buf[:n] })
		}
	}},
	{"bufio+binary+make", func(r io.Reader) decoder {
		br := bufio.NewReaderSize(r, readSize)
		var head [4]byte
		return func() ([]byte, error) {
			return readFrame(br, head[:], func(n int) []byte { return make([]byte, n) })
		}
	}},
	{"netty-style", func(r io.Reader) decoder {
		o := lengthField{maxFrameLength: 4 + codec.DefaultMaxFrame, lengthFieldLength: 4, initialBytesToStrip: 4}
		return sliced(r, o.decode)
	}},
}

// sliced reads into one buffer and takes frames off its front with decode, which
// returns how many bytes it has used, or 0 if the frame is not whole yet.
func sliced(r io.Reader, decode func([]byte) ([]byte, int, error)) decoder {
	buf := make([]byte, 0, 2*readSize)
	var left []byte
	return func() ([]byte, error) {
		for {
			frame, n, err := decode(left)
			if n > 0 || err != nil {
				left = left[n:]
				return frame, err
			}
			buf = append(buf[:0], left...)
			m, err := r.Read(buf[len(buf):min(cap(buf), len(buf)+readSize)])
			if err != nil {
				return nil, err
			}
			buf = buf[:len(buf)+m]
			left = buf
		}
	}
}

func readFrame(r *bufio.Reader, head []byte, room func(int) []byte) ([]byte, error) {
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head))
	if n > codec.DefaultMaxFrame {
		return nil, codec.ErrFrameTooLarge
	}
	body := room(n)
	_, err := io.ReadFull(r, body)
	return body, err
}

// lengthField has the options of Netty's LengthFieldBasedFrameDecoder, with the
// same meaning.
type lengthField struct {
	maxFrameLength, lengthFieldOffset, lengthFieldLength, lengthAdjustment, initialBytesToStrip int
}

var errFrameLength = errors.New("micro: frame length out of range")

func (o *lengthField) decode(b []byte) ([]byte, int, error) {
	end := o.lengthFieldOffset + o.lengthFieldLength
	if len(b) < end {
		return nil, 0, nil
	}
	length := 0
	switch field := b[o.lengthFieldOffset:end]; o.lengthFieldLength {
	case 1:
		length = int(field[0])
	case 2:
		length = int(binary.BigEndian.Uint16(field))
	case 3:
		length = int(field[0])<<16 | int(binary.BigEndian.Uint16(field[1:]))
	case 4:
		length = int(binary.BigEndian.Uint32(field))
	case 8:
		length = int(binary.BigEndian.Uint64(field))
	}
	total := length + o.lengthAdjustment + end
	if length < 0 || total < end || total > o.maxFrameLength || o.initialBytesToStrip > total {
		return nil, 0, errFrameLength
	}
	if len(b) < total {
		return nil, 0, nil
	}
	return b[o.initialBytesToStrip:total:total], total, nil
}

// streams has the frames that are decoded, over and over.
var streams = []struct {
	name string
	one  []byte
}{
	{"beat", codec.AppendBeat(nil)},
	{"data16", codec.AppendData(nil, make([]byte, 16))},
	{"data1k", codec.AppendData(nil, make([]byte, 1024))},
	{"mixed", codec.AppendData(codec.AppendPing(codec.AppendBeat(nil), make([]byte, 8)), make([]byte, 16))},
}

// BenchmarkDecode takes one frame after the other off a stream.
func BenchmarkDecode(b *testing.B) {
	for _, s := range streams {
		for _, d := range decoders {
			b.Run(s.name+"/"+d.name, func(b *testing.B) {
				next := d.make(&endless{stream: bytes.Repeat(s.one, 64)})
				b.ReportAllocs()
				for b.Loop() {
					if _, err := next(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// TestDecodersAgree checks that all decoders find the same frames, so that what
// is benchmarked does the same.
func TestDecodersAgree(t *testing.T) {
	var stream []byte
	var want [][]byte
	for n := range 700 {
		body := bytes.Repeat([]byte{byte(codec.OpData)}, n%300)
		stream = append(binary.BigEndian.AppendUint32(stream, uint32(len(body))), body...)
		want = append(want, body)
	}
	for _, d := range decoders {
		next := d.make(&endless{stream: stream})
		for turn := range 2 {
			for i, w := range want {
				got, err := next()
				if err != nil || !bytes.Equal(got, w) {
					t.Fatalf("%s, turn %d: frame %d has %d bytes, want %d (%v)", d.name, turn, i, len(got), len(w), err)
				}
			}
		}
	}
}
