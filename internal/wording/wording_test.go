package wording

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestNearest(t *testing.T) {
	names := []string{"listen", "max-connections", "max-frame", "beat", "beat-min", "beat-max", "ops", "log-level",
		"serve", "help", "completion"}
	for word, want := range map[string]string{
		"lisen": "listen", "beat-mix": "beat-min", "max_connections": "max-connections", "Listen": "listen",
		"srve": "serve", "maxframe": "max-frame", "max-conn": "max-connections", "connections": "max-connections",
		"level": "log-level", "frame": "max-frame", "beatt": "beat", "beta": "beat", "listen-address": "listen",
		"opps": "ops", "op": "ops", "comp": "completion",

		"version": "", "start": "", "run": "", "": "", "x": "", "be": "", "port": "", "timeout": "", "status": "",
		"tls": "", "no": "", "haelth": "", "heartbeat-interval": "", "\xff\xfe": "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
	if got := Suggestion("lisen", names[:2], nil); got != "the nearest is listen" {
		t.Error(got)
	}
	if got := Suggestion("version", names[:2], strings.ToUpper); got != "there are LISTEN, MAX-CONNECTIONS" {
		t.Error(got)
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "abc", 0}, {"kitten", "sitting", 3}, {"ab", "ba", 1},
		{"conut", "count", 1}, {"abc", "cab", 2}} {
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
