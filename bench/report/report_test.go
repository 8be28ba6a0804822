package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample are results in which each kind of outcome occurs. Everything in them
// that is a text for people has characters that HTML must escape.
func sample() *Results {
	r := &Results{
		Schema: Schema,
		Environment: Environment{CPU: "A & B", CPUs: 2, Kernel: "6", Go: "go1.26", ServerCPUs: []int{0},
			LoadCPUs: []int{1}, Procs: 2, Rounds: 5, Commit: "abc"},
		Contenders: []Contender{
			{Name: Subject, Deadlines: true, Loops: true}, {Name: Floor, Loops: true},
			{Name: "timers", Title: "<script>", Deadlines: true, Loops: true}, {Name: "flood"}, {Name: "broken"},
		},
		Cells: []Cell{{"W2-1", "W2", "10 connections, 100 beats a second"}, {"W3-1", "W3", "1 in flight"},
			{"W5-1", "W5", "10 connections"}},
		Micro: []Micro{
			{"Refresh/heartwheel", map[string][]float64{"ns/op": {1, 2, 1, 1}, "B/op": {0, 0, 0, 0}}},
			{"Refresh/<wheel>", map[string][]float64{"ns/op": {100, 200, 100, 100}, "B/op": {0, 0, 0, 0}}},
			{"Arm/heartwheel", map[string][]float64{"ns/op": {7}, "ns/timer": {3}}},
			{"Arm/heap", map[string][]float64{"ns/op": {7}, "ns/timer": {6}}},
			{"Alone", map[string][]float64{"ns/op": {7}}},
		},
	}
	add := func(cell, who string, figures map[string]float64, discarded, failed string) {
		for round := range 5 {
			scaled := map[string]float64{}
			for k, v := range figures {
				scaled[k] = v * (1 + 0.01*float64(round)) // the same drift for all
			}
			r.Runs = append(r.Runs, Run{Cell: cell, Contender: who, Round: round + 1, Figures: scaled,
				Discarded: discarded, Failed: failed})
		}
	}
	add("W2-1", Subject, map[string]float64{"cpu_per_beat": 5, "p99": 300}, "", "")
	add("W2-1", Floor, map[string]float64{"cpu_per_beat": 5, "p99": 310}, "", "")
	add("W2-1", "timers", map[string]float64{"cpu_per_beat": 10, "p99": 200}, "", "")
	add("W2-1", "broken", nil, "", "the server <ended>")
	add("W3-1", Subject, map[string]float64{"frames": 100_000}, "", "")
	add("W3-1", Floor, map[string]float64{"frames": 80_000}, "", "")
	add("W3-1", "flood", map[string]float64{"frames": 900_000}, "the generator was the limit", "")
	add("W5-1", Subject, map[string]float64{"off": 118, "undetected": 0, "false_kills": 0}, "", "")
	add("W5-1", Floor, map[string]float64{"off": 1, "undetected": 100, "false_kills": 0}, "", "")
	add("W5-1", "timers", map[string]float64{"off": 2, "undetected": 0, "false_kills": 7}, "", "")
	return r
}

func TestVerdicts(t *testing.T) {
	tables := sample().Tables()
	find := func(cell, metric string) *Table {
		for i := range tables {
			if tables[i].Cell.ID == cell && tables[i].Metric.Key == metric {
				return &tables[i]
			}
		}
		t.Fatalf("no table %s %s", cell, metric)
		return nil
	}
	for _, c := range []struct {
		cell, metric, who string
		want              Verdict
	}{
		{"W2-1", "cpu_per_beat", Floor, Even},
		{"W2-1", "cpu_per_beat", "timers", Better},
		{"W2-1", "p99", Floor, Better},
		{"W2-1", "p99", "timers", Worse},
		{"W2-1", "p99", "broken", ""},
		{"W3-1", "frames", Floor, Better}, // more is better
		{"W3-1", "frames", "flood", ""},   // discarded
		{"W5-1", "off", "timers", Worse},
		{"W5-1", "off", Floor, ""}, // has no deadlines
		{"W5-1", "undetected", Floor, Better},
		{"W5-1", "undetected", "timers", Even},
		{"W5-1", "false_kills", "timers", Better},
	} {
		row := find(c.cell, c.metric).Row(c.who)
		if row == nil || row.Verdict != c.want {
			t.Errorf("%s %s against %s: %+v, want %q", c.cell, c.metric, c.who, row, c.want)
		}
	}
	if best := find("W2-1", "p99").Best(anyone); best.Contender.Name != "timers" {
		t.Errorf("the best latency is that of %s", best.Contender.Name)
	}
	if best := find("W3-1", "frames").Best(anyone); best.Contender.Name != Floor {
		t.Errorf("the best throughput is that of %s", best.Contender.Name)
	}
	if best := find("W5-1", "off").Best(anyone); best.Contender.Name != "timers" {
		t.Errorf("the best detection is that of %s, which has no deadlines", best.Contender.Name)
	}
}

