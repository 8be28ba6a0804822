package loadtest

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file below testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what it was; if that is right, run the test with -update. Now:\n%s", name, got)
	}
}

// exampleMeasurements are of a made-up run: 1,000 connections on two loops of two
// processes, with everything that a report can show.
func exampleMeasurements(t testing.TB) *measurements {
	p, settings, err := Build(flags("connections", "1k", "processes", "2", "interval", "5s", "duration", "20s",
		"fault", "silent:10%@2s", "fault", "reset:5@3s", "fault", "herd:20@4s", "fault", "stall-server:1s@12s",
		"slo", "false_kills<=1", "slo", "rtt.p99<5ms", "slo", "detect.max<=timeout+200ms"))
	if err != nil {
		t.Fatal(err)
	}
	const second = int64(time.Second)
	m := &measurements{
		plan: p, settings: settings, start: 100 * second, hold: 101 * second,
		probed: probeResult{timeout: 7500 * time.Millisecond, timeoutSource: "WELCOME"},
		environment: report.Environment{Version: "test", Go: "go1.26", OS: "linux", Arch: "amd64", Kernel: "6.18",
			CPUs: 2, MemoryBytes: 24 << 30,
			Processes: 2, Loops: 1, Target: "tcp://127.0.0.1:9000", Started: "2026-01-02T03:04:05Z"},
		server: &report.Server{Ops: "http://127.0.0.1:9090", PIDs: []int{42}, Samples: 21, ConnectionsMax: 1000,
			CPUPercent: 12.3, CPUPercentMax: 45.6,
			RSSBeforeBytes: 17e6, RSSAfterBytes: 18e6, RSSPeakBytes: 19e6, UserBytesPerConnection: 1000,
			KernelBytesPerSocket: 4000,
			ClosedByReason: map[string]int64{"peer_reset": 25,
				"idle_timeout": 100}, LoopLagP99US: 1000, LoopLagMeanUS: 12, Notes: []string{"a note"}},
		events: []report.Event{
			{T: 0, Kind: report.EventPhase, Text: "connect"}, {T: 1, Kind: report.EventPhase, Text: "hold"}, {T: 3,
				Kind: report.EventFault, Fault: "silent:10%@2s", Text: "silent"},
			{T: 99, Kind: report.EventFault, Text: "after the end"},
		},
		samples: []report.Sample{{T: 1, Phase: "hold", Connections: 1000,
			ResponseUS: &report.Distribution{Count: 1, P99: 80}, Server: &report.ServerSample{Connections: 1000,
				CPUPercent: 10}}},
	}
	for k := range 2 {
		r := &engine.Result{
			Loop: k, Response: engine.NewHistogram(engine.RunDigits), Service: engine.NewHistogram(engine.RunDigits),
			Lag: engine.NewHistogram(engine.RunDigits), Connect: engine.NewHistogram(engine.RunDigits),
			ConnectLag: engine.NewHistogram(engine.RunDigits),
			Tallies: engine.Tallies{Attempts: 500, Open: 445, Established: 499, Failed: 1, Sent: 2000, Answered: 1999,
				Wrong: 1, Injected: 52, Detected: 49, FalseKills: k, Reconnects: 10},
			Failures: map[string]*engine.Failure{"connection refused": {Count: 1,
				Example: "at 0.500 s connection 7"}},
			Told:         map[int]int{3001: 1},
			WrongExample: "at 2.000 s connection 3: x", Unanswered: 1, OldestUnanswered: second / 1000,
			AnsweredInHold: 1900,
			FirstConnect:   100 * second, LastConnect: 101*second - int64(k), HoldEnd: 121 * second,
			Closed:  121*second + second/10,
			LoopCPU: 20 + float64(k), ProcCPU: 30 + float64(k), RSS: 20e6, Heap: 445 * 300,
			Faults: []engine.FaultTally{
				{Start: 103 * second, End: 111 * second, Injected: 50, Detected: 49, Undetected: 1, Late: 1,
					Examples: []engine.FaultExample{{OffNS: int64(k),
						Text: fmt.Sprintf("connection %d was still open", 8+k)}}},
				{Start: 104 * second, End: 104 * second, Injected: 2 + k},
				{Start: 105 * second, End: 106 * second, Reconnects: 10, Reconnected: 9, ReconnectRefused: 1,
					LastReconnect: 106 * second, ReconnectTime: engine.NewHistogram(engine.RunDigits)},
				{},
			},
		}
		if k == 1 {
			r.FalseKills = []engine.CloseExample{{AtS: 7, Connection: 11, SilentMS: 1000, How: "reset",
				Text: "at 7.000 s connection 11, 1000 ms after its last whole frame: reset"}}
		}
		for i := range int64(1900) {
			r.Response.Record(40_000 + i*100)
			r.Service.Record(30_000 + i*90)
			r.Lag.Record(i * 50)
			r.ConnectLag.Record(i * 20)
			r.Connect.Record(50_000 + i*30)
		}
		for i := range int32(49) {
			r.Faults[0].Errors = append(r.Faults[0].Errors, i*4200+int32(k))
		}
		for i := range int64(9) {
			r.Faults[2].ReconnectTime.Record(i * 1e6)
		}
		m.results = append(m.results, r)
	}
	return m
}

