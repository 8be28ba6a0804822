package engine

import (
	"encoding/json"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// The histograms hold nanoseconds from 100 to 100 seconds; what is beyond is
// counted as the limit. The ones of a whole run keep three digits (about 170
// kB each), those of one second keep two (about 20 kB).
const (
	histLow    = 100
	histHigh   = 100e9
	RunDigits  = 3
	tickDigits = 2
)

// A hist is a histogram of durations in ns. The zero value is empty and cannot
// record. Not safe for concurrent use.
type Histogram struct{ h *hdrhistogram.Histogram }

func NewHistogram(digits int) Histogram {
	return Histogram{hdrhistogram.New(histLow, histHigh, digits)}
}

func (h Histogram) Record(ns int64) {
	// Within the limits it cannot fail.
	_ = h.h.RecordValue(min(max(ns, 0), histHigh))
}

func (h Histogram) Count() int64 {
	if h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// some is the histogram, or nil if it is empty.
func (h Histogram) HDR() *hdrhistogram.Histogram {
	if h.Count() == 0 {
		return nil
	}
	return h.h
}

// take returns a copy of h and empties h.
func (h Histogram) Drain() Histogram {
	c := Histogram{h.h.Clone()}
	h.h.Reset()
	return c
}

// merge adds o to h, which becomes a histogram if it is the zero value.
func (h *Histogram) Merge(o Histogram) {
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
func (h Histogram) MarshalJSON() ([]byte, error) {
	if h.Count() == 0 {
		return []byte(`""`), nil
	}
	b, err := h.h.EncodeV2()
	if err != nil {
		return nil, err
	}
	return json.Marshal(string(b))
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (h *Histogram) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil || text == "" {
		h.h = nil
		return err
	}
	var err error
	h.h, err = hdrhistogram.Decode([]byte(text))
	return err
}
