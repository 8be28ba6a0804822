package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"heartwheel/codec"
)

func TestReserve(t *testing.T) {
	for limit, want := range map[uint64]uint64{0: 64, 1024: 64, 3200: 64, 3250: 65, 1_000_000: 20_000} {
		if got := reserve(limit); got != want {
			t.Errorf("reserve(%d) = %d, want %d", limit, got, want)
		}
	}
}

func TestConnectionCap(t *testing.T) {
	for _, test := range []struct {
		wish  int
		limit uint64
		want  int64 // 0: an error
		warns bool
	}{
		{0, 1024, 960, false},
		{0, 1_000_000, 980_000, false},
		{100, 1024, 100, false},
		{960, 1024, 960, false},
		{961, 1024, 960, true},
		{1_000_000, 1_000_000, 980_000, true},
		{0, 65, 1, false},
		{0, 64, 0, false},
		{1000, 10, 0, false},
		{0, 1<<64 - 1, 1 << 31, false}, // no limit
		{1_000_000, 1<<64 - 1, 1_000_000, false},
	} {
		t.Run(fmt.Sprint(test.wish, "of", test.limit), func(t *testing.T) {
			var log bytes.Buffer
			got, err := connectionCap(test.wish, test.limit, slog.New(slog.NewTextHandler(&log, nil)))
			if got != test.want || (err != nil) != (test.want == 0) {
				t.Fatalf("%d, %v; want %d", got, err, test.want)
			}
			if err != nil && !strings.Contains(err.Error(), "ulimit -n") {
				t.Errorf("%v does not say what to raise", err)
			}
			if warned := log.Len() > 0; warned != test.warns {
				t.Fatalf("warned: %v, want %v: %s", warned, test.warns, &log)
			}
			if !test.warns {
				return
			}
			// The advice must be right: with it the wish is granted.
			m := regexp.MustCompile(`ulimit -Hn (\d+), or LimitNOFILE=`).FindStringSubmatch(log.String())
			if m == nil {
				t.Fatalf("%s does not say what to raise", &log)
			}
			advice, _ := strconv.ParseUint(m[1], 10, 64)
			log.Reset()
			if got, err := connectionCap(test.wish, advice, slog.New(slog.NewTextHandler(&log, nil))); got != int64(test.wish) || err != nil || log.Len() > 0 {
				t.Errorf("with a limit of %d as advised: %d, %v, %s", advice, got, err, &log)
			}
		})
	}
}

func TestAdmission(t *testing.T) {
	a := admission{cap: 2}
	if first, second, third := a.admit(), a.admit(), a.admit(); !first || !second || third {
		t.Fatal("the cap of 2 does not hold")
	}
	if n := a.refused[refusedOverloaded].Load(); n != 1 {
		t.Errorf("%d refusals are counted, want 1", n)
	}
	a.leave()
	if !a.admit() {
		t.Error("nobody takes the place of one that left")
	}
	if n := a.live.Load(); n != 2 {
		t.Errorf("%d are counted, want 2", n)
	}
}

func TestReasonWords(t *testing.T) {
	seen := map[string]Reason{}
	for r := range numReasons {
		word := r.String()
		if other, twice := seen[word]; twice || !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(word) || word == "unknown" {
			t.Errorf("reason %d has the word %q (also that of %d: %v)", r, word, other, twice)
		}
		seen[word] = r
		if c := r.Code(); c < 3000 || c > 3999 || c.String() == "unknown" {
			t.Errorf("%s has the code %d, which codec/SPEC.md does not know", word, c)
		}
	}
	// Where a reason is one of the protocol's own, it has that code to itself.
	codes := map[codec.Code]Reason{}
	for r := range numReasons {
		if c := r.Code(); c != codec.CodePeerClosed && c != codec.CodeInternalError {
			if other, twice := codes[c]; twice {
				t.Errorf("%s and %s share the code %d", r, other, c)
			}
			codes[c] = r
		}
	}
	if numReasons.String() != "unknown" || numReasons.Code() != codec.CodeInternalError {
		t.Errorf("a reason that does not exist: %s, %d", numReasons, numReasons.Code())
	}
	for r, want := range map[Reason]codec.Code{
		PeerClosed: 3000, Draining: 3001, Internal: 3004, SlowConsumer: 3008, WriteError: 3009, IdleTimeout: 3012,
		BeatTooOften: 3021, BadToken: 3500, ProtocolError: 3501, Incomplete: 3502, FrameTooLarge: 3511, BadVersion: 3512,
	} {
		if r.Code() != want {
			t.Errorf("%s has the code %d, want %d", r, r.Code(), want)
		}
	}
	words := map[string]bool{}
	for _, w := range append(refusals[:], averteds[:]...) {
		if w == "" || words[w] {
			t.Errorf("%q is no label, or one twice", w)
		}
		words[w] = true
	}
}

// oneMetric is a Collector of one metric.
type oneMetric struct{ prometheus.Metric }

func (m oneMetric) Describe(ch chan<- *prometheus.Desc) { ch <- m.Desc() }
func (m oneMetric) Collect(ch chan<- prometheus.Metric) { ch <- m }

func TestHistogram(t *testing.T) {
	for i := 1; i < len(bounds); i++ {
		if bounds[i] <= bounds[i-1] {
			t.Fatalf("bounds %d and %d are not in order", i-1, i)
		}
	}
	var h, o histogram
	observe := []int64{0, 1e5, 1e5 + 1, 2e8, 2e8 + 1, 10e9, 11e9, 1e12}
	var sum int64
	for _, ns := range observe {
		h.observe(ns)
		sum += ns
	}
	o.add(&h)
	o.add(&h)
	if o.sum != 2*sum {
		t.Errorf("sum %d, want %d", o.sum, 2*sum)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(oneMetric{o.metric(latenessDesc)})
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%v, %v", families, err)
	}
	got := families[0].GetMetric()[0].GetHistogram()
	if n := got.GetSampleCount(); n != uint64(2*len(observe)) {
		t.Errorf("count %d, want %d", n, 2*len(observe))
	}
	if s := got.GetSampleSum(); s != float64(2*sum)/1e9 {
		t.Errorf("sum %g s, want %g s", s, float64(2*sum)/1e9)
	}
	if len(got.GetBucket()) != len(bounds) {
		t.Fatalf("%d buckets, want %d", len(got.GetBucket()), len(bounds))
	}
	for i, b := range got.GetBucket() { // cumulative: as many as are at or below the edge
		var want uint64
		for _, ns := range observe {
			if ns <= bounds[i] {
				want += 2
			}
		}
		if b.GetUpperBound() != float64(bounds[i])/1e9 || b.GetCumulativeCount() != want {
			t.Errorf("up to %g s: %d, want %d up to %g s", b.GetUpperBound(), b.GetCumulativeCount(), want, float64(bounds[i])/1e9)
		}
	}
}

func TestOpLabels(t *testing.T) {
	seen := map[string]bool{}
	for i := range opLabels {
		if name := opName(i); name == "" || seen[name] {
			t.Errorf("label %d is %q", i, name)
		} else {
			seen[name] = true
		}
	}
	for op := range 256 {
		if i := opLabel(codec.Op(op)); i < 0 || i >= opLabels {
			t.Errorf("op %#x has the label %d of %d", op, i, opLabels)
		}
	}
	if opName(opLabel(0x40)) != "ext" || opName(opLabel(codec.OpPublish)) != codec.OpPublish.String() {
		t.Error("an extension or PUBLISH has a wrong label")
	}
}
