package report

import (
	"fmt"
	"time"
)

func (r *Results) failed() (n int) {
	for i := range r.Runs {
		if r.Runs[i].Failed != "" {
			n++
		}
	}
	return n
}

// left says what does not count, and why: a line for each contender in each
// cell, with the first cause.
func (r *Results) left() []string {
	list := append([]string{}, r.Problems...)
	for _, cell := range r.Cells {
		for _, c := range r.Contenders {
			var row Row
			for i := range r.Runs {
				if run := &r.Runs[i]; run.Cell == cell.ID && run.Contender == c.Name {
					row.count(run)
				}
			}
			if row.Discarded > 0 {
				list = append(list, fmt.Sprintf("%s, %s: %d of %d discarded: %s", cell.ID, c.Name,
					row.Discarded, row.Runs, row.Why))
			}
			if row.Failed > 0 {
				list = append(list, fmt.Sprintf("%s, %s: %d of %d failed: %s", cell.ID, c.Name,
					row.Failed, row.Runs, row.Why))
			}
		}
	}
	return list
}

func (r *Results) environment() []labelled {
	e := &r.Environment
	return []labelled{
		{"started", e.Started}, {"took", (time.Duration(e.TookS) * time.Second).String()},
		{"processor", fmt.Sprintf("%s, %d of them", e.CPU, e.CPUs)}, {"memory", value(float64(e.MemoryBytes), "B")},
		{"kernel", e.Kernel}, {"Go", e.Go}, {"commit", e.Commit},
		{"processors of the servers", joinInts(e.ServerCPUs)}, {"processors of the load", joinInts(e.LoadCPUs)},
		{"GOMAXPROCS of each server", fmt.Sprint(e.Procs)}, {"event loops of each server", fmt.Sprint(e.Loops)},
		{"rounds", fmt.Sprint(e.Rounds)}, {"seed", fmt.Sprint(e.Seed)}, {"tasks running before", number(e.LoadAtStart)},
	}
}
