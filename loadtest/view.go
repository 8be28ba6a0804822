package loadtest

import (
	"fmt"
	"io"
	"strings"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// A view shows a run in progress: a few lines that are redrawn in place on a terminal,
// else one line a second.
type view struct {
	w        io.Writer
	terminal bool
	color    bool
	width    int // characters in a line
	target   string
	plan     *Plan
	length   time.Duration
	drawn    int       // lines on the screen
	history  []float64 // p99 of the response of each second, in µs
}

// historyKept is how many seconds the sparkline shows.
const historyKept = 30

func newView(r *run) *view {
	return &view{w: r.Progress, terminal: r.Terminal, color: r.Color, width: r.Width,
		target: r.plan.targetText(r.target), plan: r.plan}
}

// show shows the second that has ended, of a run that takes length.
func (v *view) show(s *report.Sample, length time.Duration) {
	v.length = length
	p99 := 0.0
	if s.ResponseUS != nil {
		p99 = s.ResponseUS.P99
	}
	v.history = append(v.history, p99)
	if len(v.history) > historyKept {
		v.history = v.history[1:]
	}
	if !v.terminal {
		fmt.Fprintln(v.w, v.logLine(s))
		return
	}
	b := &strings.Builder{}
	if v.drawn > 0 {
		fmt.Fprintf(b, "\x1b[%dA", v.drawn) // up, to the first line
	}
	lines := v.lines(s)
	for _, l := range lines {
		// \x1b[K clears the rest of a longer line.
		fmt.Fprintf(b, "\r%s\x1b[K\n", v.style(truncate(l, v.width)))
	}
	v.drawn = len(lines)
	io.WriteString(v.w, b.String())
}

// end leaves the view on the screen and begins a new paragraph.
func (v *view) end() {
	if v.terminal && v.drawn > 0 {
		fmt.Fprintln(v.w)
	}
}

// lines is the live view. Pure.
func (v *view) lines(s *report.Sample) []string {
	t := func(sec float64) string { return wording.Duration(time.Duration(sec) * time.Second) }
	lines := []string{
		row(s.Phase, "%s of %s, %s left, %s to %s", t(s.T), t(v.length.Round(time.Second).Seconds()), t(v.left(s)),
			wording.Plural(v.plan.Connections, "connection"), v.target),
		row("connections", "%s open, %s connecting, %s failed, %s a second", wording.Grouped(s.Connections),
			wording.Grouped(s.Connecting), wording.Grouped(s.Failed), wording.Grouped(int64(s.Connects))),
		row("frames", "%s sent, %s answered a second, %s wrong", wording.Grouped(int64(s.Sent)),
			wording.Grouped(int64(s.Answered)), wording.Grouped(s.Wrong)),
		row("latency", "%-24s %s  %s", report.ResponseName, percentilesText(s.ResponseUS), sparkline(v.history)),
		row("", "%-24s %s", report.ServiceName, percentilesText(s.ServiceUS)),
	}
	if len(v.plan.Faults) > 0 {
		lines = append(lines, row("dead peers", "%s injected, %s detected", wording.Grouped(s.Injected),
			wording.Grouped(s.Detected)))
	}
	lines = append(lines, row("kills", "%s false, %s unexplained", wording.Grouped(s.FalseKills),
		wording.Grouped(s.Unexplained)))
	if s.Server != nil {
		lines = append(lines, row("server", "%s", serverText(s.Server)))
	}
	lag := "on time"
	if s.LagUS != nil {
		lag = "late by p99 " + wording.Microseconds(s.LagUS.P99)
	}
	return append(lines, row("generator", "%s of a core, %s", wording.Percent(s.CPUPercent), lag))
}

// left is how many seconds the run still takes.
func (v *view) left(s *report.Sample) float64 {
	return max(0, v.length.Round(time.Second).Seconds()-s.T)
}

func row(name, format string, args ...any) string {
	return fmt.Sprintf("%-12s "+format, append([]any{name}, args...)...)
}

func percentilesText(d *report.Distribution) string {
	if d == nil {
		return "-"
	}
	return fmt.Sprintf("p50 %s  p99 %s  max %s", wording.Microseconds(d.P50), wording.Microseconds(d.P99),
		wording.Microseconds(d.Max))
}

func serverText(s *report.ServerSample) string {
	text := wording.Percent(s.CPUPercent) + " of a core, " + wording.Bytes(float64(s.RSSBytes))
	if s.Connections >= 0 {
		text = wording.Plural(s.Connections, "connection") + ", " + text
	}
	return text
}

// logLine is the view in one line. Pure.
func (v *view) logLine(s *report.Sample) string {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%.0fs %s: %d connections", s.T, s.Phase, s.Connections)
	if s.Connecting > 0 {
		fmt.Fprintf(b, ", %d connecting", s.Connecting)
	}
	if s.Failed > 0 {
		fmt.Fprintf(b, ", %d failed", s.Failed)
	}
	fmt.Fprintf(b, ", %.0f sent, %.0f answered", s.Sent, s.Answered)
	if s.ResponseUS != nil && s.ServiceUS != nil {
		fmt.Fprintf(b, ", %s p99 %s, %s p99 %s", report.ResponseName, wording.Microseconds(s.ResponseUS.P99),
			report.ServiceName, wording.Microseconds(s.ServiceUS.P99))
	}
	if s.Wrong > 0 {
		fmt.Fprintf(b, ", %d wrong", s.Wrong)
	}
	if s.Injected > 0 {
		fmt.Fprintf(b, ", %d dead, %d detected", s.Injected, s.Detected)
	}
	fmt.Fprintf(b, ", %s", wording.Plural(s.FalseKills, "false kill"))
	if s.Unexplained > 0 {
		fmt.Fprintf(b, ", %d unexplained", s.Unexplained)
	}
	if s.Server != nil {
		fmt.Fprintf(b, ", server %s", wording.Percent(s.Server.CPUPercent))
	}
	if s.LagUS != nil {
		fmt.Fprintf(b, ", generator late p99 %s", wording.Microseconds(s.LagUS.P99))
	}
	fmt.Fprintf(b, ", %.0fs left of %.0fs", v.left(s), v.length.Round(time.Second).Seconds())
	return b.String()
}

// sparkline draws values from 0 to their maximum.
func sparkline(values []float64) string {
	const bars = "▁▂▃▄▅▆▇█"
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	b := &strings.Builder{}
	for _, v := range values {
		i := 0
		if most > 0 {
			i = int(v / most * 7)
		}
		b.WriteString(string([]rune(bars)[i]))
	}
	return b.String()
}

// truncate cuts a line to the width of the terminal: a wrapped line cannot be redrawn
// in place.
func truncate(line string, width int) string {
	r := []rune(line)
	if width > 1 && len(r) >= width {
		return string(r[:width-1])
	}
	return line
}

// style highlights the name of a line, and shows false kills in red.
func (v *view) style(line string) string {
	if !v.color {
		return line
	}
	name, rest := line, ""
	if r := []rune(line); len(r) > 12 {
		name, rest = string(r[:12]), string(r[12:])
	}
	if strings.HasPrefix(name, "kills") && !strings.HasPrefix(rest, " 0 false, 0 ") {
		return "\x1b[31m" + line + "\x1b[0m"
	}
	return "\x1b[1m" + name + "\x1b[0m" + rest
}
