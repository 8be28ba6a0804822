package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestClockSteps steps the wall clock of the real command, as an administrator
// or a time daemon may: no live peer is killed, and dead ones are closed within
// the bound before, around and after the step.
func TestClockSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the standard library anew")
	}
	overlay := clockOverlay(t)
	showStep(t, buildStepping(t, overlay, "./faults/testdata/clockstep"))
	server := buildStepping(t, overlay, ".")
	// All at the same time, whatever -parallel says.
	var runs []*stepRun
	for _, seconds := range []int{-3600, -60, 60, 3600} {
		runs = append(runs, startStepRun(t, server, seconds))
	}
	for _, r := range runs {
		t.Run(fmt.Sprintf("%+d s", r.seconds), r.judge)
	}
}

// showStep proves that the overlay steps the wall clock and nothing else, and
// that the step matters: a bare timing wheel does not bear it.
func showStep(t *testing.T, program string) {
	t.Helper()
	const delay = 20 * time.Second
	cmd := exec.Command(program, "-timer", delay.String(), "-limit", "25s")
	cmd.Env = append(ordinaryEnv(), stepAt("1s", 60)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct{ Wall, Mono, Fired time.Duration }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	// A second is room for the real clock, which may be adjusted meanwhile.
	if step := got.Wall - got.Mono; step < 59*time.Second || step > 61*time.Second {
		t.Fatalf("the overlay does not work: %s passed by the wall clock and %s by the monotonic one, which is not 60 s apart", got.Wall, got.Mono)
	}
	if got.Mono > 50*time.Second {
		t.Fatalf("the monotonic clock says that %s have passed: it has stepped too", got.Mono)
	}
	if got.Fired == 0 || got.Fired >= delay {
		t.Errorf("a bare timing wheel bears a step of 60 s: a timer of %s fired after %s", delay, got.Fired)
	}
	t.Logf("bare timing wheel, +60 s at 1 s: a timer of %s fired after %s", delay, got.Fired.Round(time.Millisecond))
}

const (
	stepBeat    = time.Second
	stepTimeout = 2500 * time.Millisecond
	stepAge     = 5 * time.Second // of the server, at the step
	stepRebuild = 5 * tick        // the watchdog's promise
)

// stepPeers is how many peers each of the servers has.
func stepPeers() (live, silent int) {
	if *long {
		return 1800, 200
	}
	return 200, 50
}

// A stepRun is a server whose wall clock steps, and its peers.
type stepRun struct {
	seconds int
	s       *serverProcess
	f       *runningFleet
	w       *watcher
	seed    uint64

	// The step comes between these two moments (monotonic): the server began to
	// age after it was started and before its first line was read.
	from, to int64
}

func startStepRun(t *testing.T, binary string, seconds int) *stepRun {
	t.Helper()
	r := &stepRun{seconds: seconds, seed: rand.Uint64()}
	cmd := exec.Command(binary, serverArgs("--beat", stepBeat.String(), "--timeout", stepTimeout.String(), "--drain", "1s")...)
	cmd.Env = stepAt(stepAge.String(), seconds)
	start := monotonic()
	r.s = startCommand(t, cmd)
	r.from = start + int64(stepAge)
	r.to = monotonic() + int64(stepAge)

	rnd := rand.New(rand.NewPCG(r.seed, 2))
	live, silent := stepPeers()
	spec := fleetSpec{Addr: r.s.addr, Conns: live + silent, Beat: stepBeat, Epoch: start, GiveUp: stepTimeout + 30*time.Second, Seed: r.seed}
	for i := range silent {
		stop := time.Second + time.Duration(rnd.Int64N(int64(stepAge+2*time.Second)))
		if i%2 == 0 { // the timeout runs out within 1.5 s of the step
			stop = stepAge - stepTimeout - stepBeat/2 + time.Duration(rnd.Int64N(int64(3*time.Second)))
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

func (r *stepRun) judge(t *testing.T) {
	t.Logf("seed %d", r.seed)
	if err := r.f.wait(r.f.settled, 2*limit); err != nil {
		t.Fatal(err)
	}
	m := r.s.metrics()
	r.s.check()
	report, err := r.f.finish()
	if err != nil {
		t.Fatal(err)
	}

	live, silent := stepPeers()
	inRebuild, needed := 0, 0
	ds := judge(t, report, r.w.stop(), stepBeat, stepTimeout, func(d *detection) time.Duration {
		// What is due when the wheel has failed waits for the new one. What was
		// due less than lateTicks before may be on its way through the old one.
		first, last := d.due()
		if last+int64(lateTicks*tick) < r.from || first > r.to+int64(stepRebuild) {
			return 0
		}
		inRebuild++
		if d.lateBy > lateTicks*tick+d.widened {
			needed++
		}
		return stepRebuild
	})
	if report.Live != live {
		t.Errorf("%d peers were alive to the end, not %d", report.Live, live)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(silent) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, silent)
	}
	if n := m.value("heartwheel_connections"); n != float64(live) {
		t.Errorf("heartwheel_connections is %v, not %d", n, live)
	}
	checkLateness(t, m, ds)
	if code := r.s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", r.s.cmd.ProcessState)
	}
	checkStepped(t, r.s, r.seconds)

	figure(t, 4, "clock stepped by %+d s: %d of %d live peers closed; %d dead ones closed after the timeout by %s",
		r.seconds, live-report.Live, live, len(ds), spread(ds, lateBy))
	t.Logf("bound:                       %s (%s and what was measured; %d were due around the step, %d of them took more than that)",
		spread(ds, bound), lateTicks*tick, inRebuild, needed)
	t.Logf("wheel rebuilds %v, stalls %v, averted %v", m.value("heartwheel_wheel_rebuilds_total"),
		m.sum("heartwheel_stalls_total"), m.by("heartwheel_expiry_averted_total"))
}

// checkStepped proves by the times in its log that the server's wall clock was
// right at first and had stepped in the end.
func checkStepped(t *testing.T, s *serverProcess, seconds int) {
	t.Helper()
	log := s.logLines()
	step := time.Duration(seconds) * time.Second
	ahead := func(line logLine) time.Duration { return line.time.Sub(line.read) }
	first, last := ahead(log[0]), ahead(log[len(log)-1])
	if moved := last - first; moved.Abs() < step.Abs()/2 || moved.Abs() > step.Abs()*2 || (moved < 0) != (step < 0) {
		t.Errorf("by its log the server's clock moved by %s, not %s; the last line is %s", moved, step, log[len(log)-1].text)
	}
}
