package loadtest

import (
	"fmt"
	"strconv"
)

// usText writes microseconds in the unit that suits: 41 µs, 1.25 ms, 3.2 s.
func usText(us float64) string {
	abs := max(us, -us)
	switch {
	case abs < 1000:
		return digits(us) + " µs"
	case abs < 1e6:
		return digits(us/1e3) + " ms"
	}
	return digits(us/1e6) + " s"
}

// msText is usText for milliseconds, never in microseconds.
func msText(ms float64) string {
	if max(ms, -ms) < 10e3 {
		return digits(ms) + " ms"
	}
	return digits(ms/1e3) + " s"
}

// ms64 is ns in ms.
func ms64(ns int64) float64 { return float64(ns) / 1e6 }

// digits writes three of them, or all before the point.
func digits(v float64) string {
	abs, places := max(v, -v), 0
	switch {
	case abs < 0.0005:
	case abs < 9.995:
		places = 2
	case abs < 99.95:
		places = 1
	}
	s := strconv.FormatFloat(v, 'f', places, 64)
	if places > 0 {
		for s[len(s)-1] == '0' {
			s = s[:len(s)-1]
		}
		if s[len(s)-1] == '.' {
			s = s[:len(s)-1]
		}
	}
	if s == "-0" {
		return "0"
	}
	return s
}

// bytesText writes bytes as B, kB, MB or GB.
func bytesText(n float64) string {
	abs := max(n, -n)
	switch {
	case abs < 1e3:
		return digits(n) + " B"
	case abs < 1e6:
		return digits(n/1e3) + " kB"
	case abs < 1e9:
		return digits(n/1e6) + " MB"
	}
	return digits(n/1e9) + " GB"
}

// percentText writes percent of one core.
func percentText(p float64) string { return fmt.Sprintf("%.0f %%", p) }
