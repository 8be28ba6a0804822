package report

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"heartwheel/internal/wording"
)

// evil is text that a hostile server could put into a report.
const evil = "</script><script>document.title='broken into'</script>" +
	"<img src=x onerror=\"document.title='broken into'\"><!-- \u2028 {{.}} 'q' \"q\" &amp;"

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

func exampleDistribution(unit float64, count int64) *Distribution {
	return &Distribution{Count: count, Min: wording.Thousandths(20 * unit), Mean: wording.Thousandths(65 * unit),
		P50: wording.Thousandths(41 * unit), P90: wording.Thousandths(120 * unit), P99: wording.Thousandths(800 * unit),
		P999: wording.Thousandths(2600 * unit), Max: wording.Thousandths(9100 * unit)}
}

func exampleLatency(name string, unit float64) *Latency {
	l := &Latency{Name: name, US: *exampleDistribution(unit, 120_000)}
	for i, p := range []float64{0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 99.999, 100} {
		value := wording.Thousandths(20 * unit * math.Pow(1.65, float64(i)))
		l.Spectrum = append(l.Spectrum, SpectrumPoint{ValueUS: value, Percentile: p, Count: int64(p * 1200)})
	}
	return l
}

// exampleRun is a run with a bit of everything.
func exampleRun() (*Summary, []Sample, []Event) {
	s := &Summary{
		Schema: Schema, Verdict: Verdict{Breached, 3, []string{"gate rtt.p99<500us: measured 800 µs",
			"1 false kill; the first: " + evil}},
		Plan: []Setting{{"connections", "12k", "flag"}, {"duration", "1m", "scenario dead-wave"},
			{"mode", "beat", "default"}, {"source", "", "default"},
			{"fault", "silent:10%@20s,+over=2s herd:50%@40s", "flag"}, {"hello-token", evil, "flag"}},
		Environment: Environment{Version: "v1.2.3", Go: "go1.26.8", OS: "linux", Arch: "amd64", Kernel: "6.18.44",
			CPUs: 2, MemoryBytes: 25_276_514_304,
			Processes: 2, Loops: 1, Target: "tcp://127.0.0.1:9000", Started: "2026-02-03T04:05:06Z"},
		Phases: []Phase{{"connect", 0, 3}, {"hold", 3, 63}, {"close", 63, 63.4}},
		Connections: Connections{Asked: 12_000, Established: 11_997, Failed: 3,
			Failures: []Failure{{evil, 2, "at 0.1 s connection 7 from 127.0.0.9"},
				{"connection refused", 1, "at 1.5 s connection 9 from 127.0.0.3"}},
			Refused: 0, Told: []Told{{3001, "draining",
				4}}, Reconnects: 6000, AtEnd: 10_800, RateAsked: "4k", RateReal: 3999.7,
			TimeUS: exampleDistribution(1, 12_000)},
		Frames: Frames{Sent: 130_000, Answered: 129_998, Unanswered: 1, OldestUnansweredMS: 12.5, Wrong: 1,
			WrongExample: "at 5 s connection 3: " + evil, PerSecond: 2166.6},
		Response: exampleLatency(ResponseName, 1.3), Service: exampleLatency(ServiceName, 1),
		Detection: &Detection{TimeoutMS: 7500, TimeoutFrom: "WELCOME", BoundMS: 200, Injected: 1200, Detected: 1199,
			Undetected: 1, Early: 2, Late: 5,
			Faults: []FaultResult{
				{Fault: "silent:10%@20s,+over=2s", Kind: "silent", Expect: "T after its last byte", StartS: 23,
					EndS:       32.7,
					Observable: true, Injected: 1200, Detected: 1199, Undetected: 1, Early: 2, Late: 5,
					ErrorMS: &Distribution{Count: 1199, Min: -3, Mean: 31, P50: 30, P90: 60, P99: 90, P999: 240,
						Max: 260}, Examples: []string{"detected 60 ms late: " + evil}},
				{Fault: "herd:50%@40s", Kind: "herd", Expect: "never: no peer is dead", StartS: 43, EndS: 44.6,
					Observable: true,
					Examples:   []string{}, Reconnect: &Reconnect{Asked: 6000, Established: 6000, TookMS: 1612.5,
						TimeUS: exampleDistribution(3, 6000)}},
				{Fault: "reset:1%@50s", Kind: "reset", Expect: "at once", StartS: 53, EndS: 53.1, Injected: 120,
					Examples: []string{},
					Note:     "a client that has reset the connection cannot see when the server detects it"},
				{Fault: "garbage:1%@59s", Kind: "garbage", Expect: "at once", Observable: true, Examples: []string{}},
			},
			ErrorMS: &Distribution{Count: 1199, Min: -3, Mean: 31, P50: 30, P90: 60, P99: 90, P999: 240, Max: 260}},
		FalseKills: Closes{1, []CloseExample{{AtS: 12, Connection: 5, SilentMS: 900, How: "reset", Text: evil}}},
		Unexplained: Closes{7, []CloseExample{
			{Text: "at 13.000 s connection 6, 800 ms after its last whole frame: reset"}}},
		Generator: Generator{LagUS: exampleDistribution(.5, 130_000), ConnectLagUS: exampleDistribution(.4, 12_000),
			LagBoundUS: 5000, CPUBound: 95, Why: []string{},
			CPU: []ProcessCPU{{0, 31.5, 28}, {1, 30.1, 27.2}}, RSSBytes: 41_000_000, HeapPerConn: 312},
		Server: &Server{Ops: "http://127.0.0.1:9090", PIDs: []int{7}, Samples: 63, ConnectionsMax: 12_000,
			CPUPercent:    21.5,
			CPUPercentMax: 48, RSSBeforeBytes: 17_000_000, RSSAfterBytes: 27_000_000, RSSPeakBytes: 27_500_000,
			UserBytesPerConnection: 840, KernelBytesPerSocket: 4050,
			ClosedByReason: map[string]int64{"idle_timeout": 1199,
				"peer_reset": 6120, evil: 1}, RefusedByReason: map[string]int64{"overloaded": 3},
			LoopLagP99US: 1000, Notes: []string{"a note"}},
		SLO: []SLOResult{{"rtt.p99<500us", false, true, .8, .5, "ms"}, {"false_kills<=5", true, true, 1, 5, ""},
			{"connect.p99<" + evil, false, false, 0, 3, "ms"}},
		Errors: []string{
			"the metrics could not be read: " + evil,
		},
	}
	for i := range 14 {
		s.Detection.Buckets = append(s.Detection.Buckets, Bucket{float64(i-1) * 20, float64(i) * 20,
			[]int{2, 610, 300, 180, 70, 30, 2, 0, 0, 0, 0, 1, 3, 1}[i]})
	}
	var samples []Sample
	for i := range 63 {
		t := float64(i + 1)
		v := Sample{T: t, Phase: "hold", Connections: 12_000, Sent: 2166, Answered: 2166,
			CPUPercent: 55 + 3*math.Sin(t),
			LagUS:      exampleDistribution(.4+.1*math.Sin(t), 2166),
			ResponseUS: exampleDistribution(1.3+math.Sin(t/5)/3, 2166),
			ServiceUS:  exampleDistribution(1+math.Sin(t/5)/4, 2166),
			Server: &ServerSample{Connections: 12_000, CPUPercent: 20 + 3*math.Cos(t),
				RSSBytes: 26_000_000 + int64(i)*9_000}}
		switch {
		case i < 3:
			v.Phase, v.Connections, v.Connecting, v.Sent, v.Answered = "connect", 4000*(i+1), 20, 700*t, 690*t
		case i > 22:
			v.Connections = 12_000 - min(1200, 150*(i-22))
		}
		if i == 30 { // a second in which nothing was answered, and the server was not seen
			v.ResponseUS, v.ServiceUS, v.Server = nil, nil, nil
		}
		samples = append(samples, v)
	}
	events := []Event{{0, EventPhase, "", 0, "connect"}, {3, EventPhase, "", 0, "hold"},
		{23, EventFault, "silent:10%@20s,+over=2s", 0, "silent: stops beating"}, {30, EventWrong, "", 1, evil}}
	return s, samples, events
}

