package loadtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// A Gate is one --slo: METRIC OP LIMIT.
type Gate struct {
	Text    string // as written
	Metric  string // a name in metricNames
	Op      string // one of gateOps
	Value   float64
	Timeout bool // T is added to Value
	Bound   bool // the bound is added to Value
	Percent bool // Value is percent of the connections of the plan, or of the frames due in hold
}

// gateOps has each operator before those that it begins with.
var gateOps = []string{"<=", ">=", "==", "!=", "<", ">"}

// The times and the parts of them that a gate can name, and the counts.
var (
	gateTimes = []string{"rtt", "response", "service", "connect", "tcp", "tls", "upgrade", "lag", "detect"}
	gateParts = []string{"min", "mean", "p50", "p90", "p99", "p999", "max"}
	counts    = []string{"false_kills", "undetected", "detected", "early", "late", "unexplained", "wrong",
		"unanswered", "errors", "failed", "refused", "told", "not_back", "established", "at_end", "sent", "lapses"}
)

// metricNames has every metric of a gate.
func metricNames() []string {
	names := slices.Clone(counts)
	for _, t := range gateTimes {
		for _, p := range gateParts {
			names = append(names, t+"."+p)
		}
	}
	return names
}

// metricHelp describes metricNames.
func metricHelp() string {
	return strings.Join(counts, ", ") + ", and " + strings.Join(gateParts, ", ") + " of " +
		strings.Join(gateTimes, ", ") + " (such as rtt.p99; rtt is the response)"
}

// parseGate reads a Gate. The error says what to write instead.
func parseGate(text string) (Gate, error) {
	g := Gate{Text: text}
	at := strings.IndexAny(text, "<>=!")
	if at < 0 {
		return g, errors.New("is not a gate; write METRIC OP LIMIT, such as rtt.p99<5ms or false_kills==0")
	}
	for _, op := range gateOps {
		if strings.HasPrefix(text[at:], op) {
			g.Op = op
			break
		}
	}
	if g.Op == "" {
		return g, fmt.Errorf("has no comparison; write one of %s", wording.Choice(gateOps))
	}
	g.Metric = strings.TrimSpace(text[:at])
	if !slices.Contains(metricNames(), g.Metric) {
		suggestion := "there are " + metricHelp()
		if near := wording.Nearest(g.Metric, metricNames()); near != "" {
			suggestion = "the nearest is " + near
		}
		return g, fmt.Errorf("%q is not a metric; %s", g.Metric, suggestion)
	}
	limit := strings.ReplaceAll(text[at+len(g.Op):], " ", "")
	if limit == "" {
		return g, errors.New("has no limit; write one after the comparison")
	}
	if g.isTime() {
		return g, g.parseTime(limit)
	}
	if percent, ok := strings.CutSuffix(limit, "%"); ok {
		g.Percent, limit = true, percent
	}
	v, err := parsePerSecond(limit) // with k or m
	if err != nil {
		return g, fmt.Errorf("the limit %q is not a number", limit)
	}
	if g.Percent && g.Metric != "established" && g.Metric != "at_end" && g.Metric != "sent" {
		return g, errors.New("a limit in percent is for established, at_end and sent; write a number")
	}
	g.Value = v
	return g, nil
}

// isTime reports whether the metric is a time, in ms.
func (g *Gate) isTime() bool { return strings.Contains(g.Metric, ".") }

