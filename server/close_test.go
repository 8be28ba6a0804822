package server

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// posted runs f on the loop as a task of c and waits until it has run.
func posted(t *testing.T, r *rig, c *Conn, f func(*Conn)) {
	t.Helper()
	if err := c.Post(f); err != nil {
		t.Fatal(err)
	}
	r.wait(0)
}

// fill makes the socket of c full.
func fill(r *rig, c *Conn) { r.do(func() { r.sock(c).room = 0 }) }

// ops lists the ops of frames.
func opsOf(frames []codec.Frame) (ops []codec.Op) {
	for _, f := range frames {
		ops = append(ops, f.Op)
	}
	return ops
}

// endedIn fails the test unless the connection ended from d to d + slack after
// start.
func endedIn(t *testing.T, e ending, start time.Time, d time.Duration) {
	t.Helper()
	if took := e.at.Sub(start); took < d || took > d+slack {
		t.Errorf("closed %s after the start, want %s to %s", took, d, d+slack)
	}
}

var slowConfig = Config{MaxFrame: 1024, Outbox: 2048}

func noBytesWait(t *testing.T, r *rig) {
	t.Helper()
	if n := r.stats().outboxBytes; n != 0 {
		t.Errorf("%d bytes are counted as waiting, want 0", n)
	}
	r.check()
}

func TestSlowConsumerOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, slowConfig, nil)
		c := r.open()
		fill(r, c)
		posted(t, r, c, func(c *Conn) {
			for range 2 {
				if err := c.Send(codec.OpData, make([]byte, 1000)); err != nil {
					t.Errorf("what the outbox holds: %v", err)
				}
			}
		})
		if n := r.stats().outboxBytes; n != 2010 {
			t.Errorf("%d bytes are counted as waiting, want 2010", n)
		}
		r.check()
		posted(t, r, c, func(c *Conn) {
			if err := c.Send(codec.OpData, make([]byte, 1000)); !errors.Is(err, ErrSlowConsumer) {
				t.Errorf("one too many: %v, want ErrSlowConsumer", err)
			}
			if err := c.Send(codec.OpData, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("after that: %v, want ErrClosed", err)
			}
		})
		r.wantEnd(c, SlowConsumer, true)
		noBytesWait(t, r)
		if got := r.frames(c); len(got) != 0 {
			t.Errorf("%v was written to a full socket", got)
		}
	})
}

func TestSlowConsumerStall(t *testing.T) {
	stall := 8 * time.Second // the default
	for _, test := range []struct {
		name string
		act  func(r *rig, c *Conn) // 5 s after the first byte waits
		ends time.Duration         // 0: it lives
	}{
		{"none taken", func(*rig, *Conn) {}, stall},
		{"one byte taken", func(r *rig, c *Conn) { r.writable(c, 1) }, stall},
		{"room for none", func(r *rig, c *Conn) { r.writable(c, 0) }, stall},
		{"more sent does not count", func(r *rig, c *Conn) { _ = c.Send(codec.OpData, []byte("x")) }, stall},
		{"a frame received does not count", func(r *rig, c *Conn) { r.input(c, beat) }, stall},
		{"all taken", func(r *rig, c *Conn) { r.writable(c, -1) }, 0},
		{"room that nobody told of", func(r *rig, c *Conn) { r.sock(c).room = -1 }, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, slowConfig, nil)
				c := r.open()
				fill(r, c)
				start := time.Now()
				posted(t, r, c, func(c *Conn) { _ = c.Send(codec.OpData, []byte("hello")) })
				r.wait(5 * time.Second)
				r.do(func() { r.loop.clock(); test.act(r, c); r.loop.reap() })
				if test.ends == 0 {
					r.wait(stall + slack)
					r.alive(c, "all was taken")
					noBytesWait(t, r)
					return
				}
				r.wait(time.Until(start.Add(test.ends - time.Millisecond)))
				r.alive(c, "just before its time")
				r.wait(slack)
				endedIn(t, r.wantEnd(c, SlowConsumer, true), start, test.ends)
				noBytesWait(t, r)
			})
		})
	}
}