func render(t *testing.T, s *Summary, samples []Sample, events []Event) string {
	t.Helper()
	var b bytes.Buffer
	if err := WriteHTML(&b, s, samples, events); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The report without the embedded code.
func TestHTMLBody(t *testing.T) {
	p, err := newPage(exampleRun())
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&b, "body", p); err != nil {
		t.Fatal(err)
	}
	golden(t, "golden/report-body.html", b.Bytes())
	data, err := json.MarshalIndent(json.RawMessage(p.Data), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "golden/report-data.json", append(data, '\n'))
}

func TestHTMLIsStable(t *testing.T) {
	s, samples, events := exampleRun()
	if a, b := render(t, s, samples, events), render(t, s, samples, events); a != b {
		t.Error("the same run gave two reports")
	}
}

// attributes make a browser load something.
var attributes = regexp.MustCompile(`(?i)\s(?:src|href|srcset|data|action|poster|background|xlink:href|content)` +
	`\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)`)

var element = regexp.MustCompile(`<[a-zA-Z](?:"[^"]*"|'[^']*'|[^>"'])*>`)

func TestHTMLLoadsNothing(t *testing.T) {
	s, samples, events := exampleRun()
	text := render(t, s, samples, events)
	markup, scripts := withoutScripts(t, text)
	tags := strings.Join(element.FindAllString(markup, -1), "\n")
	for _, m := range attributes.FindAllStringSubmatch(tags, -1) {
		value := strings.Trim(m[1], `"'`)
		switch {
		case strings.HasPrefix(value, "#"), value == "data:,", value == "light dark",
			value == "width=device-width, initial-scale=1", strings.HasPrefix(value, "default-src &#39;none&#39;"):
		default:
			t.Errorf("the page may load %q", m[0])
		}
	}
	for _, word := range []string{"@import", "url("} {
		if strings.Contains(uplotCSS+reportCSS, word) {
			t.Errorf("the styles have %s", word)
		}
	}
	for _, word := range []string{"fetch(", "XMLHttpRequest", "import(", "WebSocket", "EventSource", "sendBeacon",
		"new Image", ".src", "eval(", "new Function"} {
		if strings.Contains(uplotJS+reportJS, word) {
			t.Errorf("the scripts have %s", word)
		}
	}
	// The policy allows no loads, and no script but these two.
	for i, script := range scripts[1:] {
		sum := sha256.Sum256([]byte(script))
		hash := strings.ReplaceAll(base64.StdEncoding.EncodeToString(sum[:]), "+", "&#43;")
		if !strings.Contains(markup, "&#39;sha256-"+hash+"&#39;") {
			t.Errorf("script %d has a hash that the policy does not allow", i)
		}
	}
	if !strings.Contains(text, "default-src &#39;none&#39;") || strings.Contains(markup, "script-src &#39;unsafe") {
		t.Error("the policy is too weak")
	}
	if !strings.Contains(scripts[1], "The MIT License (MIT)") || !strings.Contains(scripts[1], "Leon Sorokin") {
		t.Error("the licence of uPlot is not in the report")
	}
}

