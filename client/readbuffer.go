package client

import (
	"io"
	"sync"

	"heartwheel/codec"
)

// A connection reads into a small buffer of its own, and borrows a large one while
// more arrives than fits.
const (
	smallBuffer = 128
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A readBuffer holds the bytes that are not yet a complete frame.
type readBuffer struct {
	max   int // largest frame length
	small []byte
	large *[largeBuffer]byte // borrowed from largeBuffers; nil: none
	buf   []byte             // small, large, or one of its own for a larger frame
	from  int                // everything before it is used
	to    int                // everything from it on is free
	full  bool               // the last read filled it
}

// newReadBuffer returns a buffer that holds rest.
func newReadBuffer(rest []byte, max int) readBuffer {
	b := readBuffer{max: max, small: make([]byte, smallBuffer)}
	b.buf = b.small
	if len(rest) > len(b.buf) {
		b.buf = make([]byte, len(rest))
	}
	b.added(copy(b.buf, rest))
	return b
}

func (b *readBuffer) bytes() []byte { return b.buf[b.from:b.to] }
func (b *readBuffer) free() []byte  { return b.buf[b.to:] }
func (b *readBuffer) used(n int)    { b.from += n }

func (b *readBuffer) added(n int) {
	b.to += n
	b.full = b.to == len(b.buf)
}

// Read takes from the unused bytes.
func (b *readBuffer) Read(p []byte) (int, error) {
	n := copy(p, b.bytes())
	b.used(n)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// makeRoom makes room for the frame that the unused bytes begin.
func (b *readBuffer) makeRoom() error {
	need, err := codec.FrameSize(b.bytes(), b.max)
	if err != nil {
		return err
	}
	b.fit(need)
	return nil
}

// fit moves the unused bytes to the front and may change the buffer: a read that
// filled it suggests that more is waiting. The buffer grows by doubling to what is
// needed, so that a large length allocates nothing before its bytes arrive.
func (b *readBuffer) fit(need int) {
	have := b.bytes()
	size := len(b.buf)
	switch {
	case b.full && size < largeBuffer:
		size = largeBuffer
	case b.full && need > size:
		size = min(need, 2*size)
	case !b.full && len(have) == 0:
		size = smallBuffer
	case size > largeBuffer && need <= largeBuffer && len(have) <= largeBuffer:
		size = largeBuffer
	}
	b.move(size)
}

// move copies the unused bytes to the front of a buffer of at least size bytes.
func (b *readBuffer) move(size int) {
	have := b.bytes()
	old := b.large
	switch {
	case size == len(b.buf):
	case size <= smallBuffer:
		b.buf, b.large = b.small, nil
	case size <= largeBuffer && old == nil:
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
		b.buf = b.large[:]
	case size <= largeBuffer:
		b.buf = b.large[:]
	default:
		b.buf = make([]byte, size)
		b.large = nil
	}
	b.from, b.to = 0, copy(b.buf, have)
	if old != nil && b.large != old {
		largeBuffers.Put(old)
	}
}

func (b *readBuffer) giveBack() {
	if b.large != nil {
		largeBuffers.Put(b.large)
	}
}
