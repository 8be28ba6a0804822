package faults

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// TestWorkersFull holds many clients that come back whenever they are cut off,
// kills one worker, and then replaces all of them: only the clients of the one
// that was killed lose their connection without GOAWAY, no connect is refused, and
// in the end all are back.
func TestWorkersFull(t *testing.T) {
	parallelSmoke(t)
	n, conns, processes := sized(3, 3, 12), sized(200, 600, 100_000), sized(1, 2, 8)
	drain := sized(time.Second, time.Second, 10*time.Second)
	f := startWorkers(t, n, "--drain", drain.String(), "--spread", drain.String(), "--beat", "4m", "--timeout", "10m")
	herds := startHerds(t, f.serverProcess, processes, conns, conns, "-reconnect", "-spread", drain.String())
	before := f.workers()
	fullest := slices.MaxFunc(before, func(a, b workerCheck) int { return a.Connections - b.Connections })
	t.Logf("%d connections over %d workers, the fullest %d, %.3f of the mean", conns, n, fullest.Connections,
		float64(fullest.Connections)*float64(n)/float64(conns))

	quiet, lost := f.probeWorkers(64, func() { time.Sleep(2 * time.Second) })
	if lost > 0 {
		t.Errorf("%d of the probes lost their connection while nothing happened", lost)
	}
	var victim workerCheck
	skip := len(f.logLines())
	killed := time.Now()
	during, lost := f.probeWorkers(64, func() {
		now := f.workers()
		victim = now[slices.IndexFunc(now, func(w workerCheck) bool { return w.PID == fullest.PID })]
		f.signal(t, victim.PID, syscall.SIGKILL)
		f.awaitLine("that it has ended", skip, func(l logLine) bool {
			return strings.HasPrefix(l.msg,
				"worker ended; connections wait")
		})
		f.awaitReady()
		f.await("most clients are back", func(m metrics) bool {
			return m.value("heartwheel_connections") >= float64(conns)
		})
	})
	// the probes have left
	f.await("all clients are back", func(m metrics) bool { return m.value("heartwheel_connections") == float64(conns) })
	silently := victim.Connections - lost
	t.Logf("a worker killed: %d clients cut off, all back after %s; beats of the others 99 %% within %s, "+
		"most %s; before that %s and %s",
		silently, time.Since(killed).Round(time.Millisecond), quantile(during, 0.99), quantile(during, 1),
		quantile(quiet, 0.99), quantile(quiet, 1))

	skip = len(f.logLines())
	f.signal(t, f.pid(), syscall.SIGUSR2)
	done := f.awaitLine("the end of the replacement", skip, func(l logLine) bool { return l.msg == "workers replaced" })
	f.await("all are back", func(m metrics) bool { return m.value("heartwheel_connections") == float64(conns) })
	for _, w := range f.workers() {
		if slices.ContainsFunc(before, func(b workerCheck) bool { return b.PID == w.PID }) {
			t.Errorf("worker %d was not replaced", w.Worker)
		}
	}
	var r herdReport
	for _, h := range herds {
		h.report(&r)
	}
	goaways := r.Goaways[codec.CodeDraining]
	t.Logf("%d workers replaced in %s with --drain %s: %d GOAWAYs, %d connects, %d failed", n, done.took,
		drain, goaways, r.Dials, r.Failed)
	if r.Failed > 0 {
		t.Errorf("%d connects failed", r.Failed)
	}
	if r.In != conns {
		t.Errorf("%d clients are connected in the end, of %d", r.In, conns)
	}
	if goaways < conns || len(r.Goaways) != 1 {
		t.Errorf("the clients got %v", r.Goaways)
	}
	if got, want := len(r.EndedAt), goaways+silently; got != want {
		t.Errorf("%d connections ended; %d after GOAWAY, and the worker that was killed had %d", got, goaways, silently)
	}
}

// probeWorkers measures beats of n connections while during runs. It returns
// those of the connections that lasted, and how many did not.
func (f *workerSet) probeWorkers(n int, during func()) (all []time.Duration, lost int) {
	f.t.Helper()
	quit, results := make(chan struct{}), make(chan probed, n)
	var probes []*conn
	for range n {
		c := dial(f.t, f.addr)
		c.echo()
		probes = append(probes, c)
		go func() {
			all, err := c.beatEvery(50*time.Millisecond, quit)
			results <- probed{all: all, err: err}
		}()
	}
	during()
	close(quit)
	for range n {
		if r := <-results; r.err != nil {
			lost++
		} else {
			all = append(all, r.all...)
		}
	}
	for _, c := range probes {
		c.reset()
	}
	return all, lost
}