var scriptElement = regexp.MustCompile(`(?s)<script[^>]*>(.*?)</script>`)

// withoutScripts returns the page with empty scripts, and their contents.
func withoutScripts(t *testing.T, text string) (markup string, scripts []string) {
	t.Helper()
	for _, m := range scriptElement.FindAllStringSubmatch(text, -1) {
		scripts = append(scripts, m[1])
	}
	if len(scripts) != 3 || strings.Count(strings.ToLower(text), "<script") != 3 ||
		strings.Count(strings.ToLower(text), "</script") != 3 {
		t.Fatalf("%d scripts, want 3: the data, uPlot and the report's own", len(scripts))
	}
	return scriptElement.ReplaceAllString(text, "<script></script>"), scripts
}

func TestHTMLEscapes(t *testing.T) {
	s, samples, events := exampleRun()
	// In the data too: the bands contain a fault as the user wrote it.
	s.Detection.Faults[0].Fault = evil
	s.Phases[0].Name = evil
	text := render(t, s, samples, events)
	markup, scripts := withoutScripts(t, text)
	if strings.Contains(markup, "<img") || strings.Contains(markup, "<!--") {
		t.Error("text of the run is markup")
	}
	if n := strings.Count(markup, "&lt;img src=x onerror="); n < 14 {
		t.Errorf("the text is shown %d times", n)
	}
	if strings.ContainsAny(scripts[0], "<>\u2028") {
		t.Error("the data hold what could end them")
	}
	var data struct {
		Bands  []band
		Phases []Phase
	}
	if err := json.Unmarshal([]byte(scripts[0]), &data); err != nil {
		t.Fatal(err)
	}
	if data.Bands[0].Fault != evil || data.Phases[0].Name != evil {
		t.Error("the data are not what the run said")
	}
}

