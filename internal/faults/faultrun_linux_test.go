package faults

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

const rebuildTime = 5 * tick // the watchdog's promise

// faultTimes are the beat interval and the timeout of a faultRun, and how old
// the server is when it happens.
func faultTimes() (beat, timeout, age time.Duration) {
	beat = sized(500*time.Millisecond, time.Second, time.Second)
	return beat, 5 * beat / 2, 5 * beat
}

// A faultRun is a server to which something happens at a certain age, and its
// peers: most beat, the others fall silent before, around and after that moment.
type faultRun struct {
	s            *serverProcess
	f            *runningFleet
	w            *watcher
	seed         uint64
	live, silent int
	rebuilds     float64 // set by judge

	// It happens between these two moments (monotonic): the server began to age
	// after it was started and before its first line was read.
	from, to int64
}

// startFaultRun starts a server whose environment asks for a fault, and the
// peers. The test's end ends both.
func startFaultRun(t *testing.T, binary string, env func(age time.Duration) string) *faultRun {
	t.Helper()
	beat, timeout, age := faultTimes()
	r := &faultRun{seed: rand.Uint64(), live: sized(50, 200, 1800), silent: sized(20, 50, 200)}
	cmd := exec.Command(binary, serverArgs("--beat", beat.String(), "--timeout", timeout.String(), "--drain",
		sized("100ms", "1s", "1s"))...)
	cmd.Env = []string{env(age)}
	start := monotonic()
	r.s = startCommand(t, cmd)
	r.from = start + int64(age)
	r.to = monotonic() + int64(age)

	rnd := rand.New(rand.NewPCG(r.seed, 2))
	spec := fleetSpec{Addr: r.s.addr, Conns: r.live + r.silent, Beat: beat, Epoch: start, GiveUp: timeout +
		30*time.Second, Seed: r.seed}
	for i := range r.silent {
		stop := beat + time.Duration(rnd.Int64N(int64(age+2*beat)))
		if i%2 == 0 { // the timeout runs out within 1.5 beats of it
			stop = age - timeout - beat/2 + time.Duration(rnd.Int64N(int64(3*beat)))
		}
		spec.Stops = append(spec.Stops, stop)
	}
	var err error
	if r.f, err = startFleet(spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := r.f.finish(); err != nil {
			t.Error(err)
		}
		r.f.close()
	})
	if err := r.f.wait(r.f.connected, limit); err != nil {
		t.Fatal(err)
	}
	r.w = watch(t, r.s)
	return r
}

// judge waits for the end, holds the server against its promises and stops it.
// What is due around the fault may be later by allowance. It returns the
// figures.
func (r *faultRun) judge(t *testing.T, allowance time.Duration) string {
	t.Helper()
	t.Logf("seed %d", r.seed)
	beat, timeout, _ := faultTimes()
	if err := r.f.wait(r.f.settled, 2*limit); err != nil {
		t.Fatal(err)
	}
	m := r.s.metrics()
	r.rebuilds = m.value("heartwheel_wheel_rebuilds_total")
	r.s.check()
	report, err := r.f.finish()
	if err != nil {
		t.Fatal(err)
	}

	around, needed := 0, 0
	ds := judge(t, report, r.w.stop(), beat, timeout, func(d *detection) time.Duration {
		first, last := d.due()
		if last+int64(lateTicks*tick) < r.from || first > r.to+int64(rebuildTime) {
			return 0
		}
		around++
		if d.lateBy > lateTicks*tick+d.widened {
			needed++
		}
		return allowance
	})
	if report.Live != r.live {
		t.Errorf("%d peers were alive to the end, not %d", report.Live, r.live)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(r.silent) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, r.silent)
	}
	if n := m.value("heartwheel_connections"); n != float64(r.live) {
		t.Errorf("heartwheel_connections is %v, not %d", n, r.live)
	}
	checkLateness(t, m, ds)
	if code := r.s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", r.s.cmd.ProcessState)
	}
	t.Logf("bound: %s (%s and what was measured; %d were due around the fault, %d of them took more than that)",
		spread(ds, bound), lateTicks*tick, around, needed)
	return fmt.Sprintf("%d of %d live peers closed; %d dead ones closed after the timeout by %s; "+
		"wheel rebuilds %v, stalls %v",
		r.live-report.Live, r.live, len(ds), spread(ds, lateBy), r.rebuilds, m.sum("heartwheel_stalls_total"))
}