// TestPairs checks that ratios are of rounds that both have, whatever came first.
func TestPairs(t *testing.T) {
	r := &Results{Contenders: []Contender{{Name: Subject}, {Name: Floor}}, Cells: []Cell{{"W2-1", "W2", ""}}}
	for round := 5; round >= 1; round-- {
		r.Runs = append(r.Runs, Run{Cell: "W2-1", Contender: Subject, Round: round,
			Figures: map[string]float64{"p99": float64(round)}})
		if round != 3 {
			r.Runs = append(r.Runs, Run{Cell: "W2-1", Contender: Floor, Round: round,
				Figures: map[string]float64{"p99": float64(2 * round)}})
		}
	}
	tables := r.Tables()
	if iv := tables[0].Row(Floor).Ratio; iv != (Interval{0.5, 0.5, 0.5, 4, true}) {
		t.Errorf("%+v", iv)
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := sample().WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| W2 Beats at a fixed rate, 10 connections, 100 beats a second | server CPU a beat | 1.00 (1.00–1.00) = | " +
			"0.50 (0.50–0.50) ✓ timers | 1.00 (1.00–1.00) = gnet |",
		"| W2 Beats at a fixed rate, 10 connections, 100 beats a second | latency, 99 % | 0.97 (0.97–0.97) ✓ | 1.50 " +
			"(1.50–1.50) ✗ timers | 1.50 (1.50–1.50) ✗ timers |",
		"| W3 Echo throughput, 1 in flight | frames a second | 1.25 (1.25–1.25) ✓ | – | 1.25 (1.25–1.25) ✓ gnet |",
		"| W5 A wave of dead peers, 10 connections | largest detection error | has no deadlines | " +
			"59.0 (59.0–59.0) ✗ timers |",
		"| W5 A wave of dead peers, 10 connections | live ones closed | 0 : 0 = | 0 : 7.14 ✓ timers | 0 : 0 = gnet |",
		"- W2, 10 connections, 100 beats a second, latency, 99 %: timers 204 µs; heartwheel " +
			"306 µs: reason not known yet",
		"- W5, 10 connections, largest detection error: timers 2.04 ms; heartwheel 120 " +
			"ms: heartwheel has one alarm",
		"| Refresh | <wheel> | 0.01 (0.01–0.01) |",
		"| Arm | heap | 0.50 (no interval) |",
		"5 of 50 runs were discarded",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &b)
		}
	}
	if strings.Contains(b.String(), "%!") {
		t.Errorf("a broken format:\n%s", &b)
	}
}

// TestPage checks the page without a browser: that it is whole, escapes, loads
// nothing and has no script. BENCH_PAGE names a file to look at it in one.
// Where few can do what is measured, the table has the figures of each of them.
func TestMarkdownOfFew(t *testing.T) {
	r := &Results{Contenders: []Contender{{Name: Subject}, {Name: "a"}, {Name: "b"}, {Name: "c"}},
		Cells: []Cell{{"W9-W1-5", "W9", "idle, 5 connections"}, {"W9-W4", "W9", "connect"}}}
	add := func(cell, who, discarded string, figures map[string]float64) {
		for round := range 4 {
			r.Runs = append(r.Runs, Run{Cell: cell, Contender: who, Round: round + 1, Figures: figures,
				Discarded: discarded})
		}
	}
	add("W9-W1-5", Subject, "", map[string]float64{"rss_per_conn": 8000})
	add("W9-W1-5", "a", "", map[string]float64{"rss_per_conn": 16_000})
	add("W9-W1-5", "c", "", map[string]float64{"rss_per_conn": 32_000})
	add("W9-W4", Subject, "", map[string]float64{"cpu_per_connect": 500, "handshakes": 2000})
	add("W9-W4", "a", "", map[string]float64{"cpu_per_connect": 250, "handshakes": 4000})
	add("W9-W4", "c", "late", map[string]float64{"cpu_per_connect": 1, "handshakes": 1e6})
	var b bytes.Buffer
	if err := r.WriteMarkdown(&b); err != nil {
		t.Fatal(err)
	}
	const want = `
| W9 TLS | | heartwheel | a | c | ÷ best of the others |
|---|---|---|---|---|---|
| idle, 5 connections | resident memory a connection | 8,000 B | 16 kB | 32 kB | 0.50 (0.50–0.50) ✓ a |
| connect | server CPU a connection | 500 µs | 250 µs | discarded | 2.00 (2.00–2.00) ✗ a |
|  | connections a second of processor time | 2,000/s | 4,000/s | discarded | 0.50 (0.50–0.50) ✗ a |
`
	if !strings.Contains(b.String(), want) || strings.Contains(b.String(), "bare gnet") {
		t.Errorf("it is\n%s", &b)
	}
}

