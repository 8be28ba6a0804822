package report

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
)

// ParseBench reads the output of go test -bench -cpu procs: one Micro for each
// benchmark, in order of appearance, with a value for each repetition. Other
// lines are passed over.
func ParseBench(r io.Reader, procs int) ([]Micro, error) {
	var list []Micro
	suffix := "" // that go test adds to each name
	if procs != 1 {
		suffix = "-" + strconv.Itoa(procs)
	}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(f[1]); err != nil {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(f[0], "Benchmark"), suffix)
		i := slices.IndexFunc(list, func(m Micro) bool { return m.Name == name })
		if i < 0 {
			i = len(list)
			list = append(list, Micro{Name: name, Values: map[string][]float64{}})
		}
		for k := 2; k+1 < len(f); k += 2 {
			if v, err := strconv.ParseFloat(f[k], 64); err == nil {
				list[i].Values[f[k+1]] = append(list[i].Values[f[k+1]], v)
			}
		}
	}
	return list, lines.Err()
}

// microSubjects are the names of heartwheel's own part in a micro benchmark, of
// which the name is PUBLISH/PART.
var microSubjects = []string{"heartwheel", "codec"}

// microUnits are what parts are compared by, the first that there is: where an
// operation is a million timers, go test's own ns/op says little.
var microUnits = []string{"cpu-ns/timer", "ns/timer", "ns/op"}

// A microRatio is heartwheel's part of a group ÷ another one.
type microRatio struct {
	group, other string
	Interval
}

// microRatios compares the other parts of each group with heartwheel's own.
func (r *Results) microRatios() []microRatio {
	var list []microRatio
	for _, other := range r.Micro {
		at := strings.LastIndex(other.Name, "/")
		if at < 0 || slices.Contains(microSubjects, other.Name[at+1:]) {
			continue
		}
		group := other.Name[:at]
		own := slices.IndexFunc(r.Micro, func(m Micro) bool {
			part, ok := strings.CutPrefix(m.Name, group+"/")
			return ok && slices.Contains(microSubjects, part)
		})
		if own < 0 {
			continue
		}
		for _, unit := range microUnits {
			if a, b := r.Micro[own].Values[unit], other.Values[unit]; len(a) > 0 && len(b) > 0 {
				list = append(list, microRatio{group, other.Name[at+1:], RatioInterval(a, b)})
				break
			}
		}
	}
	return list
}
