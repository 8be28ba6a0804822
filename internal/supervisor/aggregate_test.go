package supervisor

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// readText reads metrics in the text form, which the decoder returns in no
// order; they are sorted by name.
func readText(t *testing.T, text string) []*dto.MetricFamily {
	t.Helper()
	families, err := readFamilies(&http.Response{StatusCode: http.StatusOK, Body: body{strings.NewReader(text)},
		Header: http.Header{"Content-Type": {string(expfmt.NewFormat(expfmt.TypeTextPlain))}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(families, byName)
	return families
}

type body struct{ *strings.Reader }

func (body) Close() error { return nil }

// writeText writes them, without the comments.
func writeText(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		if line[0] != '#' {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

func TestAggregate(t *testing.T) {
	const h = "# TYPE h histogram\n"
	for _, c := range []struct {
		what, want string
		of         []string
	}{
		{"counters are added up by their labels", `a_total{reason="x"} 5
a_total{reason="y"} 7
a_total{reason="z"} 1`, []string{
			"# TYPE a_total counter\na_total{reason=\"x\"} 2\na_total{reason=\"y\"} 7\n",
			"# TYPE a_total counter\na_total{reason=\"x\"} 3\na_total{reason=\"z\"} 1\n"}},
		{"gauges are added up", "heartwheel_connections 12", []string{
			"# TYPE heartwheel_connections gauge\nheartwheel_connections 5\n",
			"# TYPE heartwheel_connections gauge\nheartwheel_connections 7\n"}},
		{"ready if all are", "heartwheel_ready 0", []string{
			"# TYPE heartwheel_ready gauge\nheartwheel_ready 1\n",
			"# TYPE heartwheel_ready gauge\nheartwheel_ready 0\n",
			"# TYPE heartwheel_ready gauge\nheartwheel_ready 1\n"}},
		{"the highest rung", "heartwheel_memory_rung 2", []string{
			"# TYPE heartwheel_memory_rung gauge\nheartwheel_memory_rung 2\n",
			"# TYPE heartwheel_memory_rung gauge\nheartwheel_memory_rung 0\n"}},
		{"one build", "heartwheel_build_info{version=\"v1\"} 1", []string{
			"# TYPE heartwheel_build_info gauge\nheartwheel_build_info{version=\"v1\"} 1\n",
			"# TYPE heartwheel_build_info gauge\nheartwheel_build_info{version=\"v1\"} 1\n"}},
		{"the earliest start", "process_start_time_seconds 3", []string{
			"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 9\n",
			"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 3\n"}},
		{"negative gauges", "g -3", []string{"# TYPE g gauge\ng -5\n", "# TYPE g gauge\ng 2\n"}},
		{"histograms by bucket", `h_bucket{le="1"} 5
h_bucket{le="2"} 9
h_bucket{le="+Inf"} 12
h_sum 30.5
h_count 12`, []string{
			h + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"2\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum 10\nh_count 5\n",
			h + "h_bucket{le=\"1\"} 3\nh_bucket{le=\"2\"} 5\nh_bucket{le=\"+Inf\"} 7\nh_sum 20.5\nh_count 7\n"}},
		{"histograms with other buckets", `h_bucket{le="1"} 2
h_bucket{le="2"} 7
h_bucket{le="4"} 9
h_bucket{le="+Inf"} 12
h_sum 3
h_count 12`, []string{
			h + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"4\"} 4\nh_bucket{le=\"+Inf\"} 5\nh_sum 1\nh_count 5\n",
			h + "h_bucket{le=\"2\"} 5\nh_bucket{le=\"+Inf\"} 7\nh_sum 2\nh_count 7\n"}},
		{"summaries", `s{quantile="0"} 2
s{quantile="1"} 8
s_sum 3
s_count 12`, []string{
			"# TYPE s summary\ns{quantile=\"0\"} 1\ns{quantile=\"1\"} 8\ns_sum 1\ns_count 5\n",
			"# TYPE s summary\ns{quantile=\"0\"} 2\ns{quantile=\"1\"} 4\ns_sum 2\ns_count 7\n"}},
		{"a type that has changed is left out", "a 2", []string{"# TYPE a gauge\na 2\n", "# TYPE a counter\na 3\n"}},
		{"one that only one has", "a 2\nb 3", []string{"# TYPE a gauge\na 2\n", "# TYPE b gauge\nb 3\n"}},
		{"nothing", "", nil},
	} {
		m := newAggregate()
		for _, text := range c.of {
			m.add(readText(t, text))
		}
		if got := writeText(t, m.all()); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.what, got, c.want)
		}
	}
}

// TestAggregateKeepsNothing checks that add neither changes nor keeps its argument.
func TestAggregateKeepsNothing(t *testing.T) {
	const text = "# TYPE a_total counter\na_total{r=\"x\"} 2\n" +
		"# TYPE g gauge\ng 1\n" +
		"# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 5\nh_sum 10\nh_count 5\n"
	families := readText(t, text)
	before := writeText(t, families)
	m := newAggregate()
	for range 3 {
		m.add(families)
	}
	m.set("g", 7)
	if got := writeText(t, families); got != before {
		t.Errorf("adding has changed what was added:\n%s", got)
	}
	const want = "a_total{r=\"x\"} 6\ng 7\nh_bucket{le=\"1\"} 6\nh_bucket{le=\"+Inf\"} 15\nh_sum 30\nh_count 15"
	if writeText(t, m.all()) != want {
		t.Errorf("it comes to\n%s", writeText(t, m.all()))
	}
}

func TestAggregateLabels(t *testing.T) {
	m := newAggregate()
	for i := range 2 {
		m.add(readText(t, fmt.Sprintf("# TYPE s gauge\ns{loop=\"0\"} %d\n", i+5)), label("worker", fmt.Sprint(i)))
	}
	if got, want := writeText(t, m.all()), "s{loop=\"0\",worker=\"0\"} 5\ns{loop=\"0\",worker=\"1\"} 6"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestCountersOf: only counters outlive a process.
func TestCountersOf(t *testing.T) {
	const text = "# TYPE a_total counter\na_total 2\n# TYPE g gauge\ng 1\n# TYPE s summary\ns_sum 1\ns_count 5\n"
	got := writeText(t, countersOf(readText(t, text)))
	if want := "a_total 2\ns_sum 1\ns_count 5"; got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestSlotMetrics(t *testing.T) {
	text := func(ready, most, conns, closed int) []*dto.MetricFamily {
		return readText(t, fmt.Sprintf("# TYPE heartwheel_ready gauge\nheartwheel_ready %d\n"+
			"# TYPE heartwheel_connections_max gauge\nheartwheel_connections_max %d\n"+
			"# TYPE heartwheel_connections gauge\nheartwheel_connections %d\n"+
			"# TYPE c_total counter\nc_total %d\n", ready, most, conns, closed))
	}
	s := &slot{
		ended:   countersOf(text(1, 1, 1, 100)),
		current: &worker{metrics: metricsCache{last: text(1, 50, 3, 10)}},
		old:     &worker{metrics: metricsCache{last: text(0, 50, 4, 1)}},
	}
	const want = "c_total 111\nheartwheel_connections 7\nheartwheel_connections_max 50\nheartwheel_ready 1"
	if got := writeText(t, s.metrics()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

func TestSummaryOfNothing(t *testing.T) {
	nan, q, v := math.NaN(), 0.5, 3.0
	summary := func(value *float64) *dto.Summary {
		return &dto.Summary{Quantile: []*dto.Quantile{{Quantile: &q, Value: value}}}
	}
	got := addSummary(summary(&nan), summary(&v))
	if len(got.Quantile) != 1 || got.Quantile[0].GetValue() != 3 {
		t.Errorf("a quantile of nothing and 3 is %v", got)
	}
}
