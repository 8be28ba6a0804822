package report

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// The charts are SVG made here: they need no script, print as they are, and
// take their colours from the style sheet, light or dark.

// Sizes of a chart, in units of its view box.
const (
	chartWidth = 760
	stickWidth = 920 // of the overview, whose labels are long
	labelWidth = 150
	valueWidth = 150
	rowHeight  = 24
	axisHeight = 26
)

// A scale maps values to x within the plot.
type scale struct {
	low, high float64
	log       bool
}

func (s scale) x(v float64) float64 {
	const left, right = labelWidth, chartWidth - valueWidth
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(max(v, s.low)), math.Log10(low), math.Log10(high)
	}
	return left + (right-left)*min(max((v-low)/(high-low), 0), 1)
}

// newScale is a scale for values of at least 0: from zero, or logarithmic if the
// largest is more than fifty times the least.
func newScale(values []float64) scale {
	low, high := math.Inf(1), 0.0
	for _, v := range values {
		high = max(high, v)
		if v > 0 {
			low = min(low, v)
		}
	}
	if high > 50*low {
		return scale{math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.001))), true}
	}
	if high == 0 {
		high = 1
	}
	step := niceStep(high / 5)
	return scale{0, math.Ceil(high/step) * step, false}
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 5} {
		if f*power >= v*0.999 {
			return f * power
		}
	}
	return 10 * power
}

func (s scale) ticks() (list []float64) {
	if s.log {
		for v := s.low; v <= s.high*1.001; v *= 10 {
			list = append(list, v)
		}
		for len(list) > 7 { // every other one, from the first
			var half []float64
			for i := 0; i < len(list); i += 2 {
				half = append(half, list[i])
			}
			list = half
		}
		return list
	}
	step := niceStep(s.high / 5)
	for v := s.low; v <= s.high*1.001; v += step {
		list = append(list, v)
	}
	return list
}

// An svg is a chart being drawn.
type svg struct{ strings.Builder }

func (b *svg) add(format string, args ...any) { fmt.Fprintf(b, format, args...) }

func (b *svg) text(class string, x, y float64, anchor, text string) {
	b.add(`<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, class, x, y, anchor,
		template.HTMLEscapeString(text))
}

func (b *svg) line(class string, x1, y1, x2, y2 float64) {
	b.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

// open begins a chart with its grid and ticks.
func (b *svg) open(title string, rows int, s scale, tick func(float64) string) {
	height := rows*rowHeight + axisHeight
	b.add(`<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, chartWidth, height, template.HTMLEscapeString(title))
	for _, v := range s.ticks() {
		x := s.x(v)
		b.line("grid", x, 4, x, float64(rows*rowHeight+4))
		b.text("tick", x, float64(height-6), "middle", tick(v))
	}
}

// dots draws one row for each contender: a dot for each run, a bar at the
// median, and the median in figures.
func (t *Table) dots() template.HTML {
	var values []float64
	for i := range t.Rows {
		for _, v := range t.Rows[i].Values {
			values = append(values, max(v, 0))
		}
	}
	s := newScale(values)
	b := &svg{}
	b.open(t.Metric.Title+" of each contender", len(t.Rows), s,
		func(v float64) string { return value(v, t.Metric.Unit) })
	for i := range t.Rows {
		row := &t.Rows[i]
		y := float64(i*rowHeight) + rowHeight/2 + 2
		class := "other"
		if row.Contender.Name == Subject {
			class = "subject"
			b.add(`<rect class="lane" x="0" y="%.1f" width="%d" height="%d" rx="3"/>`,
				y-rowHeight/2, chartWidth, rowHeight)
		}
		b.text("name "+class, labelWidth-10, y+4, "end", row.Contender.Name)
		if row.N == 0 {
			b.text("none", labelWidth+4, y+4, "start", row.nothing())
			continue
		}
		b.line("range "+class, s.x(row.Min), y, s.x(row.Max), y)
		for _, v := range row.Values {
			b.add(`<circle class="dot %s" cx="%.1f" cy="%.1f" r="3.5"><title>%s</title></circle>`, class, s.x(v), y,
				template.HTMLEscapeString(value(v, t.Metric.Unit)))
		}
		b.line("median "+class, s.x(row.Median), y-8, s.x(row.Median), y+8)
		b.text("value "+class, chartWidth-valueWidth+14, y+4, "start",
			value(row.Median, t.Metric.Unit)+" "+row.Verdict.arrow())
	}
	b.add("</svg>")
	return template.HTML(b.String()) // all texts in it are escaped
}

// arrow marks a contender that beats heartwheel.
func (v Verdict) arrow() string {
	if v == Worse {
		return "✗ beats it"
	}
	return ""
}

// nothing says why a row has no figure.
func (row *Row) nothing() string {
	switch {
	case row.Excluded:
		return "has no deadlines"
	case row.Failed > 0:
		return "failed"
	case row.Discarded > 0:
		return "discarded"
	}
	return "nothing was measured"
}

// A stick is one line of the overview: a ratio with its interval.
type stick struct {
	label, against string
	interval       Interval
	verdict        Verdict
}

// sticks draws ratios around 1, on a logarithmic axis on which better is always
// to the left.
func sticks(title string, list []stick) template.HTML {
	most := 1.5
	for _, st := range list {
		most = max(most, st.interval.Mid, 1/st.interval.Mid)
		if st.interval.Known {
			most = max(most, st.interval.High, 1/st.interval.Low)
		}
	}
	most = min(most*1.1, 10) // what is beyond is drawn at the edge
	ticks := []float64{0.1, 0.2, 0.5, 1, 2, 5, 10}
	if most < 2.5 {
		ticks = []float64{0.5, 0.67, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2}
	}
	s := scale{1 / most, most, true}
	b := &svg{}
	height := len(list)*rowHeight + axisHeight
	const wide = 360 // of the labels
	const right = stickWidth - 190
	x := func(v float64) float64 {
		return wide + (s.x(v)-labelWidth)*(right-wide)/(chartWidth-labelWidth-valueWidth)
	}
	b.add(`<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, stickWidth, height, template.HTMLEscapeString(title))
	for _, v := range ticks {
		if v < s.low || v > s.high {
			continue
		}
		class := "grid"
		if v == 1 {
			class = "one"
		}
		b.line(class, x(v), 4, x(v), float64(height-axisHeight+4))
		b.text("tick", x(v), float64(height-6), "middle", ratio(v))
	}
	for i, st := range list {
		y := float64(i*rowHeight) + rowHeight/2 + 2
		class := string(st.verdict)
		b.text("name", wide-10, y+4, "end", st.label)
		if st.interval.Known {
			b.line("range "+class, x(st.interval.Low), y, x(st.interval.High), y)
		}
		b.add(`<circle class="dot %s" cx="%.1f" cy="%.1f" r="4.5"/>`, class, x(st.interval.Mid), y)
		b.text("value "+class, right+14, y+4, "start", st.verdict.Mark()+" "+ratio(st.interval.Mid)+" "+st.against)
	}
	b.add("</svg>")
	return template.HTML(b.String())
}
