package wording

import "testing"

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		Microseconds(0): "0 µs", Microseconds(0.04): "0.04 µs", Microseconds(41): "41 µs",
		Microseconds(41.26): "41.3 µs", Microseconds(999.4): "999 µs",
		Microseconds(1250): "1.25 ms", Microseconds(3.2e6): "3.2 s", Microseconds(-41): "-41 µs",
		Milliseconds(7500): "7500 ms", Milliseconds(12500): "12.5 s", Milliseconds(0.5): "0.5 ms",
		Bytes(17.4e6): "17.4 MB", Bytes(999): "999 B", Bytes(2.5e9): "2.5 GB", Bytes(1500): "1.5 kB",
		Plural(1, "process"): "1 process", Plural(2, "process"): "2 processes", Plural(0, "close"): "0 closes",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
