package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// Text is the short report for a person, the verdict first. Pure.
func (s *Summary) Text() string {
	b := &strings.Builder{}
	v := &s.Verdict
	title := v.Word
	if v.Word == Invalid {
		title += ": generator-limited"
	}
	fmt.Fprintf(b, "%s\n", escape(title))
	for i, reason := range v.Reasons {
		if v.Word == Invalid && i == 0 { // then it is the first: nothing else was wrong
			continue // the title says it
		}
		fmt.Fprintf(b, "  %s\n", escape(reason))
	}
	for _, note := range s.Notes {
		fmt.Fprintf(b, "  %s\n", escape(note))
	}
	b.WriteByte('\n')
	s.writeConnections(b)
	s.writeLatency(b)
	s.writeDetection(b)
	s.writeServer(b)
	s.writeGenerator(b)
	for i, g := range s.SLO {
		word := "ok"
		if !g.OK {
			word = "BROKEN"
		}
		measured := "nothing measured"
		if g.Known {
			measured = "measured " + g.MeasuredText()
		}
		writeLine(b, textIf(i == 0, "gates"), "%-7s %s: %s", word, g.Gate, measured)
	}
	return b.String()
}

// writeLine writes one line of the report.
func writeLine(b *strings.Builder, name, format string, args ...any) {
	b.WriteString(escape(fmt.Sprintf("%-13s "+format, append([]any{name}, args...)...)))
	b.WriteByte('\n')
}

// textIf is the text, or nothing.
func textIf(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

func (s *Summary) writeConnections(b *strings.Builder) {
	target := s.Environment.Target
	if s.Environment.OwnServer {
		target += ", started by the load test"
	}
	writeLine(b, "target", "%s", target)
	c := &s.Connections
	writeLine(b, "connections", "%s of %s established at %s a second (asked %s), "+
		"%s failed, %s refused, %s open at the end",
		wording.Grouped(c.Established), wording.Grouped(c.Asked), wording.Grouped(int64(c.RateReal+0.5)), c.RateAsked,
		wording.Grouped(c.Failed), wording.Grouped(c.Refused), wording.Grouped(c.AtEnd))
	if c.TimeUS != nil {
		writeLine(b, "", "connect time %s", distText(c.TimeUS, wording.Microseconds))
	}
	for _, part := range []struct {
		name string
		time *Distribution
	}{{"TCP connect", c.TCPUS}, {"TLS handshake", c.TLSUS}, {"upgrade", c.UpgradeUS}} {
		if part.time != nil {
			writeLine(b, "", "%-13s %s", part.name, distText(part.time, wording.Microseconds))
		}
	}
	for _, f := range c.Failures {
		example := textIf(f.Example != "", ": "+f.Example)
		writeLine(b, "", "failed %s × %s%s", wording.Grouped(f.Count), f.Error, example)
	}
	for _, t := range c.Told {
		writeLine(b, "", "closed with %d (%s) × %s", t.Code, t.Meaning, wording.Grouped(t.Count))
	}
	f := &s.Frames
	writeLine(b, "frames", "%s sent, %s answered (%s a second), %s wrong, %s unanswered at the end%s",
		wording.Grouped(f.Sent), wording.Grouped(f.Answered), wording.Grouped(int64(f.PerSecond+0.5)),
		wording.Grouped(f.Wrong), wording.Grouped(f.Unanswered),
		textIf(f.ServerBeats > 0, ", "+wording.Grouped(f.ServerBeats)+" beats of the server answered"))
	if f.Wrong > 0 {
		writeLine(b, "", "the first wrong answer: %s", f.WrongExample)
	}
}

func (s *Summary) writeLatency(b *strings.Builder) {
	switch {
	case s.Generator.Limited:
		writeLine(b, "latency", "not shown: the generator was limited, so the latencies say nothing about the server")
	case s.Response == nil || s.Service == nil:
		writeLine(b, "latency", "nothing was measured")
	default:
		writeLine(b, "latency", "%-25s %s", s.Response.Name, distText(&s.Response.US, wording.Microseconds))
		writeLine(b, "", "%-25s %s", s.Service.Name, distText(&s.Service.US, wording.Microseconds))
	}
}

func distText(d *Distribution, unit func(float64) string) string {
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", unit(d.P50), unit(d.P90), unit(d.P99), unit(d.P999),
		unit(d.Max))
}

func (s *Summary) writeDetection(b *strings.Builder) {
	if d := s.Detection; d != nil {
		known := "T unknown"
		if d.TimeoutMS > 0 {
			known = fmt.Sprintf("T %s (from %s)", wording.Milliseconds(d.TimeoutMS), d.TimeoutFrom)
		}
		writeLine(b, "dead peers", "%s, bound %s: %s injected, %s detected, %s not detected, %s early, %s late",
			known, wording.Milliseconds(d.BoundMS), wording.Grouped(d.Injected), wording.Grouped(d.Detected),
			wording.Grouped(d.Undetected), wording.Grouped(d.Early), wording.Grouped(d.Late))
		for i := range d.Faults {
			d.Faults[i].write(b)
		}
	}
	writeLine(b, "false kills", "%s, and %s", wording.Grouped(s.FalseKills.Count),
		wording.Plural(s.Unexplained.Count, "unexplained close"))
	for _, e := range slices.Concat(s.FalseKills.Examples, s.Unexplained.Examples) {
		writeLine(b, "", "%s", e.Text)
	}
}

