package loadtest

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"heartwheel/loadtest/engine"
)

func TestParseFault(t *testing.T) {
	for text, want := range map[string]Fault{
		"silent:10%@30s":           {Kind: "silent", Share: .1, At: 30 * time.Second},
		"reset:500@1m":             {Kind: "reset", Count: 500, At: time.Minute},
		"freeze:1k@0s":             {Kind: "freeze", Count: 1000},
		"drip:0.5%@1s":             {Kind: "drip", Share: .005, At: time.Second},
		"herd:100%@10s":            {Kind: "herd", Share: 1, At: 10 * time.Second},
		"stall-server:5s@30s":      {Kind: "stall-server", For: 5 * time.Second, At: 30 * time.Second},
		"partial:10%@30s,+over=2s": {Kind: "partial", Share: .1, At: 30 * time.Second, Over: 2 * time.Second},
		"silent:1@1s,+over=2s,+reconnect": {Kind: "silent", Count: 1, At: time.Second, Over: 2 * time.Second,
			Reconnect: true},
		"herd:10%@1s,+over=500ms":        {Kind: "herd", Share: .1, At: time.Second, Over: 500 * time.Millisecond},
		"oversize:100%@1m30s,+reconnect": {Kind: "oversize", Share: 1, At: 90 * time.Second, Reconnect: true},
	} {
		want.Text = text
		if got, err := parseFault(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q is %+v (%v), want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{ // what the error has to say
		"":                              "there are silent, freeze",
		"silnt:10%@30s":                 "the nearest is silent",
		"silnt@30s":                     `"silnt" is not a fault`,
		"silent":                        "write KIND:SHARE@WHEN",
		"silent:10%":                    "write KIND:SHARE@WHEN",
		"silent@30s":                    "lacks a part",
		"silent:@30s":                   `the share "" is not one`,
		"silent:0%@30s":                 "more than 0% and at most 100%",
		"silent:101%@30s":               "more than 0% and at most 100%",
		"silent:NaN%@30s":               "more than 0%",
		"silent:-5@30s":                 "is not one",
		"silent:ten@30s":                "a number of connections such as 500",
		"silent:10%@30":                 "has no unit; write 30s",
		"silent:10%@soon":               "is not a duration",
		"silent:10%@-1s":                "before the start",
		"silent:10%@30s,":               "ends in a comma",
		"silent:10%@30s,over=2s":        "is not an option",
		"silent:10%@30s,+ovr=2s":        "there are +over=DURATION and +reconnect",
		"silent:10%@30s,+over":          "is not a duration",
		"silent:10%@30s,+over=0s":       "must be more than zero",
		"stall-server:10%@30s":          "is not a duration",
		"stall-server:0s@30s":           "is not a time to be stopped for",
		"stall-server":                  "write stall-server:HOW-LONG@WHEN",
		"stall-server:5s@3s,+over=1s":   "has no option",
		"stall-server:5s@3s,+reconnect": "has no option",
		"herd:10%@3s,+reconnect":        "has no option",
	} {
		_, err := parseFault(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzFault(f *testing.F) {
	for _, text := range []string{"silent:10%@30s", "stall-server:5s@30s", "herd:5@1m,+over=2s", "a:b@c,+d", ":@,",
		"silent:1e309%@1s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFault(text)
		if err != nil {
			return
		}
		k, ok := engine.FaultKindByName(got.Kind)
		if !ok || got.At < 0 || got.Share < 0 || got.Share > 1 || got.Count < 0 || (got.Share > 0) == (got.Count > 0) &&
			k.Name != engine.StallServer {
			t.Errorf("%q is %+v", text, got)
		}
	})
}

// When a fault is over, for the same server and a bound of 200 ms.
func TestLatestDetection(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"silent:1@1s": 7700 * time.Millisecond, "silent:1@1s,+over=1s": 8700 * time.Millisecond,
		"partial:1@1s": 7700 * time.Millisecond,
		"garbage:1@1s": 200 * time.Millisecond, "stall-server:3s@1s": 3 * time.Second, "herd:1@1s": 0,
	} {
		f, err := parseFault(text)
		if got := f.Latest(7500*time.Millisecond, 10*time.Second, 200*time.Millisecond); err != nil || got != want {
			t.Errorf("%s is over after %s, want %s (%v)", text, got, want, err)
		}
	}
}
