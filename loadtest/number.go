package loadtest

import (
	"errors"
	"fmt"
	"math"
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
