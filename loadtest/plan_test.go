package loadtest

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/internal/config"
)

// flags is a layer of flags.
func flags(pairs ...string) config.Layer {
	values := map[string][]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = append(values[pairs[i]], pairs[i+1])
	}
	return Table.Flags(values)
}

// scenario is the layer of the scenario x.
func scenario(t *testing.T, text string) config.Layer {
	t.Helper()
	l, err := config.ParseYAML("scenario x", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testPlan(t testing.TB, pairs ...string) *Plan {
	t.Helper()
	p, _, err := Build(flags(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDefaultsAreAPlan(t *testing.T) {
	p, settings, err := Build()
	if err != nil {
		t.Fatal(err)
	}
	if p.Connections != 1000 || p.Interval != 3*time.Second || p.Bound != 200*time.Millisecond ||
		p.MaxLag != 5*time.Millisecond {
		t.Errorf("%+v", p)
	}
	for i, k := range Table {
		s := settings[i]
		want := k.Default
		if k.Derived != nil {
			want = k.Derived(p)
		}
		if s.Key != k.Key || s.From != "default" || s.Value != want {
			t.Errorf("%+v, want %s with %q", s, k.Key, want)
		}
		if k.Default == "" && k.Unset == "" {
			t.Errorf("%s does not say what holds without it", k.Key)
		}
	}
}

func TestLaterLayersWin(t *testing.T) {
	below := scenario(t, "connections: 5k\nfault: [silent:10%@1s, reset:1@2s]\nslo: false_kills==0\ninterval: 5s\n")
	p, settings, err := Build(below, flags("connections", "7k", "fault", "herd:100%@3s", "hello-token", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Connections != 7000 || len(p.Faults) != 1 || p.Faults[0].Kind != "herd" || len(p.SLO) != 1 ||
		p.Interval != 5*time.Second || !p.Hello {
		t.Errorf("%+v", p)
	}
	want := map[string][2]string{
		"connections": {"7k", "flag"}, "fault": {"herd:100%@3s", "flag"}, "slo": {"false_kills==0", "scenario x"},
		"interval": {"5s", "scenario x"}, "duration": {"30s", "default"}, "hello-token": {"(given)", "flag"},
	}
	for _, s := range settings {
		if w, ok := want[s.Key]; ok && w != [2]string{s.Value, s.From} {
			t.Errorf("%+v, want %v", s, w)
		}
	}
}

func TestWrongPlans(t *testing.T) {
	for _, c := range []struct {
		name  string
		pairs []string
		want  []string // one for each line; F is the flag of the first word
	}{
		{"not to be read", []string{"connections", "many", "interval", "3", "mode", "bea", "connect-rate", "fast",
			"fault",
			"silnt:1@1s", "slo", "x<1",
			"source", "nowhere", "hello", "yes", "seed", "-1", "target", "a", "target", "b"}, []string{
			`connect-rate "fast" (F): is not a rate`, `connections "many" (F): is not a whole number`,
			`fault "silnt:1@1s" (F): "silnt" is not a fault`,
			`hello "yes" (F): must be true or false`, `interval "3" (F): has no unit; write 3s`,
			`mode "bea" (F): must be beat, echo or churn`,
			`seed "-1" (F): is not a whole number`, `slo "x<1" (F): "x" is not a metric`,
			`source "nowhere" (F): is not an address`, `target "a,b" (F): has 2 values`}},
		{"unknown", []string{"conections", "5"},
			[]string{`--conections (flag --conections): is not a setting; the nearest is --connections`}},
		{"all zero", []string{"connections", "0", "processes", "0", "loops", "0", "duration", "0s", "connect-timeout",
			"0s",
			"connect-rate", "0", "interval", "0s",
			"max-lag", "0s", "bound", "0s", "partial-timeout", "0s"}, []string{
			`connections "0" (F): must lie between 1`, `processes "0" (F): must`, `loops "0" (F): must`,
			`duration "0s" (F): must`,
			`connect-timeout "0s" (F): must`, `connect-rate "0" (F): is impossible`,
			`interval "0s" (F): must`, `max-lag "0s" (F): must`, `bound "0s" (F): must`,
			`partial-timeout "0s" (F): must`}},
		{"negative", []string{"connections", "-5", "connect-rate", "-5:10", "timeout", "-1s", "hello-beat", "-1s"},
			[]string{
				`connections "-5" (F): must`, `connect-rate "-5:10" (F): is impossible`, `timeout "-1s" (F): must`,
				`hello-beat "-1s" (F): must`}},
		{"impossible rates", []string{"connections", "1m", "connect-rate", "1m", "interval", "100ms"}, []string{
			`connect-rate "1000k" (F): is impossible for 1 process: none can begin more than 200,000`,
			`interval "100ms" (F): is impossible: 10,000,000 beats a second`}},
		{"too slow", []string{"connections", "1m", "connect-rate", "10"},
			[]string{`connect-rate "10" (F): 1,000,000 connections would take 27h46m40s to connect`}},
		{"target", []string{"target", "127.0.0.1:9000"},
			[]string{`target "127.0.0.1:9000" (F): is not an address; write tcp://HOST:PORT`}},
		{"target scheme", []string{"target", "http://127.0.0.1:9000"}, []string{`has the scheme "http"`}},
		{"target port", []string{"target", "tcp://127.0.0.1"}, []string{`has no port; write tcp://HOST:PORT`}},
		{"target port 0", []string{"target", "tcp://127.0.0.1:0"}, []string{`lacks a host or a port`}},
		{"ws target", []string{"target", "ws:///x"}, []string{`target "ws:///x" (F): `}},
		{"TLS without TLS", []string{"target", "ws://a:1", "ca", "x", "insecure", "true", "server-name", "x"}, []string{
			`ca "x" (F): is for a target with tls:// or wss://`, `insecure "true" (F): is for`,
			`insecure "true" (F): contradicts ca`, `server-name "x" (F): is for`}},
		{"half a certificate", []string{"target", "tls://a:1", "key", "x"}, []string{
			`key "x" (F): goes with cert; write both`}},
		{"header", []string{"target", "tcp://a:1", "header", "Authorization: secret"}, []string{
			`header "Authorization: (given)" (F): is for a target with ws://`}},
		{"own header", []string{"target", "ws://a:1", "header", "Host: x", "header", "x"}, []string{
			`header "Host: x" (F): is a header that the request has already`, `header "x" (F): is not a header`}},
		{"beats without framing", []string{"target", "tcp://a:1", "beat-message", "x"}, []string{
			`framing "native" (default): has no delimiter and beats of its own`}},
		{"framing of WebSocket", []string{"target", "ws://a:1", "framing", "lines", "frame", "empty"}, []string{
			`framing "lines" (F): is for a target with tcp:// or tls://`}},
		{"framing and native", []string{"target", "tcp://a:1", "framing", "lines", "hello", "true", "fault",
			"garbage:1@1s"}, []string{`framing "lines" (F): has no HELLO`,
			`fault "garbage:1@1s" (F): is for the native protocol`}},
		{"length field", []string{"target", "tcp://a:1", "framing", "length-field", "length-width", "5",
			"length-offset", "-1"}, []string{
			`framing "length-field" (F): cannot work: lengthfield: width 5`, `offset -1`}},
		{"message too long", []string{"target", "tcp://a:1", "framing", "length-field", "length-width", "1",
			"mode", "echo", "payload", "256"}, []string{`no frame can carry a payload of 256 bytes`}},
		{"delimiter", []string{"target", "tcp://a:1", "framing", "delimiter", "delimiter", "0f", "beat-message", "a0fb",
			"answer-message", `\q`}, []string{`answer-message "\\q" (F): has a \ that begins nothing`}},
		{"delimiter in beat", []string{"target", "tcp://a:1", "framing", "delimiter", "delimiter", "0f", "beat-message",
			"a0fb"}, []string{"has nothing but hexadecimal digits", `"a0fb" contains the delimiter`}},
		{"no delimiter", []string{"target", "tcp://a:1", "framing", "delimiter"},
			[]string{"cannot work: no delimiter"}},
		{"target path", []string{"target", "tcp://127.0.0.1:1/x"}, []string{`more than a host and a port`}},
		{"serve", []string{"target", "tcp://127.0.0.1:1", "serve", "--profile iot"},
			[]string{`serve "--profile iot" (F): is for a server that the run starts itself`}},
		{"ops", []string{"ops", "ftp://x"}, []string{`ops "ftp://x" (F): is not a URL`}},
		{"echo", []string{"mode", "echo", "inflight", "0", "payload", "15"},
			[]string{`inflight "0" (F): must`, `payload "15" (F): must lie between 16`}},
		{"server beats", []string{"server-beats", "true", "mode", "echo"},
			[]string{`server-beats "true" (F): is for mode beat`}},
		{"both beat", []string{"server-beats", "true", "hello-beats", "client"},
			[]string{`server-beats "true" (F): contradicts hello-beats client`}},
		{"churn with faults", []string{"mode", "churn", "fault", "silent:10%@1s"}, []string{"in mode churn"}},
		{"late fault", []string{"duration", "10s", "fault", "silent:10%@10s", "fault", "reset:2k@1s"},
			[]string{"is after the end of the hold phase", "is more than all 1,000 connections"}},
		{"loops", []string{"connections", "3", "processes", "2", "loops", "2"},
			[]string{"is less than one for each of 4 event loops"}},
	} {
		_, _, err := Build(flags(c.pairs...))
		var plan *PlanError
		if !errors.As(err, &plan) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(plan.Lines) != len(c.want) {
			t.Errorf("%s: %d lines, want %d:\n%s", c.name, len(plan.Lines), len(c.want), err)
		}
		for _, want := range c.want {
			key, _, _ := strings.Cut(want, " ")
			want = strings.Replace(want, "(F)", "(flag --"+key+")", 1)
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: nothing says %q:\n%s", c.name, want, err)
			}
		}
	}
}

func TestPlansThatNeedTheTimeout(t *testing.T) {
	second := time.Second
	for _, c := range []struct {
		pairs   []string
		timeout time.Duration
		want    string // empty: nothing is wrong
	}{
		{[]string{"interval", "5s"}, 7500 * time.Millisecond, ""},
		{[]string{"interval", "7s"}, 7500 * time.Millisecond, "write 5s or less"},
		{[]string{"interval", "7s"}, 0, ""},
		{[]string{"interval", "1h", "hello-beats", "server"}, 7 * second, ""},
		{[]string{"interval", "1h", "server-beats", "true"}, 7 * second, ""},
		{[]string{"interval", "1h", "mode", "echo"}, 7 * second, ""},
		{[]string{"fault", "silent:10%@1s"}, 0, "write it, such as --timeout 30s"},
		{[]string{"fault", "drip:10%@1s"}, 0, "does not say its idle timeout"},
		{[]string{"fault", "garbage:10%@1s", "fault", "herd:10%@1s"}, 0, ""},
		{[]string{"fault", "silent:10%@20s"}, 7500 * time.Millisecond, ""},
		{[]string{"fault", "silent:10%@25s"}, 7500 * time.Millisecond,
			"is over only 32.7s after the hold phase began, which lasts 30s; write --duration 33s"},
		{[]string{"fault", "silent:10%@20s,+over=5s"}, 7500 * time.Millisecond, "is over only 32.7s"},
		{[]string{"fault", "partial:10%@19s"}, time.Minute, ""}, // the limit for part of a frame is shorter
		{[]string{"fault", "stall-server:10s@25s"}, 0, "is over only 35s"},
	} {
		err := testPlan(t, c.pairs...).ValidateTimeout(c.timeout)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v with T = %s: %v, want %q", c.pairs, c.timeout, err, c.want)
		}
	}
}

func TestShippedScenarios(t *testing.T) {
	timeouts := map[string]time.Duration{ // T of the server that the run starts
		"dead-wave": 7500 * time.Millisecond, "herd": 7500 * time.Millisecond,
		"million": 150 * time.Second, "quick": 7500 * time.Millisecond, "three-hundred-thousand": 90 * time.Second,
	}
	if got, want := ScenarioNames(), slices.Sorted(maps.Keys(timeouts)); !slices.Equal(got, want) {
		t.Errorf("there are %q, want %q", got, want)
	}
	for _, name := range ScenarioNames() {
		l, err := ReadScenario(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, settings, err := Build(l)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if settings[1].From != "scenario "+name {
			t.Errorf("%s: %+v", name, settings[1])
		}
		if err := p.ValidateTimeout(timeouts[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestScenarioFiles(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]string{ // empty: nothing is wrong
		"connections: 5k\nfault: [\"silent:10%@1s\", \"reset:5@2s\"]\nhello: true\ninterval: 2s\nseed: 7\n": "",
		"":                         "",
		"connections: [1, [2]]":    "is a list of lists",
		"connections:":             "has no value",
		"fault: []":                "is an empty list",
		"connections: {a: b}":      "holds further keys",
		"just words":               "is not YAML",
		"a: b: c":                  "is not YAML",
		"conections: 5":            "conections (scenario F:1): is not a setting; the nearest is connections",
		"connections: 5.5":         `connections "5.5" (scenario F:1): is not a whole number`,
		"connections: [1, 2]":      "has 2 values",
		"interval: 5\nmode: chrun": `mode "chrun" (scenario F:2): must be`,
	} {
		path := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		l, err := ReadScenario(path)
		if err == nil {
			_, _, err = Build(l)
		}
		want = strings.ReplaceAll(want, "F:", path+":")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ReadScenario(filepath.Join(dir, "none")); err == nil ||
		!strings.Contains(err.Error(), "or one of dead-wave, herd, million, quick or three-hundred-thousand") {
		t.Errorf("a missing file: %v", err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, 1<<20+1), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadScenario(big); err == nil || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a large file: %v", err)
	}
}
