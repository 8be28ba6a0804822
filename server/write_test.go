package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"

	"heartwheel/codec"
)

// A handler that writes part of a frame loses the connection whose callback
// runs, like with any other panic: not one byte of it goes out, to this
// connection or to another, and the loop goes on.
func TestWriteOfPart(t *testing.T) {
	for _, part := range [][]byte{
		{0}, {0, 0, 0}, {0, 0, 0, 9, 3}, append(data("whole"), data("cut")[:6]...),
		{1, 0, 0, 0}, append(data("whole"), 'x'),
	} {
		for _, room := range []int{-1, 0, 3} { // with a full socket the frames are walked once more
			for _, to := range []string{"itself", "another"} {
				t.Run(fmt.Sprintf("%x/room %d/%s", part, room, to), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						r := newRig(t, Config{}, nil)
						c, other := r.open(), r.open()
						r.rec.onFrame = func(c *Conn, _ codec.Frame) error {
							_ = c.Send(codec.OpData, []byte("before"))
							if to == "another" {
								return other.Write(part)
							}
							return c.Write(part)
						}
						r.do(func() { r.sock(c).room = room })
						r.feed(c, data("go"))
						r.do(func() { r.writable(c, -1) })
						r.wantClose(c, Internal, codec.CodeInternalError)
						if got := opsOf(r.frames(c)); !slices.Equal(got, []codec.Op{codec.OpData, codec.OpClose}) {
							t.Errorf("it was sent %v", got)
						}
						r.alive(other, "a panic of another")
						if n := len(r.sock(other).out); n != 0 {
							t.Errorf("%d bytes went to another", n)
						}
						if s := r.stats(); s.panics != 1 || s.framesOut[codec.OpData] != 1 {
							t.Errorf("counted %d panics and %d DATA frames out", s.panics, s.framesOut[codec.OpData])
						}
					})
				})
			}
		}
	}
}

// Write takes several frames at once and keeps their order; none is fine too.
func TestWriteOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil)
		c := r.open()
		many := slices.Concat(data("1"), beat, codec.AppendRes(nil, 7, 0, nil), data("2"))
		posted(t, r, c, func(c *Conn) {
			if err := c.Write(nil); err != nil {
				t.Error(err)
			}
			if err := c.Write(many); err != nil {
				t.Error(err)
			}
			clear(many) // it was copied
		})
		if got := opsOf(r.frames(c)); !slices.Equal(got,
			[]codec.Op{codec.OpData, codec.OpBeat, codec.OpRes, codec.OpData}) {
			t.Errorf("came out as %v", got)
		}
		r.alive(c, "after the frames")
	})
}

// However much one read asks for, the answers collect to a bounded size, and a
// loop that had a large one to send does not keep the memory. It is so for frames
// that go back from where they were read, and for copies.
func TestAnswersAreBounded(t *testing.T) {
	for _, h := range []Handler{Echo{}, copier{}} {
		t.Run(fmt.Sprintf("%T", h), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testBounded(t, h) }) })
	}
}

func testBounded(t *testing.T, h Handler) {
	const size, n = 16 << 10, 64
	r := newRig(t, Config{MaxFrame: 2 << 20}, h)
	c := r.open()
	most := 0
	r.sock(c).onWrite = func(b []byte) { most = max(most, len(b)) }
	in := slices.Repeat(codec.AppendFrame(nil, codec.OpData, make([]byte, size)), n)
	r.feed(c, in)
	if got := len(r.frames(c)); got != n {
		t.Errorf("%d answers, want %d", got, n)
	}
	if most > flushLimit+size+5 {
		t.Errorf("one write of %d bytes", most)
	}
	r.feed(c, codec.AppendFrame(nil, codec.OpData, make([]byte, 1<<20)))
	r.do(func() {
		if most < 1<<20 || cap(r.loop.out) > 4*flushLimit {
			t.Errorf("wrote %d bytes at once, and keeps %d", most, cap(r.loop.out))
		}
	})
}

// A connection that WELCOME does not fit into any more is never opened.
func TestNoOpenWhenWelcomeDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &helloRecorder{recorder: newRecorder()}
		r := newRig(t, Config{RequireHello: true, MaxFrame: 65000}, h)
		r.cfg.Outbox = flushLimit + 10
		h.onHello = func(c *Conn, _ codec.Hello) error {
			for range 2 { // full at once: what it asks for may take twice the bound
				_ = c.Send(codec.OpData, make([]byte, flushLimit-5))
			}
			return nil
		}
		c := r.open()
		r.do(func() { r.sock(c).room = 0 })
		r.feed(c, hello(codec.Hello{}))
		r.wantEnd(c, SlowConsumer, true)
		if h.opens[c] != 0 || h.closes[c] != 0 {
			t.Errorf("%d Open and %d Close events", h.opens[c], h.closes[c])
		}
	})
}

