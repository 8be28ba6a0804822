package report

import (
	"fmt"

	"heartwheel/internal/wording"
)

// CompareSchema names the JSON form of a Comparison. A change that breaks readers makes
// it /2; members may be added.
const CompareSchema = "heartwheel-compare/1"

// A Comparison is two runs side by side. It does not say which differences are more than
// noise: two runs cannot show that. Not safe for concurrent use.
type Comparison struct {
	Schema      string       `json:"schema"`
	A           Side         `json:"a"`
	B           Side         `json:"b"`
	Warnings    []string     `json:"warnings"` // why figures may not be comparable, a sentence each
	Plan        []Difference `json:"plan"`     // settings that differ
	Environment []Difference `json:"environment"`
	Figures     []Figure     `json:"figures"` // in a fixed order, without those that neither run has
}

// A Side is one of the two runs.
type Side struct {
	Path    string `json:"path"` // as given
	Verdict string `json:"verdict"`
	Started string `json:"started"`
}

// A Difference is a value in which the runs differ.
type Difference struct {
	Name string `json:"name"`
	A    string `json:"a"` // empty: not set
	B    string `json:"b"`
}

// A Figure is a number of both runs. Null: not measured, or not shown.
type Figure struct {
	Name  string   `json:"name"`
	Unit  string   `json:"unit"` // "us", "ms", "bytes", "percent" (of a core), "per_s" or "" for a count
	A     *float64 `json:"a"`
	B     *float64 `json:"b"`
	Ratio *float64 `json:"ratio"` // B ÷ A; null if either is null or negative, or A is 0
}

// Compare puts two runs side by side. It is pure; the paths are only shown.
func Compare(a, b *Summary, pathA, pathB string) *Comparison {
	c := &Comparison{
		Schema: CompareSchema, A: side(a, pathA), B: side(b, pathB),
		Warnings: []string{}, Plan: planDifferences(a, b), Environment: environmentDifferences(&a.Environment,
			&b.Environment), Figures: []Figure{},
	}
	for _, s := range []struct {
		name    string
		summary *Summary
	}{{"A", a}, {"B", b}} {
		switch s.summary.Verdict.Word {
		case Invalid:
			c.Warnings = append(c.Warnings,
				s.name+" is INVALID: its generator was limited, so its latencies say nothing about the server")
		case Interrupted:
			c.Warnings = append(c.Warnings, s.name+" was interrupted: it has only what was measured until then")
		}
	}
	if len(c.Plan) > 0 {
		c.Warnings = append(c.Warnings, "the plans differ: the runs did not do the same")
	}
	if len(c.Environment) > 0 {
		c.Warnings = append(c.Warnings, "the environments differ")
	}
	for _, f := range figures {
		fig := Figure{Name: f.name, Unit: f.unit, A: f.of(a), B: f.of(b)}
		if fig.A == nil && fig.B == nil {
			continue
		}
		if fig.A != nil && fig.B != nil && *fig.A > 0 && *fig.B >= 0 {
			ratio := wording.Thousandths(*fig.B / *fig.A)
			fig.Ratio = &ratio
		}
		c.Figures = append(c.Figures, fig)
	}
	return c
}

func side(s *Summary, path string) Side {
	return Side{Path: path, Verdict: s.Verdict.Word, Started: s.Environment.Started}
}

// planDifferences leaves out where the files are written.
func planDifferences(a, b *Summary) []Difference {
	list := []Difference{}
	values := func(s *Summary) map[string]string {
		m := map[string]string{}
		for _, p := range s.Plan {
			m[p.Key] = p.Value
		}
		return m
	}
	inA, inB := values(a), values(b)
	for _, p := range a.Plan {
		if p.Key != "out" && inB[p.Key] != p.Value {
			list = append(list, Difference{p.Key, p.Value, inB[p.Key]})
		}
	}
	for _, p := range b.Plan {
		if _, both := inA[p.Key]; !both && p.Key != "out" && p.Value != "" {
			list = append(list, Difference{p.Key, "", p.Value})
		}
	}
	return list
}

// environmentDifferences leaves out the time, and the port of a server that the run
// started itself.
func environmentDifferences(a, b *Environment) []Difference {
	target := func(e *Environment) string {
		if e.OwnServer {
			return "started by the load test"
		}
		return e.Target
	}
	list := []Difference{}
	for _, d := range []Difference{
		{"heartwheel", a.Version, b.Version}, {"Go", a.Go, b.Go}, {"system", a.OS + " " + a.Arch,
			b.OS + " " + b.Arch}, {"kernel", a.Kernel, b.Kernel},
		{"cores", fmt.Sprint(a.CPUs), fmt.Sprint(b.CPUs)}, {"memory", wording.Bytes(float64(a.MemoryBytes)),
			wording.Bytes(float64(b.MemoryBytes))},
		{"processes", fmt.Sprint(a.Processes), fmt.Sprint(b.Processes)}, {"event loops each", fmt.Sprint(a.Loops),
			fmt.Sprint(b.Loops)},
		{"target", target(a), target(b)},
	} {
		if d.A != d.B {
			list = append(list, d)
		}
	}
	return list
}
