package loadtest

import (
	"encoding/json"
	"slices"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histograms hold nanoseconds from 100 to 100 seconds; what is beyond is
// counted as the limit. The ones of a whole run keep three digits (about 170
// kB each), those of one second keep two (about 20 kB).
const (
	histLow    = 100
	histHigh   = 100e9
	runDigits  = 3
	tickDigits = 2
)

// A hist is a histogram of durations in ns. The zero value is empty and cannot
// record. Not safe for concurrent use.
type hist struct{ h *hdrhistogram.Histogram }

func newHist(digits int) hist { return hist{hdrhistogram.New(histLow, histHigh, digits)} }

func (h hist) record(ns int64) {
	// Within the limits it cannot fail.
	_ = h.h.RecordValue(min(max(ns, 0), histHigh))
}

func (h hist) count() int64 {
	if h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// some is the histogram, or nil if it is empty.
func (h hist) some() *hdrhistogram.Histogram {
	if h.count() == 0 {
		return nil
	}
	return h.h
}

// take returns a copy of h and empties h.
func (h hist) take() hist {
	c := hist{h.h.Clone()}
	h.h.Reset()
	return c
}

// merge adds o to h, which becomes a histogram if it is the zero value.
func (h *hist) merge(o hist) {
	if o.h == nil {
		return
	}
	if h.h == nil {
		h.h = o.h.Clone()
		return
	}
	h.h.Merge(o.h)
}

// MarshalJSON writes the compressed V2 form of HdrHistogram.
func (h hist) MarshalJSON() ([]byte, error) {
	if h.count() == 0 {
		return []byte(`""`), nil
	}
	b, err := h.h.EncodeV2()
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (h *hist) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil || text == "" {
		h.h = nil
		return err
	}
	var err error
	h.h, err = hdrhistogram.Decode([]byte(text))
	return err
}

// us is the distribution in µs, or nil of nothing.
func (h hist) us() *report.Distribution {
	if h.count() == 0 {
		return nil
	}
	at := func(p float64) float64 { return wording.Thousandths(float64(h.h.ValueAtPercentile(p)) / 1e3) }
	return &report.Distribution{
		Count: h.h.TotalCount(),
		Min:   wording.Thousandths(float64(h.h.Min()) / 1e3),
		Mean:  wording.Thousandths(h.h.Mean() / 1e3),
		P50:   at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100),
	}
}

// latency is h as a Latency with its whole spectrum, or nil of nothing.
func (h hist) latency(name string) *report.Latency {
	if h.count() == 0 {
		return nil
	}
	l := &report.Latency{Name: name, US: *h.us()}
	for _, b := range h.h.CumulativeDistributionWithTicks(5) {
		p := report.SpectrumPoint{ValueUS: wording.Thousandths(float64(b.ValueAt) / 1e3), Percentile: b.Quantile, Count: b.Count}
		if n := len(l.Spectrum); n > 0 && l.Spectrum[n-1].ValueUS == p.ValueUS {
			l.Spectrum[n-1] = p // of points with one value the last says most
			continue
		}
		l.Spectrum = append(l.Spectrum, p)
	}
	return l
}

// errorsMS is the distribution in ms of detection errors in µs. It sorts them.
func errorsMS(us []int32) *report.Distribution {
	if len(us) == 0 {
		return nil
	}
	slices.Sort(us)
	var sum float64
	for _, v := range us {
		sum += float64(v)
	}
	at := func(p float64) float64 { // nearest rank
		i := int(p*float64(len(us))+0.999999) - 1
		return wording.Thousandths(float64(us[min(max(i, 0), len(us)-1)]) / 1e3)
	}
	return &report.Distribution{
		Count: int64(len(us)), Min: at(0), Mean: wording.Thousandths(sum / float64(len(us)) / 1e3),
		P50: at(.5), P90: at(.9), P99: at(.99), P999: at(.999), Max: at(1),
	}
}

// maxBuckets is about how many bars a chart of detection errors has.
const maxBuckets = 50

// buckets counts sorted detection errors in µs into equal buckets that cover
// them and 0 to the bound, of 1, 2 or 5 times a power of ten ms.
func buckets(us []int32, boundMS float64) []report.Bucket {
	if len(us) == 0 {
		return nil
	}
	low, high := min(0, float64(us[0])/1e3), max(boundMS, float64(us[len(us)-1])/1e3)
	width := 1.0
	for steps := []float64{2, 2.5, 2}; (high-low)/width > maxBuckets; {
		width *= steps[0]
		steps = append(steps[1:], steps[0])
	}
	var list []report.Bucket
	edge := 0.0
	for edge > low {
		edge -= width
	}
	i := 0
	for ; i < len(us) || edge < boundMS; edge += width {
		b := report.Bucket{LowMS: edge, HighMS: edge + width}
		for ; i < len(us) && float64(us[i])/1e3 < b.HighMS; i++ {
			b.Count++
		}
		list = append(list, b)
	}
	return list
}
