package loadtest

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// A sampler measures the server from outside the protocol about every second: its
// metrics, and its processes if they are local.
type sampler struct {
	ops   string // URL; empty: none
	pids  []int  // none: not local, or hidden
	local bool   // the server runs on this machine

	client *http.Client
	mu     sync.Mutex // guards all below

	before, latest *serverState
	cpuMax         float64
	connMax        int
	rssPeak        int64
	samples        int
	failed         string // why the last scrape failed; empty: it did not
	slabBefore     int64
	slabExact      bool
	slabAfter      int64 // 0: not measured
	slabSockets    int   // sockets of both ends at slabAfter
	openNow        int   // connections of the generator
	holdFrom       *serverState
	holdTo         *serverState
}

// minForMemory is how many connections are needed to tell the memory of one.
const minForMemory = 1000

// A serverState is one measurement of the server.
type serverState struct {
	at          time.Time
	ops         *serverMetrics // nil: unknown
	connections int            // −1: unknown
	cpuSeconds  float64
	cpuPercent  float64 // since the measurement before
	rss         int64
	closed      int64 // since the start of the run
}

// newSampler prepares to measure the server behind target. own is the process of a
// server that the run has started, or 0.
func newSampler(target netip.AddrPort, ops string, own int) *sampler {
	s := &sampler{ops: ops, local: isLocal(target.Addr()), client: newMetricsClient()}
	if s.local {
		if s.pids = listenerPIDs(target.Port()); len(s.pids) == 0 && own != 0 {
			s.pids = []int{own}
		}
	}
	return s
}

// begin measures the server before the first connection.
func (s *sampler) begin() {
	s.measure()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before, s.samples, s.cpuMax = s.latest, 0, 0
	if s.local {
		s.slabBefore, s.slabExact, _ = slabBytes()
	}
}

// run measures the server until ctx is done.
func (s *sampler) run(ctx context.Context) {
	next := time.NewTimer(time.Second)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			s.client.CloseIdleConnections()
			return
		case <-next.C:
			start := time.Now()
			s.measure()
			next.Reset(sampleInterval(time.Since(start)))
		}
	}
}

// sampleInterval is the time until the next measurement after one that took this long:
// at least a second, and long enough that measuring takes at most a twentieth of the
// time. Scraping 56 busy workers once a second was a fifth of their work.
func sampleInterval(took time.Duration) time.Duration { return max(time.Second, 20*took) }

// measure takes a measurement. Safe for concurrent use.
func (s *sampler) measure() {
	state := &serverState{at: time.Now(), connections: -1}
	seen := false
	failed := ""
	if s.ops != "" {
		ops, err := fetchMetrics(s.client, s.ops)
		if err != nil {
			failed = err.Error()
		} else {
			seen = true
			state.ops, state.connections = ops, int(ops.connections)
			state.cpuSeconds, state.rss = ops.cpuSeconds, int64(ops.rss)
		}
	}
	if p, err := readProcs(s.pids); err == nil && len(s.pids) > 0 {
		seen = true
		state.cpuSeconds, state.rss = p.cpuSeconds, p.rss
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = failed
	if !seen {
		return
	}
	if last := s.latest; last != nil {
		if wall := state.at.Sub(last.at).Seconds(); wall > 0 && state.cpuSeconds >= last.cpuSeconds {
			state.cpuPercent = wording.Thousandths(100 * (state.cpuSeconds - last.cpuSeconds) / wall)
			if wall > 0.5 { // shorter spans say too little: the clock is coarse
				s.cpuMax = max(s.cpuMax, state.cpuPercent)
			}
		}
	}
	if s.before != nil && s.before.ops != nil && state.ops != nil {
		for _, n := range increases(s.before.ops.closed, state.ops.closed) {
			state.closed += n
		}
	}
	s.samples++
	s.connMax = max(s.connMax, state.connections)
	s.rssPeak = max(s.rssPeak, state.rss)
	s.latest = state
}

// setOpen sets how many connections the generator holds. Safe for concurrent use.
func (s *sampler) setOpen(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.openNow = n
}

// markHold measures the server at the beginning of the hold phase, and at its end. The
// first end counts: afterwards the run may reset its connections. Safe for concurrent
// use.
func (s *sampler) markHold(begin bool) {
	s.measure()
	var slab int64
	if !begin && s.local {
		slab, _, _ = slabBytes()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if begin {
		s.holdFrom = s.latest
	} else if s.holdTo == nil {
		s.holdTo, s.slabAfter, s.slabSockets = s.latest, slab, 2*s.openNow
	}
}

// sample is the last measurement as part of a Sample; nil: none.
func (s *sampler) sample() *report.ServerSample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest == nil {
		return nil
	}
	l := s.latest
	return &report.ServerSample{Connections: l.connections, CPUPercent: l.cpuPercent, RSSBytes: l.rss, Closed: l.closed}
}

// summary is all that was measured; nil: nothing.
func (s *sampler) summary() *report.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ops == "" && len(s.pids) == 0 {
		return nil
	}
	sum := &report.Server{Ops: s.ops, PIDs: s.pids, Samples: s.samples, ConnectionsMax: s.connMax,
		CPUPercentMax: s.cpuMax, RSSPeakBytes: s.rssPeak}
	if s.failed != "" {
		sum.Notes = append(sum.Notes, "the metrics could not be read: "+s.failed)
	}
	if s.before != nil {
		sum.RSSBeforeBytes = s.before.rss
	}
	if from, to := s.holdFrom, s.holdTo; from != nil && to != nil {
		if wall := to.at.Sub(from.at).Seconds(); wall > 0 {
			sum.CPUPercent = wording.Thousandths(100 * (to.cpuSeconds - from.cpuSeconds) / wall)
		}
		sum.RSSAfterBytes = to.rss
		open := s.slabSockets / 2
		if open < minForMemory {
			sum.Notes = append(sum.Notes, fmt.Sprintf("%s are too few to tell the memory of one",
				wording.Plural(open, "connection")))
		} else if s.before != nil {
			sum.UserBytesPerConnection = math.Round(float64(to.rss-s.before.rss) / float64(open))
			if s.slabAfter > 0 && s.slabBefore > 0 {
				sum.KernelBytesPerSocket = math.Round(float64(s.slabAfter-s.slabBefore) / float64(s.slabSockets))
				if !s.slabExact {
					sum.Notes = append(sum.Notes, "kernel bytes a socket are from /proc/meminfo, "+
						"which includes the kernel's reserves; run as root for exact ones")
				}
			}
		}
	}
	last := s.holdTo // not later: the run resets its connections then
	if last == nil {
		last = s.latest
	}
	if s.before != nil && s.before.ops != nil && last.ops != nil {
		a, b := s.before.ops, last.ops
		sum.ClosedByReason, sum.RefusedByReason = increases(a.closed, b.closed), increases(a.refused, b.refused)
		sum.LoopLagMeanUS, sum.LoopLagP99US = lagBetween(a, b)
	}
	return sum
}
