package faults

import (
	"testing"
	"time"
)

// TestWheelFails breaks the timing wheel of the real command, inside the module
// that it comes from (testdata/timingwheel): its goroutine stops, it locks up
// so that its callers hang too, it panics when it is called. The watchdog
// replaces it within rebuildTime, and no deadline is met later for it.
//
// A panic of the module's own goroutine is no case: nothing in a Go process can
// survive that.
func TestWheelFails(t *testing.T) {
	parallelSmoke(t)
	server := built(t, faultyWheel)
	kinds := []string{"stall", "lockup", "panic"}
	var runs []*faultRun
	for _, kind := range kinds {
		runs = append(runs, startFaultRun(t, server, func(age time.Duration) string {
			return "FAULTS_WHEEL=" +
				kind + "," + age.String()
		}))
	}
	for i, r := range runs {
		t.Run(kinds[i], func(t *testing.T) {
			got := r.judge(t, 0)
			// A wheel without a processor for that long is replaced as well.
			most := 1.0
			for _, b := range r.w.all {
				if b.longest+b.stolen >= lateTicks*tick {
					most++
				}
			}
			if n := r.rebuilds; n < 1 || n > most {
				t.Errorf("the timing wheel was replaced %v times for one fault; what was measured allows %v", n, most)
			}
			took := rebuiltWithin(t, r.s)
			// The watchdog too may have had to wait for a processor.
			late := heldUp(r.w.all, r.from, r.to+int64(rebuildTime+tick))
			if took > rebuildTime+late {
				t.Errorf("the timing wheel was replaced %s after it had failed; the promise is %s, and %s come from "+
					"measurements", took, rebuildTime, late)
			}
			figure(t, 5, "%s: replaced after %s; %s", kinds[i], took.Round(time.Millisecond), got)
		})
	}
}

// rebuiltWithin returns the time from the fault to the new timing wheel, by the
// server's clock.
func rebuiltWithin(t *testing.T, s *serverProcess) time.Duration {
	t.Helper()
	var failed, replaced time.Time
	for _, line := range s.logLines() {
		switch {
		case line.msg == "timing wheel fails" && failed.IsZero():
			failed = line.time
		case line.msg == "wheel: timing wheel replaced" && replaced.IsZero() && !failed.IsZero():
			replaced = line.time
		}
	}
	if failed.IsZero() || replaced.IsZero() {
		t.Fatal("the log does not say when the timing wheel failed and when it was replaced")
	}
	return replaced.Sub(failed)
}
