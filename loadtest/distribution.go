package loadtest

import (
	"slices"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

// distribution is h in µs, or nil if it is empty.
func distribution(h engine.Histogram) *report.Distribution {
	hdr := h.HDR()
	if hdr == nil {
		return nil
	}
	at := func(p float64) float64 { return wording.Thousandths(float64(hdr.ValueAtPercentile(p)) / 1e3) }
	return &report.Distribution{
		Count: hdr.TotalCount(),
		Min:   wording.Thousandths(float64(hdr.Min()) / 1e3),
		Mean:  wording.Thousandths(hdr.Mean() / 1e3),
		P50:   at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100),
	}
}

// latency is h with its whole spectrum, or nil if it is empty.
func latency(h engine.Histogram, name string) *report.Latency {
	hdr := h.HDR()
	if hdr == nil {
		return nil
	}
	l := &report.Latency{Name: name, US: *distribution(h)}
	for _, b := range hdr.CumulativeDistributionWithTicks(5) {
		p := report.SpectrumPoint{ValueUS: wording.Thousandths(float64(b.ValueAt) / 1e3), Percentile: b.Quantile,
			Count: b.Count}
		if n := len(l.Spectrum); n > 0 && l.Spectrum[n-1].ValueUS == p.ValueUS {
			l.Spectrum[n-1] = p // of points with one value the last says most
			continue
		}
		l.Spectrum = append(l.Spectrum, p)
	}
	return l
}

// errorsMS is the distribution in ms of detection errors in µs, which it sorts.
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

// maxBuckets is about the largest number of buckets.
const maxBuckets = 50

// buckets counts sorted detection errors in µs in equal buckets, which cover all of
// them and 0 to the bound. A bucket is 1, 2 or 5 times a power of ten ms wide.
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
