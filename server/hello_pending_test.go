package server

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// pendingRig is a rig whose handler leaves each HELLO pending.
func pendingRig(t *testing.T, cfg Config) (*rig, *helloRecorder) {
	h := &helloRecorder{recorder: newRecorder()}
	h.onHello = func(*Conn, codec.Hello) error { return ErrHelloPending }
	return newRig(t, cfg, h), h
}

// answer answers the HELLO of c, as from another goroutine.
func answer(t *testing.T, r *rig, c *Conn, err error) {
	t.Helper()
	if err := c.AnswerHello(err); err != nil {
		t.Error(err)
	}
	r.wait(0)
}

// Until HELLO is answered nothing behind it is acted on. Then all of it is, and
// T starts anew.
func TestHelloPending(t *testing.T) {
	for _, require := range []bool{false, true} {
		for _, early := range []bool{false, true} { // what follows comes with HELLO
			t.Run(fmt.Sprintf("require=%v/early=%v", require, early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					cfg := profile(t, "fast")
					cfg.RequireHello, cfg.Beats = require, ServerBeats
					r, h := pendingRig(t, cfg)
					c := r.open()
					first, second := hello(codec.Hello{BeatMS: 2000}),
						slices.Concat(data("1"), beat, data("2"), data("half")[:6])
					if early {
						r.feed(c, append(first, second...))
					} else {
						r.feed(c, first)
						r.wait(time.Second)
						r.arrive(c, second)
						r.wait(0)
						hold(r, c, data("half")[6:]) // is not read any more
						r.do(func() { r.read(c) })
						if n := r.sock(c).paused; !n {
							t.Error("the socket is read on")
						}
					}
					r.wait(8 * time.Second) // more than T
					r.alive(c, "while HELLO is pending")
					if all := r.frames(c); len(all) != 0 || len(h.got) != 0 || (h.opens[c] == 1) == require {
						t.Fatalf("sent %v, heard %v, %d Open events", all, h.got, h.opens[c])
					}
					if n := r.stats().averted[avertedUnread]; n != 0 {
						t.Errorf("averted %d times", n)
					}
					r.check()
					answer(t, r, c, nil)
					from := time.Now()
					if w := welcome(r, c); w.BeatMS != 2000 || h.opens[c] != 1 {
						t.Errorf("%+v, %d Open events", w, h.opens[c])
					}
					if len(h.got) != 2 || h.got[0].payload != "1" || h.got[1].payload != "2" || r.sock(c).paused {
						t.Errorf("heard %v, paused %v", h.got, r.sock(c).paused)
					}
					if !early {
						r.do(func() { r.read(c) })
						if len(h.got) != 3 {
							t.Errorf("heard %v", h.got)
						}
					}
					r.wait(6 * time.Second)
					within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 5*time.Second)
				})
			})
		}
	}
}

func TestHelloPendingRefused(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code codec.Code
	}{
		{errors.New("no"), codec.CodeBadToken},
		{&codec.Error{Code: codec.CodeBanned, Text: "go away"}, codec.CodeBanned},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, h := pendingRig(t, Config{RequireHello: true})
			c := r.open()
			r.feed(c, append(hello(codec.Hello{}), data("never seen")...))
			answer(t, r, c, tc.err)
			r.wantClose(c, BadToken, tc.code)
			if len(h.got)+h.opens[c]+h.closes[c] != 0 {
				t.Errorf("heard %v, %d Open and %d Close events", h.got, h.opens[c], h.closes[c])
			}
		})
	}
}

// The 10 s include the check. It is no fault of the peer if they pass then, and
// bytes that it has sent are no excuse.
func TestHelloPendingTooLong(t *testing.T) {
	for _, require := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, h := pendingRig(t, Config{RequireHello: require})
			from := time.Now()
			c := r.open()
			r.wait(4 * time.Second)
			if !require {
				from = time.Now()
			}
			r.feed(c, hello(codec.Hello{}))
			r.do(func() { r.sock(c).setUnread(100) })
			r.wait(11 * time.Second)
			within(t, "closed", from, r.wantClose(c, Internal, codec.CodeInternalError).at, 10*time.Second)
			answer(t, r, c, nil) // too late
			if n := len(r.frames(c)); n != 1 || (h.opens[c] == 1) == require {
				t.Errorf("%d frames, %d Open events", n, h.opens[c])
			}
		})
	}
}

