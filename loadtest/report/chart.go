package report

import (
	"fmt"
	"math"
	"slices"

	"heartwheel/internal/wording"
)

// A chart is one chart of the page. assets/report.js reads its JSON.
type chart struct {
	ID     string   `json:"id"`
	Kind   string   `json:"kind"` // "time", "spectrum" or "histogram"
	Log    bool     `json:"log"`  // scale of the left axis
	Series []series `json:"series"`
	X      []float64
	Marks  []mark `json:"marks"` // lines across the chart

	Title   string `json:"title"`
	Caption string `json:"-"`
	Empty   string `json:"-"` // why there is nothing to draw; empty: there is something
}

// A series is one line of a chart.
type series struct {
	Label string     `json:"label"`
	Unit  string     `json:"unit"`  // "us", "ms", "bytes", "percent", "count" or "rate"
	Color string     `json:"color"` // a colour of the style sheet, by name
	Dash  bool       `json:"dash"`
	Right bool       `json:"right"` // its axis is on the right
	Y     []*float64 `json:"-"`     // null: no value
}

// A mark is a line at a value of an axis.
type mark struct {
	Axis  string  `json:"axis"` // "x" or "y"
	At    float64 `json:"at"`
	Label string  `json:"label"`
	Color string  `json:"color"`
}

// columns are the data in uPlot's form: x first.
func (c *chart) columns() []any {
	list := []any{c.X}
	for i := range c.Series {
		list = append(list, c.Series[i].Y)
	}
	return list
}

// chartData is the input of assets/report.js.
func (p *page) chartData() any {
	type drawn struct {
		*chart
		X    struct{} `json:"-"`
		Data []any    `json:"data"`
	}
	out := struct {
		Charts []drawn `json:"charts"`
		Bands  []band  `json:"bands"`
		Phases []Phase `json:"phases"`
	}{[]drawn{}, p.Bands, p.Phases}
	for _, c := range slices.Concat([]*chart{p.Spectrum}, p.Overtime, []*chart{p.Histogram}) {
		if c != nil && c.Empty == "" {
			out.Charts = append(out.Charts, drawn{chart: c, Data: c.columns()})
		}
	}
	if out.Phases == nil {
		out.Phases = []Phase{}
	}
	return out
}

