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
	tables := r.Tables()
	writeRatios(b, tables)
	for i := range Workloads {
		if w := &Workloads[i]; w.Few {
			writeFigures(b, w, tables)
		}
	}
	r.writeMicro(b)
	r.writeWinners(b, tables)
	fmt.Fprintf(b, "\n%s\n", r.provenance())
	_, err := io.WriteString(w, b.String())
	return err
}

// writeRatios writes heartwheel beside the best of the others.
func writeRatios(b *strings.Builder, tables []Table) {
	head := "| | | bare gnet | best with deadlines | best of all |\n|---|---|---|---|---|\n"
	for i := range tables {
		t := &tables[i]
		if !t.Metric.Headline || t.Workload.Few || t.Row(Subject) == nil {
			continue
		}
		fmt.Fprintf(b, "%s| %s %s, %s | %s | %s | %s | %s |\n", head, t.Workload.Key, t.Workload.Title,
			t.Cell.Title, t.Metric.Title,
			t.against(t.Row(Floor), false),
			t.against(t.Best(withDeadlines), true),
			t.against(t.Best(anyone), true))
		head = ""
	}
	if head == "" {
		b.WriteString("\n")
	}
}

// writeFigures writes every contender's figures in the workload, each the median
// over the rounds.
func writeFigures(b *strings.Builder, w *Workload, tables []Table) {
	var list []*Table
	var names []string // of the columns
	for i := range tables {
		t := &tables[i]
		if t.Workload.Key != w.Key || !t.Metric.Headline || t.Row(Subject) == nil {
			continue
		}
		list = append(list, t)
		for _, row := range t.Rows {
			if !slices.Contains(names, row.Contender.Name) {
				names = append(names, row.Contender.Name)
			}
		}
	}
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, "| %s %s | | %s | ÷ best of the others |\n|---|---|%s---|\n", w.Key, w.Title,
		strings.Join(names, " | "), strings.Repeat("---|", len(names)))
	cell := ""
	for _, t := range list {
		title := t.Cell.Title
		if t.Cell.ID == cell {
			title = "" // as in the row above
		}
		cell = t.Cell.ID
		fmt.Fprintf(b, "| %s | %s |", title, t.Metric.Title)
		for _, name := range names {
			text := "–"
			if row := t.Row(name); row != nil {
				text = row.figure(t.Metric.Unit)
			}
			fmt.Fprintf(b, " %s |", text)
		}
		fmt.Fprintf(b, " %s |\n", t.against(t.Best(anyone), true))
	}
	b.WriteString("\n")
}

// figure is the median, or why there is none.
func (row *Row) figure(unit string) string {
	if row.N == 0 {
		return row.nothing()
	}
	return value(row.Median, unit)
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
	wins, none := wins(tables)
	if len(wins) == 0 {
		fmt.Fprintln(b, none)
		return
	}
	b.WriteString("Where another is better:\n\n")
	for _, win := range wins {
		fmt.Fprintf(b, "- %s\n", win)
	}
}

// wins has a line for each table and reason for which others beat heartwheel. If
// there are none, none says so.
func wins(tables []Table) (list []string, none string) {
	told := false
	for i := range tables {
		t := &tables[i]
		told = told || t.told()
		list = append(list, t.wins()...)
	}
	if told {
		return list, "No contender is beyond doubt better than heartwheel in any metric."
	}
	return list, "These are too few runs to tell where another is better."
}

func (t *Table) wins() (list []string) {
	who := map[string][]string{} // by reason
	var reasons []string
	for _, row := range t.Winners() {
		why := reason(t.Workload.Key, t.Metric.Key, row.Contender.Name)
		if who[why] == nil {
			reasons = append(reasons, why)
		}
		who[why] = append(who[why], row.Contender.Name+" "+value(row.Median, t.Metric.Unit))
	}
	for _, why := range reasons {
		list = append(list, fmt.Sprintf("%s, %s, %s: %s; heartwheel %s: %s", t.Workload.Key,
			t.Cell.Title, t.Metric.Title,
			strings.Join(who[why], ", "), value(t.Row(Subject).Median, t.Metric.Unit), why))
	}
	return list
}

// told says whether there were enough runs to tell which is better.
func (t *Table) told() bool {
	return slices.ContainsFunc(t.Rows, func(row Row) bool {
		return row.Verdict == Better ||
			row.Verdict == Worse || row.Ratio.Known
	})
}

// provenance says in a few sentences where the figures are from.
func (r *Results) provenance() string {
	e := &r.Environment
	text := fmt.Sprintf("%s, %s, kernel %s, %s; servers on processor %s, load on %s; GOMAXPROCS %d for each server; "+
		"%s, their order shuffled in each; commit %s.",
		e.CPU, plural(e.CPUs, "processor"), e.Kernel, e.Go, joinInts(e.ServerCPUs), joinInts(e.LoadCPUs), e.Procs,
		plural(e.Rounds, "round"), e.Commit)
	if e.Quick {
		text += " A quick run: too short to publish."
	}
	if e.Loose {
		text += " A loose run, from which nothing was discarded: not to be published."
	}
	if n, all := r.discarded(), len(r.Runs); n > 0 {
		text += fmt.Sprintf(" %d of %s were discarded because the generator was the limit "+
			"or something else used the "+
			"processors.", n, plural(all, "run"))
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
