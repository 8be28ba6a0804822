package server

import (
	"bytes"
	"runtime"
	"testing"
	"unsafe"

	"heartwheel/codec"
)

// The beginning of a frame takes memory as it arrives, whatever its header
// promises, and large frames before it make no difference. Complete, it takes none.
func TestPartialMemory(t *testing.T) {
	r := newBareRig(t, Config{MaxFrame: 1 << 20}, Echo{})
	c := r.open()
	r.sock(c).forget = true
	large := codec.AppendData(nil, make([]byte, 1<<20-1))
	for range 50 {
		r.feed(c, large[:300_000], large[300_000:600_000])
		if n := r.stats().inputBytes; n < 600_000 || n > 1_200_000 {
			t.Fatalf("600000 bytes of a frame take %d", n)
		}
		r.feed(c, large[600_000:])
		r.check()
	}
	if n := r.stats().inputBytes; n != 0 || c.ext != nil {
		t.Fatalf("%d bytes are kept of complete frames, ext %v", n, c.ext)
	}
	for _, rest := range [][]byte{large[:5], large[:1]} {
		r.feed(c, append(bytes.Clone(large), rest...))
		if n := r.stats().inputBytes; n == 0 || n > 32 {
			t.Errorf("%d bytes of a frame take %d", len(rest), n)
		}
		r.check()
		r.feed(c, large[len(rest):])
	}
	r.feed(c, large[:5])
	r.loop.lost(c, PeerClosed)
	if n := r.stats().inputBytes; n != 0 {
		t.Errorf("%d bytes are kept of a closed connection", n)
	}
}

// A large frame in small pieces is not copied again for each of them.
func TestPartialPieces(t *testing.T) {
	r := newBareRig(t, Config{MaxFrame: codec.MaxFrameLimit}, Echo{})
	c := r.open()
	r.sock(c).forget = true
	in := codec.AppendData(nil, make([]byte, codec.MaxFrameLimit-1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b := in; len(b) > 0; {
		n := min(1000, len(b))
		r.loop.received(c, b[:n])
		b = b[n:]
	}
	runtime.ReadMemStats(&after)
	if n := r.stats().framesOut[codec.OpData]; n != 1 {
		t.Fatalf("%d answers", n)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 10*uint64(len(in)) {
		t.Errorf("a frame of %d bytes took %d", len(in), n)
	}
}

// A frame that is whole in what was read is decoded where it lies, also behind
// the end of another.
func TestWholeFramesAreNotCopied(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	c := r.open()
	var payloads [][]byte
	r.rec.onFrame = func(_ *Conn, f codec.Frame) error { payloads = append(payloads, f.Payload); return nil }
	first, second := data("first"), data("second")
	r.loop.received(c, first[:3])
	b := bytes.Join([][]byte{first[3:], second, second, second[:6]}, nil)
	r.loop.received(c, b)
	if len(payloads) != 3 {
		t.Fatalf("%d frames", len(payloads))
	}
	for i, p := range payloads[1:] {
		at := len(first) - 3 + i*len(second) + codec.HeaderSize + 1
		if unsafe.SliceData(p) != &b[at] {
			t.Errorf("frame %d was copied", i+1)
		}
	}
}

// A message that comes byte by byte is not copied again for each of them.
func TestPartialBytes(t *testing.T) {
	r := newBareRig(t, Config{}, Echo{})
	c := r.open()
	in := codec.AppendData(nil, make([]byte, 20_000))
	grown := 0
	last := int64(0)
	for i := range in {
		r.loop.received(c, in[i:i+1])
		if n := r.stats().inputBytes; n != last {
			grown, last = grown+1, n
		}
	}
	if grown > 40 {
		t.Errorf("a frame of %d bytes was copied %d times", len(in), grown)
	}
	r.check()
	if n := len(r.frames(c)); n != 1 {
		t.Errorf("%d answers", n)
	}
}

// The engine keeps nothing of what it has read.
func TestEngineKeepsNoInput(t *testing.T) {
	conns := make(chan *Conn, 1)
	s := start(t, Config{MaxFrame: 1 << 20, Loops: 1}, hooks{open: func(c *Conn) { conns <- c }})
	c := dial(t, s)
	conn := <-conns
	large := codec.AppendData(nil, make([]byte, 700_000))
	for _, b := range [][]byte{large[:5], large[5:100_000], large[100_000:], append(bytes.Clone(beat), large[:3]...)} {
		before := s.Stats().InputBytes
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it was read", func() bool { return s.Stats().InputBytes != before })
		left := make(chan int, 1)
		err := conn.Post(func(c *Conn) { left <- c.sock.(interface{ InboundBuffered() int }).InboundBuffered() })
		if err != nil {
			t.Fatal(err)
		}
		if n := <-left; n != 0 {
			t.Errorf("the engine holds %d bytes", n)
		}
	}
}
