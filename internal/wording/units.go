package wording

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Microseconds writes a time in µs with three digits, in the unit that suits:
// 41 µs, 1.25 ms, 3.2 s.
func Microseconds(us float64) string {
	abs := max(us, -us)
	switch {
	case abs < 1000:
		return digits(us) + " µs"
	case abs < 1e6:
		return digits(us/1e3) + " ms"
	}
	return digits(us/1e6) + " s"
}

// Milliseconds writes a time in ms with three digits, as ms or s.
func Milliseconds(ms float64) string {
	if max(ms, -ms) < 10e3 {
		return digits(ms) + " ms"
	}
	return digits(ms/1e3) + " s"
}

// digits writes v with three digits, or all of those before the point.
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

// Bytes writes n bytes with three digits as B, kB, MB or GB.
func Bytes(n float64) string {
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

// Percent writes a whole number of percent.
func Percent(p float64) string { return fmt.Sprintf("%.0f %%", p) }

// Plural writes n and the noun: 1 connection, 3 connections, 2 processes.
func Plural[N int | int64](n N, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return Grouped(n) + " " + noun
}

// Thousandths rounds v to a thousandth, for files that people read.
func Thousandths(v float64) float64 { return math.Round(v*1000) / 1000 }