// Many slow peers are looked at together.
func TestSlowPeersTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Timeout: time.Hour}, nil)
		runs := 0
		r.do(func() { r.onRun = func() { runs++ } })
		for range 200 {
			r.wait(5 * time.Millisecond)
			c := r.open()
			fill(r, c)
			posted(t, r, c, func(c *Conn) { _ = c.Send(codec.OpData, []byte("hello")) })
		}
		r.do(func() { runs = 0 })
		r.wait(10 * time.Second)
		r.do(func() {
			// A pulse each tick, and at each of the looks, which are 3.75 s
			// apart, 11 steps of a few wakes.
			if runs < 100 || runs > 400 {
				t.Errorf("%d runs in 10 s for 200 slow peers", runs)
			}
		})
	})
}

func TestControlOvertakesWaitingData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, slowConfig, nil)
		c := r.open()
		r.do(func() { r.sock(c).room = 7 }) // two bytes into the first payload
		posted(t, r, c, func(c *Conn) {
			_ = c.Send(codec.OpData, []byte("one"))
			_ = c.Send(codec.OpData, []byte("two"))
		})
		r.feed(c, codec.AppendFrame(nil, codec.OpPing, []byte("now")), beat)
		for range 100 {
			r.do(func() { r.writable(c, 1) })
		}
		got := r.frames(c)
		want := []codec.Op{codec.OpData, codec.OpPong, codec.OpBeat, codec.OpData}
		if !slices.Equal(opsOf(got), want) || string(got[0].Payload) != "one" || string(got[3].Payload) != "two" {
			t.Fatalf("came out as %v, want %v", got, want)
		}
		r.alive(c, "a slow but honest reader")
		noBytesWait(t, r)
	})
}

func TestCloseComesAfterEarlierData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, slowConfig, nil)
		c := r.open()
		fill(r, c)
		posted(t, r, c, func(c *Conn) {
			_ = c.Send(codec.OpData, []byte("one"))
			_ = c.Send(codec.OpData, []byte("two"))
			c.Close(codec.CodeKicked, "bye")
			c.Close(codec.CodeBanned, "later calls do nothing")
			if err := c.Send(codec.OpData, nil); !errors.Is(err, ErrClosed) {
				t.Errorf("Send after Close: %v, want ErrClosed", err)
			}
			if err := c.Write(beat); !errors.Is(err, ErrClosed) {
				t.Errorf("Write after Close: %v, want ErrClosed", err)
			}
		})
		r.wait(time.Second)
		r.alive(c, "a closing connection with bytes to send")
		r.feed(c, data("ignored"))
		r.do(func() { r.writable(c, -1) })
		r.wantClose(c, Application, codec.CodeKicked)
		if got := opsOf(r.frames(c)); !slices.Equal(got, []codec.Op{codec.OpData, codec.OpData, codec.OpClose}) {
			t.Fatalf("came out as %v", got)
		}
		if len(r.rec.got) != 0 {
			t.Errorf("the handler got %v from a closing connection", r.rec.got)
		}
		noBytesWait(t, r)
	})
}

func TestCloseGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, slowConfig, nil)
		c := r.open()
		fill(r, c)
		start := time.Now()
		posted(t, r, c, func(c *Conn) { c.Close(codec.CodeKicked, "bye") })
		for range 19 { // progress gives no more time
			r.wait(100 * time.Millisecond)
			r.feed(c, beat)
			r.do(func() { r.writable(c, 0) })
		}
		r.do(func() { r.writable(c, 1) })
		r.alive(c, "within its 2 s")
		r.wait(slack + tick)
		endedIn(t, r.wantEnd(c, Application, true), start, 2*time.Second)
		noBytesWait(t, r)
	})
}

