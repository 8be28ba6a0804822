package report

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1}, 2},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		if got := Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
	values := []float64{3, 1, 2}
	Median(values)
	if values[0] != 3 {
		t.Error("Median sorts the caller's values")
	}
}

func TestRatioInterval(t *testing.T) {
	for _, c := range []struct {
		name      string
		a, b      []float64
		mid       float64
		low, high float64 // 0: no interval
		n         int
	}{
		{"all the same", []float64{2, 4, 6, 8, 10}, []float64{1, 2, 3, 4, 5}, 2, 2, 2, 5},
		{"rounds differ, their ratios do not", []float64{10, 100, 1000, 10, 1},
			[]float64{20, 200, 2000, 20, 2}, 0.5, 0.5, 0.5, 5},
		// Of five ratios the median of a resample is an outermost one with a
		// chance of 5.8 %, more than the 2.5 % beyond each limit.
		{"five", []float64{1, 2, 3, 4, 5}, []float64{1, 1, 1, 1, 1}, 3, 1, 5, 5},
		{"one outlier stays in the limits", []float64{1, 1, 1, 1, 90}, []float64{1, 1, 1, 1, 1}, 1, 1, 90, 5},
		{"too few", []float64{1, 2, 3}, []float64{1, 1, 1}, 2, 0, 0, 3},
		{"zeros are left out", []float64{0, 2, 2, 2, 2}, []float64{1, 1, 1, 1, 0}, 2, 0, 0, 3},
		{"none", nil, nil, math.NaN(), 0, 0, 0},
	} {
		iv := RatioInterval(c.a, c.b)
		if iv.N != c.n || iv.Mid != c.mid && !(math.IsNaN(iv.Mid) && math.IsNaN(c.mid)) || iv.Known != (c.low != 0) {
			t.Errorf("%s: %+v", c.name, iv)
		}
		if iv.Known && (iv.Low != c.low || iv.High != c.high) {
			t.Errorf("%s: limits %v to %v, want %v to %v", c.name, iv.Low, iv.High, c.low, c.high)
		}
	}
}

// TestCoverage checks that the interval holds the true ratio about as often as
// it says, for more rounds than usual, where the bootstrap can.
func TestCoverage(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	const trials, rounds, truth = 100, 15, 1.2
	held := 0
	for range trials {
		a, b := make([]float64, rounds), make([]float64, rounds)
		for i := range a {
			shared := math.Exp(rng.NormFloat64()) // what a round has in common, which cancels
			a[i] = truth * shared * math.Exp(0.1*rng.NormFloat64())
			b[i] = shared * math.Exp(0.1*rng.NormFloat64())
		}
		if iv := RatioInterval(a, b); iv.Known && iv.Low <= truth && truth <= iv.High {
			held++
		}
	}
	if share := float64(held) / trials; share < 0.88 || share > 0.995 {
		t.Errorf("the interval held the true ratio in %.1f %% of %d trials", 100*share, trials)
	}
}

func TestSummarize(t *testing.T) {
	s := Summarize([]float64{5, 1, 3})
	if s.N != 3 || s.Median != 3 || s.Min != 1 || s.Max != 5 {
		t.Errorf("%+v", s)
	}
	if s := Summarize(nil); s.N != 0 || !math.IsNaN(s.Median) {
		t.Errorf("of nothing: %+v", s)
	}
}
