package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// A peer that sends more than its outbox holds, and reads, gets all of it in order,
// however slowly it reads. It is not read from while much waits for it, so that what
// is kept of it stays bounded.
func TestBackpressure(t *testing.T) {
	for _, cfg := range []Config{{MaxFrame: 1024, Outbox: 4096}, {MaxFrame: 1024, Outbox: 2048}, {}} {
		cfg.WriteStall = time.Minute
		onEachEdge(t, cfg, func(t *testing.T, r *edgeRig) {
			r.cutFrames = true
			r.rec.onFrame = func(c *Conn, f codec.Frame) error { return r.send(c, string(f.Payload)) }
			rng := rand.New(rand.NewPCG(1, 2))
			c := r.open()
			fill(r.rig, c)
			var in []byte
			var want []string
			for n := 0; len(in) < 5*r.cfg.Outbox; n++ {
				s := fmt.Sprintf("%d %0*d", n, rng.IntN(r.cfg.MaxFrame/2), 1)
				want = append(want, s)
				in = append(in, r.wire(c, r.data(s))...)
			}
			if r.flipped() { // each message was sealed by itself: as they come
				r.arriveSlowly(c, in, 5000)
			} else {
				r.arriveSlowly(c, in, readSize)
			}
			paused := false
			for range 100_000 {
				var left int
				r.do(func() {
					s := r.sock(c)
					paused = paused || s.paused
					r.writable(c, min(1+rng.IntN(cfg.MaxFrame+5000), 5000))
					if c.queued() > r.cfg.Outbox {
						t.Fatalf("%d bytes wait, the bound is %d", c.queued(), r.cfg.Outbox)
					}
					if c.ext != nil && c.ext.held() > heldMost+r.cfg.MaxFrame {
						t.Fatalf("%d bytes are kept", c.ext.held())
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					left = len(s.inbox) + c.queued()
				})
				if left == 0 {
					break
				}
				r.readSome(c, 5000)
			}
			r.want(c, want...)
			r.alive(c, "a peer that reads")
			if !paused {
				t.Error("it was read from all the time")
			}
			if s := r.stats(); s.inputBytes != 0 || r.sock(c).paused {
				t.Errorf("in the end %d bytes are kept, paused %v", s.inputBytes, r.sock(c).paused)
			}
			noBytesWait(t, r.rig)
		})
	}
}

// arriveSlowly puts bytes into the socket of c, of which it reads the first n.
func (r *edgeRig) arriveSlowly(c *Conn, b []byte, n int) {
	hold(r.rig, c, b)
	r.readSome(c, n)
}

// readSome has the loop read at most n bytes, if it reads c at all.
func (r *rig) readSome(c *Conn, n int) {
	r.do(func() {
		s := r.sock(c)
		if s.closes > 0 || s.paused {
			return
		}
		s.mu.Lock()
		b := s.inbox[:min(n, len(s.inbox))]
		s.inbox = s.inbox[len(b):]
		s.mu.Unlock()
		if len(b) > 0 {
			r.input(c, b)
		}
	})
}

// flood has c send as much as one read takes, which is echoed, while its socket is
// full.
func flood(r *rig, c *Conn) {
	fill(r, c)
	frame := data(strings.Repeat("x", 500))
	r.feed(c, bytes.Repeat(frame, readSize/len(frame)))
}

// A peer that sends and does not read is closed when its write stall is over,
// neither before nor later, whatever it sends.
func TestBackpressureStall(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		want time.Duration
	}{
		{"standard", profile(t, "standard"), 8 * time.Second},
		{"fast", profile(t, "fast"), 6 * time.Second},
		{"longer than T", Config{Beat: time.Second, Timeout: 2 * time.Second, WriteStall: 20 * time.Second},
			20 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.cfg, Echo{})
				c := r.open()
				from := time.Now()
				flood(r, c)
				r.do(func() { r.sock(c).setUnread(1000) }) // no sign of life
				r.wait(tc.want - time.Millisecond)
				r.alive(c, "before its write stall")
				r.check()
				r.wait(slack)
				within(t, "closed", from, r.wantEnd(c, SlowConsumer, true).at, tc.want)
				if s := r.stats(); s.inputBytes != 0 || s.averted[avertedUnread] != 0 {
					t.Errorf("%d bytes are kept, averted %d times", s.inputBytes, s.averted[avertedUnread])
				}
				noBytesWait(t, r)
			})
		})
	}
}

