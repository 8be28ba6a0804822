package report

import "slices"

// A Verdict says how heartwheel did against another contender.
type Verdict string

const (
	Better  Verdict = "better"  // heartwheel is, beyond doubt
	Worse   Verdict = "worse"   // the other is, beyond doubt
	Even    Verdict = "even"    // these runs show no difference
	Unclear Verdict = "unclear" // too few runs to tell
)

// A Row is one contender in one metric of one cell.
type Row struct {
	Contender Contender
	Summary
	Runs              int // in all
	Discarded, Failed int
	Why               string   // of the first run that was discarded or failed
	Ratio             Interval // heartwheel ÷ this one; N = 0: none
	Verdict           Verdict  // empty for heartwheel itself, and where nothing can be compared
	Excluded          bool     // has no deadlines, and the metric is about them
}

// A Table is one metric of one cell.
type Table struct {
	Workload Workload
	Cell     Cell
	Metric   Metric
	Rows     []Row // in the order of the contenders
}

// Tables makes a table for each metric of each cell, in order. Tables without a
// figure are left out.
func (r *Results) Tables() []Table {
	var list []Table
	for _, cell := range r.Cells {
		w := WorkloadByKey(cell.Workload)
		if w == nil {
			continue
		}
		for _, m := range w.Metrics {
			if t := r.table(*w, cell, m); slices.ContainsFunc(t.Rows, func(row Row) bool { return row.N > 0 }) {
				list = append(list, t)
			}
		}
	}
	return list
}

func (r *Results) table(w Workload, cell Cell, m Metric) Table {
	t := Table{Workload: w, Cell: cell, Metric: m}
	own := r.byRound(cell.ID, Subject, m.Key)
	for _, c := range r.Contenders {
		row := Row{Contender: c, Excluded: m.Deadline && !c.Deadlines}
		rounds := r.byRound(cell.ID, c.Name, m.Key)
		if row.Excluded {
			rounds = nil
		}
		row.Summary = Summarize(inOrder(rounds))
		for i := range r.Runs {
			if run := &r.Runs[i]; run.Cell == cell.ID && run.Contender == c.Name {
				row.count(run)
			}
		}
		if c.Name != Subject && row.N > 0 && len(own) > 0 && !m.Info {
			row.compare(&m, own, rounds)
		}
		if row.Runs > 0 {
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// count adds a run to those that there were.
func (row *Row) count(run *Run) {
	row.Runs++
	switch {
	case run.Discarded != "":
		row.Discarded++
	case run.Failed != "":
		row.Failed++
	}
	if row.Why == "" {
		row.Why = run.Discarded + run.Failed
	}
}

// compare fills in Ratio and Verdict from the rounds that both have.
func (row *Row) compare(m *Metric, own, other map[int]float64) {
	var a, b []float64
	for _, round := range sortedRounds(own) {
		if v, ok := other[round]; ok {
			a, b = append(a, own[round]), append(b, v)
		}
	}
	if m.counted() {
		row.Verdict = compareCounts(a, b)
		return
	}
	row.Ratio = RatioInterval(a, b)
	switch iv := row.Ratio; {
	case iv.N == 0:
	case !iv.Known:
		row.Verdict = Unclear
	case iv.Low <= 1 && iv.High >= 1:
		row.Verdict = Even
	case (iv.Low > 1) == m.More:
		row.Verdict = Better
	default:
		row.Verdict = Worse
	}
}

// compareCounts compares counts of faults: one is better only if its worst run
// is better than the best one of the other.
func compareCounts(own, other []float64) Verdict {
	switch {
	case len(own) == 0:
		return ""
	case len(own) < minPairs:
		return Unclear
	case slices.Max(own) < slices.Min(other):
		return Better
	case slices.Min(own) > slices.Max(other):
		return Worse
	}
	return Even
}

// byRound is the figure of each round in which the run counts.
func (r *Results) byRound(cell, contender, key string) map[int]float64 {
	rounds := map[int]float64{}
	for i := range r.Runs {
		run := &r.Runs[i]
		if run.Cell != cell || run.Contender != contender || run.Discarded != "" || run.Failed != "" {
			continue
		}
		if v, ok := run.Figures[key]; ok {
			rounds[run.Round] = v
		}
	}
	return rounds
}

func sortedRounds(m map[int]float64) []int {
	var rounds []int
	for k := range m {
		rounds = append(rounds, k)
	}
	slices.Sort(rounds)
	return rounds
}

func inOrder(m map[int]float64) []float64 {
	var values []float64
	for _, k := range sortedRounds(m) {
		values = append(values, m[k])
	}
	return values
}

// Row is the row of a contender, or nil.
func (t *Table) Row(name string) *Row {
	for i := range t.Rows {
		if t.Rows[i].Contender.Name == name {
			return &t.Rows[i]
		}
	}
	return nil
}

// Best is the row with the best median of those other than heartwheel for which
// ok holds, or nil.
func (t *Table) Best(ok func(c *Contender) bool) *Row {
	var best *Row
	for i := range t.Rows {
		row := &t.Rows[i]
		if row.Contender.Name == Subject || row.N == 0 || !ok(&row.Contender) {
			continue
		}
		if best == nil || t.Metric.More && row.Median > best.Median || !t.Metric.More && row.Median < best.Median {
			best = row
		}
	}
	return best
}

// Winners are the rows that beat heartwheel.
func (t *Table) Winners() []*Row {
	var list []*Row
	for i := range t.Rows {
		if t.Rows[i].Verdict == Worse {
			list = append(list, &t.Rows[i])
		}
	}
	return list
}