func (f *FaultResult) write(b *strings.Builder) {
	text := f.Fault
	switch {
	case !f.Observable:
		text += fmt.Sprintf(": %s injected", wording.Grouped(f.Injected))
	case f.Injected > 0:
		text += fmt.Sprintf(": %s injected, %s detected", wording.Grouped(f.Injected), wording.Grouped(f.Detected))
	}
	if f.ErrorMS != nil {
		text += fmt.Sprintf(", error p50 %s  p99 %s  max %s", wording.Milliseconds(f.ErrorMS.P50),
			wording.Milliseconds(f.ErrorMS.P99), wording.Milliseconds(f.ErrorMS.Max))
	}
	if r := f.Reconnect; r != nil {
		text += fmt.Sprintf(": %s of %s reconnected in %s, %s refused, %s failed", wording.Grouped(r.Established),
			wording.Grouped(r.Asked), wording.Milliseconds(r.TookMS), wording.Grouped(r.Refused),
			wording.Grouped(r.Failed))
	}
	writeLine(b, "", "%s%s", text, textIf(f.Note != "", "; "+f.Note))
	for _, e := range f.Examples {
		writeLine(b, "", "  %s", e)
	}
}

func (s *Summary) writeServer(b *strings.Builder) {
	v := s.Server
	if v == nil {
		return
	}
	writeLine(b, "server", "%s%s of a core (most %s), %s resident (before %s, most %s)",
		textIf(v.ConnectionsMax > 0, "at most "+wording.Plural(v.ConnectionsMax, "connection")+", "),
		wording.Percent(v.CPUPercent), wording.Percent(v.CPUPercentMax), wording.Bytes(float64(v.RSSAfterBytes)),
		wording.Bytes(float64(v.RSSBeforeBytes)), wording.Bytes(float64(v.RSSPeakBytes)))
	var parts []string
	if v.UserBytesPerConnection != 0 {
		parts = append(parts, wording.Grouped(int64(v.UserBytesPerConnection))+" B of user memory a connection")
	}
	if v.KernelBytesPerSocket != 0 {
		parts = append(parts, wording.Grouped(int64(v.KernelBytesPerSocket))+" B of kernel memory a socket")
	}
	if v.LoopLagP99US != 0 {
		parts = append(parts, "loop lag p99 at most "+wording.Microseconds(v.LoopLagP99US))
	}
	for _, reason := range slices.Sorted(maps.Keys(v.ClosedByReason)) {
		parts = append(parts, reason+" "+wording.Grouped(v.ClosedByReason[reason]))
	}
	if len(parts) > 0 {
		writeLine(b, "", "%s", strings.Join(parts, ", "))
	}
	for _, note := range v.Notes {
		writeLine(b, "", "%s", note)
	}
}

func (s *Summary) writeGenerator(b *strings.Builder) {
	g := &s.Generator
	var parts []string
	if g.LagUS != nil {
		parts = append(parts, fmt.Sprintf("frames late by p99 %s, max %s", wording.Microseconds(g.LagUS.P99),
			wording.Microseconds(g.LagUS.Max)))
	}
	if g.ConnectLagUS != nil {
		parts = append(parts, fmt.Sprintf("connects late by p99 %s, max %s", wording.Microseconds(g.ConnectLagUS.P99),
			wording.Microseconds(g.ConnectLagUS.Max)))
	}
	total, busiest := 0.0, 0.0
	for _, p := range g.CPU {
		total += p.CPUPercent
		busiest = max(busiest, p.LoopPercent)
	}
	parts = append(parts, fmt.Sprintf("%s of a core in %s, busiest loop %s", wording.Percent(total),
		wording.Plural(len(g.CPU), "process"), wording.Percent(busiest)))
	word := "within its bounds"
	if g.Limited {
		word = "LIMITED"
	}
	writeLine(b, "generator", "%s: %s", word, strings.Join(parts, ", "))
	if s.Environment.Started != "" {
		env := &s.Environment
		length := 0.0
		if n := len(s.Phases); n > 0 {
			length = s.Phases[n-1].EndS
		}
		writeLine(b, "", "%s, %s %s, kernel %s, %s, ran for %s", env.Go, env.OS, env.Arch, env.Kernel,
			wording.Plural(env.CPUs, "core"),
			wording.Duration(time.Duration(length*1e9).Round(100*time.Millisecond)))
	}
}

// MeasuredText is the measured value with its unit.
func (r SLOResult) MeasuredText() string {
	if r.Unit == "ms" {
		return wording.Milliseconds(r.Measured)
	}
	return wording.Grouped(int64(r.Measured))
}
