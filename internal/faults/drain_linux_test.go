package faults

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// drainPace is the part of --drain in which GOAWAY is sent, drainStep how
// often the server looks whose turn it is (server/drain.go).
const (
	drainPace = 0.9
	drainStep = 20 * time.Millisecond
)

// TestDrain is case 16: SIGTERM. The server sends GOAWAY to its clients at an even
// pace: in each tenth of the time for that, a tenth ± a fifth of them get it. It
// exits in time, with 0.
func TestDrain(t *testing.T) {
	parallelSmoke(t)
	conns, processes := sized(1000, 2000, 15_000), sized(1, 1, 2)
	drain := sized(4*time.Second, 10*time.Second, 30*time.Second)
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", drain.String())
	herds := startHerds(t, s, processes, conns, conns)
	w := watch(t, s)
	start := monotonic()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	window := time.Duration(drainPace * float64(drain))
	time.Sleep(window)
	delays := w.stop() // before the server ends
	select {
	case <-s.exited:
	case <-time.After(drain + limit):
		t.Fatalf("the server has not ended %s after SIGTERM", drain+limit)
	}
	took, code := time.Duration(monotonic()-start), s.cmd.ProcessState.ExitCode()
	var r herdReport
	for _, h := range herds {
		h.report(&r)
	}
	lag := heldUp(delays, start, monotonic()) + r.Late

	if code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	if took > drain+lag {
		t.Errorf("it ended after %s; --drain is %s, and %s were measured", took, drain, lag)
	}
	if len(r.GoawayAt) != conns || r.Goaways[codec.CodeDraining] != conns {
		t.Errorf("%d GOAWAY came to %d clients: %v", len(r.GoawayAt), conns, r.Goaways)
	}
	if r.Ends["end of stream"] != conns {
		t.Errorf("the connections ended so: %v", r.Ends)
	}
	least, most := r.shares(t, start, window, delays)
	figure(t, 16, "%d GOAWAYs within %s of --drain %s, in each tenth of %s between %.1f and %.1f %% of them; ended "+
		"with %d after %s; the clients' timers were %s late at most",
		conns, time.Duration(slices.Max(r.GoawayAt)-start).Round(time.Millisecond), drain, window,
		100*least, 100*most, code, took.Round(time.Millisecond), r.Late.Round(100*time.Microsecond))
}

// shares returns the smallest and the largest share of the GOAWAYs in any
// tenth of window. One that was due before a tenth's edge may come after it, by the
// server's step, by what delayed the server just before, and by the client's lag. So
// a tenth has too few if there are too few around it too, and too many if they
// are too many without its edges.
func (r *herdReport) shares(t *testing.T, start int64, window time.Duration, delays []delay) (least, most float64) {
	t.Helper()
	if len(r.GoawayAt) == 0 {
		return 0, 0
	}
	first := slices.Min(r.GoawayAt) // the server's own start; what lies before is its time to notice the signal
	if wait := time.Duration(first - start); wait > time.Second {
		t.Errorf("the first GOAWAY came %s after the signal", wait)
	}
	share := func(from, to int64) float64 {
		n := 0
		for _, at := range r.GoawayAt {
			if at >= from && at < to {
				n++
			}
		}
		return float64(n) / float64(len(r.GoawayAt))
	}
	least = 1
	for i := range int64(10) {
		from, to := first+i*int64(window)/10, first+(i+1)*int64(window)/10
		exact := share(from, to)
		least, most = min(least, exact), max(most, exact)
		late := func(edge int64) int64 {
			return int64(drainStep + r.Late + heldUp(delays, edge-int64(window)/10, edge))
		}
		if few := share(from-late(from), to+late(to)); few < 0.08 {
			t.Errorf("tenth %d: only %.1f %% got GOAWAY", i+1, 100*few)
		}
		if many := share(from+late(from), to-late(to)); many > 0.12 {
			t.Errorf("tenth %d: %.1f %% got GOAWAY", i+1, 100*many)
		}
	}
	return least, most
}

// TestSecondSignal: while a drain goes on, a second signal ends the server at
// once, and it says that this was not in order.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	s := startServer(t, binary(t), "--drain", "1m")
	dial(t, s.addr).echo() // its GOAWAY comes at some time of the drain
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	draining := func(line logLine) bool { return strings.HasPrefix(line.msg, "draining") }
	for end := time.Now().Add(limit); !slices.ContainsFunc(s.logLines(), draining); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not say that it drains")
		}
	}
	start := time.Now()
	code := s.stop(syscall.SIGTERM)
	took := time.Since(start)
	if code == 0 {
		t.Error("it ended with 0")
	}
	// The rest of the drain would take most of a minute.
	if took > 10*time.Second {
		t.Errorf("it ended %s after the second signal", took)
	}
	figure(t, 16, "ended with %d %s after a second signal", code, took.Round(time.Millisecond))
}
