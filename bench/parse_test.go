//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/bench/report"
)

func TestHear(t *testing.T) {
	for _, c := range []struct {
		name  string
		lines []string
		want  heard
		done  bool
	}{
		{"a peer", []string{"listening 127.0.0.1:4711"}, heard{addr: "127.0.0.1:4711"}, true},
		{"heartwheel", []string{
			`{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"ops listening","addr":"127.0.0.1:9090"}`,
			`{"time":"2026-01-01T00:00:00Z","level":"INFO","msg":"listening","addr":"127.0.0.1:9000",` +
				`"profile":"standard"}`,
		}, heard{"127.0.0.1:9000", "127.0.0.1:9090"}, true},
		{"noise before", []string{"SLF4J: no logger", "{not json", "listening 127.0.0.1:1"},
			heard{addr: "127.0.0.1:1"}, true},
		{"an error", []string{"bind: address already in use"}, heard{}, false},
	} {
		var h heard
		done := false
		for _, line := range c.lines {
			done = h.hear(line)
		}
		if h != c.want || done != c.done {
			t.Errorf("%s: %+v, %v", c.name, h, done)
		}
	}
}

func TestMetric(t *testing.T) {
	const text = "# HELP go_memstats_heap_alloc_bytes x\ngo_memstats_heap_alloc_bytes_total " +
		"7\ngo_memstats_heap_alloc_bytes 2.5e+06\n"
	if v, err := metric(text, "go_memstats_heap_alloc_bytes"); err != nil || v != 2.5e6 {
		t.Errorf("%v, %v", v, err)
	}
	if _, err := metric(text, "heartwheel_connections"); err == nil {
		t.Error("a metric that is not there is no error")
	}
}

func TestParseIdle(t *testing.T) {
	const text = "cpu  10 0 10 900 30 0 0 0 0 0\ncpu0 5 0 5 400 10 0 0 0 0 0\ncpu1 5 0 5 500 20 0 0 0 0 0\nintr 5\n"
	for _, c := range []struct {
		cpus []int
		want time.Duration
	}{{[]int{0}, 4100 * time.Millisecond}, {[]int{1}, 5200 * time.Millisecond},
		{[]int{0, 1}, 9300 * time.Millisecond}} {
		if got, err := parseIdle(text, c.cpus); err != nil || got != c.want {
			t.Errorf("%v: %s, %v, want %s", c.cpus, got, err, c.want)
		}
	}
	if _, err := parseIdle(text, []int{2}); err == nil {
		t.Error("a processor that is not there is no error")
	}
}

