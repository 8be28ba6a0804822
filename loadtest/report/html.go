package report

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// The parts of report.html. uPlot draws the charts (MIT; its licence is beside it and in
// every report).
var (
	//go:embed assets/report.html.tmpl
	reportTemplate string
	//go:embed assets/report.css
	reportCSS string
	//go:embed assets/report.js
	reportJS string
	//go:embed assets/uPlot.iife.min.js
	uplotJS string
	//go:embed assets/uPlot.min.css
	uplotCSS string
	//go:embed assets/uPlot-LICENSE.txt
	uplotLicense string
)

// WriteHTML writes the report of a run as one HTML file that loads nothing else. It
// escapes all text of the server and the user.
func WriteHTML(w io.Writer, s *Summary, samples []Sample, events []Event) error {
	p, err := newPage(s, samples, events)
	if err != nil {
		return err
	}
	return pageTemplate.Execute(w, p)
}

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"us":      func(v float64) string { return unbroken(wording.Microseconds(v)) },
	"ms":      func(v float64) string { return unbroken(wording.Milliseconds(v)) },
	"percent": func(v float64) string { return unbroken(wording.Percent(v)) },
	"seconds": func(v float64) string { return unbroken(fmt.Sprintf("%.1f s", v)) },
	"bytes":   func(v int64) string { return unbroken(wording.Bytes(float64(v))) },
	"n":       func(v any) string { return wording.Grouped(int64(toFloat(v) + 0.5)) },
	"plural":  wording.Plural[int],
	"one":     func(d Distribution) *Distribution { return &d },
}).Parse(reportTemplate))

// toFloat is for template functions that take any number.
func toFloat(n any) float64 {
	switch n := n.(type) {
	case int:
		return float64(n)
	case int64:
		return float64(n)
	case float64:
		return n
	}
	panic(fmt.Sprintf("%T is not a number", n)) // a mistake in the template
}

// unbroken keeps a number and its unit on one line.
func unbroken(text string) string { return strings.ReplaceAll(text, " ", "\u00a0") }

// A page is the template's input: the summary and what is made of it.
type page struct {
	*Summary
	Title    string
	Heading  string // the verdict
	Reasons  []string
	Tone     string // class of the verdict: good, bad or doubt
	Mark     string // of the verdict, for readers who do not see colours
	Subtitle string
	Tiles    []tile

	Spectrum  *chart
	Histogram *chart
	Overtime  []*chart
	Bands     []band
	Thinned   string // what a point of the charts over time stands for; empty: one second

	NoLatency string // why latencies are missing; empty: they are not
	NoServer  string
	Memory    []bar
	Processes []ProcessCPU // the first ones
	CPUTotal  float64
	Busiest   float64
	Closed    []bar
	Refusals  []bar
	Events    []Event // the first ones
	EventsAll int

	Data                             template.JS // of the charts, as JSON
	Policy                           string      // the two scripts that may run
	ReportJS, UplotJS                template.JS
	ReportCSS, UplotCSS              template.CSS
	MemoryOfMachine, ServedBy, Began string
}

// A tile is a figure at the top of the page.
type tile struct{ Label, Value, Note, Tone string }

// A bar is a figure with its share of the largest one in percent.
type bar struct {
	Label, Value string
	Share        float64
}

// A band is the time of a fault in the charts.
type band struct {
	Letter string  `json:"letter"`
	Fault  string  `json:"fault"`
	StartS float64 `json:"start_s"`
	EndS   float64 `json:"end_s"`
}

// maxPageEvents and maxProcessRows bound the tables of a long or large run.
const (
	maxPageEvents  = 300
	maxProcessRows = 16
)

