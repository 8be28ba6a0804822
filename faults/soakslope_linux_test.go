package faults

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// A soakRSS is the memory in use at one moment, in bytes.
type soakRSS struct {
	at  time.Duration // since the soak began
	rss float64
}

// A slope is that of memory in use, in parts of the first of it an hour.
type slope struct {
	median, low, high float64 // low and high enclose 95 %
}

// slopeOf is the estimator of Theil and Sen, with Sen's interval: the median of
// the slopes between any two samples does not mind a few that are far off.
func slopeOf(samples []soakRSS) slope {
	var all []float64
	for i, a := range samples {
		for _, b := range samples[:i] {
			all = append(all, (a.rss-b.rss)/(a.at-b.at).Hours()/samples[0].rss)
		}
	}
	if len(all) == 0 {
		return slope{low: math.Inf(-1), high: math.Inf(1)}
	}
	slices.Sort(all)
	n := float64(len(samples))
	width := 1.96 * math.Sqrt(n*(n-1)*(2*n+5)/18)
	at := func(i float64) float64 { return all[min(max(int(i), 0), len(all)-1)] }
	pairs := float64(len(all))
	return slope{at(pairs / 2), at((pairs - width) / 2), at((pairs+width)/2 + 1)}
}

// judgeRSS wants the slope not to be over 1 %/h. It returns the figure, and how
// much the memory has grown from the first third of the samples to the last.
func judgeRSS(t *testing.T, samples []soakRSS) (text string, growth float64) {
	t.Helper()
	if len(samples) < 3 {
		t.Errorf("only %d lulls after the warm-up", len(samples))
		return "unknown", 0
	}
	third := len(samples) / 3
	first, last := medianRSS(samples[:third]), medianRSS(samples[len(samples)-third:])
	growth = last/first - 1
	s := slopeOf(samples)
	// Fewer say nothing about an hour: one page more is over 1 %/h of 20 MB in
	// a minute.
	over := samples[len(samples)-1].at - samples[0].at
	if over >= 5*time.Minute && s.low > 0.01 {
		t.Errorf("the memory in use grows by %.1f %%/h, 95 %% of %.1f to %.1f", 100*s.median, 100*s.low, 100*s.high)
	}
	return fmt.Sprintf("%.1f MiB at first and %.1f MiB at last (%+.1f %%) over %s, slope %+.1f %%/h (95 %%: %+.1f to %+.1f)",
		first/(1<<20), last/(1<<20), 100*growth, over.Round(time.Second), 100*s.median, 100*s.low, 100*s.high), growth
}

func medianRSS(samples []soakRSS) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, s.rss)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func TestSlope(t *testing.T) {
	var samples []soakRSS
	for i := range 61 {
		noise := 4096 * float64(i*7919%13-6)
		samples = append(samples, soakRSS{time.Duration(i) * time.Minute, 20e6 + float64(i)*20e6*0.03/60 + noise})
	}
	samples[20].rss *= 2 // one that is far off
	if s := slopeOf(samples); s.low < 0.025 || s.low > s.median || s.high > 0.035 || math.Abs(s.median-0.03) > 0.002 {
		t.Errorf("3 %%/h is taken for %+v", s)
	}
}
