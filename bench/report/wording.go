package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// number writes v with three significant digits, and with commas from a
// thousand on.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case v == 0:
		return "0"
	case abs >= 1000:
		return grouped(int64(math.Round(v)))
	case abs >= 99.95 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 9.995:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case abs >= 0.9995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}

// value writes v with its unit, in one that suits its size.
func value(v float64, unit string) string {
	if math.IsNaN(v) {
		return "–"
	}
	abs := math.Abs(v)
	switch unit {
	case "":
		return number(v)
	case "B":
		switch {
		case abs >= 1e6:
			return number(v/1e6) + " MB"
		case abs >= 1e4:
			return number(v/1e3) + " kB"
		}
	case "us":
		switch {
		case abs >= 1e6:
			return number(v/1e6) + " s"
		case abs >= 1e3:
			return number(v/1e3) + " ms"
		}
		return number(v) + " µs"
	case "ns":
		switch {
		case abs >= 1e6:
			return number(v/1e6) + " ms"
		case abs >= 1e3:
			return number(v/1e3) + " µs"
		}
	case "/s":
		return number(v) + "/s"
	}
	return number(v) + " " + unit
}

// ratio writes a ratio: two decimals, more where it is small.
func ratio(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v >= 99.5:
		return grouped(int64(math.Round(v)))
	case v >= 9.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 0.095:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 2, 64)
}

// Text is the ratio with its interval, such as "0.98 (0.95–1.01)".
func (iv Interval) Text() string {
	if iv.N == 0 {
		return "–"
	}
	if !iv.Known {
		return ratio(iv.Mid) + " (no interval)"
	}
	return fmt.Sprintf("%s (%s–%s)", ratio(iv.Mid), ratio(iv.Low), ratio(iv.High))
}

// Mark is a sign for the verdict, which does not rely on colour.
func (v Verdict) Mark() string {
	return map[Verdict]string{Better: "✓", Worse: "✗", Even: "=", Unclear: "?"}[v]
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return grouped(int64(n)) + " " + noun + "s"
}

func joinInts(list []int) string {
	var texts []string
	for _, n := range list {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, ", ")
}
