package loadtest

import (
	"testing"

	"heartwheel/loadtest/engine"
)

func TestRate(t *testing.T) {
	for text, want := range map[string]engine.Rate{
		"500": {From: 500, To: 500}, "20k": {From: 20000, To: 20000}, "1k:20k": {From: 1000,
			To: 20000}, "1.5k": {From: 1500, To: 1500}, "0.5": {From: .5, To: .5}, "1m": {From: 1e6, To: 1e6},
	} {
		got, err := parseRate(text)
		if err != nil || got != want {
			t.Errorf("%q is %v (%v), want %v", text, got, err, want)
		}
		if again, err := parseRate(got.String()); err != nil || again != got {
			t.Errorf("%q is written as %q, which is %v (%v)", text, got, again, err)
		}
	}
	for _, text := range []string{"", "k", "fast", "1k:", ":1k", "1k:2k:3k", "NaN", "Inf", "1e400", "20 k"} {
		if r, err := parseRate(text); err == nil {
			t.Errorf("%q is taken as %v", text, r)
		}
	}
}