func newPage(s *Summary, samples []Sample, events []Event) (*page, error) {
	p := &page{
		Summary: s, Reasons: s.Verdict.Reasons, Bands: bands(s), ReportCSS: template.CSS(reportCSS),
		UplotCSS: template.CSS(uplotCSS),
		ReportJS: template.JS(reportJS), UplotJS: template.JS("/*\n" + uplotLicense + "*/\n" + uplotJS),
		Events: events[:min(len(events), maxPageEvents)], EventsAll: len(events),
	}
	p.verdict()
	p.environment()
	p.tiles()
	p.latency()
	p.Histogram = histogram(s.Detection)
	samples, p.Thinned = thin(samples)
	p.Overtime = overTime(s, samples)
	p.server()
	p.generator()
	p.Policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src " +
		scriptHash(string(p.UplotJS)) + " " + scriptHash(reportJS)
	data, err := json.Marshal(p.chartData()) // it escapes < and >, so no text ends the element
	p.Data = template.JS(data)
	return p, err
}

func scriptHash(script string) string {
	sum := sha256.Sum256([]byte(script))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p *page) verdict() {
	v := &p.Verdict
	p.Heading = v.Word
	switch v.Word {
	case Pass:
		p.Tone, p.Mark = "good", "✓"
	case Failed, Breached:
		p.Tone, p.Mark = "bad", "✕"
	default:
		p.Tone, p.Mark = "doubt", "!"
	}
	if v.Word == Invalid {
		p.Heading += ": generator-limited"
	}
	connections := wording.Plural(p.Connections.Asked, "connection")
	p.Title = fmt.Sprintf("%s · %s · heartwheel load test", v.Word, connections)
	p.Subtitle = fmt.Sprintf("%s to %s", connections, p.Environment.Target)
	for _, phase := range p.Phases {
		if phase.Name == "hold" {
			p.Subtitle += fmt.Sprintf(", held for %s",
				wording.Duration(time.Duration((phase.EndS-phase.StartS)*1e9).Round(100*time.Millisecond)))
		}
	}
}

func (p *page) environment() {
	env := &p.Environment
	p.ServedBy = "not started by the load test"
	if env.OwnServer {
		p.ServedBy = "started by the load test"
	}
	p.MemoryOfMachine = "unknown"
	if env.MemoryBytes > 0 {
		p.MemoryOfMachine = wording.Bytes(float64(env.MemoryBytes))
	}
	p.Began = env.Started
	if t, err := time.Parse(time.RFC3339, env.Started); err == nil {
		p.Began = t.Format("2006-01-02 15:04:05 -07:00")
	}
}

func (p *page) tiles() {
	c := &p.Connections
	tone := "good"
	if c.Established < c.Asked || c.Failed > 0 || c.Refused > 0 {
		tone = "bad"
	}
	p.Tiles = append(p.Tiles, tile{"connections", wording.Grouped(c.Established),
		fmt.Sprintf("of %s established; %s failed, %s refused", wording.Grouped(c.Asked), wording.Grouped(c.Failed),
			wording.Grouped(c.Refused)), tone})
	for _, l := range []*Latency{p.Response, p.Service} {
		if l != nil && !p.Generator.Limited {
			p.Tiles = append(p.Tiles, tile{l.Name, wording.Microseconds(l.US.P99),
				fmt.Sprintf("p99; p50 %s, max %s", wording.Microseconds(l.US.P50), wording.Microseconds(l.US.Max)), ""})
		}
	}
	if d := p.Detection; d != nil && d.Injected > 0 {
		visible := 0
		for i := range d.Faults {
			if d.Faults[i].Observable {
				visible += d.Faults[i].Injected
			}
		}
		t := tile{"dead peers detected", wording.Grouped(d.Detected), fmt.Sprintf("of %s", wording.Grouped(visible)),
			"good"}
		if d.ErrorMS != nil {
			t.Note += fmt.Sprintf("; the latest by %s, bound %s", wording.Milliseconds(d.ErrorMS.Max),
				wording.Milliseconds(d.BoundMS))
		}
		if d.Undetected+d.Early+d.Late > 0 {
			t.Tone = "bad"
		}
		p.Tiles = append(p.Tiles, t)
	}
	kills := tile{"false kills", wording.Grouped(p.FalseKills.Count),
		"and " + wording.Plural(p.Unexplained.Count, "unexplained close"), "good"}
	if p.FalseKills.Count+p.Unexplained.Count > 0 {
		kills.Tone = "bad"
	}
	g := &p.Generator
	self := tile{"generator", "on time", "its lag was not measured", "good"}
	if g.Limited {
		self.Value, self.Tone = "limited", "doubt"
	}
	if g.LagUS != nil {
		self.Note = fmt.Sprintf("frames late by %s (p99), bound %s", wording.Microseconds(g.LagUS.P99),
			wording.Microseconds(g.LagBoundUS))
	}
	p.Tiles = append(p.Tiles, kills)
	if p.Verdict.Word == Invalid { // nothing is certainly the server's doing
		for i := range p.Tiles {
			p.Tiles[i].Tone = ""
		}
	}
	p.Tiles = append(p.Tiles, self)
}

