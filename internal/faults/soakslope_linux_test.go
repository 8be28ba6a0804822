package faults

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// A soakMemory is how much memory there is at one moment, in bytes.
type soakMemory struct {
	at   time.Duration // since the soak began
	rss  float64       // in use
	heap float64       // live after a collection
}

func rssOf(m soakMemory) float64  { return m.rss }
func heapOf(m soakMemory) float64 { return m.heap }

// A slope is in parts of the first memory in use, an hour.
type slope struct {
	median, low, high float64 // low and high enclose 95 %
}

// slopeOf is the estimator of Theil and Sen, with Sen's interval: the median of
// the slopes between any two samples does not mind a few that are far off.
func slopeOf(samples []soakMemory, of func(soakMemory) float64) slope {
	var all []float64
	for i, a := range samples {
		for _, b := range samples[:i] {
			all = append(all, (of(a)-of(b))/(a.at-b.at).Hours()/samples[0].rss)
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

func (s slope) String() string {
	return fmt.Sprintf("%+.1f %%/h (95 %%: %+.1f to %+.1f)", 100*s.median, 100*s.low, 100*s.high)
}

// judgeMemory wants no slope over 1 %/h, where enough is measured to tell. It
// returns the figure, and how much the memory in use has grown from the first
// third of the samples to the last.
func judgeMemory(t *testing.T, samples []soakMemory) (text string, growth float64) {
	t.Helper()
	third := len(samples) / 3
	first, last := medianOf(samples[:third], rssOf), medianOf(samples[len(samples)-third:], rssOf)
	rss, heap := slopeOf(samples, rssOf), slopeOf(samples, heapOf)
	over := samples[len(samples)-1].at - samples[0].at
	if over >= 5*time.Minute && heap.low > 0.01 {
		t.Errorf("the live heap grows by %s of the memory in use", heap)
	}
	if over >= 30*time.Minute && rss.low > 0.01 {
		t.Errorf("the memory in use grows by %s", rss)
	}
	growth = last/first - 1
	return fmt.Sprintf("RSS %.1f MiB at first, %.1f MiB at last (%+.1f %%) over %s, slope %s, of the live heap "+
		"(%.2f MiB at last) %s of RSS",
		first/(1<<20), last/(1<<20), 100*growth, over.Round(time.Second), rss,
		medianOf(samples[len(samples)-third:], heapOf)/(1<<20), heap), growth
}

func medianOf(samples []soakMemory, of func(soakMemory) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	slices.Sort(all)
	return all[len(all)/2]
}

func TestSlope(t *testing.T) {
	var samples []soakMemory
	for i := range 61 {
		noise := 4096 * float64(i*7919%13-6)
		samples = append(samples, soakMemory{at: time.Duration(i) * time.Minute, rss: 20e6 +
			float64(i)*20e6*0.03/60 + noise})
	}
	samples[20].rss *= 2 // an outlier
	if s := slopeOf(samples, rssOf); s.low < 0.025 || s.low > s.median || s.high > 0.035 ||
		math.Abs(s.median-0.03) > 0.002 {
		t.Errorf("3 %%/h is taken for %+v", s)
	}
}
