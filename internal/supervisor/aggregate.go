package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// gaugeRules combine gauges of several processes where a sum would mean nothing.
// Counters and histograms are added up. So are the counts of summaries; their
// quantiles become the largest of each.
var gaugeRules = map[string]func(a, b float64) float64{
	"heartwheel_ready":                                       math.Min,
	"heartwheel_memory_limit_bytes":                          math.Max, // all are in one control group
	"heartwheel_memory_used_bytes":                           math.Max,
	"heartwheel_memory_rung":                                 math.Max,
	"heartwheel_tls_certificate_not_after_timestamp_seconds": math.Min,
	"process_start_time_seconds":                             math.Min,
	"process_max_fds":                                        math.Min,
	"go_info":                                                math.Max,
	"heartwheel_build_info":                                  math.Max,
	"go_gc_gogc_percent":                                     math.Max,
	"go_gc_gomemlimit_bytes":                                 math.Max,
	"go_memstats_last_gc_time_seconds":                       math.Max,
}

// An aggregate is the sum of the metrics of several processes. Not safe for
// concurrent use.
type aggregate struct {
	families map[string]*dto.MetricFamily
	metrics  map[string]map[string]*dto.Metric // by family and labels
}

func newAggregate() *aggregate {
	return &aggregate{families: map[string]*dto.MetricFamily{}, metrics: map[string]map[string]*dto.Metric{}}
}

// add adds the metrics of one process, which it neither keeps nor changes. It
// leaves out a family whose type differs from before, as it may in another
// version.
func (m *aggregate) add(families []*dto.MetricFamily, more ...*dto.LabelPair) {
	for _, f := range families {
		name := f.GetName()
		all, known := m.families[name]
		if !known {
			all = &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type}
			m.families[name], m.metrics[name] = all, map[string]*dto.Metric{}
		}
		if all.GetType() != f.GetType() {
			continue
		}
		for _, one := range f.Metric {
			labels := sortedLabels(one.Label, more)
			key := labelKey(labels)
			sum := m.metrics[name][key]
			if sum == nil {
				sum = &dto.Metric{Label: labels}
				m.metrics[name][key] = sum
				all.Metric = append(all.Metric, sum)
			}
			addMetric(sum, one, gaugeRules[name])
		}
	}
}

// set makes a gauge without labels have a value, if it is there.
func (m *aggregate) set(name string, v float64) {
	if one := m.metrics[name][""]; one != nil && one.Gauge != nil {
		one.Gauge.Value = &v
	}
}

// value is that of a gauge without labels; 0 if it is not there.
func (m *aggregate) value(name string) float64 { return m.metrics[name][""].GetGauge().GetValue() }

// all returns the families by name.
func (m *aggregate) all() []*dto.MetricFamily {
	return slices.SortedFunc(maps.Values(m.families), byName)
}

func byName(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) }

func sortedLabels(a, b []*dto.LabelPair) []*dto.LabelPair {
	byLabel := func(a, b *dto.LabelPair) int { return cmp.Compare(a.GetName(), b.GetName()) }
	return slices.SortedFunc(slices.Values(slices.Concat(a, b)), byLabel)
}

func labelKey(labels []*dto.LabelPair) string {
	var b strings.Builder
	for _, l := range labels {
		b.WriteString(l.GetName() + "\xff" + l.GetValue() + "\xff") // not a byte of UTF-8
	}
	return b.String()
}

// addMetric adds one to sum, which is of the same type or still empty.
func addMetric(sum, one *dto.Metric, rule func(a, b float64) float64) {
	plus := func(a, b float64) float64 { return a + b }
	switch {
	case one.Counter != nil:
		if sum.Counter == nil {
			sum.Counter = &dto.Counter{Value: new(float64)}
		}
		*sum.Counter.Value += one.Counter.GetValue()
	case one.Gauge != nil:
		v := one.Gauge.GetValue()
		if rule == nil {
			rule = plus
		}
		if sum.Gauge != nil {
			v = rule(sum.Gauge.GetValue(), v)
		}
		sum.Gauge = &dto.Gauge{Value: &v}
	case one.Histogram != nil:
		sum.Histogram = addHistogram(sum.Histogram, one.Histogram)
	case one.Summary != nil:
		sum.Summary = addSummary(sum.Summary, one.Summary)
	case one.Untyped != nil:
		v := sum.Untyped.GetValue() + one.Untyped.GetValue()
		sum.Untyped = &dto.Untyped{Value: &v}
	}
}