// endings are the ways a connection ends. Each sees one Close for its Open,
// whatever else happens; the rig checks that at its end too.
var endings = []struct {
	name  string
	cfg   Config
	act   func(r *rig, c *Conn) // loop only, between callbacks
	why   Reason
	abort bool
}{
	{"end of stream", Config{}, func(r *rig, c *Conn) { r.loop.lost(c, PeerClosed) }, PeerClosed, false},
	{"reset", Config{}, func(r *rig, c *Conn) { r.loop.lost(c, PeerReset) }, PeerReset, true},
	{"engine stopped", Config{}, func(r *rig, c *Conn) { r.loop.lost(c, EngineStopped) }, EngineStopped, true},
	{"lost twice", Config{}, func(r *rig, c *Conn) {
		r.loop.lost(c, PeerReset)
		r.loop.lost(c, PeerTimeout)
	}, PeerReset, true},
	{"lost after termination", Config{}, func(r *rig, c *Conn) {
		r.loop.terminate(c, SlowConsumer, true)
		r.loop.lost(c, PeerReset)
	}, SlowConsumer, true},
	{"terminated twice", Config{}, func(r *rig, c *Conn) {
		r.loop.terminate(c, IdleTimeout, true)
		r.loop.terminate(c, SlowConsumer, true)
		r.loop.reap()
	}, IdleTimeout, true},
	{"lost while closing", slowConfig, func(r *rig, c *Conn) {
		r.sock(c).room = 0
		c.Close(codec.CodeKicked, "")
		r.loop.lost(c, PeerReset)
	}, Application, true},
	{"CLOSE frame", Config{}, func(r *rig, c *Conn) {
		r.input(c, codec.AppendClose(nil, codec.CodePeerClosed, "bye"))
		r.loop.lost(c, PeerClosed)
	}, PeerClosed, false},
	{"CLOSE frame and more", Config{}, func(r *rig, c *Conn) {
		r.input(c, append(codec.AppendClose(nil, codec.CodePeerClosed, "bye"), "garbage"...))
	}, PeerClosed, false},
	{"garbage", Config{}, func(r *rig, c *Conn) { r.input(c, []byte("GET / HTTP/1.1")) }, ProtocolError, false},
	{"too large", Config{}, func(r *rig, c *Conn) { r.input(c, []byte{0, 1, 0, 1}) }, FrameTooLarge, false},
	{"write error", Config{}, func(r *rig, c *Conn) {
		r.sock(c).writeErr = unix.EIO
		r.input(c, beat)
	}, WriteError, true},
	{"write error says reset", Config{}, func(r *rig, c *Conn) {
		r.sock(c).writeErr = unix.EPIPE
		r.input(c, beat)
		r.loop.lost(c, PeerReset)
	}, PeerReset, true},
	{"write error of the last words", Config{}, func(r *rig, c *Conn) {
		r.sock(c).writeErr = unix.EIO
		r.input(c, []byte("GET / HTTP/1.1"))
	}, ProtocolError, true},
	{"write error with bytes waiting", slowConfig, func(r *rig, c *Conn) {
		r.sock(c).room = 3
		r.input(c, beat)
		r.sock(c).writeErr = unix.EIO
		r.writable(c, -1)
	}, WriteError, true},
	{"cannot wait for room", slowConfig, func(r *rig, c *Conn) {
		r.sock(c).room, r.sock(c).watchErr = 3, unix.ENOSPC
		r.input(c, beat)
	}, WriteError, true},
	{"server stops", Config{}, func(r *rig, c *Conn) { r.loop.stop(); r.loop.reap() }, Draining, false},
	{"server stops with bytes waiting", slowConfig, func(r *rig, c *Conn) {
		r.sock(c).room = 3
		r.input(c, beat)
		r.loop.stop()
		r.loop.reap()
		r.loop.lost(c, EngineStopped)
	}, Draining, false},
}

func TestOneCloseForEachOpen(t *testing.T) {
	for _, test := range endings {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, test.cfg, nil)
				c := r.open()
				r.do(func() {
					r.loop.clock()
					test.act(r, c)
					r.loop.reap()
				})
				r.wantEnd(c, test.why, test.abort)
				s := r.stats()
				if s.closed[test.why] != 1 || s.totalClosed() != 1 {
					t.Errorf("closed is counted as %v", s.closed)
				}
				noBytesWait(t, r)
				r.wait(time.Minute) // nothing comes after
				r.do(func() {
					if r.rec.opens[c] != 1 || r.rec.closes[c] != 1 || r.rec.why[c] != test.why {
						t.Errorf("%d Open, %d Close, %s", r.rec.opens[c], r.rec.closes[c], r.rec.why[c])
					}
					if c.RemoteAddr() != nil {
						t.Error("RemoteAddr is not nil after the close event")
					}
					if err := c.Send(codec.OpData, nil); !errors.Is(err, ErrClosed) {
						t.Errorf("Send: %v, want ErrClosed", err)
					}
					c.Close(codec.CodeKicked, "nothing happens")
				})
				ran := false
				posted(t, r, c, func(*Conn) { ran = true })
				if ran {
					t.Error("a task ran for a connection that had closed")
				}
			})
		})
	}
}