// T and the 10 s for a message rest while a peer is not read from, and go on then.
func TestBackpressureRests(t *testing.T) {
	for _, part := range []bool{false, true} {
		t.Run(fmt.Sprintf("part=%v", part), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := profile(t, "standard")
				cfg.WriteStall = 2 * time.Minute
				r := newRig(t, cfg, nil)
				c := r.open()
				r.wait(time.Second)
				r.feed(c, data("heard"))
				if part {
					r.feed(c, data("part")[:6])
				}
				r.wait(2 * time.Second)
				fill(r, c)
				posted(t, r, c, func(c *Conn) { // others fill it
					for range 3 {
						_ = c.Send(codec.OpData, make([]byte, 50_000))
					}
				})
				if !r.sock(c).paused {
					t.Fatal("it is read from")
				}
				r.wait(time.Minute)
				r.alive(c, "while it is not read from")
				r.check()
				r.do(func() { r.writable(c, -1) })
				from := time.Now()
				if r.sock(c).paused {
					t.Fatal("it is not read from")
				}
				r.wait(40 * time.Second)
				if part {
					within(t, "closed", from, r.wantClose(c, Incomplete, codec.CodeIncomplete).at, 8*time.Second)
				} else {
					within(t, "closed", from, r.wantEnd(c, IdleTimeout, true).at, 35500*time.Millisecond)
				}
			})
		})
	}
}

// What others send has its bound, also while a peer is not read from.
func TestBackpressureOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, Echo{})
		c := r.open()
		flood(r, c)
		r.alive(c, "not read from")
		posted(t, r, c, func(c *Conn) {
			n := 0
			for c.Send(codec.OpData, make([]byte, 1000)) == nil {
				n++
			}
			if n > r.cfg.Outbox/2/1000 {
				t.Errorf("%d kB went into an outbox that was half full", n)
			}
		})
		r.wantEnd(c, SlowConsumer, true)
	})
}

// The answers to one message may be as large as the outbox, and a peer that reads
// gets them; it does not get more than that.
func TestBackpressureLargeAnswers(t *testing.T) {
	onEachEdge(t, Config{Outbox: 70_000, WriteStall: time.Minute}, func(t *testing.T, r *edgeRig) {
		answer := strings.Repeat("x", 10_000)
		r.rec.onFrame = func(c *Conn, f codec.Frame) error {
			for range len(f.Payload) {
				if err := r.send(c, answer); err != nil {
					return nil
				}
			}
			return nil
		}
		c := r.open()
		fill(r.rig, c)
		r.say(c, r.data("123"), r.data("1234567"), r.data("1234567"), r.data("1234567"), r.data("123"))
		for range 200 {
			r.do(func() { r.writable(c, 2000) })
		}
		r.want(c, strings.Split(strings.Repeat(answer+" ", 26)+answer, " ")...)
		r.alive(c, "a peer that reads")
		fill(r.rig, c)
		r.say(c, r.data(strings.Repeat("1", 100)))
		r.wantEnd(c, SlowConsumer, true)
	})
}