// written is the short report and every file of the run.
func written(t *testing.T, m *measurements) map[string]string {
	t.Helper()
	dir := t.TempDir()
	o := summarize(m)
	names, err := o.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"report.txt": o.Summary.Text()}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(b)
	}
	return all
}

func TestGolden(t *testing.T) {
	got := written(t, exampleMeasurements(t))
	for _, name := range []string{"summary.json", "timeseries.ndjson", "events.ndjson", "response.hgrm",
		"detection.hgrm", "report.txt"} {
		golden(t, "golden/"+name, []byte(got[name]))
	}
}

// The order of the loops' results makes no difference.
func TestSameDataSameBytes(t *testing.T) {
	want := written(t, exampleMeasurements(t))
	m := exampleMeasurements(t)
	slices.Reverse(m.results)
	if got := written(t, m); !reflect.DeepEqual(got, want) {
		t.Errorf("other bytes for the same data:\n%s\nwant\n%s", got["summary.json"], want["summary.json"])
	}
}

func TestLimitedRunShowsNoLatency(t *testing.T) {
	for name, change := range map[string]func(m *measurements){
		"lag": func(m *measurements) { m.plan.MaxLag = 50 * time.Microsecond },
		"connect lag": func(m *measurements) {
			for range 1000 {
				m.results[0].ConnectLag.Record(6e6)
			}
		},
		"cpu":    func(m *measurements) { m.results[1].LoopCPU = cpuBound },
		"lapses": func(m *measurements) { m.results[0].Tallies.Lapses = 1 },
	} {
		m := exampleMeasurements(t)
		for _, r := range m.results { // nothing else is wrong
			r.Tallies.Established, r.Tallies.Failed, r.Tallies.Wrong, r.Failures = 500, 0, 0, nil
			r.Faults[0].Undetected, r.Faults[0].Late, r.Faults[0].Errors = 0, 0, r.Faults[0].Errors[:48]
			r.Faults[2].Reconnected = 10
		}
		change(m)
		o := summarize(m)
		s := o.Summary
		if !s.Generator.Limited || len(s.Generator.Why) != 1 || s.Response != nil || s.Service != nil ||
			s.Verdict.Word != report.Invalid || s.Verdict.ExitCode != 4 {
			t.Errorf("%s: %+v %+v", name, s.Generator, s.Verdict)
		}
		text := s.Text()
		if !strings.HasPrefix(text, "INVALID: generator-limited\n") || strings.Contains(text, report.ResponseName) {
			t.Errorf("%s:\n%s", name, text)
		}
		dir := t.TempDir()
		old := filepath.Join(dir, "response.hgrm")
		if err := os.WriteFile(old, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		names, err := o.Write(dir)
		if err != nil || slices.Contains(names, "response.hgrm") {
			t.Errorf("%s: %v %v", name, names, err)
		}
		if _, err := os.Stat(old); err == nil {
			t.Errorf("%s: the response of the run before is still there", name)
		}
	}
}

// Of fewer than lagSamples the median is judged: of 30 connects the p99 is the worst.
func TestFewLagsAreNoP99(t *testing.T) {
	for name, c := range map[string]struct {
		late, all int
		limited   bool
	}{
		"the worst of 30":    {1, 30, false},
		"most of 30":         {16, 30, true},
		"2 % of nearly 1000": {20, 999, false},
		"2 % of 1000":        {20, 1000, true},
	} {
		m := exampleMeasurements(t)
		for _, r := range m.results {
			r.ConnectLag = engine.NewHistogram(engine.RunDigits)
		}
		for i := range c.all {
			lag := int64(1000)
			if i < c.late {
				lag = 6e6
			}
			m.results[0].ConnectLag.Record(lag)
		}
		if g := summarize(m).Summary.Generator; g.Limited != c.limited {
			t.Errorf("%s: limited %v: %v", name, g.Limited, g.Why)
		}
	}
}

// Closes after one and the same silence show T, unknown or not as the run was told.
func TestGuessTimeout(t *testing.T) {
	const ms = int64(time.Millisecond)
	for name, c := range map[string]struct {
		timeout  time.Duration
		silences []int64 // with T unknown
		errors   []int32 // else, in µs
		want     string
	}{
		"alike":          {0, []int64{3001 * ms, 3003 * ms, 3100 * ms}, nil, "looks like T = 3s; try --timeout 3s"},
		"spread":         {0, []int64{3001 * ms, 3003 * ms, 4000 * ms}, nil, ""},
		"few":            {0, []int64{3001 * ms, 3003 * ms}, nil, ""},
		"on time":        {time.Second, nil, []int32{1, 100_000, 150_000}, ""},
		"late, alike":    {time.Second, nil, []int32{1_001_000, 1_009_000, 1_100_000}, "looks like T = 2s"},
		"early, alike":   {time.Second, nil, []int32{-498_000, -450_000, -400_000}, "looks like T = 500ms"},
		"late, all over": {time.Second, nil, []int32{1_001_000, 5_009_000, 9_100_000}, ""},
	} {
		m := exampleMeasurements(t)
		m.probed.timeout = c.timeout
		m.results = m.results[:1]
		m.results[0].Silences, m.results[0].Faults[0].Errors = c.silences, c.errors
		notes := strings.Join(summarize(m).Summary.Notes, "\n")
		if c.want == "" && notes != "" || !strings.Contains(notes, c.want) {
			t.Errorf("%s: %q, want %q", name, notes, c.want)
		}
	}
}

func TestNothingWasMeasured(t *testing.T) {
	p, settings, err := Build(flags("fault", "silent:10%@2s"))
	if err != nil {
		t.Fatal(err)
	}
	o := summarize(&measurements{plan: p, settings: settings, start: 1, interrupted: true})
	if o.Summary.Verdict.ExitCode != 130 || o.Summary.Text() == "" {
		t.Errorf("%+v", o.Summary.Verdict)
	}
	if _, err := o.Write(t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	dir := t.TempDir()
	if err := os.Symlink("/dev/full", filepath.Join(dir, "timeseries.ndjson")); err != nil {
		t.Fatal(err)
	}
	_, err := summarize(exampleMeasurements(t)).Write(dir)
	if err == nil || !strings.Contains(err.Error(), "no space left on device; free some space") {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "timeseries.ndjson")); err == nil {
		t.Error("a part of a file is left")
	}
}

func TestPrepareOut(t *testing.T) {
	dir := t.TempDir()
	if err := prepareOut(filepath.Join(dir, "a", "b"), false); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "a", "b")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := prepareOut(filepath.Join(file, "x"), true); err == nil ||
		!strings.Contains(err.Error(), "give a directory that can") {
		t.Errorf("%v", err)
	}
}

// The engine's events go into the report as they are.
func TestEventKinds(t *testing.T) {
	for got, want := range map[string]string{
		engine.EventFalseKill: report.EventFalseKill, engine.EventUnexplained: report.EventUnexplained,
		engine.EventUndetected: report.EventUndetected, engine.EventWrong: report.EventWrong,
		engine.EventTold: report.EventTold, engine.EventConnect: report.EventConnect,
	} {
		if got != want {
			t.Errorf("the engine says %s, the report %s", got, want)
		}
	}
}