func TestPanicEverywhere(t *testing.T) {
	hello := codec.AppendHello(nil, codec.Hello{})
	for _, test := range []struct {
		name string
		set  func(h *helloRecorder, victim **Conn)
		act  func(r *rig, c *Conn)
		why  Reason
	}{
		{"Open", func(h *helloRecorder, victim **Conn) {
			h.onOpen = func(c *Conn) {
				if c == *victim {
					panic("in Open")
				}
			}
		}, func(r *rig, c *Conn) {}, Internal},
		{"Hello", func(h *helloRecorder, victim **Conn) {
			h.onHello = func(*Conn, codec.Hello) error { panic("in Hello") }
		}, func(r *rig, c *Conn) { r.feed(c, hello) }, Internal},
		{"Frame", func(h *helloRecorder, victim **Conn) {
			h.onFrame = func(c *Conn, _ codec.Frame) error {
				if c == *victim {
					panic("in Frame")
				}
				return nil
			}
		}, func(r *rig, c *Conn) { r.feed(c, append(data("x"), data("never seen")...)) }, Internal},
		{"Close", func(h *helloRecorder, victim **Conn) {
			h.onClose = func(c *Conn, _ Reason) {
				if c == *victim {
					panic("in Close")
				}
			}
		}, func(r *rig, c *Conn) { r.do(func() { r.loop.lost(c, PeerClosed) }) }, PeerClosed},
		{"posted function", func(*helloRecorder, **Conn) {}, func(r *rig, c *Conn) {
			_ = c.Post(func(*Conn) { panic("in a posted function") })
			r.wait(0)
		}, Internal},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &helloRecorder{recorder: newRecorder()}
				var victim *Conn
				test.set(h, &victim)
				r := newRig(t, Config{}, h)
				other := r.open()
				victim = r.loop.newConn(0, nil)
				r.do(func() { r.opened(victim) })
				test.act(r, victim)
				r.wait(0)
				r.wantEnd(victim, test.why, false)
				if test.why == Internal {
					r.wantClose(victim, Internal, codec.CodeInternalError)
				}
				if s := r.stats(); s.panics != 1 || s.totalClosed() != 1 {
					t.Errorf("%d panics and %d closes are counted, want 1 and 1", s.panics, s.totalClosed())
				}
				if h.closes[victim] != 1 {
					t.Errorf("%d Close events, want 1", h.closes[victim])
				}
				r.feed(other, beat)
				if got := r.frames(other); len(got) != 1 {
					t.Errorf("the other connection got %v", got)
				}
				r.alive(other, "another one's panic")
				r.check()
			})
		})
	}
}

// A connection whose HELLO is required opens with it: without, there is no
// Open and so no Close.
func TestNoCloseWithoutOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, act := range []func(r *rig, c *Conn){
			func(r *rig, c *Conn) { r.feed(c, beat) },
			func(r *rig, c *Conn) { r.do(func() { r.loop.lost(c, PeerReset) }) },
			func(r *rig, c *Conn) { r.wait(10*time.Second + slack) },
		} {
			r := newRig(t, Config{RequireHello: true}, nil)
			c := r.open()
			act(r, c)
			if e := r.end(c); !e.closed {
				t.Error("still open")
			}
			if len(r.rec.opens)+len(r.rec.closes) != 0 {
				t.Errorf("%d Open and %d Close events, want none", len(r.rec.opens), len(r.rec.closes))
			}
			r.close()
		}
	})
}

func TestHandlerClosesItself(t *testing.T) {
	closeIt := func(c *Conn) { c.Close(codec.CodeKicked, "enough") }
	for _, test := range []struct {
		name string
		set  func(h *recorder)
		act  func(r *rig, c *Conn)
	}{
		{"in Open", func(h *recorder) { h.onOpen = closeIt }, func(r *rig, c *Conn) {}},
		{"in Frame", func(h *recorder) {
			h.onFrame = func(c *Conn, _ codec.Frame) error { closeIt(c); return nil }
		}, func(r *rig, c *Conn) { r.feed(c, append(data("x"), data("never seen")...)) }},
		{"in Frame, with an error", func(h *recorder) {
			h.onFrame = func(c *Conn, _ codec.Frame) error { closeIt(c); return errors.New("no second reason") }
		}, func(r *rig, c *Conn) { r.feed(c, data("x")) }},
		{"in Frame, and panics", func(h *recorder) {
			h.onFrame = func(c *Conn, _ codec.Frame) error { closeIt(c); panic("no second reason") }
		}, func(r *rig, c *Conn) { r.feed(c, data("x")) }},
		{"in a posted function", func(h *recorder) {}, func(r *rig, c *Conn) { _ = c.Post(closeIt); r.wait(0) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newRecorder()
				test.set(h)
				h.onClose = func(c *Conn, _ Reason) {
					closeIt(c)
					if err := c.Send(codec.OpData, nil); !errors.Is(err, ErrClosed) {
						t.Errorf("Send in Close: %v, want ErrClosed", err)
					}
				}
				r := newRig(t, Config{}, h)
				c := r.open()
				test.act(r, c)
				r.wantClose(c, Application, codec.CodeKicked)
				if len(h.got) > 1 || h.closes[c] != 1 {
					t.Errorf("%d frames, %d Close events; want one of each", len(h.got), h.closes[c])
				}
			})
		})
	}
}

func TestHandlerReachesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		r := newRig(t, slowConfig, h)
		a, b := r.open(), r.open()

		// What goes to another leaves at once and does not mix with the answers.
		h.onFrame = func(c *Conn, f codec.Frame) error {
			_ = c.Send(codec.OpData, []byte("a1"))
			if err := b.Send(codec.OpData, []byte("b1")); err != nil {
				t.Error(err)
			}
			_ = c.Send(codec.OpData, []byte("a2"))
			b.Close(codec.CodeKicked, "by a")
			return nil
		}
		r.feed(a, data("go"))
		if got := r.take(a); len(got) != 2 || string(got[0].Payload) != "a1" || string(got[1].Payload) != "a2" {
			t.Errorf("a got %v", got)
		}
		r.wantClose(b, Application, codec.CodeKicked)
		if got := r.frames(b); len(got) != 2 || string(got[0].Payload) != "b1" {
			t.Errorf("b got %v", got)
		}

		// A failing other does not harm the one that sends.
		for _, fail := range []struct {
			set  func(s *fakeSock)
			err  error
			why  Reason
			size int
		}{
			{func(s *fakeSock) { s.writeErr = unix.EIO }, ErrClosed, WriteError, 10},
			{func(s *fakeSock) { s.room = 0 }, ErrSlowConsumer, SlowConsumer, 3000},
		} {
			d := r.open()
			r.do(func() { fail.set(r.sock(d)) })
			h.onFrame = func(c *Conn, f codec.Frame) error {
				_ = c.Send(codec.OpData, []byte("before"))
				if err := d.Send(codec.OpData, make([]byte, fail.size)); !errors.Is(err, fail.err) {
					t.Errorf("Send to one that ends as %s: %v, want %v", fail.why, err, fail.err)
				}
				return c.Send(codec.OpData, []byte("after"))
			}
			r.feed(a, data("go"))
			r.wantEnd(d, fail.why, true)
			if got := r.take(a); len(got) != 2 || string(got[0].Payload) != "before" ||
				string(got[1].Payload) != "after" {
				t.Errorf("a got %v", got)
			}
		}

		// One close event may cause another.
		x, y := r.open(), r.open()
		h.onClose = func(c *Conn, _ Reason) {
			if c == x {
				y.Close(codec.CodeKicked, "with x")
			}
		}
		r.do(func() { r.loop.lost(x, PeerReset) })
		r.wantEnd(x, PeerReset, true)
		r.wantClose(y, Application, codec.CodeKicked)
		r.alive(a, "all that")
		noBytesWait(t, r)
	})
}

func TestHandlerErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRecorder()
		r := newRig(t, Config{}, h)
		c := r.open()
		h.onFrame = func(*Conn, codec.Frame) error {
			return &codec.Error{Code: codec.CodeNotAllowed, Text: "not you"}
		}
		r.feed(c, data("x"))
		got := r.take(c)
		if len(got) != 1 || got[0].Op != codec.OpError {
			t.Fatalf("got %v, want ERROR", got)
		}
		if code, text, err := codec.ParseError(got[0].Payload); code != codec.CodeNotAllowed ||
			text != "not you" || err != nil {
			t.Errorf("ERROR %d %q (%v)", code, text, err)
		}
		r.alive(c, "a refused frame")
		h.onFrame = func(*Conn, codec.Frame) error { return errors.New("broken") }
		r.feed(c, data("x"))
		r.wantClose(c, Internal, codec.CodeInternalError)
	})
}

func TestServerClosesOnce(t *testing.T) {
	s, err := New(Config{Listen: []string{"tcp://127.0.0.1:0"},
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { s.Stats() })
	}
	wg.Wait()
	if st := s.Stats(); st.Connections != 0 {
		t.Errorf("%d connections after Close", st.Connections)
	}
}
