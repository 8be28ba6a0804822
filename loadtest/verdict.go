package loadtest

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// builtinGates hold without --slo: what breaks one is a defect of the target, or a plan
// that did not work. A gate of --slo on the same metric replaces the built-in one.
var builtinGates = []struct {
	metric string
	broken func(s *report.Summary, bound string) string // a sentence; empty: the gate holds
}{
	{"established", func(s *report.Summary, _ string) string {
		c := &s.Connections
		if c.Established >= c.Asked && c.Failed == 0 && c.Refused == 0 {
			return ""
		}
		text := fmt.Sprintf("%s of %s established: %s failed, %s refused",
			wording.Grouped(c.Established), wording.Plural(c.Asked,
				"connection"), wording.Grouped(c.Failed), wording.Grouped(c.Refused))
		if len(c.Failures) > 0 {
			text += "; most often: " + c.Failures[0].Error
		}
		return text
	}},
	{"false_kills", func(s *report.Summary, _ string) string { return closes(&s.FalseKills, "false kill") }},
	{"unexplained", func(s *report.Summary, _ string) string { return closes(&s.Unexplained, "unexplained close") }},
	{"wrong", func(s *report.Summary, _ string) string {
		if s.Frames.Wrong == 0 {
			return ""
		}
		return fmt.Sprintf("%s; the first: %s", wording.Plural(s.Frames.Wrong, "wrong answer"), s.Frames.WrongExample)
	}},
	{"unanswered", func(s *report.Summary, _ string) string {
		f := &s.Frames
		if f.OldestUnansweredMS <= unansweredLimitMS {
			return ""
		}
		return fmt.Sprintf("%s had no answer at the end; the oldest waited for %s",
			wording.Plural(f.Unanswered, "frame"),
			wording.Milliseconds(f.OldestUnansweredMS))
	}},
	{"told", func(s *report.Summary, _ string) string {
		for _, t := range s.Connections.Told {
			if t.Code != 3001 { // a server may drain
				return fmt.Sprintf("%s closed with %d (%s)", wording.Plural(t.Count, "connection"), t.Code, t.Meaning)
			}
		}
		return ""
	}},
	{"not_back", func(s *report.Summary, _ string) string {
		g := Gate{Metric: "not_back"}
		if n, _ := g.count(s); n > 0 {
			return wording.Plural(n, "connection") + " did not reconnect after a fault"
		}
		return ""
	}},
	{"undetected", detection("not detected", func(d *report.Detection) int { return d.Undetected })},
	{"early", detection("detected too early", func(d *report.Detection) int { return d.Early })},
	{"late", func(s *report.Summary, bound string) string {
		text := detection("detected later than the bound of "+bound, func(d *report.Detection) int {
			return d.Late
		})(s, bound)
		if text != "" && s.Detection.ErrorMS != nil {
			text += "; the latest by " + wording.Milliseconds(s.Detection.ErrorMS.Max)
		}
		return text
	}},
}

// unansweredLimitMS is how old a frame without an answer may be at the end.
const unansweredLimitMS = 1000

func closes(c *report.Closes, noun string) string {
	if c.Count == 0 {
		return ""
	}
	text := wording.Plural(c.Count, noun)
	if len(c.Examples) > 0 {
		text += "; the worst: " + c.Examples[0].Text
	}
	return text
}

func detection(what string, count func(*report.Detection) int) func(*report.Summary, string) string {
	return func(s *report.Summary, _ string) string {
		if s.Detection == nil || count(s.Detection) == 0 {
			return ""
		}
		return wording.Plural(count(s.Detection), "dead peer") + " " + what
	}
}

// explained says whether a generator that was late can be the whole reason why metric
// is out of its bound by excess. excess is in ms, for metrics that are times. A count
// of what the server did is a fact, whatever the generator's lag.
func explained(s *report.Summary, metric string, excess float64) bool {
	switch name, _, _ := strings.Cut(metric, "."); name {
	case "rtt", "response", "service", "connect", "tcp", "tls", "upgrade", "lag", "lapses":
		return true
	case "detect", "late", "unanswered":
		return excess <= latenessMS(s)
	case "at_end":
		return s.Generator.Lapses > 0
	case "sent": // what is a second behind at the end is not sent any more
		return s.Generator.Lapses > 0 || latenessMS(s) >= 1000
	}
	return false
}

// latenessMS is the generator's largest lag, and at least its bound.
func latenessMS(s *report.Summary) float64 {
	most := s.Generator.LagBoundUS / 1000
	for _, d := range []*report.Distribution{s.Generator.LagUS, s.Generator.ConnectLagUS} {
		if d != nil {
			most = max(most, d.Max/1000)
		}
	}
	return most
}

// excessMS is by how much a built-in rule about a time is broken.
func excessMS(s *report.Summary, metric string) float64 {
	switch {
	case metric == "late" && s.Detection != nil && s.Detection.ErrorMS != nil:
		return s.Detection.ErrorMS.Max - s.Detection.BoundMS
	case metric == "unanswered":
		return s.Frames.OldestUnansweredMS - unansweredLimitMS
	}
	return 0
}

// decide gives the verdict on s, whose SLO is filled in. It is pure. The first that
// applies of: interrupted, an error of the run itself, a broken gate of --slo, a broken
// built-in gate, generator-limited. With a limited generator only those gates count that
// its lag does not explain.
func decide(s *report.Summary, gates []Gate, interrupted bool) report.Verdict {
	switch {
	case interrupted:
		return report.Verdict{Word: report.Interrupted, ExitCode: 130,
			Reasons: append([]string{"interrupted: these are the figures until then"}, s.Errors...)}
	case len(s.Errors) > 0:
		return report.Verdict{Word: report.Failed, ExitCode: 1, Reasons: slices.Clone(s.Errors)}
	}
	limited := s.Generator.Limited
	reasons := []string{}
	for i, r := range s.SLO {
		if limited && !r.OK && explained(s, gates[i].Metric, math.Abs(r.Measured-r.Limit)) {
			continue
		}
		switch {
		case !r.Known:
			reasons = append(reasons, fmt.Sprintf("gate %s: nothing was measured", r.Gate))
		case !r.OK:
			reasons = append(reasons, fmt.Sprintf("gate %s: measured %s", r.Gate, r.MeasuredText()))
		}
	}
	word, code := report.Pass, 0
	if len(reasons) > 0 {
		word, code = report.Breached, 3
	}
	bound := ""
	if s.Detection != nil {
		bound = wording.Milliseconds(s.Detection.BoundMS)
	}
	for _, rule := range builtinGates {
		replaced := slices.ContainsFunc(gates, func(g Gate) bool { return g.Metric == rule.metric })
		if replaced || limited && explained(s, rule.metric, excessMS(s, rule.metric)) {
			continue
		}
		if text := rule.broken(s, bound); text != "" {
			reasons = append(reasons, text)
			if code == 0 {
				word, code = report.Failed, 1
			}
		}
	}
	if limited {
		if code == 0 {
			word, code = report.Invalid, 4
		}
		reasons = append(append(reasons, "generator-limited: the latencies say nothing about the server"),
			s.Generator.Why...)
	}
	return report.Verdict{Word: word, ExitCode: code, Reasons: reasons}
}