// Whatever ends the connection while HELLO is pending: the answer comes too late.
func TestHelloPendingEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		act   func(r *rig, c *Conn)
		why   Reason
		abort bool
	}{
		{"peer gone", func(r *rig, c *Conn) { r.do(func() { r.loop.lost(c, PeerClosed) }) }, PeerClosed, false},
		{"reset", func(r *rig, c *Conn) { r.do(func() { r.loop.lost(c, PeerReset) }) }, PeerReset, true},
		{"drain", func(r *rig, c *Conn) { r.do(r.loop.startDrain); r.wait(2 * time.Second) }, Draining, false},
		{"closed by the handler", func(r *rig, c *Conn) {
			posted(r.t.(*testing.T), r, c, func(c *Conn) { c.Close(codec.CodeKicked, "") })
		}, Application, false},
		{"slow", func(r *rig, c *Conn) {
			fill(r, c)
			r.do(func() { _ = c.Send(codec.OpData, []byte("x")) })
			r.wait(3 * time.Second)
		}, SlowConsumer, true},
		{"sends too much", func(r *rig, c *Conn) {
			for range 5 { // as on a system where reading cannot be stopped
				r.feed(c, make([]byte, 100<<10))
			}
		}, ProtocolError, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, h := pendingRig(t, Config{RequireHello: true, Drain: 2 * time.Second, WriteStall: 2 * time.Second})
				c := r.open()
				r.feed(c, hello(codec.Hello{}))
				r.wait(time.Second)
				tc.act(r, c)
				r.wantEnd(c, tc.why, tc.abort)
				before := len(r.sock(c).out)
				answer(t, r, c, nil)
				if n := len(r.sock(c).out); n != before || h.opens[c]+h.closes[c] != 0 {
					t.Errorf("%d bytes, then %d; %d Open and %d Close events", before, n, h.opens[c], h.closes[c])
				}
				if n := r.stats().inputBytes; n != 0 {
					t.Errorf("%d bytes are kept", n)
				}
			})
		})
	}
}

// Only the first answer counts, and one where no HELLO is pending does not.
func TestHelloAnsweredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := pendingRig(t, Config{RequireHello: true})
		c := r.open()
		answer(t, r, c, nil) // before HELLO
		if all := r.frames(c); len(all) != 0 {
			t.Fatalf("sent %v", all)
		}
		h.onHello = func(c *Conn, _ codec.Hello) error {
			for _, err := range []error{nil, errors.New("no"), nil} {
				if err := c.AnswerHello(err); err != nil {
					t.Error(err)
				}
			}
			return ErrHelloPending
		}
		r.feed(c, hello(codec.Hello{}))
		r.wait(0)
		welcome(r, c)
		answer(t, r, c, errors.New("no"))
		r.alive(c, "after the answers")
		if all := r.frames(c); len(all) != 0 || h.opens[c] != 1 {
			t.Errorf("sent %v, %d Open events", all, h.opens[c])
		}
		r.feed(c, beat)
		one(r, c, codec.OpBeat)
		if c.ext != nil {
			t.Error("it keeps what few connections need")
		}
		r.loop.mail.close()
		if err := c.AnswerHello(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("after the server stopped: %v", err)
		}
		r.loop.mail.open(func() { r.signal <- struct{}{} })
	})
}