func (p *page) latency() {
	switch {
	case p.Generator.Limited:
		p.NoLatency = "Not shown: the generator was limited, so the latencies say nothing about the server."
	case p.Response == nil || p.Service == nil:
		p.NoLatency = "Nothing was measured: no frame was answered in the hold phase."
	default:
		p.Spectrum = spectrum(p.Response, p.Service)
	}
}

func (p *page) server() {
	var memory []figure
	add := func(label string, value float64) {
		if value != 0 {
			memory = append(memory, figure{label, value})
		}
	}
	if v := p.Server; v != nil {
		add("server: user memory, a connection", v.UserBytesPerConnection)
		add("kernel: memory, a socket", v.KernelBytesPerSocket)
		p.Closed = countBars(v.ClosedByReason)
		p.Refusals = countBars(v.RefusedByReason)
	} else {
		p.NoServer = notMeasured
	}
	add("generator: user memory, a connection", p.Generator.HeapPerConn)
	p.Memory = bars(memory, func(v float64) string { return wording.Grouped(int64(v+0.5)) + " B" })
}

const notMeasured = "The server was not measured: give its metrics with --ops URL, or run the load test on its machine."

type figure struct {
	label string
	value float64
}

// bars are the figures with their shares of the largest one.
func bars(list []figure, text func(float64) string) []bar {
	most := 0.0
	for _, f := range list {
		most = max(most, f.value)
	}
	var out []bar
	for _, f := range list {
		b := bar{Label: f.label, Value: text(f.value)}
		if most > 0 {
			b.Share = wording.Thousandths(100 * max(0, f.value) / most)
		}
		out = append(out, b)
	}
	return out
}

// countBars are the counts, largest first.
func countBars(counts map[string]int64) []bar {
	var list []figure
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, figure{reason, float64(counts[reason])})
	}
	slices.SortStableFunc(list, func(a, b figure) int { return int(b.value - a.value) })
	return bars(list, func(v float64) string { return wording.Grouped(int64(v)) })
}

func (p *page) generator() {
	for _, c := range p.Generator.CPU {
		p.CPUTotal += c.CPUPercent
		p.Busiest = max(p.Busiest, c.LoopPercent)
	}
	p.Processes = p.Generator.CPU[:min(len(p.Generator.CPU), maxProcessRows)]
}

// Words joins texts, for the template.
func (p *page) Words(texts []string) string { return strings.Join(texts, "; ") }

// bands are the times of the faults that happened, with a letter each.
func bands(s *Summary) []band {
	list := []band{}
	if s.Detection == nil {
		return list
	}
	for i := range s.Detection.Faults {
		if f := &s.Detection.Faults[i]; f.EndS > 0 {
			list = append(list, band{faultLetter(i), f.Fault, f.StartS, max(f.EndS, f.StartS)})
		}
	}
	return list
}

// faultLetter names fault i: A, B … Z, A2, B2 …
func faultLetter(i int) string {
	letter := string(rune('A' + i%26))
	if i >= 26 {
		letter += fmt.Sprint(i/26 + 1)
	}
	return letter
}

// Letter is faultLetter, for the template.
func (p *page) Letter(i int) string { return faultLetter(i) }

// Measure is a value of the gate with its unit, for the template.
func (r SLOResult) Measure(v float64) string {
	r.Measured = v
	return r.MeasuredText()
}
