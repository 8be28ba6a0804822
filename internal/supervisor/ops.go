package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/http/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"heartwheel/server"
)

// askPatience is how long the supervisor waits for its workers' answers: a
// worker itself waits a second for an event loop that is stuck.
const askPatience = 3 * time.Second

// handler answers for all workers what server.OpsHandler does for one. Safe for
// concurrent use.
func (v *supervisor) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		v.answer(w, v.ask(r.Context(), "/healthz", v.workers()))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		current, problems := v.current()
		v.answer(w, append(problems, v.ask(r.Context(), "/readyz", current)...))
	})
	mux.HandleFunc("GET /metrics", v.metrics)
	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/check", v.check)
	debug.HandleFunc("GET /debug/worker/{index}/{rest...}", v.forward)
	debug.HandleFunc("GET /debug/pprof/", pprof.Index)
	debug.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	debug.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	debug.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	debug.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.Handle("/debug/", server.LocalOnly(debug))
	return mux
}

// current returns the workers that take connections, and a line for each place
// that has none.
func (v *supervisor) current() (all []*worker, problems []string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ending {
		return nil, []string{"draining"}
	}
	for _, p := range v.places {
		if p.current == nil {
			problems = append(problems, fmt.Sprintf("worker %d is to be started again", p.index))
			continue
		}
		all = append(all, p.current)
	}
	return all, problems
}

// each runs f for each worker at one time, and waits for all.
func each(workers []*worker, f func(i int, w *worker)) {
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { f(i, w) })
	}
	wg.Wait()
}

// ask returns a line for each worker that does not answer the path with 200.
func (v *supervisor) ask(ctx context.Context, path string, workers []*worker) (problems []string) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	said := make([]string, len(workers))
	each(workers, func(i int, w *worker) {
		status, body, err := w.text(ctx, path)
		switch {
		case err != nil:
			said[i] = fmt.Sprintf("%s: %s", w, err)
		case status != http.StatusOK:
			said[i] = fmt.Sprintf("%s: %s", w, strings.TrimSpace(string(body)))
		}
	})
	for _, line := range said {
		if line != "" {
			problems = append(problems, line)
		}
	}
	return problems
}

func (v *supervisor) answer(w http.ResponseWriter, problems []string) {
	if len(problems) > 0 {
		http.Error(w, strings.Join(problems, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// text asks the worker's ops handler, and reads the answer.
func (w *worker) text(ctx context.Context, path string) (status int, body []byte, err error) {
	resp, err := w.get(ctx, path, "")
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxFigures))
	return resp.StatusCode, body, err
}

// A checked is the answer of /debug/check: the sums, and what each worker says.
type checked struct {
	server.Check
	Workers []checkedWorker `json:"workers"`
}

type checkedWorker struct {
	Worker   int  `json:"worker"`
	PID      int  `json:"pid"`
	Draining bool `json:"draining"` // two may be in one place, of which one drains
	server.Check
}

func (v *supervisor) check(w http.ResponseWriter, r *http.Request) {
	workers := v.workers()
	all := checked{Check: server.Check{OK: true, Problems: []string{}}, Workers: make([]checkedWorker, len(workers))}
	each(workers, func(i int, one *worker) {
		ctx, cancel := context.WithTimeout(r.Context(), 10*askPatience) // it visits every session
		defer cancel()
		c := &all.Workers[i]
		c.Worker, c.PID, c.Draining = one.index, one.pid(), one.draining.Load()
		_, body, err := one.text(ctx, "/debug/check")
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
	if err == nil && index >= 0 && index < len(v.places) {
		v.mu.Lock()
		to = v.places[index].current
		v.mu.Unlock()
	}
	if to == nil {
		http.Error(w, fmt.Sprintf("there is no worker %s; they are 0 to %d", r.PathValue("index"), len(v.places)-1), http.StatusNotFound)
		return
	}
	proxy := httputil.ReverseProxy{Transport: to.client.Transport, Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.URL.Path, p.Out.URL.RawPath = "http", "worker", "/debug/"+r.PathValue("rest"), ""
	}}
	proxy.ServeHTTP(w, r)
}

// metrics answers with the sum over the workers, or with ?per_worker=1 with the
// metrics of each place, labelled.
func (v *supervisor) metrics(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), askPatience)
	defer cancel()
	each(v.workers(), func(_ int, one *worker) { _, _ = one.read(ctx) }) // of who is silent the last figures stand
	m := v.merged(r.FormValue("per_worker") == "1")
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultAcceptedFormats()...)
	w.Header().Set("Content-Type", string(format))
	enc := expfmt.NewEncoder(w, format)
	for _, f := range m.all() {
		if enc.Encode(f) != nil {
			return // the client has gone
		}
	}
}

// merged adds up what the workers said last, those that have ended included.
func (v *supervisor) merged(perWorker bool) *merger {
	own := v.own()
	v.mu.Lock()
	defer v.mu.Unlock()
	m, ready := newMerger(), !v.ending
	for _, p := range v.places {
		ready = ready && p.current != nil
		if perWorker {
			m.add(p.figures(), label("worker", strconv.Itoa(p.index)))
		} else {
			m.add(p.figures())
		}
	}
	if perWorker {
		m.add(own, label("worker", "supervisor"))
		return m
	}
	m.add(own)
	if v.limit > 0 {
		m.set("heartwheel_connections_max", min(float64(v.limit), m.value("heartwheel_connections_max")))
	}
	if !ready {
		m.set("heartwheel_ready", 0)
	}
	return m
}

// figures is the sum over those that are and were in the place. The caller
// holds supervisor.mu.
func (p *place) figures() []*dto.MetricFamily {
	m := newMerger()
	m.add(p.retired)
	if p.current != nil {
		m.add(p.current.figures.known())
	}
	if p.old != nil { // it takes nobody any more
		takes := map[string]float64{"heartwheel_ready": 0, "heartwheel_connections_max": 0}
		for name := range takes {
			takes[name] = m.value(name)
		}
		m.add(p.old.figures.known())
		for name, v := range takes {
			m.set(name, v)
		}
	}
	return m.all()
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// own is what the supervisor says of itself.
func (v *supervisor) own() []*dto.MetricFamily {
	v.mu.Lock()
	ready, restarts, replaced := 0, v.restarts, v.replaced
	for _, p := range v.places {
		if p.current != nil {
			ready++
		}
	}
	v.mu.Unlock()
	reg := prometheus.NewRegistry()
	reg.MustRegister(server.ProcessMetrics())
	for _, o := range []struct {
		name, help string
		value      int
	}{
		{"heartwheel_workers", "Workers that the settings ask for.", len(v.places)},
		{"heartwheel_workers_ready", "Workers that take connections.", ready},
	} {
		value := float64(o.value)
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: o.name, Help: o.help}, func() float64 { return value }))
	}
	for _, o := range []struct {
		name, help string
		value      int
	}{
		{"heartwheel_worker_restarts_total", "Starts in the place of a worker that had ended unasked.", restarts},
		{"heartwheel_workers_replaced_total", "Workers replaced for SIGHUP.", replaced},
	} {
		value := float64(o.value)
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: o.name, Help: o.help}, func() float64 { return value }))
	}
	families, _ := reg.Gather() // these collectors do not fail
	return families
}
