package faults

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// TestClockSteps steps the wall clock of the real command, as an administrator
// or a time daemon may: no live peer is killed, and dead ones are closed within
// the bound before, around and after the step. In the smoke form only the timing
// wheel sees the step, as the other forms build the standard library anew.
func TestClockSteps(t *testing.T) {
	parallelSmoke(t)
	server, env := built(t, faultyWheel), stepWheel
	if size != smoke {
		showStep(t, built(t, func() (string, error) {
			return buildWith(toolchainFlags, "clockstep", "./internal/faults/testdata/clockstep")
		}))
		server, env = built(t, faultyCommand), stepAll
	}
	// All at the same time, whatever -parallel says.
	steps := []int{-3600, -60, 60, 3600}
	var runs []*faultRun
	for _, seconds := range steps {
		runs = append(runs, startFaultRun(t, server, func(age time.Duration) string { return env(age, seconds) }))
	}
	for i, r := range runs {
		t.Run(fmt.Sprintf("%+d s", steps[i]), func(t *testing.T) {
			// What is due when the wheel has failed waits for the new one. What
			// was due less than lateTicks before may be on its way through the
			// old one.
			got := r.judge(t, rebuildTime)
			if size == smoke {
				r.s.awaitLine("the step", 0, func(l logLine) bool { return l.msg == "timing wheel fails" })
			} else {
				checkStepped(t, r.s, steps[i])
			}
			figure(t, 4, "clock stepped by %+d s: %s", steps[i], got)
		})
	}
}

// stepAll is the environment of a process whose wall clock steps at that age,
// and stepWheel of one where only the timing wheel sees it.
func stepAll(age time.Duration, seconds int) string {
	return fmt.Sprintf("%s=%s,%+ds", stepEnv, age, seconds)
}

func stepWheel(age time.Duration, seconds int) string {
	return fmt.Sprintf("FAULTS_WHEEL=%+ds,%s", seconds, age)
}

// showStep proves that the overlay steps the wall clock and nothing else, and
// that the step matters: a bare timing wheel does not bear it.
func showStep(t *testing.T, program string) {
	t.Helper()
	const delay = 20 * time.Second
	cmd := exec.Command(program, "-timer", delay.String(), "-limit", "25s")
	cmd.Env = append(ordinaryEnv(), stepAll(time.Second, 60))
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
		t.Fatalf("the overlay does not work: %s passed by the wall clock and %s by the monotonic one, which is not 60 "+
			"s apart", got.Wall, got.Mono)
	}
	if got.Mono > 50*time.Second {
		t.Fatalf("the monotonic clock says that %s have passed: it has stepped too", got.Mono)
	}
	if got.Fired == 0 || got.Fired >= delay {
		t.Errorf("a bare timing wheel bears a step of 60 s: a timer of %s fired after %s", delay, got.Fired)
	}
	t.Logf("bare timing wheel, +60 s at 1 s: a timer of %s fired after %s", delay, got.Fired.Round(time.Millisecond))
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
		t.Errorf("by its log the server's clock moved by %s, not %s; the last line is %s",
			moved, step, log[len(log)-1].text)
	}
}
