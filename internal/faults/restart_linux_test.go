package faults

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// TestKilledAndRestarted is case 18: a server is killed and started again at
// once on the same port. It starts, and all its clients come back by the
// protocol's rules within 20 s. There are more of them than it has room for: at
// no moment does it take more than that.
func TestKilledAndRestarted(t *testing.T) {
	parallelSmoke(t)
	room, processes := sized(500, 2000, 15_000), sized(1, 1, 2)
	spread := sized(time.Second, 5*time.Second, 5*time.Second) // before a client first comes back
	herdSize := room + room/50
	args := []string{"--listen", "tcp://" + holdPort(t), "--timeout", "10m", "--drain", "1s",
		"--max-connections", strconv.Itoa(room)}
	first := startServer(t, binary(t), args...)
	herds := startHerds(t, first, processes, herdSize, room, "-reconnect", "-spread", spread.String())

	killed := monotonic()
	first.stop(syscall.SIGKILL)
	s := startServer(t, binary(t), args...)
	started := monotonic()
	w := watch(t, s)
	most := 0.0
	s.await("all are back", func(m metrics) bool {
		most = max(most, m.value("heartwheel_connections"), m.sum("heartwheel_sessions"))
		return m.value("heartwheel_connections") >= float64(room)
	})
	took := time.Duration(monotonic() - started)
	// The others go on trying.
	s.await("the others have been refused", func(m metrics) bool {
		most = max(most, m.value("heartwheel_connections"), m.sum("heartwheel_sessions"))
		return m.by("heartwheel_refused_total")["overloaded"] >= float64(herdSize-room)
	})
	s.check()
	m := s.metrics()
	var r herdReport
	for _, h := range herds {
		h.report(&r)
	}
	lag := heldUp(w.stop(), started, monotonic()) + r.Late

	if took > 20*time.Second+lag {
		t.Errorf("%d clients were back after %s; the bound is 20 s, and %s were measured", room, took, lag)
	}
	if most > float64(room) {
		t.Errorf("%v connections at a time, with --max-connections %d", most, room)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 0 {
		t.Errorf("the server closed %v", closed)
	}
	if refused := m.by("heartwheel_refused_total"); len(refused) != 1 {
		t.Errorf("the server refused %v, not just as overloaded", refused)
	}
	if r.In != room {
		t.Errorf("%d clients say that they are served, not %d", r.In, room)
	}
	figure(t, 18, "listening %s after SIGKILL; %d of %d clients back within %s, never more than %v at a time, %v "+
		"refused (3020: %d), %d dials failed while it was away",
		time.Duration(started-killed).Round(time.Millisecond), room, herdSize, took.Round(time.Millisecond), most,
		m.by("heartwheel_refused_total")["overloaded"], r.Goaways[codec.CodeOverloaded], r.Failed)
}

// holdPort returns an address whose port no other socket gets until the test ends: a
// socket that never listens is bound to it. Servers may listen beside that, as
// all of them have SO_REUSEADDR, and a socket bound to port 0 gets another.
func holdPort(t testing.TB) (addr string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}
