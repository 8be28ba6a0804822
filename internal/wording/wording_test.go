package wording

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNearest(t *testing.T) {
	for word, want := range map[string]string{"lisen": "listen", "beat-mix": "beat-min", "": "ops"} {
		if got := Nearest(word, []string{"listen", "beat-min", "beat-max", "ops"}); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance of %q and %q is %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestChoice(t *testing.T) {
	for want, words := range map[string][]string{"a": {"a"}, "a or b": {"a", "b"}, "a, b or c": {"a", "b", "c"}} {
		if got := Choice(words); got != want {
			t.Errorf("%q is written %q, want %q", words, got, want)
		}
	}
}

func TestDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "37.5s": 37500 * time.Millisecond, "1m": time.Minute, "1m30s": 90 * time.Second,
		"10m": 10 * time.Minute,
		"1h":  time.Hour, "1h10m": 70 * time.Minute, "2h30m": 150 * time.Minute, "1h0m5s": time.Hour + 5*time.Second,
	} {
		if got := Duration(d); got != want {
			t.Errorf("%s is written %s, want %s", d, got, want)
		}
	}
}

func TestGrouped(t *testing.T) {
	for want, n := range map[string]int64{
		"0": 0, "999": 999, "1,000": 1000, "-999": -999, "-1,000": -1000, "1,234,567": 1234567,
		"9,223,372,036,854,775,807": math.MaxInt64,
	} {
		if got := Grouped(n); got != want {
			t.Errorf("%d is written %q, want %q", n, got, want)
		}
	}
}

func TestTexts(t *testing.T) {
	for _, c := range []struct {
		value any
		want  []string
	}{
		{"x", []string{"x"}}, {1.5, []string{"1.5"}}, {1e21, []string{"1000000000000000000000"}}, {15, []string{"15"}},
		{true, []string{"true"}}, {[]string{"a", "b"}, []string{"a", "b"}}, {[]any{"a", 2}, []string{"a", "2"}},
	} {
		if got, err := Texts(c.value); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %q, %v, want %q", c.value, got, err, c.want)
		}
	}
	for want, value := range map[string]any{
		"no value": nil, "empty list": []any{}, "list of lists": []any{[]any{1}}, "is a date": time.Time{},
	} {
		if got, err := Texts(value); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %q, %v, want an error with %q", value, got, err, want)
		}
	}
	for _, value := range []any{map[string]any{"a": 1}, []any{map[string]any{}}} {
		if got, err := Texts(value); !errors.Is(err, ErrNotPlain) {
			t.Errorf("%v: %q, %v, want ErrNotPlain", value, got, err)
		}
	}
}
