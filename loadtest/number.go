package loadtest

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parseCount reads a whole number as 15000, 15k or 1m.
func parseCount(text string) (int, error) {
	digits, factor := strings.ToLower(text), int64(1)
	switch {
	case strings.HasSuffix(digits, "k"):
		digits, factor = strings.TrimSuffix(digits, "k"), 1e3
	case strings.HasSuffix(digits, "m"):
		digits, factor = strings.TrimSuffix(digits, "m"), 1e6
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && (n > math.MaxInt32/factor || n < math.MinInt32/factor):
		return 0, errors.New("is beyond what this tool can count")
	case err != nil:
		return 0, errors.New("is not a whole number; write one such as 15000, 15k or 1m")
	}
	return int(n * factor), nil
}

// parseDuration reads a duration with a unit.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, numErr := strconv.ParseFloat(text, 64); numErr == nil && text != "0" {
		return 0, fmt.Errorf("has no unit; write %ss", text)
	}
	return 0, errors.New("is not a duration; write one such as 5s, 500ms or 2m")
}

// formatDuration writes d without the zeros that time.Duration.String ends in.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// formatCount writes n as a user would: 15k, 1m, 15001.
func formatCount(n int) string {
	switch {
	case n != 0 && n%1e6 == 0:
		return strconv.Itoa(n/1e6) + "m"
	case n != 0 && n%1e3 == 0:
		return strconv.Itoa(n/1e3) + "k"
	}
	return strconv.Itoa(n)
}

// grouped writes n with a comma before every three digits.
func grouped[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if s[0] == '-' {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural is "1 connection" or "3 connections".
func plural[N int | int64](n N, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "s"):
		noun += "es"
	default:
		noun += "s"
	}
	return grouped(n) + " " + noun
}

// round3 drops what is below a thousandth, so that a file does not show digits
// that mean nothing.
func round3(v float64) float64 { return math.Round(v*1000) / 1000 }

// nearest returns the name with the smallest edit distance to word.
func nearest(word string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int { return distance(word, a) - distance(word, b) })
}

// distance is Levenshtein's: single characters added, removed or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// choice lists words as a sentence does: a, b or c.
func choice(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