// addHistogram returns a + b with the buckets of both. At an edge that one of
// them does not have, what it has up to there counts.
func addHistogram(a, b *dto.Histogram) *dto.Histogram {
	count, total := a.GetSampleCount()+b.GetSampleCount(), a.GetSampleSum()+b.GetSampleSum()
	sum := &dto.Histogram{SampleCount: &count, SampleSum: &total}
	i, j := 0, 0
	var below [2]uint64
	for i < len(a.GetBucket()) || j < len(b.GetBucket()) {
		edge := math.Inf(1)
		if i < len(a.GetBucket()) {
			edge = a.Bucket[i].GetUpperBound()
		}
		if j < len(b.GetBucket()) {
			edge = min(edge, b.Bucket[j].GetUpperBound())
		}
		if i < len(a.GetBucket()) && a.Bucket[i].GetUpperBound() == edge {
			below[0] = a.Bucket[i].GetCumulativeCount()
			i++
		}
		if j < len(b.GetBucket()) && b.Bucket[j].GetUpperBound() == edge {
			below[1] = b.Bucket[j].GetCumulativeCount()
			j++
		}
		n := below[0] + below[1]
		sum.Bucket = append(sum.Bucket, &dto.Bucket{UpperBound: &edge, CumulativeCount: &n})
	}
	return sum
}

func addSummary(a, b *dto.Summary) *dto.Summary {
	count, total := a.GetSampleCount()+b.GetSampleCount(), a.GetSampleSum()+b.GetSampleSum()
	sum := &dto.Summary{SampleCount: &count, SampleSum: &total}
	values := map[float64]float64{}
	for _, q := range slices.Concat(a.GetQuantile(), b.GetQuantile()) {
		v, seen := values[q.GetQuantile()]
		if !seen || math.IsNaN(v) || q.GetValue() > v {
			values[q.GetQuantile()] = q.GetValue()
		}
	}
	for _, q := range slices.Sorted(maps.Keys(values)) {
		v := values[q]
		sum.Quantile = append(sum.Quantile, &dto.Quantile{Quantile: &q, Value: &v})
	}
	return sum
}

// countersOf returns the families that must never fall, and so outlive their
// process.
func countersOf(families []*dto.MetricFamily) []*dto.MetricFamily {
	return slices.DeleteFunc(slices.Clone(families), func(f *dto.MetricFamily) bool {
		t := f.GetType()
		return t != dto.MetricType_COUNTER && t != dto.MetricType_HISTOGRAM && t != dto.MetricType_SUMMARY
	})
}

// acceptProto asks for the binary form, which is cheaper to read than the text.
const acceptProto = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"

// maxScrape bounds a worker's answer, in bytes.
const maxScrape = 16 << 20

// A metricsCache keeps the last scrape of a worker. Safe for concurrent use.
type metricsCache struct {
	mu   sync.Mutex
	last []*dto.MetricFamily // guarded by mu; the families do not change
}

// refresh reads the metrics with get. If that fails it returns the last ones with
// the error.
func (c *metricsCache) refresh(get func() (*http.Response, error)) ([]*dto.MetricFamily, error) {
	fresh, err := readFamilies(get())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.last = fresh
	}
	return c.last, err
}

// latest returns the last scrape.
func (c *metricsCache) latest() []*dto.MetricFamily {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

func readFamilies(resp *http.Response, err error) ([]*dto.MetricFamily, error) {
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("/metrics answers %s", resp.Status)
	}
	dec := expfmt.NewDecoder(io.LimitReader(resp.Body, maxScrape), expfmt.ResponseFormat(resp.Header))
	var families []*dto.MetricFamily
	for {
		f := new(dto.MetricFamily)
		if err := dec.Decode(f); errors.Is(err, io.EOF) {
			return families, nil
		} else if err != nil {
			return nil, err
		}
		families = append(families, f)
	}
}
