package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"heartwheel/internal/ops"
	"heartwheel/server"
)

// queryTimeout is how long the supervisor waits for its workers' answers: a
// worker itself waits a second for an event loop that is stuck.
const queryTimeout = 3 * time.Second

// handler answers for all workers what server.OpsHandler answers for one. Like
// all methods below it is safe for concurrent use.
func (v *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		reply(w, query(r.Context(), "/healthz", v.workers()))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		accepting, problems := v.accepting()
		reply(w, append(problems, query(r.Context(), "/readyz", accepting)...))
	})
	mux.HandleFunc("GET /metrics", v.serveMetrics)
	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/check", v.serveCheck)
	debug.HandleFunc("GET /debug/worker/{index}/{rest...}", v.forward)
	ops.HandlePprof(debug)
	mux.Handle("/debug/", ops.LocalOnly(debug))
	return mux
}

// accepting returns the workers that accept connections, and a line for each slot
// that has none.
func (v *supervisor) accepting() (all []*worker, problems []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ending {
		return nil, []string{"draining"}
	}
	for _, s := range v.slots {
		if s.current == nil {
			problems = append(problems, fmt.Sprintf("worker %d is waiting to be restarted", s.index))
			continue
		}
		all = append(all, s.current)
	}
	return all, problems
}

// forEach calls f for all workers concurrently, and returns when all calls have.
func forEach(workers []*worker, f func(i int, w *worker)) {
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { f(i, w) })
	}
	wg.Wait()
}

// query returns a line for each worker that does not answer the path with 200.
func query(ctx context.Context, path string, workers []*worker) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answers := make([]string, len(workers))
	forEach(workers, func(i int, w *worker) {
		status, body, err := w.getText(ctx, path)
		switch {
		case err != nil:
			answers[i] = fmt.Sprintf("%s: %s", w, err)
		case status != http.StatusOK:
			answers[i] = fmt.Sprintf("%s: %s", w, strings.TrimSpace(string(body)))
		}
	})
	return slices.DeleteFunc(answers, func(line string) bool { return line == "" })
}

