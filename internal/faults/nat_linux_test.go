package faults

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"heartwheel/internal/netlab"
)

// TestNATForgets puts a NAT between clients and the real command. Clients that
// beat more slowly than it forgets are dead after their first beat, without
// knowing it: the server closes them within the bound. Those that beat faster
// live for twenty times as long as it remembers, eight times in the smoke form.
func TestNATForgets(t *testing.T) {
	t.Parallel()
	mapping, conns := sized(time.Second, time.Second, 5*time.Second), sized(10, 20, 200)
	lives := sized[time.Duration](8, 20, 20) * mapping
	// A mapping begins anew with the acknowledgement of an answer, which comes
	// up to 200 ms after it.
	slow, fast, timeout := mapping*8/5, mapping/4, mapping*4
	lab := netlab.NAT(t, mapping)
	s := startServerIn(t, lab.Server, exec.Command(binary(t), "serve", "--listen", listenOn(lab.Server),
		"--ops", "127.0.0.1:0", "--log-format", "json", "--beat", slow.String(), "--timeout",
		timeout.String(), "--drain", "1s"))
	w := watch(t, s)
	start := time.Now()
	living := startBeatClients(t, lab.Client, s.addr, conns, fast)
	dying := startBeatClients(t, lab.Client, s.addr, conns, slow)
	sockets := watchSockets(t, s)
	sockets.await(conns, timeout+limit)
	ds := judge(t, &fleetReport{Silent: dying.silences(sockets)}, w.stop(), slow, timeout, nil)
	for _, b := range dying.all {
		b.mu.Lock()
		if b.beats != 1 {
			t.Errorf("%d beats of a client that is slower than the NAT were answered", b.beats)
		}
		b.mu.Unlock()
	}
	figure(t, 7, "NAT forgets after %s, beats every %s, T %s: %d of %d closed, %s after T (bound %s)",
		mapping, slow, timeout, len(ds), conns, spread(ds, lateBy), spread(ds, bound))

	time.Sleep(time.Until(start.Add(lives + fast*2)))
	alive, beats, longest := 0, 0, time.Duration(0)
	for _, b := range living.all {
		b.mu.Lock()
		if b.ended == nil && monotonic()-b.answered < int64(mapping) {
			alive++
		}
		beats += b.beats
		longest = max(longest, b.longest)
		b.mu.Unlock()
	}
	m := s.metrics()
	figure(t, 7, "NAT forgets after %s, beats every %s: %d of %d alive after %s, %d beats answered, "+
		"longest pause between two %s",
		mapping, fast, alive, conns, time.Since(start).Round(100*time.Millisecond), beats,
		longest.Round(time.Millisecond))
	if alive != conns && longest >= mapping {
		t.Skipf("too slow a machine to judge the fast ones: they did not beat for %s", longest)
	}
	if alive != conns || m.value("heartwheel_connections") != float64(conns) {
		t.Errorf("%d of %d fast ones live, the server holds %v", alive, conns, m.value("heartwheel_connections"))
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(conns) {
		t.Errorf("the server has closed %v, not just %d for idle_timeout", closed, conns)
	}
	s.check()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
}
