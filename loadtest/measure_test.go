package loadtest

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"
)

// Merged halves are the whole, also after a journey as JSON.
func TestMergedHistogramsAreTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	whole := newHist(runDigits)
	var merged hist
	for range 3 {
		part := newHist(runDigits)
		for range 10000 {
			v := int64(r.ExpFloat64() * 1e6)
			whole.record(v)
			part.record(v)
		}
		b, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		var back hist
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		merged.merge(back)
	}
	merged.merge(hist{})
	spectrum := func(h hist) any { return h.h.CumulativeDistributionWithTicks(5) }
	if !reflect.DeepEqual(spectrum(merged), spectrum(whole)) {
		t.Errorf("%v, want %v", spectrum(merged), spectrum(whole))
	}
	if a, b := merged.h, whole.h; a.Min() != b.Min() || a.Mean() != b.Mean() || a.Max() != b.Max() {
		t.Errorf("%d, %g, %d, want %d, %g, %d", a.Min(), a.Mean(), a.Max(), b.Min(), b.Mean(), b.Max())
	}
	if merged.count() != 30000 {
		t.Errorf("%d values", merged.count())
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h hist
	b, err := json.Marshal(tick{Response: h, Service: newHist(tickDigits)})
	if err != nil {
		t.Fatal(err)
	}
	var back tick
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if back.Response.h != nil || back.Service.h != nil || h.count() != 0 {
		t.Error("nothing became something")
	}
}

func TestHistogramLimits(t *testing.T) {
	h := newHist(runDigits)
	for _, v := range []int64{-5, 0, 1, 1e15} {
		h.record(v)
	}
	if most := float64(h.h.Max()); h.count() != 4 || most < histHigh || most > 1.01*histHigh {
		t.Errorf("%d values, at most %g", h.count(), most)
	}
	taken := h.take()
	if taken.count() != 4 || h.count() != 0 {
		t.Errorf("%d taken, %d left", taken.count(), h.count())
	}
}
