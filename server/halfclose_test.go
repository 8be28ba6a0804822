package server

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// A peer that sends nothing more is answered what it has sent, and then closed,
// whatever it speaks.
func TestHalfClose(t *testing.T) {
	onEachEdge(t, Config{MaxFrame: 1024, Outbox: 4096}, func(t *testing.T, r *edgeRig) {
		r.rec.onFrame = func(c *Conn, f codec.Frame) error { return r.send(c, string(f.Payload)) }
		c := r.open()
		fill(r.rig, c)
		s := strings.Repeat("x", 500)
		var want []string
		for range 20 {
			r.say(c, r.data(s))
			want = append(want, s)
		}
		last := r.wire(c, r.data("part"))
		r.feed(c, last[:len(last)-1])
		r.do(func() {
			if !c.owes() {
				t.Fatal("it owes nothing")
			}
			r.loop.inputEnded(c, r.sock(c))
		})
		for range 50 { // longer than closeGrace
			r.wait(100 * time.Millisecond)
			r.alive(c, "with answers to come")
			r.check()
			r.do(func() { r.writable(c, 150) })
		}
		r.do(func() {
			if c.closing() { // else some of it has yet to be acted on
				if err := r.send(c, "more"); !errors.Is(err, ErrClosed) {
					t.Errorf("a send after the last answer: %v", err)
				}
			}
		})
		for range 10 {
			r.do(func() { r.writable(c, -1) })
		}
		r.wantEnd(c, PeerClosed, false)
		if got := r.messages(c, false); !slices.Equal(got, want) {
			t.Errorf("%d messages were sent, want the %d answers", len(got), len(want))
		}
		noBytesWait(t, r.rig)
	})
}

// One that does not read is closed when its write stall is over, or in a drain.
func TestHalfCloseEnds(t *testing.T) {
	for _, how := range []string{"stall", "drain"} {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.Drain = 2 * time.Second
			r := newRig(t, cfg, nil)
			c := r.open()
			fill(r, c)
			from := time.Now()
			posted(t, r, c, func(c *Conn) { _ = c.Send(codec.OpData, make([]byte, 9000)) })
			r.do(func() { r.loop.inputEnded(c, r.sock(c)) })
			if how == "stall" {
				r.wait(6*time.Second + slack)
				within(t, "closed", from, r.wantEnd(c, SlowConsumer, true).at, 6*time.Second)
				return
			}
			r.do(r.loop.startDrain)
			for range 12 {
				r.wait(20 * time.Millisecond)
				r.do(r.loop.run)
			}
			r.alive(c, "in its grace")
			r.wait(closeGrace)
			r.wantEnd(c, PeerClosed, true)
		})
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Over sockets: 200 messages, then the end, and then the answers are read.
func TestHalfCloseOverSockets(t *testing.T) {
	s := start(t, Config{Loops: 1}, Echo{})
	before := 0
	if runtime.GOOS == "linux" {
		before = descriptors(t)
	}
	for _, tc := range []struct {
		name string
		size int
		all  int
		slow bool
	}{
		{"201 kB", 1000, 200 * 1005, false},
		{"201 kB, read slowly", 1000, 200 * 1005, true},
		{"1 MB", 1000, 1_000_000, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := dial(t, s).(*net.TCPConn)
			_ = c.SetReadBuffer(16 << 10) // with less it takes seconds
			want := numberedFrames(tc.size, tc.all)
			go func() {
				_, _ = c.Write(want)
				_ = c.CloseWrite()
			}()
			time.Sleep(20 * time.Millisecond) // so that answers wait, as a rule
			wantEcho(t, c, want, tc.slow)
			if n, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("then %d bytes came: %v", n, err)
			}
			_ = c.Close()
		})
	}
	eventually(t, "all are closed", func() bool { return s.Stats().Closed["peer_closed"] == 3 })
	if runtime.GOOS == "linux" {
		eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= before })
	}
	if ck := s.Check(); !ck.OK {
		t.Errorf("check: %+v", ck)
	}
}

// One that is reset after its end is given up at once.
func TestHalfCloseReset(t *testing.T) {
	s := start(t, Config{Loops: 1}, Echo{})
	c := dial(t, s).(*net.TCPConn)
	_ = c.SetReadBuffer(4 << 10)
	_, _ = c.Write(numberedFrames(1000, 240_000))
	_ = c.CloseWrite()
	eventually(t, "answers wait", func() bool { return s.Stats().OutboxBytes > 0 })
	_ = c.SetLinger(0)
	_ = c.Close()
	eventually(t, "it is closed", func() bool { st := s.Stats(); return st.Connections == 0 })
}

// The write stall of one whose pause ends counts from its last progress, however long
// the pause was.
func TestHalfCloseStallAfterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{WriteStall: 8 * time.Second}, Echo{})
		c := r.open()
		flood(r, c)
		r.do(func() { r.loop.inputEnded(c, r.sock(c)) })
		holds := func() (much bool) {
			r.do(func() { much = c.state == statePaused || c.queued() > 100<<10 })
			return much
		}
		for holds() {
			r.wait(5 * time.Second)
			r.alive(c, "a slow reader")
			r.do(func() { r.writable(c, 6000) })
		}
		from := time.Now()
		r.wait(30 * time.Second)
		within(t, "closed", from, r.wantEnd(c, SlowConsumer, true).at, 9*time.Second)
	})
}

// One that is left when its loop ends has its close event, and keeps no descriptor.
func TestHalfCloseLoopEnds(t *testing.T) {
	t.Parallel()
	var detachedEnd atomic.Int32
	blocked := make(chan struct{})
	s, stop := startUntil(t, Config{Loops: 1}, hooks{
		frame: func(c *Conn, f codec.Frame) error {
			if string(f.Payload) == "block" {
				close(blocked)
				time.Sleep(3 * time.Second) // longer than Close waits for a loop to stop by itself
			}
			return c.Send(f.Op, f.Payload)
		},
		close: func(c *Conn, why Reason) {
			if _, ok := c.sock.(detached); ok && why == PeerClosed {
				detachedEnd.Add(1)
			}
		},
	})
	c := dial(t, s).(*net.TCPConn)
	_ = c.SetReadBuffer(4 << 10)
	_, _ = c.Write(numberedFrames(1000, 240_000))
	_ = c.CloseWrite()
	eventually(t, "its end is seen", func() bool {
		n := 0
		s.ask(s.loops[0], func() {
			for _, c := range s.loops[0].conns() {
				if c.has(flagEnded) {
					n++
				}
			}
		})
		return n == 1
	})
	_, _ = dial(t, s).Write(data("block"))
	<-blocked
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := detachedEnd.Load(); n != 1 {
		t.Errorf("%d close events", n)
	}
}