// reply answers 200, or 503 with the problems.
func reply(w http.ResponseWriter, problems []string) {
	if len(problems) > 0 {
		http.Error(w, strings.Join(problems, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// A checkReport is the answer of /debug/check: the sums, and the report of each
// worker.
type checkReport struct {
	server.Check
	Workers []workerReport `json:"workers"`
}

type workerReport struct {
	Worker   int  `json:"worker"`
	PID      int  `json:"pid"`
	Draining bool `json:"draining"` // a slot has two workers while one of them drains
	server.Check
}

func (v *supervisor) serveCheck(w http.ResponseWriter, r *http.Request) {
	workers := v.workers()
	all := checkReport{Check: server.Check{OK: true, Problems: []string{}}, Workers: make([]workerReport, len(workers))}
	forEach(workers, func(i int, one *worker) {
		ctx, cancel := context.WithTimeout(r.Context(), 10*queryTimeout) // it visits every session
		defer cancel()
		c := &all.Workers[i]
		c.Worker, c.PID, c.Draining = one.index, one.PID(), one.draining.Load()
		_, body, err := one.getText(ctx, "/debug/check")
		if err == nil {
			err = json.Unmarshal(body, &c.Check)
		}
		if err != nil {
			c.OK, c.Problems = false, []string{err.Error()}
		}
	})
	for i, c := range all.Workers {
		all.OK = all.OK && c.OK
		for _, problem := range c.Problems {
			all.Problems = append(all.Problems, fmt.Sprintf("%s: %s", workers[i], problem))
		}
		all.Connections += c.Connections
		all.Sessions += c.Sessions
		all.Accepted += c.Accepted
		all.Closed += c.Closed
		all.Entering += c.Entering
	}
	w.Header().Set("Content-Type", "application/json")
	if !all.OK {
		w.WriteHeader(http.StatusInternalServerError)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(all)
}

// forward passes /debug/worker/N/REST on to worker N as /debug/REST.
func (v *supervisor) forward(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.Atoi(r.PathValue("index"))
	var to *worker
	if err == nil && index >= 0 && index < len(v.slots) {
		v.mu.Lock()
		to = v.slots[index].current
		v.mu.Unlock()
	}
	if to == nil {
		text := fmt.Sprintf("there is no worker %s; they are 0 to %d", r.PathValue("index"), len(v.slots)-1)
		http.Error(w, text, http.StatusNotFound)
		return
	}
	proxy := httputil.ReverseProxy{Transport: to.client.Transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host = "http", "worker"
		p.Out.URL.Path, p.Out.URL.RawPath = "/debug/"+r.PathValue("rest"), ""
	}}
	proxy.ServeHTTP(w, r)
}

// serveMetrics answers with the sum over the workers, or for ?per_worker=1 with
// the metrics of each slot under a label.
func (v *supervisor) serveMetrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), queryTimeout)
	defer cancel()
	forEach(v.workers(), func(_ int, one *worker) { _, _ = one.scrape(ctx) }) // if it fails, the last scrape stands
	sum := v.aggregate(r.FormValue("per_worker") == "1")
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	for _, f := range sum.all() {
		if enc.Encode(f) != nil {
			return // the client is gone
		}
	}
}

// aggregate adds up the last scrapes of all workers, those that have ended
// included.
func (v *supervisor) aggregate(perWorker bool) *aggregate {
	own := v.ownMetrics()
	v.mu.Lock()
	defer v.mu.Unlock()
	sum, ready := newAggregate(), !v.ending
	for _, s := range v.slots {
		ready = ready && s.current != nil
		if perWorker {
			sum.add(s.metrics(), label("worker", strconv.Itoa(s.index)))
		} else {
			sum.add(s.metrics())
		}
	}
	if perWorker {
		sum.add(own, label("worker", "supervisor"))
		return sum
	}
	sum.add(own)
	if v.limit > 0 {
		sum.set("heartwheel_connections_max", min(float64(v.limit), sum.value("heartwheel_connections_max")))
	}
	if !ready {
		sum.set("heartwheel_ready", 0)
	}
	return sum
}

// metrics returns the sum over the workers that are and were in the slot. Under
// supervisor.mu.
func (s *slot) metrics() []*dto.MetricFamily {
	sum := newAggregate()
	sum.add(s.ended)
	if s.current != nil {
		sum.add(s.current.metrics.latest())
	}
	if s.old != nil { // it accepts nothing any more
		keep := map[string]float64{"heartwheel_ready": 0, "heartwheel_connections_max": 0}
		for name := range keep {
			keep[name] = sum.value(name)
		}
		sum.add(s.old.metrics.latest())
		for name, v := range keep {
			sum.set(name, v)
		}
	}
	return sum.all()
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// ownMetrics returns the metrics of the supervisor itself.
func (v *supervisor) ownMetrics() []*dto.MetricFamily {
	v.mu.Lock()
	ready, restarts, replaced := 0, v.restarts, v.replaced
	for _, s := range v.slots {
		if s.current != nil {
			ready++
		}
	}
	v.mu.Unlock()
	reg := prometheus.NewRegistry()
	reg.MustRegister(ops.ProcessMetrics())
	reg.MustRegister(v.Metrics...)
	for _, o := range []struct {
		name, help string
		value      int
	}{
		{"heartwheel_workers", "Workers that the settings ask for.", len(v.slots)},
		{"heartwheel_workers_ready", "Workers that accept connections.", ready},
	} {
		value := float64(o.value)
		opts := prometheus.GaugeOpts{Name: o.name, Help: o.help}
		reg.MustRegister(prometheus.NewGaugeFunc(opts, func() float64 { return value }))
	}
	for _, o := range []struct {
		name, help string
		value      int
	}{
		{"heartwheel_worker_restarts_total", "Workers restarted because one ended unasked.", restarts},
		{"heartwheel_workers_replaced_total", "Workers replaced by rolling restarts.", replaced},
	} {
		value := float64(o.value)
		opts := prometheus.CounterOpts{Name: o.name, Help: o.help}
		reg.MustRegister(prometheus.NewCounterFunc(opts, func() float64 { return value }))
	}
	families, _ := reg.Gather() // these collectors do not fail
	return families
}
