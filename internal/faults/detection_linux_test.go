package faults

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// A detection is how the death of one silent peer was noticed.
type detection struct {
	silence
	timeout time.Duration
	lateBy  time.Duration // when it was seen, counted from the end of its timeout
	bound   time.Duration // what lateBy may be
	widened time.Duration // the part of bound that comes from measurements
}

// due returns the first and the last moment at which its timeout may have run
// out by the server's clock: its last beat was read after it was written and
// before it was answered.
func (d *detection) due() (first, last int64) {
	return d.LastBeat + int64(d.timeout), d.Answered + int64(d.timeout)
}

// judge holds each silent peer against the promise: declared dead never before
// the timeout (or r.early before it), and at most lateTicks after it. The late edge is widened, for
// each peer on its own, by what was measured while it was the server's turn:
// how long its last beat took to be answered, what held the server up, how
// long the client did not look; and by what extra adds.
//
// It skips the test if the client was so late with a beat that the server may
// rightly have taken a live peer for dead.
func judge(t *testing.T, r *fleetReport, all []delay, beat, timeout time.Duration,
	extra func(*detection) time.Duration) []*detection {
	t.Helper()
	if r.Latest >= timeout-beat {
		t.Skipf("too slow a machine to judge: the client did not beat for %s", r.Latest)
	}
	for _, wrong := range r.Wrong {
		t.Error(wrong)
	}
	if more := r.WrongN - len(r.Wrong); more > 0 {
		t.Errorf("and %d times more", more)
	}
	var ds []*detection
	for _, s := range r.Silent {
		d := &detection{silence: s, timeout: timeout}
		if s.Answered == 0 {
			t.Error("the last beat of a silent peer was not answered")
			continue
		}
		if s.Seen == 0 {
			t.Errorf("a silent peer was not closed, %s after its last beat", time.Duration(monotonic()-s.LastBeat))
			continue
		}
		if s.How != "reset" {
			t.Errorf("a silent peer's connection ended with %s, not a reset", s.How)
		}
		first, last := d.due()
		d.lateBy = time.Duration(s.Seen - first)
		d.widened = time.Duration(last-first) + time.Duration(s.Seen-s.Before) +
			credited(all, s.LastBeat, s.Before) + heldUp(all, first, s.Before)
		if extra != nil {
			d.widened += extra(d)
		}
		d.bound = lateTicks*tick + d.widened
		if d.lateBy < -r.early {
			t.Errorf("a silent peer was closed %s before its timeout of %s was over", -d.lateBy, timeout)
		}
		if d.lateBy > d.bound {
			t.Errorf("a silent peer was closed %s after its timeout was over; the bound is %s, "+
				"%s of it from measurements",
				d.lateBy, d.bound, d.widened)
		}
		ds = append(ds, d)
	}
	return ds
}

// spread prints the smallest, the middle, the 99th of 100 and the largest.
func spread(ds []*detection, of func(*detection) time.Duration) string {
	if len(ds) == 0 {
		return "none"
	}
	all := make([]time.Duration, 0, len(ds))
	for _, d := range ds {
		all = append(all, of(d).Round(100*time.Microsecond))
	}
	slices.Sort(all)
	at := func(p float64) time.Duration { return all[int(p*float64(len(all)-1)+0.5)] }
	return fmt.Sprintf("min %s, p50 %s, p99 %s, max %s", all[0], at(0.5), at(0.99), all[len(all)-1])
}

func lateBy(d *detection) time.Duration { return d.lateBy }
func bound(d *detection) time.Duration  { return d.bound }
