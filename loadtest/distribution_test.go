package loadtest

import (
	"reflect"
	"testing"

	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

func TestSpectrumEnds(t *testing.T) {
	h := engine.NewHistogram(engine.RunDigits)
	for v := range int64(100000) {
		h.Record(v * 1000)
	}
	l := latency(h, report.ServiceName)
	last := l.Spectrum[len(l.Spectrum)-1]
	if last.Percentile != 100 || last.Count != 100000 || l.Name != report.ServiceName {
		t.Errorf("%+v", last)
	}
	for i := 1; i < len(l.Spectrum); i++ {
		if a, b := l.Spectrum[i-1], l.Spectrum[i]; b.ValueUS <= a.ValueUS || b.Percentile < a.Percentile ||
			b.Count < a.Count {
			t.Fatalf("%+v after %+v", b, a)
		}
	}
}

func TestDetectionErrors(t *testing.T) {
	if errorsMS(nil) != nil || buckets(nil, 200) != nil {
		t.Error("nothing became something")
	}
	var us []int32
	for i := range int32(1000) {
		us = append(us, (999-i)*100) // 99.9 ms down to 0
	}
	want := &report.Distribution{Count: 1000, Min: 0, Mean: 49.95, P50: 49.9, P90: 89.9, P99: 98.9, P999: 99.8,
		Max: 99.9}
	if got := errorsMS(us); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	for _, c := range []struct {
		us          []int32
		bound       float64
		first, last report.Bucket
		n           int
	}{
		{us, 200, report.Bucket{LowMS: 0, HighMS: 5, Count: 50}, report.Bucket{LowMS: 195, HighMS: 200, Count: 0}, 40},
		{[]int32{-1, 0, 199_999, 200_000}, 200, report.Bucket{LowMS: -5, HighMS: 0, Count: 1},
			report.Bucket{LowMS: 200, HighMS: 205, Count: 1}, 42},
		{[]int32{5000}, 10, report.Bucket{LowMS: 0, HighMS: 1, Count: 0},
			report.Bucket{LowMS: 9, HighMS: 10, Count: 0}, 10},
		{[]int32{-900_000, 3_000_000}, 200, report.Bucket{LowMS: -900, HighMS: -800, Count: 1},
			report.Bucket{LowMS: 3000, HighMS: 3100, Count: 1}, 40},
	} {
		got := buckets(c.us, c.bound)
		if len(got) != c.n || got[0] != c.first || got[len(got)-1] != c.last {
			t.Errorf("%d buckets, %+v to %+v; want %d, %+v to %+v", len(got), got[0], got[len(got)-1], c.n, c.first,
				c.last)
		}
		sum := 0
		for i, b := range got {
			sum += b.Count
			if i > 0 && b.LowMS != got[i-1].HighMS {
				t.Errorf("a gap before %+v", b)
			}
		}
		if sum != len(c.us) {
			t.Errorf("%d of %d values are in a bucket", sum, len(c.us))
		}
	}
}
