package server

import (
	"io"
	"log/slog"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"heartwheel/codec"
	"heartwheel/internal/admission"
	"heartwheel/wheel"
)

// still returns a rig for counting allocations: its wheel has no goroutines,
// which allocate now and then.
func still(tb testing.TB, cfg Config) *rig {
	tb.Helper()
	r := newBareRig(tb, cfg, Echo{})
	r.wheel.Close()
	return r
}

// quiet returns a still rig with one open connection whose output is dropped.
func quiet(tb testing.TB) (*rig, *Conn) {
	tb.Helper()
	r := still(tb, Config{})
	c := r.open()
	r.sock(c).forget = true
	return r, c
}

func TestNoAllocations(t *testing.T) {
	ping := codec.AppendFrame(nil, codec.OpPing, []byte("12345678"))
	for _, test := range []struct {
		name string
		in   []byte
		op   codec.Op // of the answer
	}{
		{"beat", beat, codec.OpBeat},
		{"PING", ping, codec.OpPong},
		{"DATA", data("sixteen bytes ok"), codec.OpData},
		{"DATA of 1 KiB", codec.AppendFrame(nil, codec.OpData, make([]byte, 1024)), codec.OpData},
		{"64 beats at once", slices.Repeat(beat, 64), codec.OpBeat},
	} {
		r, c := quiet(t)
		if n := testing.AllocsPerRun(1000, func() { r.loop.received(c, test.in) }); n != 0 {
			t.Errorf("%s: %g allocations, want 0", test.name, n)
		}
		if r.loop.stats.framesOut[opLabel(test.op)] < 1000 || c.state != stateOpen {
			t.Errorf("%s: it was not answered", test.name)
		}
		if c.ext != nil {
			t.Errorf("%s: it made what few connections need", test.name)
		}
	}
}

// A connection whose deadline comes up while it is alive, because it was
// refreshed or beats are to be sent, costs no allocation.
func TestNoAllocationsWhenDue(t *testing.T) {
	r := still(t, Config{Beats: ServerBeats})
	c := r.open()
	r.sock(c).forget = true
	r.loop.clock()
	start := r.loop.now
	n := testing.AllocsPerRun(100, func() {
		r.loop.now += int64(r.cfg.Beat + checkStep)
		r.loop.wheel.Cancel(&c.timer)
		r.loop.due(&c.timer)
		c.timer.Touch(r.loop.now)
		c.flags &^= flagAsked
	})
	if n != 0 {
		t.Errorf("%g allocations, want 0", n)
	}
	if sent := r.loop.stats.framesOut[codec.OpBeat]; sent != 101 {
		t.Errorf("%d beats in 101 rounds", sent)
	}
	r.loop.wheel.Arm(&c.timer, start, time.Hour) // back to the true clock
}

// TestNoAllocationsRelink moves 1,000 refreshed connections to a later slot.
func TestNoAllocationsRelink(t *testing.T) {
	r := still(t, Config{})
	conns := make([]*Conn, 1000)
	for i := range conns {
		conns[i] = r.open()
		r.sock(conns[i]).forget = true
	}
	now := r.loop.clock()
	visits := 0
	due := func(*wheel.Timer) { visits++ }
	n := testing.AllocsPerRun(20, func() {
		now += int64(40 * time.Second) // past every deadline, but all were heard since
		for _, c := range conns {
			c.timer.Touch(now - int64(time.Second))
		}
		for r.loop.wheel.Advance(now, closesPerRun, due) {
		}
	})
	if n != 0 {
		t.Errorf("%g allocations, want 0", n)
	}
	if visits != 0 || r.loop.wheel.Len() != len(conns) {
		t.Errorf("%d refreshed connections were due, %d are armed", visits, r.loop.wheel.Len())
	}
}

func TestConnSize(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the limit is for 64-bit machines")
	}
	if n := unsafe.Sizeof(Conn{}); n > 96 {
		t.Errorf("a Conn takes %d bytes, want at most 96", n)
	}
}

// lightSock is a socket that takes no memory of its own.
type lightSock struct{ netConn }

// TestSessionHeap measures what 100,000 open sessions take, deadlines included.
func TestSessionHeap(t *testing.T) {
	const n = 100_000
	if unsafe.Sizeof(uintptr(0)) != 8 {
		t.Skip("the limit is for 64-bit machines")
	}
	w := wheel.New(wheel.Config{})
	defer w.Close()
	cfg := Config{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}.WithDefaults()
	l := newLoop(0, &cfg, Echo{}, w, "boot", func(*admission.Ticket) {})
	l.io = &lightSockets{}
	conns := make([]*Conn, n)
	var sock netConn = lightSock{}
	before := heap()
	for i := range conns {
		conns[i] = l.newConn(0, nil)
		l.opened(conns[i], sock)
	}
	each := float64(heap()-before) / n
	for _, c := range conns { // and none of it grows with a beat
		l.received(c, beat)
	}
	if again := float64(heap()-before) / n; again > each+1 {
		t.Errorf("%.1f B for each session, %.1f after a beat", each, again)
	}
	t.Logf("%d sessions: %.1f B each, Conn %d B", n, each, unsafe.Sizeof(Conn{}))
	if each > 112 {
		t.Errorf("a session takes %.1f B of heap, want at most 112", each)
	}
	if err := l.check(); err != nil {
		t.Error(err)
	}
	runtime.KeepAlive(conns)
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// lightSockets takes everything and keeps nothing.
type lightSockets struct{}

func (*lightSockets) write(_ *Conn, b []byte) (int, error)    { return len(b), nil }
func (*lightSockets) unread(*Conn) int                        { return 0 }
func (*lightSockets) unacked(*Conn) int                       { return 0 }
func (*lightSockets) traffic(*Conn) (in, out uint64, ok bool) { return 0, 0, false }
func (*lightSockets) setTimeout(*Conn, time.Duration)         {}
func (*lightSockets) close(*Conn, bool)                       {}
func (*lightSockets) watch(*Conn) error                       { return nil }
func (*lightSockets) unwatch(*Conn)                           {}
func (*lightSockets) pause(*Conn)                             {}
func (*lightSockets) resume(*Conn)                            {}