// A connection that is not read from can be closed, and drains: the end comes last.
func TestBackpressureEnd(t *testing.T) {
	for _, how := range []string{"close", "drain"} {
		t.Run(how, func(t *testing.T) {
			onEachEdge(t, Config{MaxFrame: 1024, Outbox: 4096, Drain: 2 * time.Second}, func(t *testing.T, r *edgeRig) {
				r.rec.onFrame = func(c *Conn, f codec.Frame) error { return r.send(c, string(f.Payload)) }
				c := r.open()
				fill(r.rig, c)
				s := strings.Repeat("x", 500)
				for range 20 {
					r.say(c, r.data(s))
				}
				if !r.sock(c).paused {
					t.Fatal("it is read from")
				}
				if how == "close" {
					posted(t, r.rig, c, func(c *Conn) { c.Close(codec.CodeKicked, "") })
				} else {
					r.do(r.loop.startDrain)
					for range 10 {
						r.wait(20 * time.Millisecond)
						r.do(r.loop.run)
					}
				}
				if r.sock(c).paused {
					t.Error("it is not read from: a peer that waits for that does not read")
				}
				r.do(func() { r.writable(c, -1) })
				got := r.messages(c, false)
				if r.silent {
					got = append(got, "end")
				}
				if got[len(got)-1] != "end" || got[len(got)-2] != s || len(got) > 10 {
					t.Errorf("the last of %d messages are %.20q", len(got), got[max(0, len(got)-3):])
				}
				if why := r.end(c).why; why != Application && why != Draining || !r.end(c).closed {
					t.Errorf("closed as %s", why)
				}
				noBytesWait(t, r.rig)
			})
		})
	}
}

// A HELLO that is pending and a full outbox each stop the input: it goes on when
// both are over.
func TestBackpressureAndHello(t *testing.T) {
	for _, first := range []string{"answer", "room"} {
		synctest.Test(t, func(t *testing.T) {
			r, h := pendingRig(t, Config{RequireHello: true})
			c := r.open()
			fill(r, c)
			r.feed(c, append(hello(codec.Hello{}), data("held")...))
			r.do(func() {
				_ = c.Send(codec.OpData, make([]byte, 60_000))
				_ = c.Send(codec.OpData, make([]byte, 80_000))
			})
			acts := []func(){func() { answer(t, r, c, nil) }, func() { r.do(func() { r.writable(c, -1) }) }}
			if first == "room" {
				acts[0], acts[1] = acts[1], acts[0]
			}
			acts[0]()
			r.check()
			if len(h.got) != 0 {
				t.Errorf("%s first: heard %v too early", first, h.got)
			}
			acts[1]()
			if len(h.got) != 1 || r.sock(c).paused {
				t.Errorf("%s first: heard %v, paused %v", first, h.got, r.sock(c).paused)
			}
			r.check()
			r.alive(c, "after both")
		})
	}
}

// Over sockets: a peer that sends megabytes at once and reads them, fast or slowly,
// gets every byte.
func TestBackpressureOverSockets(t *testing.T) {
	s := start(t, Config{Loops: 1}, Echo{})
	for _, tc := range []struct {
		name string
		size int // of a payload
		all  int // bytes
		slow bool
	}{
		{"0.5 MB of small messages", 16, 500_000, false},
		{"5 MB", 1000, 5_000_000, false},
		{"5 MB of large messages", 60_000, 5_000_000, false},
		{"2 MB, read slowly", 1000, 2_000_000, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, s)
			if tc.slow {
				_ = c.(*net.TCPConn).SetReadBuffer(16 << 10)
			}
			want := numberedFrames(tc.size, tc.all)
			go func() { _, _ = c.Write(want) }()
			wantEcho(t, c, want, tc.slow)
		})
	}
	t.Cleanup(func() {
		if ck := s.Check(); !ck.OK {
			t.Errorf("check: %+v", ck)
		}
	})
}

// numberedFrames returns DATA frames with payloads of that size, all bytes in all.
func numberedFrames(size, all int) (b []byte) {
	for n := 0; len(b) < all; n++ {
		payload := binary.BigEndian.AppendUint32(make([]byte, size-4), uint32(n))
		b = codec.AppendFrame(b, codec.OpData, payload)
	}
	return b
}

// wantEcho reads what c is sent, slowly if told so, and wants that.
func wantEcho(t *testing.T, c net.Conn, want []byte, slow bool) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	for n := 0; n < len(want); {
		most := len(want)
		if slow {
			most = min(len(want), n+20_000)
			time.Sleep(time.Millisecond)
		}
		k, err := c.Read(got[n:most])
		if n += k; err != nil && (err != io.EOF || n < len(want)) {
			t.Fatalf("%v after %d of %d bytes", err, n, len(want))
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("what came back is not what was sent")
	}
}