// number64 is v, or null if JSON has no such number.
func number64(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// spectrum is the chart of the percentiles. Its x is 1 ÷ (1 − percentile), the number of
// values for each that is larger. On a logarithmic axis every further nine takes the
// same width.
func spectrum(response, service *Latency) *chart {
	c := &chart{ID: "spectrum", Kind: "spectrum", Log: true, Title: "Latency by percentile", Marks: []mark{},
		Series: []series{{Label: response.Name, Unit: "us", Color: "blue"},
			{Label: service.Name, Unit: "us", Color: "orange"}}}
	var percentiles []float64
	for _, l := range []*Latency{response, service} {
		for _, p := range l.Spectrum {
			percentiles = append(percentiles, p.Percentile)
		}
	}
	slices.Sort(percentiles)
	most := float64(max(response.US.Count, service.US.Count, 2))
	for _, p := range slices.Compact(percentiles) {
		x := most
		if p < 100 {
			x = min(most, 100/(100-p))
		}
		if n := len(c.X); n > 0 && c.X[n-1] >= x { // these percentiles are less than one value apart
			c.X = c.X[:n-1]
			for i := range c.Series {
				c.Series[i].Y = c.Series[i].Y[:n-1]
			}
		}
		c.X = append(c.X, x)
		for i, l := range []*Latency{response, service} {
			c.Series[i].Y = append(c.Series[i].Y, l.at(p))
		}
	}
	return c
}

// at is the value at the percentile, at least 0.1 µs: a logarithmic axis has no zero.
func (l *Latency) at(percentile float64) *float64 {
	i, _ := slices.BinarySearchFunc(l.Spectrum, percentile, func(p SpectrumPoint, x float64) int {
		if p.Percentile < x {
			return -1
		}
		return 1
	})
	if i == len(l.Spectrum) {
		return nil
	}
	return number64(max(0.1, l.Spectrum[i].ValueUS))
}

// histogram is the chart of the detection errors, or says why there is none; nil without
// faults.
func histogram(d *Detection) *chart {
	if d == nil {
		return nil
	}
	c := &chart{ID: "detection", Kind: "histogram", Title: "Error of detections",
		Series: []series{{Label: "detections", Unit: "count", Color: "green"}}}
	if len(d.Buckets) == 0 {
		c.Empty = "No dead peer was detected."
		return c
	}
	// The last x is the upper edge of the last bucket, without a bar.
	for _, b := range d.Buckets {
		c.X = append(c.X, b.LowMS)
		c.Series[0].Y = append(c.Series[0].Y, number64(float64(b.Count)))
	}
	c.X = append(c.X, d.Buckets[len(d.Buckets)-1].HighMS)
	c.Series[0].Y = append(c.Series[0].Y, nil)
	due := "due"
	if d.TimeoutMS > 0 {
		due = "T"
	}
	c.Marks = []mark{{"x", 0, due, "ink"}, {"x", d.BoundMS, due + " + " + wording.Milliseconds(d.BoundMS), "red"}}
	return c
}

// overTime are the charts over time.
func overTime(s *Summary, samples []Sample) []*chart {
	list := []*chart{
		connectionsChart(samples), framesChart(samples), latencyChart(s, samples),
		serverChart(s, samples), generatorChart(s, samples),
	}
	for _, c := range list {
		c.Kind, c.Marks = "time", append([]mark{}, c.Marks...)
		for i := range samples {
			c.X = append(c.X, samples[i].T)
		}
		if len(samples) == 0 {
			c.Empty = "No samples: the run was over before its first second, or timeseries.ndjson is missing."
		}
	}
	return list
}

// column is one value of every sample.
func column(samples []Sample, value func(*Sample) *float64) []*float64 {
	list := make([]*float64, len(samples))
	for i := range samples {
		list[i] = value(&samples[i])
	}
	return list
}

func always(value func(*Sample) float64) func(*Sample) *float64 {
	return func(s *Sample) *float64 { return number64(value(s)) }
}

// percentile is value of a distribution that may be missing, at least 0.1: it is for a
// logarithmic axis.
func percentile(of func(*Sample) *Distribution, value func(*Distribution) float64) func(*Sample) *float64 {
	return func(s *Sample) *float64 {
		d := of(s)
		if d == nil {
			return nil
		}
		return number64(max(0.1, value(d)))
	}
}

// serverCPU is the processor time of the server, if it was measured.
func serverCPU(s *Sample) *float64 {
	if s.Server == nil {
		return nil
	}
	return number64(s.Server.CPUPercent)
}

// resident is the resident memory of the server, if it was measured.
func resident(s *Sample) *float64 {
	if s.Server == nil || s.Server.RSSBytes == 0 {
		return nil
	}
	return number64(float64(s.Server.RSSBytes))
}

func anyValue(list []*float64) bool {
	return slices.ContainsFunc(list, func(v *float64) bool { return v != nil })
}

func connectionsChart(samples []Sample) *chart {
	c := &chart{ID: "connections", Title: "Connections", Series: []series{
		{Label: "open", Unit: "count", Color: "blue",
			Y: column(samples, always(func(s *Sample) float64 { return float64(s.Connections) }))},
		{Label: "connecting", Unit: "count", Color: "orange",
			Y: column(samples, always(func(s *Sample) float64 { return float64(s.Connecting) }))},
	}}
	seen := column(samples, func(s *Sample) *float64 {
		if s.Server == nil || s.Server.Connections < 0 {
			return nil
		}
		return number64(float64(s.Server.Connections))
	})
	if anyValue(seen) {
		c.Series = append(c.Series, series{Label: "open, by the server's metrics", Unit: "count", Color: "green",
			Dash: true,
			Y:    seen})
	}
	return c
}

func framesChart(samples []Sample) *chart {
	return &chart{ID: "frames", Title: "Frames a second", Series: []series{
		{Label: "sent", Unit: "rate", Color: "blue",
			Y: column(samples, always(func(s *Sample) float64 { return s.Sent }))},
		{Label: "answered", Unit: "rate", Color: "orange", Dash: true,
			Y: column(samples, always(func(s *Sample) float64 { return s.Answered }))},
	}}
}

func p50(d *Distribution) float64 { return d.P50 }
func p99(d *Distribution) float64 { return d.P99 }

func latencyChart(s *Summary, samples []Sample) *chart {
	response := func(s *Sample) *Distribution { return s.ResponseUS }
	service := func(s *Sample) *Distribution { return s.ServiceUS }
	c := &chart{ID: "latency", Title: "Latency", Log: true, Series: []series{
		{Label: ResponseName + " p99", Unit: "us", Color: "blue", Y: column(samples, percentile(response, p99))},
		{Label: ResponseName + " p50", Unit: "us", Color: "blue", Dash: true,
			Y: column(samples, percentile(response, p50))},
		{Label: ServiceName + " p99", Unit: "us", Color: "orange", Y: column(samples, percentile(service, p99))},
		{Label: ServiceName + " p50", Unit: "us", Color: "orange", Dash: true,
			Y: column(samples, percentile(service, p50))},
	}}
	switch {
	case s.Generator.Limited:
		c.Empty = "Not shown: the generator was limited, so the latencies say nothing about the server."
	case !anyValue(c.Series[0].Y) && !anyValue(c.Series[2].Y):
		c.Empty = "No frame was answered."
	}
	return c
}

func serverChart(s *Summary, samples []Sample) *chart {
	c := &chart{ID: "server", Title: "Server", Series: []series{
		{Label: "processor, of one core", Unit: "percent", Color: "blue", Y: column(samples, serverCPU)},
		{Label: "resident memory", Unit: "bytes", Color: "purple", Right: true, Y: column(samples, resident)},
	}}
	if !anyValue(c.Series[0].Y) {
		c.Empty = notMeasured
		if s.Server != nil {
			c.Empty = "No measurement of the server succeeded."
		}
	}
	return c
}

func generatorChart(s *Summary, samples []Sample) *chart {
	lag := func(s *Sample) *Distribution { return s.LagUS }
	c := &chart{ID: "generator", Title: "Generator", Log: true, Series: []series{
		{Label: "schedule lag p99", Unit: "us", Color: "blue", Y: column(samples, percentile(lag, p99))},
		{Label: "schedule lag max", Unit: "us", Color: "blue", Dash: true,
			Y: column(samples, percentile(lag, func(d *Distribution) float64 { return d.Max }))},
		{Label: "processor, of one core", Unit: "percent", Color: "purple", Right: true,
			Y: column(samples, always(func(s *Sample) float64 { return s.CPUPercent }))},
	}}
	if s.Generator.LagBoundUS > 0 {
		c.Marks = []mark{{"y", s.Generator.LagBoundUS, "bound of p99", "red"}}
	}
	if !anyValue(c.Series[0].Y) && len(samples) > 0 {
		c.Empty = "Nothing was due, so nothing was late."
	}
	return c
}

// maxPoints bounds the points of a chart over time: a screen has fewer pixels.
const maxPoints = 4000

// thin reduces samples to what charts can show, and says what a point then stands for.
func thin(samples []Sample) ([]Sample, string) {
	each := (len(samples) + maxPoints - 1) / maxPoints
	if each <= 1 {
		return samples, ""
	}
	var list []Sample
	for part := range slices.Chunk(samples, each) {
		list = append(list, combine(part))
	}
	return list, fmt.Sprintf("Each point stands for %d seconds: rates and processor time are means, "+
		"latencies and lags those of the worst second, counts those of the last.", each)
}

// combine makes one sample of consecutive ones.
func combine(part []Sample) Sample {
	c := part[len(part)-1]
	c.ResponseUS, c.ServiceUS, c.LagUS = nil, nil, nil
	c.Connects, c.Sent, c.Answered, c.CPUPercent = 0, 0, 0, 0
	n := float64(len(part))
	var server ServerSample
	seen := 0
	for i := range part {
		s := &part[i]
		c.Connects += s.Connects / n
		c.Sent += s.Sent / n
		c.Answered += s.Answered / n
		c.CPUPercent += s.CPUPercent / n
		c.ResponseUS = worse(c.ResponseUS, s.ResponseUS)
		c.ServiceUS = worse(c.ServiceUS, s.ServiceUS)
		c.LagUS = worse(c.LagUS, s.LagUS)
		if s.Server != nil {
			cpu := server.CPUPercent
			server = *s.Server
			server.CPUPercent += cpu
			seen++
		}
	}
	for _, v := range []*float64{&c.Connects, &c.Sent, &c.Answered, &c.CPUPercent} {
		*v = wording.Thousandths(*v)
	}
	c.Server = nil
	if seen > 0 {
		server.CPUPercent = wording.Thousandths(server.CPUPercent / float64(seen))
		c.Server = &server
	}
	return c
}

// worse has the larger value of each percentile. Either may be nil.
func worse(a, b *Distribution) *Distribution {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return &Distribution{
		Count: a.Count + b.Count, Min: min(a.Min, b.Min), Mean: max(a.Mean, b.Mean),
		P50: max(a.P50, b.P50), P90: max(a.P90, b.P90), P99: max(a.P99, b.P99), P999: max(a.P999, b.P999),
		Max: max(a.Max, b.Max),
	}
}
