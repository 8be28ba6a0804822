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
