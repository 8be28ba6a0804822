package loadtest

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// serverMetrics is one scrape of /metrics. Counters run from the start of the server.
type serverMetrics struct {
	connections float64 // −1: missing
	cpuSeconds  float64
	rss         float64
	closed      map[string]float64  // by reason
	refused     map[string]float64  // by reason
	lag         map[float64]float64 // cumulative counts of the loop lag of all loops, by upper edge in s
	lagSum      float64             // s
	lagCount    float64
}

// fetchMetrics scrapes the metrics at url.
func fetchMetrics(client *http.Client, url string) (*serverMetrics, error) {
	resp, err := client.Get(url + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s/metrics answers %s", url, resp.Status)
	}
	return parseMetrics(io.LimitReader(resp.Body, 16<<20))
}

func newMetricsClient() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
}

// parseMetrics reads the lines of the Prometheus text format that a run needs.
func parseMetrics(r io.Reader) (*serverMetrics, error) {
	s := &serverMetrics{connections: -1, closed: map[string]float64{}, refused: map[string]float64{},
		lag: map[float64]float64{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, labels, value, ok := parseMetric(lines.Text())
		if !ok {
			continue
		}
		switch name {
		case "heartwheel_connections":
			s.connections = max(s.connections, 0) + value
		case "heartwheel_closed_total":
			s.closed[labels["reason"]] += value
		case "heartwheel_refused_total":
			s.refused[labels["reason"]] += value
		case "process_cpu_seconds_total":
			s.cpuSeconds += value
		case "process_resident_memory_bytes":
			s.rss += value
		case "heartwheel_loop_lag_seconds_bucket":
			if le, err := strconv.ParseFloat(labels["le"], 64); err == nil {
				s.lag[le] += value
			}
		case "heartwheel_loop_lag_seconds_sum":
			s.lagSum += value
		case "heartwheel_loop_lag_seconds_count":
			s.lagCount += value
		}
	}
	return s, lines.Err()
}

// parseMetric splits `name{label="value",…} 1.5`, with or without labels. It does not
// handle commas and quotes in values: the metrics of a run have none.
func parseMetric(line string) (name string, labels map[string]string, value float64, ok bool) {
	if line == "" || line[0] == '#' {
		return "", nil, 0, false
	}
	name, rest, _ := strings.Cut(line, " ")
	if open := strings.IndexByte(line, '{'); open >= 0 {
		end := strings.LastIndexByte(line, '}')
		if end < open {
			return "", nil, 0, false
		}
		name, rest = line[:open], line[end+1:]
		labels = map[string]string{}
		for pair := range strings.SplitSeq(line[open+1:end], ",") {
			key, quoted, _ := strings.Cut(pair, "=")
			labels[strings.TrimSpace(key)] = strings.Trim(quoted, `"`)
		}
	}
	fields := strings.Fields(rest) // the value, and maybe a timestamp
	if len(fields) == 0 {
		return "", nil, 0, false
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	return name, labels, value, err == nil
}

// increases is what was added between two scrapes of a counter, by label, without
// zeros.
func increases(before, after map[string]float64) map[string]int64 {
	m := map[string]int64{}
	for label, v := range after {
		if d := int64(v - before[label]); d > 0 {
			m[label] = d
		}
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// lagBetween is the mean and the p99 of the loop lag between two scrapes in µs. The
// p99 is the upper edge of its bucket. 0: nothing new.
func lagBetween(before, after *serverMetrics) (mean, p99 float64) {
	n := after.lagCount - before.lagCount
	if n <= 0 {
		return 0, 0
	}
	mean = wording.Thousandths((after.lagSum - before.lagSum) / n * 1e6)
	for _, edge := range slices.Sorted(maps.Keys(after.lag)) {
		if after.lag[edge]-before.lag[edge] >= 0.99*n {
			return mean, wording.Thousandths(min(edge, 3600) * 1e6)
		}
	}
	return mean, 0
}
