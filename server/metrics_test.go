package server

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"heartwheel/codec"
)

// oneMetric is a Collector of one metric.
type oneMetric struct{ prometheus.Metric }

func (m oneMetric) Describe(ch chan<- *prometheus.Desc) { ch <- m.Desc() }
func (m oneMetric) Collect(ch chan<- prometheus.Metric) { ch <- m }

func TestHistogram(t *testing.T) {
	for i := 1; i < len(bounds); i++ {
		if bounds[i] <= bounds[i-1] {
			t.Fatalf("bounds %d and %d are not in order", i-1, i)
		}
	}
	var h, o histogram
	observe := []int64{0, 1e5, 1e5 + 1, 2e8, 2e8 + 1, 10e9, 11e9, 1e12}
	var sum int64
	for _, ns := range observe {
		h.observe(ns)
		sum += ns
	}
	o.add(&h)
	o.add(&h)
	if o.sum != 2*sum {
		t.Errorf("sum %d, want %d", o.sum, 2*sum)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(oneMetric{o.metric(latenessDesc)})
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %v", families, err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if n := got.GetSampleCount(); n != uint64(2*len(observe)) {
		t.Errorf("count %d, want %d", n, 2*len(observe))
	}
	if s := got.GetSampleSum(); s != float64(2*sum)/1e9 {
		t.Errorf("sum %g s, want %g s", s, float64(2*sum)/1e9)
	}
	if len(got.GetBucket()) != len(bounds) {
		t.Fatalf("%d buckets, want %d", len(got.GetBucket()), len(bounds))
	}
	for i, b := range got.GetBucket() { // cumulative: as many as are at or below the edge
		var want uint64
		for _, ns := range observe {
			if ns <= bounds[i] {
				want += 2
			}
		}
		if b.GetUpperBound() != float64(bounds[i])/1e9 || b.GetCumulativeCount() != want {
			t.Errorf("up to %g s: %d, want %d up to %g s", b.GetUpperBound(), b.GetCumulativeCount(), want,
				float64(bounds[i])/1e9)
		}
	}
}

func TestOpLabels(t *testing.T) {
	seen := map[string]bool{}
	for i := range opLabels {
		if name := opName(i); name == "" || seen[name] {
			t.Errorf("label %d is %q", i, name)
		} else {
			seen[name] = true
		}
	}
	for op := range 256 {
		if i := opLabel(codec.Op(op)); i < 0 || i >= opLabels {
			t.Errorf("op %#x has the label %d of %d", op, i, opLabels)
		}
	}
	if opName(opLabel(0x40)) != "ext" || opName(opLabel(codec.OpPublish)) != codec.OpPublish.String() {
		t.Error("an extension or PUBLISH has a wrong label")
	}
}
