package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

const markdownLegend = `Each number is heartwheel ÷ the other, the median over the rounds, and in
brackets the 95 %% interval. For time, memory and processor time less than 1 is
better, for frames a second more. ✓ heartwheel is better, ✗ the other is,
= no difference that these runs can show, ? too few runs to tell. Of faults the
counts are shown, heartwheel's first.
`

// WriteMarkdown writes the table for a README: the headline metrics as ratios,
// and below it every contender that beats heartwheel somewhere.
func (r *Results) WriteMarkdown(w io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, markdownLegend+"\n")
	fmt.Fprintf(b, "| | | bare gnet | best with deadlines | best of all |\n|---|---|---|---|---|\n")
	tables := r.Tables()
	for i := range tables {
		t := &tables[i]
		if !t.Metric.Headline || t.Row(Subject) == nil {
			continue
		}
		fmt.Fprintf(b, "| %s %s, %s | %s | %s | %s | %s |\n", t.Workload.Key, t.Workload.Title, t.Cell.Title, t.Metric.Title,
			t.against(t.Row(Floor), false),
			t.against(t.Best(func(c *Contender) bool { return c.Deadlines }), true),
			t.against(t.Best(func(*Contender) bool { return true }), true))
	}
	b.WriteString("\n")
	r.writeMicro(b)
	r.writeWinners(b, tables)
	fmt.Fprintf(b, "\n%s\n", r.provenance())
	_, err := io.WriteString(w, b.String())
	return err
}

// against is what heartwheel comes to beside the row, which may be nil.
func (t *Table) against(row *Row, named bool) string {
	own := t.Row(Subject)
	switch {
	case row == nil:
		return "–"
	case own.N == 0:
		return "heartwheel: " + own.nothing()
	case row.N == 0:
		return row.nothing()
	}
	text := row.Ratio.Text()
	if t.Metric.counted() {
		text = fmt.Sprintf("%s : %s", number(own.Median), number(row.Median))
	}
	if mark := row.Verdict.Mark(); mark != "" {
		text += " " + mark
	}
	if named {
		text += " " + row.Contender.Name
	}
	return text
}

func (r *Results) writeMicro(b *strings.Builder) {
	list := r.microRatios()
	if len(list) == 0 {
		return
	}
	b.WriteString("| W8 micro benchmark | heartwheel ÷ | |\n|---|---|---|\n")
	for _, m := range list {
		fmt.Fprintf(b, "| %s | %s | %s |\n", m.group, m.other, m.Text())
	}
	b.WriteString("\n")
}

func (r *Results) writeWinners(b *strings.Builder, tables []Table) {
	wins, told := 0, false
	for i := range tables {
		t := &tables[i]
		told = told || t.told()
		for _, row := range t.Winners() {
			if wins++; wins == 1 {
				b.WriteString("Where another is better:\n\n")
			}
			fmt.Fprintf(b, "- %s\n", t.win(row))
		}
	}
	if wins == 0 {
		b.WriteString(noWins(told) + "\n")
	}
}

// told says whether there were enough runs to tell who is better.
func (t *Table) told() bool {
	return slices.ContainsFunc(t.Rows, func(row Row) bool { return row.Verdict == Better || row.Verdict == Worse || row.Ratio.Known })
}

// noWins is said where nobody beats heartwheel.
func noWins(told bool) string {
	if !told {
		return "These are too few runs to tell where another is better."
	}
	return "No contender is beyond doubt better than heartwheel in any metric."
}

// win says in a line that the row beats heartwheel, and why.
func (t *Table) win(row *Row) string {
	return fmt.Sprintf("%s, %s, %s: %s has %s, heartwheel %s: %s", t.Workload.Key, t.Cell.Title, t.Metric.Title, row.Contender.Name,
		value(row.Median, t.Metric.Unit), value(t.Row(Subject).Median, t.Metric.Unit), reason(t.Workload.Key, t.Metric.Key, row.Contender.Name))
}

// provenance says in a few sentences where the figures are from.
func (r *Results) provenance() string {
	e := &r.Environment
	text := fmt.Sprintf("%s, %s, kernel %s, %s; servers on processor %s, load on %s; GOMAXPROCS %d for each server; %s, their order shuffled in each; commit %s.",
		e.CPU, plural(e.CPUs, "processor"), e.Kernel, e.Go, joinInts(e.ServerCPUs), joinInts(e.LoadCPUs), e.Procs, plural(e.Rounds, "round"), e.Commit)
	if e.Quick {
		text += " A quick run: too short to publish."
	}
	if e.Loose {
		text += " A loose run, from which nothing was thrown away: not to be published."
	}
	if n, all := r.discarded(), len(r.Runs); n > 0 {
		text += fmt.Sprintf(" %d of %s were thrown away because the generator was the limit or something else used the processors.", n, plural(all, "run"))
	}
	return text
}

func (r *Results) discarded() (n int) {
	for i := range r.Runs {
		if r.Runs[i].Discarded != "" {
			n++
		}
	}
	return n
}
