package server

import (
	"fmt"
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
		{0}, {0, 0, 0}, {0, 0, 0, 9, 3}, append(data("whole"), data("cut")[:6]...), {1, 0, 0, 0}, append(data("whole"), 'x'),
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
						r.wantClose(c, Internal, codec.CodeInternal)
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
		if got := opsOf(r.frames(c)); !slices.Equal(got, []codec.Op{codec.OpData, codec.OpBeat, codec.OpRes, codec.OpData}) {
			t.Errorf("came out as %v", got)
		}
		r.alive(c, "after the frames")
	})
}

// However much one read asks for, the answers collect to a bounded size, and a
// loop that had a large one to send does not keep the memory.
func TestAnswersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, n = 16 << 10, 64
		r := newRig(t, Config{MaxFrame: 2 << 20}, Echo{})
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
	})
}

// A connection that WELCOME does not fit into any more is never opened.
func TestNoOpenWhenWelcomeDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &helloRecorder{recorder: newRecorder()}
		r := newRig(t, Config{RequireHello: true, MaxFrame: 65000}, h)
		r.cfg.Outbox = flushLimit + 100
		h.onHello = func(c *Conn, _ codec.Hello) error {
			return c.Send(codec.OpData, make([]byte, flushLimit-5)) // full at once
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
