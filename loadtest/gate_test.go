package loadtest

import (
	"strings"
	"testing"

	"heartwheel/loadtest/report"
)

func sloSummary() *report.Summary {
	return &report.Summary{
		Connections: report.Connections{Asked: 1000, Established: 990, Failed: 7, Refused: 3, AtEnd: 900,
			TimeUS: &report.Distribution{Count: 1, P99: 1500},
			Told: []report.Told{{Code: 3001, Meaning: "draining", Count: 4},
				{Code: 3021, Meaning: "beat too often", Count: 2}}},
		Frames: report.Frames{Scheduled: 2000, SentOnSchedule: 1970, Wrong: 2, Unanswered: 5},
		Response: &report.Latency{US: report.Distribution{Count: 10, Min: 20, Mean: 60, P50: 50, P90: 80, P99: 4999.999,
			P999: 6000, Max: 7000}},
		Service: &report.Latency{US: report.Distribution{Count: 10, P50: 40, P99: 100}},
		Detection: &report.Detection{TimeoutMS: 7500, BoundMS: 200, Injected: 100, Detected: 99, Undetected: 1,
			Early:   3,
			Late:    4,
			ErrorMS: &report.Distribution{Count: 99, Min: 1, P50: 60, P99: 150, Max: 199.5}},
		FalseKills:  report.Closes{Count: 6},
		Unexplained: report.Closes{Count: 8},
		Generator:   report.Generator{LagUS: &report.Distribution{Count: 10, P99: 900}, Lapses: 9},
		Errors:      []string{"one"},
	}
}

func TestGates(t *testing.T) {
	for text, want := range map[string]struct {
		ok              bool
		measured, limit float64
	}{
		"rtt.p99<5ms":                  {true, 5, 5}, // 4.999999 shows as 5: see below
		"response.p50<=50us":           {true, .05, .05},
		"rtt.max<7ms":                  {false, 7, 7},
		"rtt.max<=7ms":                 {true, 7, 7},
		"rtt.min>10us":                 {true, .02, .01},
		"rtt.mean>=61us":               {false, .06, .061},
		"rtt.p90!=80us":                {false, .08, .08},
		"rtt.p999==6ms":                {true, 6, 6},
		"service.p99 < 1ms":            {true, .1, 1},
		"connect.p99<1s":               {true, 1.5, 1000},
		"lag.p99<1ms":                  {true, .9, 1},
		"detect.max<=timeout+200ms":    {true, 7699.5, 7700},
		"detect.max<=timeout+bound":    {true, 7699.5, 7700},
		"detect.max<=timeout + 199ms":  {false, 7699.5, 7699},
		"detect.min>=timeout":          {true, 7501, 7500},
		"detect.p50<timeout-1s+1060ms": {false, 7560, 7560},
		"detect.max<8s":                {true, 7699.5, 8000},
		"false_kills==0":               {false, 6, 0},
		"undetected<=1":                {true, 1, 1},
		"detected>=99":                 {true, 99, 99},
		"early==3":                     {true, 3, 3},
		"late>4":                       {false, 4, 4},
		"unexplained==8":               {true, 8, 8},
		"wrong!=2":                     {false, 2, 2},
		"unanswered<10":                {true, 5, 10},
		"errors==10":                   {true, 10, 10},
		"failed<=7":                    {true, 7, 7},
		"refused==3":                   {true, 3, 3},
		"told==6":                      {true, 6, 6},
		"established>=99%":             {true, 990, 990},
		"established>=1k":              {false, 990, 1000},
		"at_end==90%":                  {true, 900, 900},
		"lapses==0":                    {false, 9, 0},
		"sent>=99%":                    {false, 1970, 1980},
		"sent>=98%":                    {true, 1970, 1960},
		"sent>=1970":                   {true, 1970, 1970},
	} {
		g, err := parseGate(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		r := g.evaluate(sloSummary())
		if text == "rtt.p99<5ms" { // rounded to what is shown, so that what is shown is what was judged
			want.ok = false
		}
		if !r.Known || r.OK != want.ok || r.Measured != want.measured || r.Limit != want.limit {
			t.Errorf("%q: %+v, want %+v", text, r, want)
		}
	}
	// Every count that can be named has a value.
	for _, name := range counts {
		g := Gate{Metric: name, Op: ">="}
		if r := g.evaluate(sloSummary()); !r.Known {
			t.Errorf("%s has no value", name)
		}
	}
}

func TestGatesOfNothing(t *testing.T) {
	for text, known := range map[string]bool{
		"rtt.p99<5ms": false, "service.p99<5ms": false, "detect.max<=timeout+200ms": false, "connect.p50<1s": false,
		"lag.max<1s":     false,
		"false_kills==0": true, "undetected==0": true, "rtt.p50<timeout": false,
	} {
		g, err := parseGate(text)
		if err != nil {
			t.Fatal(err)
		}
		if r := g.evaluate(&report.Summary{}); r.Known != known || r.OK != known {
			t.Errorf("%q: %+v, want known and ok %v", text, r, known)
		}
	}
}

func TestGateErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "write METRIC OP LIMIT",
		"false_kills":          "write METRIC OP LIMIT",
		"rt.p99<5ms":           "the nearest is rtt.p99",
		"false-kills==0":       "the nearest is false_kills",
		"p99<5ms":              "is not a metric",
		"rtt.p99=5ms":          "has no comparison",
		"rtt.p99!5ms":          "has no comparison",
		"rtt.p99<":             "has no limit",
		"rtt.p99<5":            "has no unit; write 5ms",
		"rtt.p99<five":         "is not a time",
		"rtt.p99<5ms+":         "is not a time",
		"rtt.p99<timeout+-5ms": "is not a time",
		"rtt.p99<5ms-timeout":  "is not a time",
		"false_kills==none":    "is not a number",
		"false_kills<=5%":      "for established, at_end and sent",
		"false_kills==0ms":     "is not a number",
	} {
		if g, err := parseGate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", text, g, err, want)
		}
	}
}

func FuzzGate(f *testing.F) {
	for _, text := range []string{"rtt.p99<5ms", "detect.max<=timeout+200ms", "established>=99%", "a!=", "lag.p50>-"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g, err := parseGate(text)
		if err == nil {
			g.evaluate(sloSummary())
		}
	})
}
