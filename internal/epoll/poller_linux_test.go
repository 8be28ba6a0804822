package epoll

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a pair of connected non-blocking sockets.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func newPoller(t *testing.T, size int) *Poller {
	t.Helper()
	p, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func wait(t *testing.T, p *Poller, timeout time.Duration) []Event {
	t.Helper()
	events, err := p.Wait(timeout)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// An event has the key that its socket was added with; Modify reports an edge
// again, and Remove ends the reports.
func TestEvents(t *testing.T) {
	p := newPoller(t, 4)
	a, b := pair(t)
	const edge = unix.EPOLLIN | unix.EPOLLET
	key := Key{ID: 1 << 30, Gen: 1<<32 - 1}
	if err := p.Add(a, edge, Key{ID: 1}); err != nil {
		t.Fatal(err)
	}
	if err := p.Modify(a, edge, key); err != nil {
		t.Fatal(err)
	}
	if events := wait(t, p, 0); len(events) != 0 {
		t.Errorf("%d events of an idle socket", len(events))
	}
	if n, err := Write(b, []byte("ping")); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	for range 2 {
		if events := wait(t, p, time.Second); len(events) != 1 || events[0].Key() != key ||
			events[0].Events != unix.EPOLLIN {
			t.Errorf("%+v, want EPOLLIN of %+v", events, key)
		}
		if events := wait(t, p, 0); len(events) != 0 {
			t.Errorf("an edge was reported twice: %+v", events)
		}
		if err := p.Modify(a, edge, key); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Remove(a); err != nil {
		t.Fatal(err)
	}
	if events := wait(t, p, 0); len(events) != 0 {
		t.Errorf("%+v after Remove", events)
	}
}

// At most size events come at a time, and the others afterwards.
func TestMoreEventsThanSize(t *testing.T) {
	p := newPoller(t, 2)
	for i := range 3 {
		a, _ := pair(t)
		if err := p.Add(a, unix.EPOLLOUT|unix.EPOLLET, Key{ID: int32(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := len(wait(t, p, 0)), len(wait(t, p, 0)); first != 2 || second != 1 {
		t.Errorf("%d and %d events, want 2 and 1", first, second)
	}
}

// Waits without events end, at the timeout or by a signal, and no event is made
// up. A signal comes every 10 ms to a thread that holds its P.
func TestWaitTimeout(t *testing.T) {
	p := newPoller(t, 1)
	for _, hold := range []bool{false, true} {
		if hold {
			p.HoldP()
		}
		for _, timeout := range []time.Duration{-time.Hour, 0, 300 * time.Microsecond, 30 * time.Millisecond} {
			waits := 0
			for end := Monotonic() + int64(timeout); waits == 0 || Monotonic() < end; waits++ {
				if events := wait(t, p, time.Duration(end-Monotonic())); len(events) != 0 {
					t.Errorf("%+v", events)
				}
			}
			if !noPwait2 && waits > 100 {
				t.Errorf("%s took %d waits", timeout, waits)
			}
		}
	}
}

// One P is left for everything else, and Close gives the poller's back.
func TestHoldP(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(3))
	var pollers []*Poller
	for range 3 {
		p := newPoller(t, 1)
		p.HoldP()
		p.HoldP()
		pollers = append(pollers, p)
	}
	if a, b, c := pollers[0].holdsP, pollers[1].holdsP, pollers[2].holdsP; !a || !b || c {
		t.Errorf("of three pollers on three Ps these hold theirs: %v, %v, %v", a, b, c)
	}
	for _, p := range pollers {
		p.Close()
	}
	if n := holders.Load(); n != 0 {
		t.Errorf("%d holders after Close", n)
	}
}

func TestReadWrite(t *testing.T) {
	a, b := pair(t)
	buf := make([]byte, 16)
	if n, err := Read(a, buf); n != -1 || err != unix.EAGAIN {
		t.Errorf("nothing to read: %d, %v", n, err)
	}
	if n, err := Write(b, []byte("pong")); n != 4 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := Read(a, buf); n != 4 || err != nil || !bytes.Equal(buf[:4], []byte("pong")) {
		t.Errorf("%q, %v", buf[:max(0, n)], err)
	}
	for {
		if _, err := Write(b, buf); err != nil {
			if err != unix.EAGAIN {
				t.Errorf("a full socket: %v", err)
			}
			break
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = Write(b, buf) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestMonotonic(t *testing.T) {
	var ts unix.Timespec
	before := Monotonic()
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	after := Monotonic()
	// The clock's offset was read a moment after its base.
	if slack := int64(time.Millisecond); ts.Nano() < before-slack || ts.Nano() > after+slack {
		t.Errorf("the kernel says %d, between %d and %d", ts.Nano(), before, after)
	}
}