// A paused connection is not acted on, whatever it speaks. Its deadlines rest and
// start anew.
func TestEdgePause(t *testing.T) {
	const idle = 7500 * time.Millisecond
	onEachEdge(t, profile(t, "fast"), func(t *testing.T, r *edgeRig) {
		r.cutFrames = true
		c := r.open()
		r.rec.onFrame = func(c *Conn, f codec.Frame) error {
			if string(f.Payload) == "stop" {
				r.loop.pause(c, flagPending)
			}
			return nil
		}
		r.say(c, r.data("1"), r.data("stop"), r.data("2"), r.data("stop"), r.data("3"))
		r.feed(c, r.wire(c, r.data("4"))[:1])
		r.wait(time.Minute)
		r.alive(c, "in a pause")
		r.want(c) // no beats
		for i, want := range [][]string{{"1", "stop"}, {"1", "stop", "2", "stop"}, {"1", "stop", "2", "stop", "3"}} {
			if got := r.heard(); !slices.Equal(got, want) {
				t.Fatalf("after %d pauses: heard %q, want %q", i, got, want)
			}
			r.check()
			posted(t, r.rig, c, func(c *Conn) { r.loop.resume(c, flagPending) })
		}
		from := time.Now()
		r.wait(idle + slack)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
	})
}

// pendingHandler leaves HELLO pending.
type pendingHandler struct {
	hooks
	hellos chan *Conn
}

func (h pendingHandler) Hello(c *Conn, _ codec.Hello) error { h.hellos <- c; return ErrHelloPending }

func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Over sockets: what is sent meanwhile waits, costs nothing and arrives; then
// comes the end of the stream.
func TestHelloPendingOverSockets(t *testing.T) {
	h := pendingHandler{hooks{frame: Echo{}.Frame}, make(chan *Conn, 1)}
	s := start(t, Config{Loops: 1, RequireHello: true}, h)
	for _, fin := range []bool{false, true} {
		c := dial(t, s)
		if _, err := c.Write(hello(codec.Hello{})); err != nil {
			t.Fatal(err)
		}
		conn := <-h.hellos
		want := data(strings.Repeat("x", 60_000))
		_, _ = c.Write(want[:5])
		eventually(t, "it is read once", func() bool { return s.Stats().InputBytes > 0 })
		_, _ = c.Write(want[5:])
		if fin {
			if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}
		before := cpuTime(t)
		time.Sleep(300 * time.Millisecond)
		if took := cpuTime(t) - before; took > 200*time.Millisecond {
			t.Errorf("a pause of 300 ms took %v of processor time", took)
		}
		if n := s.Stats().InputBytes; n == 0 || n > 64 && runtime.GOOS == "linux" {
			t.Errorf("%d bytes were read", n)
		}
		if err := conn.AnswerHello(nil); err != nil {
			t.Fatal(err)
		}
		if f := readFrame(t, c); f.Op != codec.OpWelcome {
			t.Fatalf("got %s", f.Op)
		}
		expect(t, c, want)
		if fin {
			eventually(t, "the end is noticed", func() bool { return s.Stats().Closed["peer_closed"] == 1 })
		}
	}
}

// A peer that goes away while HELLO is pending, having sent nothing more, is
// noticed at once.
func TestPeerGoneWhileHelloPending(t *testing.T) {
	h := pendingHandler{hooks{}, make(chan *Conn, 1)}
	s := start(t, Config{Loops: 1}, h)
	c := dial(t, s)
	_, _ = c.Write(hello(codec.Hello{}))
	conn := <-h.hellos
	_ = c.Close()
	eventually(t, "it is noticed", func() bool { return s.Stats().Closed["peer_closed"] == 1 })
	if err := conn.AnswerHello(nil); err != nil {
		t.Error(err)
	}
	if ck := s.Check(); !ck.OK {
		t.Errorf("check: %+v", ck)
	}
}

// The 10 s of a handshake are over with its answer, also if that fills the outbox, whose
// pause begins then.
func TestHelloAnswerFillsOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, h := pendingRig(t, Config{RequireHello: true, WriteStall: time.Minute})
		h.onOpen = func(c *Conn) { _ = c.Send(codec.OpData, make([]byte, r.cfg.Outbox*3/4)) }
		c := r.open()
		r.feed(c, hello(codec.Hello{}))
		fill(r, c)
		answer(t, r, c, nil)
		r.do(func() {
			if !c.has(flagFull) {
				t.Error("the outbox is not full")
			}
		})
		r.wait(5 * time.Second)
		r.do(func() { r.writable(c, -1) })
		r.wait(15 * time.Second)
		r.alive(c, "15 s later, with nothing incomplete")
	})
}
