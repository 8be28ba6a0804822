package config

import (
	"strings"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"15s": 15 * time.Second, "37.5s": 37500 * time.Millisecond, "2m": 2 * time.Minute,
		"1h30m": 90 * time.Minute, "0": 0, "-1s": -time.Second,
	} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"15": "write 15s", "1.5": "write 1.5s", "": "such as 15s", "15 s": "such as 15s", "1d": "such as 15s",
		"s": "such as 15s", "nan": "such as 15s", "0x10": "such as 15s", "1e3": "such as 15s",
	} {
		if d, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %s, %v, want an error with %q", text, d, err, want)
		}
	}
}

func TestParseNumberAndSize(t *testing.T) {
	for _, c := range []struct {
		text string
		size bool
		want int
	}{
		{"65536", true, 65536}, {"64KiB", true, 65536}, {"64 kib", true, 65536}, {"1MiB", true, 1 << 20},
		{"1GiB", true, 1 << 30},
		{"20000", false, 20000}, {"20k", false, 20000}, {"1m", false, 1000000}, {"1M", false, 1000000},
		{"0100", false, 100}, {"-5", false, -5}, {"0", true, 0},
	} {
		parse := ParseNumber
		if c.size {
			parse = ParseSize
		}
		if got, err := parse(c.text); got != c.want || err != nil {
			t.Errorf("%q is %d, %v, want %d", c.text, got, err, c.want)
		}
	}
	for _, c := range []struct {
		text string
		size bool
		want string
	}{
		{"64KB", true, "is not a size"}, {"64k", true, "is not a size"}, {"", true, "is not a size"},
		{"KiB", true, "is not a size"}, {"1.5MiB", true, "is not a size"},
		{"20KiB", false, "is not a whole number"}, {"1.5k", false, "is not a whole number"},
		{"0x10", false, "is not a whole number"}, {"1_000", false, "is not a whole number"},
		{"1e6", false, "is not a whole number"}, {"99999999999999999999", false, "beyond"},
		{"9223372036854775807k", false, "beyond"}, {"-9223372036854775808m", false, "beyond"},
	} {
		parse := ParseNumber
		if c.size {
			parse = ParseSize
		}
		if n, err := parse(c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q is %d, %v, want an error with %q", c.text, n, err, c.want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for want, n := range map[string]int{"0": 0, "77": 77, "1KiB": 1024, "1025": 1025, "64KiB": 65536, "1MiB": 1 << 20,
		"1536KiB": 3 << 19, "1GiB": 1 << 30} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func TestFormatNumber(t *testing.T) {
	for want, n := range map[string]int{"0": 0, "77": 77, "15k": 15000, "1m": 1000000, "15001": 15001,
		"1500k": 1500000, "-5": -5} {
		if got := FormatNumber(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