func TestPage(t *testing.T) {
	r := sample()
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	html := b.String()
	if name := filepath.Join(t.TempDir(), "page.html"); os.WriteFile(name, b.Bytes(), 0o666) != nil {
		t.Error("cannot write it")
	}
	for _, bad := range []string{"<script", "http://", "https://", "<ended>", "<wheel>", "NaN", "%!", "ZgotmplZ"} {
		if strings.Contains(html, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{
		"&lt;script&gt;", "A &amp; B", "the server &lt;ended&gt;", "Refresh/&lt;wheel&gt;", "✗ beats it",
		"discarded", "has no deadlines",
		`<section id="W2">`, `<section id="W5">`, `<section id="W8">`, "5 of 5 failed",
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	checkSVG(t, html)
}

// checkSVG checks that each chart is well-formed and has a label.
func checkSVG(t *testing.T, html string) {
	charts := 0
	for rest := html; ; charts++ {
		_, after, ok := strings.Cut(rest, "<svg ")
		if !ok {
			break
		}
		chart, tail, ok := strings.Cut(after, "</svg>")
		if !ok {
			t.Fatal("a chart has no end")
		}
		d := xml.NewDecoder(strings.NewReader("<svg " + chart + "</svg>"))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("chart %d: %s", charts, err)
			}
		}
		rest = tail
	}
	if charts < 5 {
		t.Errorf("only %d charts", charts)
	}
}

// TestPageOfNothing checks that a run which was interrupted at once has a page.
func TestPageOfNothing(t *testing.T) {
	var b bytes.Buffer
	r := &Results{Environment: Environment{Interrupted: true}}
	if err := errors.Join(r.WriteHTML(&b), r.WriteMarkdown(io.Discard)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "Interrupted") {
		t.Error("it does not say so")
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   string
	}{
		{[]float64{0}, "{0 1 false}"},
		{[]float64{3, 9}, "{0 10 false}"},
		{[]float64{410, 480}, "{0 500 false}"},
		{[]float64{0, 0, 7}, "{0 8 false}"},
		{[]float64{2, 900}, "{1 1000 true}"},
	} {
		s := newScale(c.values)
		if got := fmt.Sprint(s); got != c.want {
			t.Errorf("%v: %s, want %s", c.values, got, c.want)
		}
		for _, v := range append(s.ticks(), c.values...) {
			if x := s.x(v); x < labelWidth || x > chartWidth-valueWidth {
				t.Errorf("%v: %v lies outside, at %v", c.values, v, x)
			}
		}
	}
}

func TestWording(t *testing.T) {
	for _, c := range []struct {
		v          float64
		unit, want string
	}{
		{0, "", "0"}, {912, "", "912"}, {1234567, "", "1,234,567"}, {-4200, "", "-4,200"},
		{0.0123, "us", "0.0123 µs"}, {12.34, "us", "12.3 µs"}, {1500, "us", "1.50 ms"}, {2.5e6, "us", "2.50 s"},
		{910, "B", "910 B"}, {21500, "B", "21.5 kB"}, {3.2e7, "B", "32 MB"}, {158000, "/s", "158,000/s"},
	} {
		if got := value(c.v, c.unit); got != c.want {
			t.Errorf("value(%v, %q) = %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

func TestParseBench(t *testing.T) {
	const text = `goos: linux
pkg: heartwheel/bench/micro
BenchmarkRefresh/heartwheel/1000000-2         	200000000	         5.100 ns/op	       0 B/op	       0 allocs/op
BenchmarkRefresh/timingwheel/1000000-2        	  1000000	       470.0 ns/op	      80 B/op	       2 allocs/op
BenchmarkRefresh/heartwheel/1000000-2         	200000000	         5.300 ns/op	       0 B/op	       0 allocs/op	        32.00 B/timer
BenchmarkBroken-2
--- BENCH: BenchmarkNoise-2
PASS
`
	list, err := ParseBench(strings.NewReader(text), 2)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	first := list[0]
	if first.Name != "Refresh/heartwheel/1000000" || fmt.Sprint(first.Values["ns/op"]) != "[5.1 5.3]" ||
		fmt.Sprint(first.Values["B/timer"]) != "[32]" {
		t.Errorf("%+v", first)
	}
	// Without a suffix nothing is taken off.
	list, err = ParseBench(strings.NewReader("BenchmarkX/size-16 10 1.0 ns/op\n"), 1)
	if err != nil || len(list) != 1 || list[0].Name != "X/size-16" {
		t.Errorf("%+v, %v", list, err)
	}
}