// The page says what is missing, and has no empty chart.
func TestHTMLSaysWhatIsMissing(t *testing.T) {
	has := func(name, text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q", name, want)
			}
		}
	}
	charts := func(name, text string, want int) {
		t.Helper()
		if n := strings.Count(text, `class="plot"`); n != want {
			t.Errorf("%s: %d charts, want %d", name, n, want)
		}
	}
	empty := render(t, &Summary{Schema: Schema, Verdict: Verdict{Word: Interrupted, ExitCode: 130}}, nil, nil)
	charts("nothing", empty, 0)
	has("nothing", empty, "No gates", "Nothing was measured: no frame was answered",
		"No faults", "The server was not measured",
		"No events, or", "No samples: the run was over before its first second",
		"No connection that kept its beats was closed", "INTERRUPTED", `"charts":[]`)

	s, samples, events := exampleRun()
	charts("all", render(t, s, samples, events), 7)
	s.Generator.Limited, s.Generator.Why, s.Response, s.Service = true, []string{"frames lagged"}, nil, nil
	s.Verdict = Verdict{Invalid, 4, []string{"generator-limited: the figures say nothing about the server"}}
	text := render(t, s, samples, events)
	charts("limited", text, 5)
	has("limited", text, "INVALID: generator-limited", "Not shown: the generator was limited", "frames lagged")
	if strings.Contains(text, ResponseName+" p99") {
		t.Error("limited: a latency is shown")
	}

	s, samples, events = exampleRun()
	s.Server = nil
	for i := range samples {
		samples[i].Server, samples[i].LagUS, samples[i].ResponseUS, samples[i].ServiceUS = nil, nil, nil, nil
	}
	s.Detection.Buckets, s.Detection.ErrorMS = nil, nil
	text = render(t, s, samples, events)
	charts("no server", text, 3)
	has("no server", text, "No dead peer was detected", "Nothing was due, so nothing was late",
		"No frame was answered.")
	s.Server = &Server{Samples: 0}
	has("a server not seen", render(t, s, samples, events), "No measurement of the server succeeded",
		"Its metrics were not read")

	// Numbers that JSON does not have do not end the report.
	s, samples, events = exampleRun()
	samples[3].CPUPercent, samples[4].Sent = math.NaN(), math.Inf(1)
	charts("not numbers", render(t, s, samples, events), 7)

	// A long list is cut, and the page says so.
	long := make([]Event, maxPageEvents+5)
	has("many events", render(t, s, samples, long), "Shown: 300 of 305")
	s.Generator.CPU = make([]ProcessCPU, 40)
	has("many processes", render(t, s, samples, nil), "Shown: 16 of 40 processes")
}

