package loadtest

import "testing"

func TestRate(t *testing.T) {
	for text, want := range map[string]Rate{
		"500": {500, 500}, "20k": {20000, 20000}, "1k:20k": {1000, 20000}, "1.5k": {1500, 1500}, "0.5": {.5, .5}, "1m": {1e6, 1e6},
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