func TestParseStatus(t *testing.T) {
	const text = "Name:\tgnet\nVmHWM:\t   9000 kB\nVmRSS:\t    9264 kB\nRssAnon:\t    5120 kB\nRssFile:\t    4144 kB\n"
	if r, err := parseStatus(text); err != nil || r != (resident{9264 << 10, 5120 << 10}) {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := parseStatus("Name:\tgnet\n"); err == nil {
		t.Error("a status without sizes is no error")
	}
	if r, err := residentOf(os.Getpid()); err != nil || r.all < r.anon || r.anon < 1<<20 {
		t.Errorf("of this process: %+v, %v", r, err)
	}
}

func TestWindow(t *testing.T) {
	ends := 0
	w := &window{srv: ownServer(t), end: func() { ends++ }, endAfter: 3}
	feed := func(lines ...string) {
		for _, l := range lines {
			w.line(l)
			time.Sleep(time.Millisecond) // two readings of the clock differ
		}
	}
	feed("1s connect: 100 connections, hold: no", "something else")
	if w.lines != 0 {
		t.Error("the connect phase counts")
	}
	feed("2s hold: 100 connections")
	first := w.first
	feed("3s hold: 100 connections")
	if w.first != first || !w.last.Equal(w.first) || ends != 0 {
		t.Errorf("after two lines: %+v", w)
	}
	feed("4s hold: 100 connections")
	if ends != 1 || !w.last.After(w.first) || w.lastCPU < w.firstCPU {
		t.Errorf("after three: %+v", w)
	}
	last := w.last
	feed("5s hold: 100 connections")
	if ends != 1 || w.last != last {
		t.Error("it goes on after the end")
	}
}

func TestReadLoad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"summary.json": `{"schema":"heartwheel-loadtest/1","verdict":{"word":"FAILED","exit_code":1,"reasons":["x"]},
			"connections":{"asked":10,"established":10,"failed":0,"rate_real":4999.5,"time_us":{"p50":80,"p99":300}},
			"frames":{"sent":90,"answered":90,"wrong":0,"per_second":7998.2},
			"response":{"name":"response","us":{"count":5,"p50":70,"p99":250.5,"p999":900,"max":1000}},
			"detection":{"injected":4,"detected":3,"undetected":1,"early":0,"late":1,
				"faults":[{"kind":"silent","start_s":3,"end_s":6,"error_ms":{"min":1,"p50":60,"p99":110,"max":120}}]},
			"false_kills":{"count":2},"unexplained_closes":{"count":1},"generator":{"limited":false,"why":[]},"errors":[]}`,
		"timeseries.ndjson": "{\"t_s\":4,\"phase\":\"hold\",\"response_us\":{\"p99\":500}}\n" +
			"{\"t_s\":5,\"phase\":\"hold\",\"response_us\":{\"p99\":700}}\n" +
			"{\"t_s\":9,\"phase\":\"hold\",\"response_us\":{\"p99\":9000}}\n{\"t_s\":5,\"response_us\":null}\n",
		"report.html": "<p>",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	l, err := readLoad(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.window, l.serverCPU = 2*time.Second, time.Second
	if l.Frames.PerSecond != 7998.2 || l.Response.US.P99 != 250.5 || l.Connections.RateReal != 4999.5 ||
		l.Connections.TimeUS.P99 != 300 || l.cores() != 0.5 {
		t.Errorf("%+v", l)
	}
	if us := l.worst(3.5, 4.5); us != 700 {
		t.Errorf("the worst second has %v µs", us)
	}
	f, err := l.detection()
	want := map[string]float64{"undetected": 1, "early": 0, "late": 1, "injected": 4, "false_kills": 3, "error_p50": 60,
		"error_p99": 110, "off": 120, "error_max": 120, "error_min": 1}
	if err != nil || fmt.Sprint(f) != fmt.Sprint(want) {
		t.Errorf("%v, %v, want %v", f, err, want)
	}
	if err := l.check(false); err != nil {
		t.Errorf("a server that failed is no failed run: %s", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report.html")); err == nil {
		t.Error("the report of each run stays")
	}
	l.Generator.Limited, l.Generator.Why = true, []string{"frames lagged"}
	if r := judged(l.check(false)); r.Discarded == "" || r.Failed != "" {
		t.Errorf("a generator that was the limit: %+v", r)
	}
	l.Generator.Limited, l.Frames.Wrong = false, 1
	if r := judged(l.check(false)); r.Failed == "" || r.Discarded != "" {
		t.Errorf("a wrong answer: %+v", r)
	}
	if _, err := readLoad(t.TempDir()); err == nil {
		t.Error("a directory without a summary is no error")
	}
}

func TestOptions(t *testing.T) {
	o, err := parseOptions([]string{"-quick", "-only", "W2,W5", "-peers", "gnet,heartwheel", "-runs", "3",
		"-server-cpus", "0,2-3", "-load-cpus", "1", "-out", "x"})
	if err != nil || !slices.Equal(o.only, []string{"W2", "W5"}) || o.rounds != 3 ||
		!slices.Equal(o.serverCPUs, []int{0, 2, 3}) || o.procs != 4 {
		t.Errorf("%+v, %v", o, err)
	}
	o, err = parseOptions(nil)
	if err != nil || o.rounds != 5 || o.procs != 2 || len(o.peers) != 0 {
		t.Errorf("%+v, %v", o, err)
	}
	for _, c := range []struct{ args, want string }{
		{"-only W11", "W1 to W10"},
		{"-peers gnut", "there are heartwheel, gnet,"},
		{"-load-cpus 0", "measure each other"},
		{"-server-cpus x", "write processors such as"},
		{"-runs -1", "negative"},
		{"serve", "not a flag"},
	} {
		if _, err := parseOptions(strings.Fields(c.args)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.args, err)
		}
	}
}

// TestCells checks that every cell is of a known workload and has a name of its
// own, and that the load tests asked for are possible ones.
func TestCells(t *testing.T) {
	for _, quick := range []bool{true, false} {
		seen, workloads := map[string]bool{}, map[string]bool{}
		for _, c := range cells(quick) {
			if seen[c.ID] || report.WorkloadByKey(c.Workload) == nil || !strings.HasPrefix(c.ID, c.Workload) ||
				c.serving.timeout <= 0 || c.takes <= 0 {
				t.Errorf("%+v", c)
			}
			seen[c.ID], workloads[c.Workload] = true, true
		}
		want := len(report.Workloads)
		if quick {
			want -= 2 // those of the edges
		}
		if len(workloads) != want {
			t.Errorf("quick %v: %v", quick, workloads)
		}
	}
}

// An edge is measured beside others that speak it, and only those.
func TestEdgeContenders(t *testing.T) {
	b := &bench{opts: &options{}}
	b.choose()
	for _, c := range b.cells {
		names := map[string]bool{}
		for _, peer := range b.field(c) {
			names[peer.Name] = true
		}
		if !names[report.Subject] || names[report.Floor] != (c.serving.scheme == "" && !c.deaths) ||
			names["gws"] != (c.serving.scheme == "ws") || names["goroutine-tls"] != (c.serving.scheme == "tls") ||
			names["nbio-ws"] != names["gws"] || names["nbio-tls"] != names["goroutine-tls"] {
			t.Errorf("%s: %v", c.ID, names)
		}
	}
	b = &bench{opts: &options{only: []string{"W9", "W10"}, rounds: 3}}
	b.choose()
	if runs, takes := b.estimate(); runs != 5*3*(3+4) || takes > 10*time.Minute { // a second too much for each run
		t.Errorf("%d runs, %s", runs, takes)
	}
	s := serving{scheme: "tls", pem: "x.pem"}
	if own := strings.Join(contenders()[0].arguments(s), " "); !strings.Contains(own, "--listen tls://127.0.0.1:0") ||
		!strings.HasSuffix(own, "--tls-cert x.pem --tls-key x.pem") {
		t.Error(own)
	}
}

func TestLimited(t *testing.T) {
	for _, c := range []struct {
		load, server float64
		want         bool
	}{
		{0.99, 0.76, true},
		{0.96, 0.96, true},
		{0.99, 0.99, false}, // the server could not have done more either
		{0.60, 0.55, false}, // neither was: something else used the processors, see foreign
		{0.40, 0.98, false},
	} {
		if got := limited(c.load, c.server); got != c.want {
			t.Errorf("load %v, server %v: %v", c.load, c.server, got)
		}
	}
}

func TestArguments(t *testing.T) {
	all := contenders()
	s := serving{timeout: 2 * time.Second, procs: 2, loops: 1, outbox: "2MiB"}
	own := strings.Join(all[0].arguments(s), " ")
	if all[0].Name != report.Subject || !strings.Contains(own, "--timeout 2s --beat 1s") ||
		!strings.Contains(own, "--outbox 2MiB") {
		t.Errorf("%s", own)
	}
	if peer := strings.Join(all[1].arguments(s), " "); all[1].Name != report.Floor ||
		peer != "-addr 127.0.0.1:0 -timeout 2s -procs 2 -loops 1" {
		t.Errorf("%s", peer)
	}
	for _, c := range all[1:] {
		if _, err := os.Stat(c.pkg); err != nil {
			t.Errorf("%s: %s", c.Name, err)
		}
	}
}