func TestSpectrumChart(t *testing.T) {
	point := func(value, percentile float64) SpectrumPoint {
		return SpectrumPoint{ValueUS: value, Percentile: percentile}
	}
	response := &Latency{Name: "r", US: Distribution{Count: 1000},
		Spectrum: []SpectrumPoint{point(10, 0), point(20, 50), point(30, 99), point(40, 99.99), point(50, 100)}}
	service := &Latency{Name: "s", US: Distribution{Count: 1000},
		Spectrum: []SpectrumPoint{point(0, 0), point(8, 90), point(9, 100)}}
	c := spectrum(response, service)
	// 99.99 % of 1,000 values is 100 % of them.
	if want := []float64{1, 2, 10, 100, 1000}; !nearly(c.X, want) {
		t.Errorf("x is %v, want %v", c.X, want)
	}
	for i, want := range [][]float64{{10, 20, 30, 30, 50}, {.1, 8, 8, 9, 9}} {
		var got []float64
		for _, v := range c.Series[i].Y {
			got = append(got, *v)
		}
		if !nearly(got, want) {
			t.Errorf("%s is %v, want %v", c.Series[i].Label, got, want)
		}
	}
	if got := response.at(100.1); got != nil {
		t.Errorf("beyond all: %v", *got)
	}
}

func nearly(a, b []float64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-9*math.Abs(b[i]) {
			return false
		}
	}
	return true
}

func TestThin(t *testing.T) {
	few := make([]Sample, maxPoints)
	if got, note := thin(few); len(got) != maxPoints || note != "" {
		t.Errorf("%d samples, %q", len(got), note)
	}
	var many []Sample
	for i := range 3*maxPoints - 1 {
		v := Sample{T: float64(i + 1), Connections: i, Sent: float64(i % 3), CPUPercent: 3,
			ResponseUS: &Distribution{Count: 1, Min: float64(9 - i%3), P99: float64(i % 3)}}
		if i%3 == 0 {
			v.Server = &ServerSample{Connections: i, CPUPercent: 7}
			v.ServiceUS = &Distribution{P50: 4}
		}
		many = append(many, v)
	}
	got, note := thin(many)
	if len(got) != maxPoints || !strings.Contains(note, "stands for 3 seconds") {
		t.Errorf("%d samples, %q", len(got), note)
	}
	want := Sample{T: 3, Connections: 2, Sent: 1, CPUPercent: 3, ResponseUS: &Distribution{Count: 3, Min: 7, P99: 2},
		ServiceUS: &Distribution{P50: 4}, Server: &ServerSample{Connections: 0, CPUPercent: 7}}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if last := got[maxPoints-1]; last.T != float64(3*maxPoints-1) || last.Sent != .5 {
		t.Errorf("the last one is %+v", last)
	}
}

func TestBandsAndLetters(t *testing.T) {
	for i, want := range map[int]string{0: "A", 25: "Z", 26: "A2", 51: "Z2", 52: "A3"} {
		if got := faultLetter(i); got != want {
			t.Errorf("%d is %s, want %s", i, got, want)
		}
	}
	s, _, _ := exampleRun()
	// The last fault never happened.
	want := "[{A silent:10%@20s,+over=2s 23 32.7} {B herd:50%@40s 43 44.6} {C reset:1%@50s 53 53.1}]"
	if got := fmt.Sprint(bands(s)); got != want {
		t.Error(got)
	}
	if got := bands(&Summary{}); got == nil || len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestHistogramChart(t *testing.T) {
	if histogram(nil) != nil {
		t.Error("a chart without faults")
	}
	c := histogram(&Detection{BoundMS: 200, Buckets: []Bucket{{-20, 0, 1}, {0, 20, 5}}})
	if !nearly(c.X, []float64{-20, 0, 20}) || len(c.Series[0].Y) != 3 || c.Series[0].Y[2] != nil {
		t.Errorf("%+v", c)
	}
	if c.Marks[0].Label != "due" || c.Marks[1].Label != "due + 200 ms" || c.Marks[1].At != 200 {
		t.Errorf("%+v", c.Marks)
	}
	c = histogram(&Detection{TimeoutMS: 7500, BoundMS: 200, Buckets: []Bucket{{0, 20, 5}}})
	if c.Marks[0].Label != "T" || c.Marks[1].Label != "T + 200 ms" {
		t.Errorf("%+v", c.Marks)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestHTMLFullDisk(t *testing.T) {
	s, samples, events := exampleRun()
	if err := WriteHTML(fullDisk{}, s, samples, events); err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
}