// parseTime reads a sum of durations, timeout and bound.
func (g *Gate) parseTime(limit string) error {
	wrong := func(part string) error {
		if _, err := strconv.ParseFloat(part, 64); err == nil && part != "0" {
			return fmt.Errorf("the limit %q has no unit; write %sms", part, part)
		}
		return fmt.Errorf("the limit %q is not a time; write one such as 5ms, or timeout+200ms", part)
	}
	var sum time.Duration
	for rest := limit; rest != ""; {
		sign := time.Duration(1)
		if rest != limit {
			if rest[0] == '-' {
				sign = -1
			}
			rest = rest[1:]
		}
		end := strings.IndexAny(rest, "+-")
		if end < 0 {
			end = len(rest)
		}
		part := rest[:end]
		rest = rest[end:]
		switch {
		case part == "timeout" && sign > 0:
			g.Timeout = true
		case part == "bound" && sign > 0:
			g.Bound = true
		default:
			d, err := time.ParseDuration(part)
			if err != nil {
				return wrong(part)
			}
			sum += sign * d
		}
		if rest == "+" || rest == "-" {
			return wrong(limit)
		}
	}
	g.Value = ms(sum)
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// evaluate checks the gate against the summary of a run.
func (g *Gate) evaluate(s *report.Summary) report.SLOResult {
	r := report.SLOResult{Gate: g.Text, Limit: g.Value}
	if g.isTime() {
		r.Unit = "ms"
	}
	switch {
	case g.Percent && g.Metric == "sent":
		r.Limit = g.Value / 100 * float64(s.Frames.Scheduled)
	case g.Percent:
		r.Limit = g.Value / 100 * float64(s.Connections.Asked)
	}
	if (g.Timeout || g.Bound) && s.Detection == nil {
		return r
	}
	if g.Timeout {
		r.Limit += s.Detection.TimeoutMS
	}
	if g.Bound {
		r.Limit += s.Detection.BoundMS
	}
	r.Limit = wording.Thousandths(r.Limit)
	r.Measured, r.Known = g.measure(s)
	r.Measured = wording.Thousandths(r.Measured)
	if !r.Known {
		return r
	}
	switch g.Op {
	case "<":
		r.OK = r.Measured < r.Limit
	case "<=":
		r.OK = r.Measured <= r.Limit
	case ">":
		r.OK = r.Measured > r.Limit
	case ">=":
		r.OK = r.Measured >= r.Limit
	case "==":
		r.OK = r.Measured == r.Limit
	case "!=":
		r.OK = r.Measured != r.Limit
	}
	return r
}

// measure is the metric's value in s, a time in ms; false if s has none.
func (g *Gate) measure(s *report.Summary) (float64, bool) {
	if !g.isTime() {
		n, ok := g.count(s)
		return float64(n), ok
	}
	name, part, _ := strings.Cut(g.Metric, ".")
	var (
		d     *report.Distribution
		unit  = 1e-3 // of d in ms
		shift float64
	)
	switch name {
	case "rtt", "response":
		if s.Response != nil {
			d = &s.Response.US
		}
	case "service":
		if s.Service != nil {
			d = &s.Service.US
		}
	case "connect":
		d = s.Connections.TimeUS
	case "tcp":
		d = s.Connections.TCPUS
	case "tls":
		d = s.Connections.TLSUS
	case "upgrade":
		d = s.Connections.UpgradeUS
	case "lag":
		d = s.Generator.LagUS
	case "detect":
		if s.Detection != nil {
			d, unit, shift = s.Detection.ErrorMS, 1, s.Detection.TimeoutMS
		}
	}
	if d == nil || d.Count == 0 {
		return 0, false
	}
	return gatedPart(d, part)*unit + shift, true
}

// gatedPart is the part of d with that name.
func gatedPart(d *report.Distribution, name string) float64 {
	switch name {
	case "min":
		return d.Min
	case "mean":
		return d.Mean
	case "p50":
		return d.P50
	case "p90":
		return d.P90
	case "p99":
		return d.P99
	case "p999":
		return d.P999
	}
	return d.Max
}

func (g *Gate) count(s *report.Summary) (int64, bool) {
	d := s.Detection
	if d == nil {
		d = &report.Detection{} // without faults nothing is undetected
	}
	switch g.Metric {
	case "false_kills":
		return int64(s.FalseKills.Count), true
	case "undetected":
		return int64(d.Undetected), true
	case "detected":
		return int64(d.Detected), true
	case "early":
		return int64(d.Early), true
	case "late":
		return int64(d.Late), true
	case "unexplained":
		return int64(s.Unexplained.Count), true
	case "wrong":
		return s.Frames.Wrong, true
	case "unanswered":
		return s.Frames.Unanswered, true
	case "errors":
		return int64(s.Connections.Failed) + s.Frames.Wrong + int64(len(s.Errors)), true
	case "failed":
		return int64(s.Connections.Failed), true
	case "refused":
		return int64(s.Connections.Refused), true
	case "told":
		n := 0
		for _, t := range s.Connections.Told {
			n += t.Count
		}
		return int64(n), true
	case "not_back":
		n := 0
		for i := range d.Faults {
			if r := d.Faults[i].Reconnect; r != nil {
				n += r.Asked - r.Established
			}
		}
		return int64(n), true
	case "established":
		return int64(s.Connections.Established), true
	case "at_end":
		return int64(s.Connections.AtEnd), true
	case "sent":
		return s.Frames.SentOnSchedule, s.Frames.Scheduled > 0
	case "lapses":
		return int64(s.Generator.Lapses), true
	}
	return 0, false
}
