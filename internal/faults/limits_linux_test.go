package faults

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// acceptAgain is how long after there is room again a connection that waits may
// have to wait more.
const acceptAgain = time.Second

// servedAgain calls serve, which returns when all that waited for room are served,
// and holds the time that it takes against the promise.
func servedAgain(t *testing.T, s *serverProcess, who string, serve func()) (again time.Duration) {
	t.Helper()
	lag, held, start := ownLag(), withoutAsking(s), time.Now()
	serve()
	again = time.Since(start)
	if late, waited := lag(), held(); again > acceptAgain+late+waited {
		t.Errorf("%s served %s after there was room; this process was up to %s late, the server "+
			"%s", who, again, late, waited)
	}
	return again
}

// A burst is connections made at once, some of which a server may have refused.
type burst struct {
	admitted []*conn
	rejected []rejection   // the others
	lag      time.Duration // the longest that this process was late meanwhile
	delays   []delay       // of the server meanwhile
}

// A rejection is a refused connection: it was made after from, and GOAWAY had been
// read by to (monotonic).
type rejection struct{ from, to int64 }

// ownLag measures how late this process gets to run, until its result is
// called: that is the longest.
func ownLag() func() time.Duration {
	quit, longest, paused := make(chan struct{}), make(chan time.Duration), meterPauses()
	go func() {
		worst := time.Duration(0)
		for over := false; !over; {
			start := time.Now()
			select {
			case <-quit:
				over = true // it may be late for that too
			case <-time.After(time.Millisecond):
			}
			worst = max(worst, time.Since(start)-time.Millisecond)
		}
		longest <- worst
	}()
	return func() time.Duration { close(quit); return max(<-longest, longestPause(paused())) }
}

// dialBurst makes n connections. All but room of them have to be refused, with
// GOAWAY and the end of the stream before they send anything; the others have to
// be served.
func dialBurst(t *testing.T, s *serverProcess, n, room int) *burst {
	t.Helper()
	b := &burst{}
	w, lag := watch(t, s), ownLag()
	type first struct {
		c   *conn
		f   codec.Frame
		err error
		rejection
	}
	got := make(chan first, n)
	rest := map[*conn]bool{}
	for range n {
		c := dial(t, s.addr)
		rest[c] = true
		start := monotonic()
		go func() {
			f, err := c.frameErr()
			got <- first{c, f, err, rejection{start, monotonic()}}
		}()
	}
	for range n - room {
		g := <-got
		goaway, err := codec.ParseGoaway(g.f.Payload)
		if g.err != nil || g.f.Op != codec.OpGoaway || err != nil || goaway.Code != codec.CodeOverloaded {
			t.Fatalf("got %s %q %v, not goaway %d", g.f.Op, g.f.Payload, g.err, codec.CodeOverloaded)
		}
		g.c.wantEnd()
		delete(rest, g.c)
		b.rejected = append(b.rejected, g.rejection)
	}
	b.lag, b.delays = lag(), w.stop()
	for c := range rest {
		c.send(beat)
	}
	for range room {
		if g := <-got; g.err != nil || g.f.Op != codec.OpBeat {
			t.Fatalf("got %s %q %v, not the answer to a beat", g.f.Op, g.f.Payload, g.err)
		}
	}
	for c := range rest {
		c.echo()
		b.admitted = append(b.admitted, c)
	}
	return b
}

