package report

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func compareExample() *Comparison {
	a, _, _ := exampleRun()
	b, _, _ := exampleRun()
	a.Verdict, a.Plan[5].Value, b.Plan[5].Value = Verdict{Word: Pass}, "(given)", "(given)"
	b.Plan[0].Value = "15k"
	b.Plan = append(b.Plan, Setting{"out", "elsewhere", "flag"}, Setting{"new-setting", "5s", "flag"},
		Setting{"unset", "", "default"})
	b.Environment.Kernel, b.Environment.Started = "6.12.1", "2026-02-04T04:05:06Z"
	b.Response, b.Service = exampleLatency(ResponseName, 2.6), nil
	b.FalseKills.Count, b.Connections.Failed = 0, 0
	b.Server, b.Detection.ErrorMS.P50 = nil, -2
	return Compare(a, b, "old", "new/summary.json")
}

func TestCompareText(t *testing.T) {
	text := compareExample().Text()
	golden(t, "golden/compare.txt", []byte(text))
	for line := range strings.Lines(text) {
		if strings.HasSuffix(line, " \n") {
			t.Errorf("blanks at the end of %q", line)
		}
	}
}

func TestCompareJSON(t *testing.T) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(compareExample()); err != nil {
		t.Fatal(err)
	}
	golden(t, "golden/compare.json", b.Bytes())
}

func figureByName(t *testing.T, c *Comparison, name string) Figure {
	t.Helper()
	for _, f := range c.Figures {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no figure %s", name)
	return Figure{}
}

func TestCompareRatios(t *testing.T) {
	c := compareExample()
	for name, want := range map[string]float64{ResponseName + " p99": 2, "connections established": 1, "false kills": 0,
		"generator: processor": 1} {
		if f := figureByName(t, c, name); f.Ratio == nil || *f.Ratio != want {
			t.Errorf("%s: %v, want %v", name, f.Ratio, want)
		}
	}
	for _, name := range []string{ServiceName + " p99", "server: processor", "connections refused",
		"detection error p50"} {
		if f := figureByName(t, c, name); f.Ratio != nil {
			t.Errorf("%s has the ratio %v", name, *f.Ratio)
		}
	}
	if f := figureByName(t, c, ServiceName+" max"); f.A == nil || f.B != nil {
		t.Errorf("%+v", f)
	}
	// Figures that neither run has are left out.
	empty := Compare(&Summary{}, &Summary{}, "a", "b")
	for _, f := range empty.Figures {
		if strings.Contains(f.Name, "p99") || strings.Contains(f.Name, "server") {
			t.Errorf("%s of two runs that have none", f.Name)
		}
	}
}

func TestCompareWarns(t *testing.T) {
	run := func(change func(*Summary)) *Summary {
		s, _, _ := exampleRun()
		s.Verdict.Word = Pass
		change(s)
		return s
	}
	same := func(*Summary) {}
	for _, c := range []struct {
		name string
		a, b *Summary
		want string // the warnings, separated by a bar
	}{
		{"the same", run(same), run(same), ""},
		{"another time, another directory", run(same), run(func(s *Summary) {
			s.Environment.Started = "later"
			s.Plan = append(s.Plan, Setting{"out", "b", "flag"})
		}), ""},
		{"another origin of a value", run(same), run(func(s *Summary) { s.Plan[0].From = "scenario x" }), ""},
		{"another port of a server of its own", run(func(s *Summary) { s.Environment.OwnServer = true }),
			run(func(s *Summary) { s.Environment.OwnServer, s.Environment.Target = true, "tcp://127.0.0.1:1" }), ""},
		{"another target", run(same), run(func(s *Summary) { s.Environment.Target = "tcp://10.0.0.1:1" }),
			"the environments differ"},
		{"another plan", run(same), run(func(s *Summary) { s.Plan[0].Value = "1k" }),
			"the plans differ: the runs did not do the same"},
		{"invalid", run(func(s *Summary) { s.Verdict.Word = Invalid }),
			run(func(s *Summary) { s.Verdict.Word = Interrupted }),
			"A is INVALID: its generator was limited, so its latencies say nothing about the server" +
				"|B was interrupted: it has only what was measured until then"},
	} {
		if got := strings.Join(Compare(c.a, c.b, "a", "b").Warnings, "|"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Read returns what Write wrote, and the reports are the same.
func TestReadRun(t *testing.T) {
	dir := t.TempDir()
	s, samples, events := exampleRun()
	if _, err := (&Run{Summary: s, Samples: samples, Events: events}).Write(dir); err != nil {
		t.Fatal(err)
	}
	r, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Samples) != len(samples) || len(r.Events) != len(events) || r.Summary.Text() != s.Text() {
		t.Errorf("%d samples, %d events, and the report\n%s", len(r.Samples), len(r.Events), r.Summary.Text())
	}
	path, err := RewriteHTML(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != render(t, s, samples, events) {
		t.Error("the report of the files is another than that of the run")
	}
	// The summary can be named in both ways.
	if _, err := ReadSummary(filepath.Join(dir, "summary.json")); err != nil {
		t.Error(err)
	}
	// The summary alone is enough.
	for _, name := range []string{"timeseries.ndjson", "events.ndjson"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := RewriteHTML(dir); err != nil {
		t.Error(err)
	}
}

func TestReadRunErrors(t *testing.T) {
	for _, c := range []struct{ name, summary, samples, want string }{
		{"nothing", "", "", "no such file or directory; give the directory that heartwheel loadtest --out wrote"},
		{"not JSON", "PASS", "", "is not the summary of a load test: invalid character"},
		{"something else", `{"version": 3}`, "", `has the schema "", and this heartwheel reads "` + Schema + `"`},
		{"a later form", `{"schema": "heartwheel-loadtest/2"}`, "", `has the schema "heartwheel-loadtest/2"`},
		{"wrong inside", `{"schema": "` + Schema + `", "phases": 5}`, "", "is not the summary of a load test: json"},
		{"cut off", `{"schema": "` + Schema + `", "phases": [`, "", "unexpected end"},
		{"samples cut off", `{"schema": "` + Schema + `"}`, "{}\n\n{\"t_s\": 5", "line 3 of"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"summary.json": c.summary, "timeseries.ndjson": c.samples} {
			if text != "" {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "summary.json"), []byte(`{"schema": "`+Schema+`"}`), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "report.html"), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := RewriteHTML(dir); err == nil || !strings.Contains(err.Error(), "cannot write") {
		t.Errorf("got %v", err)
	}
}
