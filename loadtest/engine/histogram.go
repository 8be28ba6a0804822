package engine

import (
	"encoding/json"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histograms hold 100 ns to 100 s; a value beyond counts as the limit. Those of a
// run keep three digits (about 170 kB each), those of a second two (about 20 kB).
const (
	histLow    = 100
	histHigh   = 100e9
	RunDigits  = 3
	tickDigits = 2
)

// A Histogram counts durations in ns. The zero value is empty and cannot record. Not
// safe for concurrent use.
type Histogram struct{ h *hdrhistogram.Histogram }

// NewHistogram makes an empty histogram that keeps this many digits.
func NewHistogram(digits int) Histogram {
	return Histogram{hdrhistogram.New(histLow, histHigh, digits)}
}

// Record counts a duration.
func (h Histogram) Record(ns int64) {
	// cannot fail within the limits
	_ = h.h.RecordValue(min(max(ns, 0), histHigh))
}

// Count is the number of durations.
func (h Histogram) Count() int64 {
	if h.h == nil {
		return 0
	}
	return h.h.TotalCount()
}

// HDR is the underlying histogram, or nil if h is empty. It is shared with h.
func (h Histogram) HDR() *hdrhistogram.Histogram {
	if h.Count() == 0 {
		return nil
	}
	return h.h
}

// Drain returns a copy of h and empties h.
func (h Histogram) Drain() Histogram {
	c := Histogram{h.h.Clone()}
	h.h.Reset()
	return c
}

// Merge adds o to h.
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