// echoAll wants every admitted connection to be served.
func (b *burst) echoAll(t *testing.T) {
	t.Helper()
	for i, c := range b.admitted {
		if err := c.echoErr(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
}

// leave closes the first n.
func (b *burst) leave(n int) {
	for _, c := range b.admitted[:n] {
		c.reset()
	}
	b.admitted = b.admitted[n:]
}

// checkRejected wants every refused connection to have got GOAWAY at once.
func (b *burst) checkRejected(t *testing.T) (slowest time.Duration) {
	t.Helper()
	const most = 100 * time.Millisecond
	for _, c := range b.rejected {
		took := time.Duration(c.to - c.from)
		slowest = max(slowest, took)
		if measured := b.lag + heldUp(b.delays, c.from, c.to) + credited(b.delays, c.from, c.to); took > most+measured {
			t.Errorf("a connection was refused after %s; the bound is %s, and %s were measured", took, most, measured)
		}
	}
	return slowest
}

// TestConnectionCap: connections above --max-connections get GOAWAY and are
// closed, and a connection that ends makes room for another.
func TestConnectionCap(t *testing.T) {
	parallelSmoke(t)
	room, dials := 500, 550
	if size == long {
		room, dials = 5000, 5500
	}
	s := startServer(t, binary(t), "--timeout", "10m", "--max-connections", fmt.Sprint(room))
	b := dialBurst(t, s, dials, room)
	check := func(refused int) {
		t.Helper()
		m := s.await("the server is full", func(m metrics) bool {
			return m.value("heartwheel_connections") ==
				float64(room) && m.settled()
		})
		if got := m.by("heartwheel_refused_total"); len(got) != 1 || got["overloaded"] != float64(refused) {
			t.Errorf("the server refused %v, not just %d as overloaded", got, refused)
		}
		s.check()
	}
	check(dials - room)
	slowest := b.checkRejected(t)
	b.echoAll(t)
	figure(t, 2, "room for %d, %d dialled: %d admitted, %d refused with 3020 after at most %s (this "+
		"process was up to %s late)",
		room, dials, len(b.admitted), len(b.rejected), slowest.Round(100*time.Microsecond),
		b.lag.Round(100*time.Microsecond))

	b.leave(1)
	s.await("one has left", func(m metrics) bool { return m.value("heartwheel_connections") == float64(room-1) })
	c := dial(t, s.addr)
	c.echo()
	check(dials - room)
	dial(t, s.addr).wantGoaway(codec.CodeOverloaded)
	check(dials - room + 1)
	b.echoAll(t)
	c.echo()
}

// TestDescriptorsRunOut starts the command where it may open few files, and
// takes all of them: first by more connections than there is room for, then by
// what no connection cap can count. Open connections lose nothing, and there is
// room again as soon as some have left.
func TestDescriptorsRunOut(t *testing.T) {
	parallelSmoke(t)
	const files, dials = 200, 1000
	cmd := exec.Command("sh", append([]string{"-c", fmt.Sprintf(`ulimit -n %d; exec "$0" "$@"`, files), binary(t)},
		serverArgs("--timeout", "10m", "--drain", "1s")...)...)
	s := startCommand(t, cmd)
	room := int(s.metrics().value("heartwheel_connections_max"))
	if room < files/2 || room >= files {
		t.Fatalf("with %d files there is room for %d connections", files, room)
	}
	b := dialBurst(t, s, dials, room)
	m := s.metrics()
	if got := m.by("heartwheel_refused_total"); len(got) != 1 || got["overloaded"] != float64(dials-room) {
		t.Errorf("the server refused %v, not just %d as overloaded", got, dials-room)
	}
	b.echoAll(t)
	const leaving = 20
	b.leave(leaving)
	s.await("some have left", func(m metrics) bool {
		return m.value("heartwheel_connections") == float64(room-leaving)
	})

	// The rest is taken by what no connection cap can count.
	old := leave(t, s.pid(), 0)
	waiting := dial(t, s.addr) // the kernel has taken it, the server cannot
	m = s.await("accepting fails", func(m metrics) bool { return m.value("heartwheel_accept_errors_total") > 0 })
	b.echoAll(t)
	t.Logf("%d connections served with no file left to open; %v accepts have failed",
		len(b.admitted), m.value("heartwheel_accept_errors_total"))
	limitFiles(t, s.pid(), old)
	again := servedAgain(t, s, "a waiting connection was", waiting.echo)
	b.admitted = append(b.admitted, waiting)
	figure(t, 1, "%d files, %d dialled: %d admitted, %d refused with 3020 after at most %s, none of them lost without "+
		"a file left; a waiting one was served %s after there was room",
		files, dials, room, len(b.rejected), b.checkRejected(t).Round(100*time.Microsecond),
		again.Round(100*time.Microsecond))
	for len(b.admitted) < room {
		c := dial(t, s.addr)
		c.echo()
		b.admitted = append(b.admitted, c)
	}
	s.await("the server is full again", func(m metrics) bool {
		return m.value("heartwheel_connections") == float64(room)
	})
	dial(t, s.addr).wantGoaway(codec.CodeOverloaded)
	b.echoAll(t)
	s.check()
	if closed := s.metrics().by("heartwheel_closed_total"); closed["peer_reset"] !=
		s.metrics().sum("heartwheel_closed_total") {
		t.Errorf("the server closed %v, and only resets were sent", closed)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
}
