package engine

import (
	"testing"
	"time"
)

// dueBy counts the events of p, of n at most, with due(k) <= elapsed.
func dueBy(p pacer, elapsed time.Duration, n int64) int64 {
	lo, hi := int64(0), n // due(lo-1) <= elapsed < due(hi)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if p.due(mid) <= elapsed {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

func TestPacersAreDue(t *testing.T) {
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		p    pacer
		n    int64
		at   []time.Duration // how much has passed
		want []int64         // how many are due then, the one at 0 included
	}{
		{"constant", rampOf(Rate{1000, 1000}, 500), 500,
			[]time.Duration{0, ms - 1, ms, 10 * ms, 499 * ms, time.Hour}, []int64{1, 1, 2, 11, 500, 500}},
		// 1k:3k in 1 s: after half of it 1000 × ½ + 2000 × ¼ ÷ 2 = 750.
		{"rising", rampOf(Rate{1000, 3000}, 2000), 2000,
			[]time.Duration{0, 500*ms - 1, 500 * ms, time.Second, time.Hour}, []int64{1, 750, 751, 2000, 2000}},
		{"falling", rampOf(Rate{3000, 1000}, 2000), 2000,
			[]time.Duration{0, 500 * ms, time.Second}, []int64{1, 1251, 2000}},
		{"from nothing", rampOf(Rate{0, 2000}, 1000), 1000,
			[]time.Duration{0, 500 * ms, time.Second}, []int64{1, 251, 1000}},
		{"goes on after the ramp", ramp{Rate{0, 1000}, time.Second}, 10000,
			[]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, []int64{501, 1501, 2501}},
		{"uniform", uniform{4, time.Second}, 1 << 30,
			[]time.Duration{0, 249 * ms, 250 * ms, 999 * ms, time.Second, 10 * time.Second},
			[]int64{1, 1, 2, 4, 5, 41}},
		{"together", synchronous{4, time.Second}, 1 << 30,
			[]time.Duration{0, 999 * ms, time.Second, 10 * time.Second}, []int64{4, 4, 8, 44}},
	} {
		for i, at := range c.at {
			// A nanosecond on either side is the rounding of the square root.
			got := dueBy(c.p, at, c.n)
			if near := dueBy(c.p, at+time.Nanosecond, c.n); got != c.want[i] && near != c.want[i] {
				t.Errorf("%s: after %s %d are due, want %d", c.name, at, got, c.want[i])
			}
		}
	}
}

func TestPacersNeverGoBack(t *testing.T) {
	for _, p := range []pacer{
		rampOf(Rate{1, 200000}, 1000000), rampOf(Rate{200000, 1}, 1000000), rampOf(Rate{0, 5}, 100),
		ramp{Rate{3, 3}, 0}, uniform{999983, time.Hour}, uniform{1, time.Millisecond}, synchronous{7, time.Minute},
	} {
		last := p.due(0)
		if last != 0 {
			t.Errorf("%v: the first is due at %s", p, last)
		}
		for k := int64(1); k < 3000000; k += 1 + k/100 {
			due := p.due(k)
			if due < last {
				t.Fatalf("%v: %d is due at %s, but one before at %s", p, k, due, last)
			}
			last = due
		}
	}
}

func TestUniformKeepsThePhase(t *testing.T) {
	u := uniform{1000003, 30 * time.Second}
	for _, i := range []int64{0, 1, 999, 1000002} {
		for round := range int64(100) {
			if got, want := u.due(i+round*u.n)-u.due(i), time.Duration(round)*u.interval; got != want {
				t.Fatalf("beat %d of connection %d is %s after its first, want %s", round, i, got, want)
			}
		}
	}
}
