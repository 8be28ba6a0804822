package faults

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// metrics is what /metrics said: by name with labels, as it is written there.
type metrics map[string]float64

// parseMetrics reads the Prometheus text format as far as this server uses it.
func parseMetrics(text string) (metrics, error) {
	m := metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			return nil, fmt.Errorf("no value in %q", line)
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return nil, err
		}
		m[line[:i]] = v
	}
	return m, nil
}

// value returns one value; labels are written as in the format: reason="gone".
// One that is not there is NaN, which equals nothing.
func (m metrics) value(name string, labels ...string) float64 {
	if len(labels) > 0 {
		name += "{" + strings.Join(labels, ",") + "}"
	}
	v, ok := m[name]
	if !ok {
		return math.NaN()
	}
	return v
}

// by returns the values of a metric that has one label, by that; zeros are
// left out.
func (m metrics) by(name string) map[string]float64 {
	values := map[string]float64{}
	for key, v := range m {
		rest, ok := strings.CutPrefix(key, name+"{")
		if !ok || v == 0 {
			continue
		}
		_, quoted, _ := strings.Cut(strings.TrimSuffix(rest, "}"), "=")
		values[strings.Trim(quoted, `"`)] = v
	}
	return values
}

// sum returns the total of a metric over all of its labels.
func (m metrics) sum(name string) float64 {
	total := 0.0
	for key, v := range m {
		if strings.HasPrefix(key, name+"{") {
			total += v
		}
	}
	return total
}

// settled says whether accepted less closed is what is open. While connections
// come and go it need not be: the gauge is read after the loops' counters.
func (m metrics) settled() bool {
	return m.value("heartwheel_accepted_total")-m.sum("heartwheel_closed_total") == m.value("heartwheel_connections")
}

// ours lists what is not zero of the server's own metrics.
func (m metrics) ours() string {
	var lines []string
	for key, v := range m {
		if v != 0 && strings.HasPrefix(key, "heartwheel_") && !strings.Contains(key, "_bucket{") {
			lines = append(lines, fmt.Sprintf("%s %v", key, v))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// A bucket is one bar of a histogram: what lies over low and not over high.
type bucket struct {
	low, high time.Duration // high of the last one is the largest there is
	count     float64
}

const forever = time.Duration(math.MaxInt64)

// buckets returns the bars of a histogram, over all of its labels.
func (m metrics) buckets(name string) []bucket {
	upTo := map[time.Duration]float64{}
	for key, v := range m {
		rest, ok := strings.CutPrefix(key, name+"_bucket{")
		if !ok {
			continue
		}
		_, le, _ := strings.Cut(rest, `le="`)
		le, _, _ = strings.Cut(le, `"`)
		high := forever
		if le != "+Inf" {
			seconds, err := strconv.ParseFloat(le, 64)
			if err != nil {
				continue
			}
			high = time.Duration(math.Round(seconds * 1e9))
		}
		upTo[high] += v
	}
	var all []bucket
	for high, n := range upTo {
		all = append(all, bucket{high: high, count: n})
	}
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.high, b.high) })
	for i := len(all) - 1; i > 0; i-- {
		all[i].low = all[i-1].high
		all[i].count -= all[i-1].count
	}
	return all
}

func TestParseMetrics(t *testing.T) {
	m, err := parseMetrics(`# HELP x_total A count.
# TYPE x_total counter
x_total{reason="a"} 3
x_total{reason="b c"} 0
up 1
lag_bucket{loop="0",le="0.001"} 2
lag_bucket{loop="0",le="0.2"} 5
lag_bucket{loop="0",le="+Inf"} 6
lag_bucket{loop="1",le="0.001"} 1
lag_bucket{loop="1",le="0.2"} 1
lag_bucket{loop="1",le="+Inf"} 1
lag_sum{loop="0"} 1e-05
`)
	if err != nil {
		t.Fatal(err)
	}
	if v := m.value("x_total", `reason="a"`); v != 3 {
		t.Errorf("x_total is %v", v)
	}
	if v := m.value("x_total"); !math.IsNaN(v) {
		t.Errorf("x_total without labels is %v", v)
	}
	if got := m.by("x_total"); len(got) != 1 || got["a"] != 3 {
		t.Errorf("x_total by reason is %v", got)
	}
	want := []bucket{{0, time.Millisecond, 3}, {time.Millisecond, 200 * time.Millisecond, 3},
		{200 * time.Millisecond, forever, 1}}
	if got := m.buckets("lag"); !slices.Equal(got, want) {
		t.Errorf("buckets are %v, not %v", got, want)
	}
	if _, err := parseMetrics("x y"); err == nil {
		t.Error("a word was taken for a number")
	}
}
