package faults

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestAllAtOnce lets every silent peer of the real command run into its timeout
// at the same tick, as near as clients can: they beat a last time all at once.
// The beats of others are answered meanwhile as if nothing were. Other work of
// the machine spoils a round, a server that is held up by its closing spoils
// each: one good round of up to four is enough. Which peers were closed has to be
// right in every one.
func TestAllAtOnce(t *testing.T) {
	const rounds = 4
	for round := 1; ; round++ {
		late := allAtOnce(t)
		switch {
		case late == "":
			t.Logf("good in round %d of at most %d", round, rounds)
			return
		case round == rounds || t.Failed():
			t.Errorf("in none of %d rounds others were served in time; the last one: %s", round, late)
			return
		}
	}
}

// allAtOnce is one round. It returns how others were not served in time.
func allAtOnce(t *testing.T) (late string) {
	t.Helper()
	const (
		most   = 50 * time.Millisecond // that 99 of 100 answers may take
		around = 500 * time.Millisecond
	)
	beatEvery := sized(600*time.Millisecond, 800*time.Millisecond, 3*time.Second)
	timeout := sized(1500*time.Millisecond, 2*time.Second, 7500*time.Millisecond)
	silent, others := sized(1000, 3000, 15_000), sized(100, 200, 1000)
	s := startServer(t, binary(t), "--beat", beatEvery.String(), "--timeout", timeout.String(), "--drain", "1s")
	dying, living, last := startDying(t, s, beatEvery, timeout, silent, others)
	w := watch(t, s)
	time.Sleep(time.Duration(last-monotonic()) + timeout/2)
	before := s.metrics()
	for _, f := range dying {
		f.wait("settled", limit+timeout)
	}
	m := s.metrics()
	s.check()
	living.wait("settled", limit)
	trace := living.finish()
	delays := w.stop()

	// No close can come before those that are done first: that takes the server
	// as much processor time as it took.
	const cpu = "process_cpu_seconds_total"
	work := seconds(m.value(cpu) - before.value(cpu))
	var ds []*detection
	for _, f := range dying {
		ds = append(ds, judge(t, f.finish(), delays, beatEvery, timeout,
			func(*detection) time.Duration { return work })...)
	}
	for _, wrong := range trace.Wrong {
		t.Error(wrong)
	}
	if len(ds) != silent || trace.Live != others {
		t.Fatalf("%d of %d silent peers were closed, and %d of %d others lived to the end",
			len(ds), silent, trace.Live, others)
	}
	first, final := firstToLast(ds, func(d *detection) int64 { return d.LastBeat })
	from, to := firstToLast(ds, func(d *detection) int64 { return d.Seen })
	from, to = from-int64(around/2), to+int64(around/2)
	raw := func(a answer) time.Duration { return a.Took }
	usual, _ := slowest99(trace.Trace, from-int64(around), from, raw)
	slow, n := slowest99(trace.Trace, from, to, raw)
	servers, _ := slowest99(trace.Trace, from, to, func(a answer) time.Duration {
		return a.Took - a.Away - withoutProcessor(delays, a.Sent, a.Sent+int64(a.Took))
	})
	if n == 0 || servers > most {
		late = fmt.Sprintf("99 of 100 of %d beats of others were answered within %s, less what was measured of this "+
			"machine: %s; the bound is %s", n, slow, servers, most)
	}
	held := time.Duration(0)
	for _, b := range delays {
		if b.from <= to && b.to >= from {
			held = max(held, b.longest+b.stolen)
		}
	}
	lag := lag99(before, m)
	if lag > most+held {
		late += fmt.Sprintf(" 99 of 100 calls of a loop were answered within %s; the bound is %s, and a thread waited "+
			"up to %s for a processor", lag, most, held)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(silent) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, silent)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 12, "%d peers beat a last time within %s and were closed within %s of each other, after the timeout by "+
		"%s; 99 of 100 of %d beats of %d others answered within %s (%s before; %s of it the server's "+
		"own); loop lag p99 at most %s",
		silent, round(final-first), round(to-from-int64(around)), spread(ds, lateBy), n, others,
		slow.Round(100*time.Microsecond), usual.Round(100*time.Microsecond),
		max(servers, 0).Round(100*time.Microsecond), lag)
	return late
}

// startDying starts the peers in processes of their own: those that beat a last
// time at the moment that it returns (monotonic), and those that go on.
func startDying(
	t *testing.T, s *serverProcess, beatEvery, timeout time.Duration, silent, others int,
) (dying []*fleetProcess, living *fleetProcess, last int64) {
	t.Helper()
	const (
		fleets    = 2
		otherBeat = 200 * time.Millisecond
	)
	// The moment of the last beats has to be known before all are connected.
	after := time.Second + time.Duration(silent)*500*time.Microsecond
	epoch, seed := monotonic(), rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range fleets {
		stops := slices.Repeat([]time.Duration{after}, silent/fleets)
		dying = append(dying, startFleetProcess(t, fleetSpec{Addr: s.addr, Conns: len(stops),
			Beat: beatEvery, Stops: stops,
			AtOnce: true, Epoch: epoch, GiveUp: timeout + 30*time.Second, Seed: seed + uint64(i)}))
	}
	living = startFleetProcess(t, fleetSpec{Addr: s.addr, Conns: others, Beat: otherBeat, Epoch: epoch,
		Seed: seed + fleets, Trace: true})
	for _, f := range append(dying, living) {
		f.wait("connected", limit)
	}
	if now := monotonic(); now >= epoch+int64(after) {
		t.Skipf("too slow a machine to judge: connecting %d peers took %s", silent+others, time.Duration(now-epoch))
	}
	return dying, living, epoch + int64(after)
}

func round(ns int64) time.Duration { return time.Duration(ns).Round(time.Millisecond) }

func firstToLast(ds []*detection, at func(*detection) int64) (first, last int64) {
	first, last = at(ds[0]), at(ds[0])
	for _, d := range ds {
		first, last = min(first, at(d)), max(last, at(d))
	}
	return first, last
}

// slowest99 is the most that 99 of 100 beats took which were written between two
// moments, and how many there were.
func slowest99(trace []answer, from, to int64, took func(answer) time.Duration) (time.Duration, int) {
	var all []time.Duration
	for _, a := range trace {
		if a.Sent >= from && a.Sent <= to {
			all = append(all, took(a))
		}
	}
	if len(all) == 0 {
		return 0, 0
	}
	slices.Sort(all)
	return all[(len(all)-1)*99/100], len(all)
}

// lag99 is how long a loop took at most to answer 99 of 100 calls between two
// readings, to the edge of the histogram.
func lag99(before, after metrics) time.Duration {
	const name = "heartwheel_loop_lag_seconds"
	bars, old := after.buckets(name), before.buckets(name)
	total := 0.0
	for i := range bars {
		bars[i].count -= old[i].count
		total += bars[i].count
	}
	rest := total / 100
	for i := len(bars) - 1; i >= 0; i-- {
		if rest -= bars[i].count; rest < 0 {
			return bars[i].high
		}
	}
	return 0
}

// withoutProcessor is how long one thread of a server may have waited for a
// processor between two moments. The samples at both ends count whole.
func withoutProcessor(all []delay, from, to int64) time.Duration {
	var d time.Duration
	for _, b := range all {
		if b.from <= to && b.to >= from {
			d += b.longest + b.stolen
		}
	}
	return d
}
