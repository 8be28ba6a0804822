package engine

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
)

// Merged parts are the whole, also after encoding as JSON.
func TestMergedHistogramsAreTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	whole := NewHistogram(RunDigits)
	var merged Histogram
	for range 3 {
		part := NewHistogram(RunDigits)
		for range 10000 {
			v := int64(r.ExpFloat64() * 1e6)
			whole.Record(v)
			part.Record(v)
		}
		b, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		var back Histogram
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		merged.Merge(back)
	}
	merged.Merge(Histogram{})
	spectrum := func(h Histogram) any { return h.h.CumulativeDistributionWithTicks(5) }
	if !reflect.DeepEqual(spectrum(merged), spectrum(whole)) {
		t.Errorf("%v, want %v", spectrum(merged), spectrum(whole))
	}
	if a, b := merged.h, whole.h; a.Min() != b.Min() || a.Mean() != b.Mean() || a.Max() != b.Max() {
		t.Errorf("%d, %g, %d, want %d, %g, %d", a.Min(), a.Mean(), a.Max(), b.Min(), b.Mean(), b.Max())
	}
	if merged.Count() != 30000 {
		t.Errorf("%d values", merged.Count())
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	b, err := json.Marshal(Tick{Response: h, Service: NewHistogram(tickDigits)})
	if err != nil {
		t.Fatal(err)
	}
	var back Tick
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Response.h != nil || back.Service.h != nil || h.Count() != 0 {
		t.Error("nothing became something")
	}
}

func TestHistogramLimits(t *testing.T) {
	h := NewHistogram(RunDigits)
	for _, v := range []int64{-5, 0, 1, 1e15} {
		h.Record(v)
	}
	if most := float64(h.h.Max()); h.Count() != 4 || most < histHigh || most > 1.01*histHigh {
		t.Errorf("%d values, at most %g", h.Count(), most)
	}
	taken := h.Drain()
	if taken.Count() != 4 || h.Count() != 0 {
		t.Errorf("%d taken, %d left", taken.Count(), h.Count())
	}
}