// copier answers each frame with a copy of it.
type copier struct{ Echo }

func (copier) Frame(c *Conn, f codec.Frame) error {
	return c.Send(f.Op, bytes.Clone(f.Payload))
}

// A capricious handler does with a frame what its first byte says.
type capricious struct{ Echo }

const (
	returnIt = iota
	copyIt
	dropIt
	precedeIt
	returnItTwice
	returnPartOfIt
	returnAsOther
	changeIt
	numCaprices
)

func (capricious) Frame(c *Conn, f codec.Frame) error {
	switch f.Payload[0] {
	case returnIt:
		return c.Send(f.Op, f.Payload)
	case copyIt:
		return c.Send(f.Op, bytes.Clone(f.Payload))
	case precedeIt:
		_ = c.Send(codec.OpRes, []byte("first"))
		return c.Send(f.Op, f.Payload)
	case returnItTwice:
		_ = c.Send(f.Op, f.Payload)
		return c.Send(f.Op, f.Payload)
	case returnPartOfIt:
		return c.Send(f.Op, f.Payload[1:])
	case returnAsOther:
		return c.Send(codec.OpRes, f.Payload)
	case changeIt:
		return c.Send(f.Op, changed(f.Payload))
	}
	return nil
}

// changed is as long and different.
func changed(b []byte) []byte {
	b = bytes.Clone(b)
	b[len(b)-1]++
	return b
}

// answersTo is what it should send.
func (capricious) answersTo(payload []byte) (all []codec.Frame) {
	it := codec.Frame{Op: codec.OpData, Payload: payload}
	switch payload[0] {
	case returnIt, copyIt:
		return []codec.Frame{it}
	case precedeIt:
		return []codec.Frame{{Op: codec.OpRes, Payload: []byte("first")}, it}
	case returnItTwice:
		return []codec.Frame{it, it}
	case returnPartOfIt:
		return []codec.Frame{{Op: codec.OpData, Payload: payload[1:]}}
	case returnAsOther:
		return []codec.Frame{{Op: codec.OpRes, Payload: payload}}
	case changeIt:
		return []codec.Frame{{Op: codec.OpData, Payload: changed(payload)}}
	}
	return nil
}

// What goes back as it came is written from where it was read. In any mixture
// with other answers, wherever the reads end and however little the socket
// takes, all come in order and none is lost.
func TestReturnedFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		for round := range 300 {
			r := newRig(t, Config{}, capricious{})
			c := r.open()
			if round%3 == 0 {
				r.do(func() { r.sock(c).room = rng.IntN(200) })
			}
			var in []byte
			var want []codec.Frame
			for range 1 + rng.IntN(20) {
				payload := make([]byte, 2+rng.IntN(40))
				for i := range payload {
					payload[i] = byte(rng.Uint32())
				}
				payload[0] = returnIt // mostly
				if rng.IntN(2) == 0 {
					payload[0] = byte(rng.IntN(numCaprices))
				}
				in = codec.AppendFrame(in, codec.OpData, payload)
				want = append(want, capricious{}.answersTo(payload)...)
			}
			for len(in) > 0 {
				n := min(1+rng.IntN(100), len(in))
				r.feed(c, bytes.Clone(in[:n]))
				in = in[n:]
			}
			r.do(func() { r.writable(c, -1) })
			// Answers that waited for the socket go out after control frames: there are none.
			got := r.frames(c)
			if len(got) != len(want) {
				t.Fatalf("round %d: %d answers, want %d", round, len(got), len(want))
			}
			for i := range want {
				if got[i].Op != want[i].Op || !bytes.Equal(got[i].Payload, want[i].Payload) {
					t.Fatalf("round %d: answer %d is %s %x, want %s %x", round, i, got[i].Op, got[i].Payload,
						want[i].Op, want[i].Payload)
				}
			}
			if s := r.stats(); s.framesOut[codec.OpData]+s.framesOut[codec.OpRes] != uint64(len(want)) {
				t.Fatalf("round %d: counted %d answers, want %d", round,
					s.framesOut[codec.OpData]+s.framesOut[codec.OpRes], len(want))
			}
		}
	})
}
