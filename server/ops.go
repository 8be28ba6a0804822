package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"heartwheel/internal/ops"
)

// OpsHandler returns a handler for operators:
//
//	/healthz       200 while every event loop answers
//	/readyz        200 while connections are accepted; 503 in a drain and while memory is short
//	/metrics       metrics of the server, of Go's runtime and of the process, for Prometheus
//	/debug/check   Check as JSON; 500 if an invariant is broken
//	/debug/pprof/  profiles
//
// /metrics has what more collects as well. Only clients on this machine that use a
// loopback name and no proxy may read /debug/, whatever address the handler is
// served on. The method and the handler are safe for concurrent use, and serve
// after Close too.
func (s *Server) OpsHandler(more ...prometheus.Collector) http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(more...)
	reg.MustRegister(s, collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(gcCost)),
		ops.ProcessMetrics(), ops.BuildInfo())

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) {
		for _, l := range s.loops {
			if !s.ask(l, func() {}) {
				http.Error(w, fmt.Sprintf("event loop %d does not answer", l.index), http.StatusServiceUnavailable)
				return
			}
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if why := s.notReady(); why != "" {
			http.Error(w, "not accepting connections: "+why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))

	debug := http.NewServeMux()
	debug.HandleFunc("GET /debug/check", func(w http.ResponseWriter, r *http.Request) {
		c := s.Check()
		w.Header().Set("Content-Type", "application/json")
		if !c.OK {
			w.WriteHeader(http.StatusInternalServerError)
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(c)
	})
	ops.HandlePprof(debug)
	mux.Handle("/debug/", ops.LocalOnly(debug))
	return mux
}

// gcCost selects the garbage collector's processor time, the part of it that was
// idle otherwise, and the heap that the last collection left:
// go_cpu_classes_gc_total_cpu_seconds_total, the same with mark_idle in place of
// total, and go_gc_heap_live_bytes.
var gcCost = collectors.GoRuntimeMetricsRule{
	Matcher: regexp.MustCompile("^(/cpu/classes/gc/(total|mark/idle):cpu-seconds|/gc/heap/live:bytes)$"),
}

// A Check is the result of re-deriving the server's invariants. It is the
// caller's.
type Check struct {
	OK          bool     `json:"ok"`
	Problems    []string `json:"problems"`    // each broken invariant; empty if OK
	Connections int64    `json:"connections"` // counted at admission
	Sessions    uint64   `json:"sessions"`    // accepted − closed, over all loops
	Accepted    uint64   `json:"accepted"`    // connections that became sessions
	Closed      uint64   `json:"closed"`      // sessions that ended
	Entering    int64    `json:"entering"`    // connections on their way to a loop
}

// Check re-derives what must always hold: the connection gauge equals accepted −
// closed equals the sessions that exist, each session is in exactly one slot of
// its wheel, and the addresses have as many connections as there are. It visits
// every session on its loop, about 10 ms per 100,000. Safe for concurrent use.
func (s *Server) Check() Check {
	var c Check
	for range 20 { // connections may come and go between the answers of two loops
		if c = s.checkOnce(); c.OK {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c
}

func (s *Server) checkOnce() Check {
	c := Check{Problems: []string{}}
	type answer struct {
		err            error
		opened, closed uint64
	}
	before := s.admission.Connections()
	for _, l := range s.loops {
		got := make(chan answer, 1)
		if !s.ask(l, func() { got <- answer{l.check(), l.stats.opened, l.stats.totalClosed()} }) {
			c.Problems = append(c.Problems, fmt.Sprintf("event loop %d does not answer", l.index))
			continue
		}
		a := <-got
		if a.err != nil {
			c.Problems = append(c.Problems, fmt.Sprintf("event loop %d: %s", l.index, a.err))
		}
		c.Accepted += a.opened
		c.Closed += a.closed
		c.Entering += l.assigned.Load() - int64(a.opened-a.closed)
	}
	c.Connections = s.admission.Connections()
	c.Sessions = c.Accepted - c.Closed
	c.Problems = append(c.Problems, s.admission.Check()...)
	if c.Connections == before && c.Connections != int64(c.Sessions)+c.Entering {
		c.Problems = append(c.Problems,
			fmt.Sprintf("%d connections are counted, but there are %d sessions and %d on their way",
				c.Connections, c.Sessions, c.Entering))
	}
	c.OK = len(c.Problems) == 0
	return c
}
