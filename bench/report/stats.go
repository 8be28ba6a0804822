package report

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Median is the middle of the values, or the mean of the two in the middle. It
// is NaN of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// A Summary is the median of some runs and their spread.
type Summary struct {
	N                int
	Median, Min, Max float64
	Values           []float64 // in the order of the rounds
}

// Summarize makes the Summary of values; of none it has N = 0 and NaN.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	return Summary{len(values), Median(values), slices.Min(values), slices.Max(values), values}
}

// An Interval is an estimate with the limits between which the true value lies
// with a confidence of 95 %. Without enough pairs, Known is false and the limits
// mean nothing.
type Interval struct {
	Mid, Low, High float64
	N              int // pairs
	Known          bool
}

// Numbers of the bootstrap. minPairs is how few pairs still make an interval:
// with fewer the limits would be no more than the pairs themselves.
const (
	resamples  = 10_000
	confidence = 0.95
	minPairs   = 4
)

// RatioInterval is the median of the ratios a[i] ÷ b[i], and its percentile
// bootstrap: the pairs are drawn anew, with replacement, 10,000 times, and the
// limits are the 2.5th and the 97.5th percentile of the medians. Each pair is of
// one round, so what a round had in common cancels. Pairs with a zero are left
// out. The same input gives the same interval.
func RatioInterval(a, b []float64) Interval {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		if r := a[i] / b[i]; b[i] != 0 && a[i] != 0 && !math.IsNaN(r) && !math.IsInf(r, 0) {
			ratios = append(ratios, r)
		}
	}
	iv := Interval{Mid: Median(ratios), N: len(ratios)}
	if len(ratios) < minPairs {
		return iv
	}
	rng := rand.New(rand.NewPCG(1, 2))
	medians := make([]float64, resamples)
	drawn := make([]float64, len(ratios))
	for k := range medians {
		for i := range drawn {
			drawn[i] = ratios[rng.IntN(len(ratios))]
		}
		medians[k] = Median(drawn)
	}
	slices.Sort(medians)
	tail := (1 - confidence) / 2
	iv.Low, iv.High = medians[int(tail*resamples)], medians[int((1-tail)*resamples)-1]
	iv.Known = true
	return iv
}
