package server

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"heartwheel/internal/admission"
	"heartwheel/internal/auth"
)

// Stats is a copy of the server's figures, and the caller's. Counters run from the
// start.
type Stats struct {
	Connections    int               // open now, those on their way to a loop included
	MaxConnections int               // the connection limit of this process
	Accepted       uint64            // became sessions
	AcceptErrors   uint64            // failed accepts; their connections wait in the backlog
	Refused        map[string]uint64 // by reason, before becoming a session
	Closed         map[string]uint64 // by Reason
	Averted        map[string]uint64 // deadlines that passed without a close, by cause
	Panics         uint64            // of the handler
	OutboxBytes    int64             // waiting for slow peers
	InputBytes     int64             // memory of incomplete messages
	HeldBytes      int64             // memory that connections hold: incomplete messages, outboxes, spare buffers
	HeldBudget     int64             // the most that they may hold
	Stalls         uint64            // times that a loop could not run
	StalledSeconds float64           // their total, which is credited to the peers
	WheelRebuilds  uint64            // timing wheels replaced by the watchdog
	Addresses      int               // tracked for the limits by address, connected or not
	Banned         int               // addresses banned now for connecting too often
	Bans           uint64            // of such addresses
}

// read copies every loop's figures. Those of a loop that does not answer within a
// second are the last ones read. Safe for concurrent use.
func (s *Server) read() []counters {
	s.lastMu.Lock()
	defer s.lastMu.Unlock()
	if s.last == nil {
		s.last = make([]counters, len(s.loops))
	}
	for i, l := range s.loops {
		got := make(chan counters, 1)
		if s.ask(l, func() { got <- l.snapshot() }) {
			s.last[i] = <-got
		}
	}
	return append([]counters(nil), s.last...)
}

// Stats returns the server's figures. It asks each loop, and waits up to a second
// for one that is stuck. Safe for concurrent use.
func (s *Server) Stats() Stats {
	loops := s.read() // first: what has left a loop has left the count below
	st := Stats{
		Connections: int(s.admission.Connections()), MaxConnections: s.admission.Max(),
		AcceptErrors: s.acceptErrors.Load(), WheelRebuilds: s.wheel.Rebuilds(),
		Refused: map[string]uint64{}, Closed: map[string]uint64{}, Averted: map[string]uint64{},
	}
	st.HeldBytes, st.HeldBudget = s.accounts.Held(), s.accounts.Budget()
	a := s.admission.AddressStats()
	st.Addresses, st.Banned, st.Bans = a.Known, a.Banned, a.Bans
	for _, cause := range admission.Causes() {
		st.Refused[cause.String()] = s.admission.Refused(cause)
	}
	for _, c := range loops {
		st.Accepted += c.opened
		st.Panics += c.panics
		st.OutboxBytes += c.outboxBytes
		st.InputBytes += c.inputBytes
		st.Stalls += c.stalls
		st.StalledSeconds += c.stalled.Seconds()
		for r, n := range c.closed {
			st.Closed[Reason(r).String()] += n
		}
		for w, n := range c.averted {
			st.Averted[averteds[w]] += n
		}
	}
	return st
}

// A metric is one entry of the table that Collect walks.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	emit emitter
}

// An emitter adds a metric's values, with their labels.
type emitter func(s *Server, loops []counters, add func(v float64, labels ...string))

func newMetric(name, help string, kind prometheus.ValueType, labels []string, emit emitter) metric {
	return metric{prometheus.NewDesc("heartwheel_"+name, help, labels, nil), kind, emit}
}

// perLoop emits one value for each loop, labelled with its index.
func perLoop(f func(c *counters) float64) emitter {
	return func(_ *Server, loops []counters, add func(float64, ...string)) {
		for i := range loops {
			add(f(&loops[i]), strconv.Itoa(i))
		}
	}
}

// byLabel emits the sum over the loops for each of n labels.
func byLabel(n int, label func(int) string, f func(c *counters, i int) uint64) emitter {
	return func(_ *Server, loops []counters, add func(float64, ...string)) {
		for i := range n {
			add(sum(loops, func(c *counters) uint64 { return f(c, i) }), label(i))
		}
	}
}

// total emits the sum over the loops.
func total[N int64 | uint64](f func(c *counters) N) emitter {
	return func(_ *Server, loops []counters, add func(float64, ...string)) { add(sum(loops, f)) }
}

// ofServer emits a value that is not a loop's.
func ofServer(f func(s *Server) float64) emitter {
	return func(s *Server, _ []counters, add func(float64, ...string)) { add(f(s)) }
}

// ofMemory emits a value of the watched memory limit, if there is one.
func ofMemory(f func(m admission.MemoryStats) float64) emitter {
	return func(s *Server, _ []counters, add func(float64, ...string)) {
		if m, ok := s.admission.Memory(); ok {
			add(f(m))
		}
	}
}

// ofAuth emits values of what identifies clients, if something does.
func ofAuth(f func(st auth.Stats, add func(float64, ...string))) emitter {
	return func(s *Server, _ []counters, add func(float64, ...string)) {
		if st, ok := s.authStats(); ok {
			f(st, add)
		}
	}
}

func sum[N int64 | uint64](loops []counters, f func(c *counters) N) float64 {
	var n N
	for i := range loops {
		n += f(&loops[i])
	}
	return float64(n)
}

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

var metrics = []metric{
	newMetric("connections", "Open connections.", gauge, nil,
		ofServer(func(s *Server) float64 { return float64(s.admission.Connections()) })),
	newMetric("connections_max", "Connection limit of this process.", gauge, nil,
		ofServer(func(s *Server) float64 { return float64(s.admission.Max()) })),
	newMetric("ready", "1 while new connections are accepted.", gauge, nil,
		ofServer(func(s *Server) float64 {
			if s.notReady() == "" {
				return 1
			}
			return 0
		})),
	newMetric("memory_limit_bytes", "Nearest memory limit, of a cgroup or configured. Absent without a limit.", gauge,
		nil,
		ofMemory(func(m admission.MemoryStats) float64 { return float64(m.Limit) })),
	newMetric("memory_used_bytes", "Memory that counts against heartwheel_memory_limit_bytes.", gauge, nil,
		ofMemory(func(m admission.MemoryStats) float64 { return float64(m.Used) })),
	newMetric("memory_rung",
		"Memory pressure. 1: every second new connection is refused (from 85 % of the limit); 2: every one (90 %); 3: "+
			"and memory is given back (95 %).", gauge, nil,
		ofMemory(func(m admission.MemoryStats) float64 { return float64(m.Level) })),
	newMetric("sessions", "Sessions of each event loop.", gauge, []string{"loop"},
		perLoop(func(c *counters) float64 { return float64(c.sessions) })),
	newMetric("accepted_total", "Connections that became sessions.", counter, nil,
		total(func(c *counters) uint64 { return c.opened })),
	newMetric("accept_errors_total", "Failed accepts; their connections wait in the backlog.", counter, nil,
		ofServer(func(s *Server) float64 { return float64(s.acceptErrors.Load()) })),
	newMetric("refused_total", "Connections refused before they became sessions.", counter, []string{"reason"},
		func(s *Server, _ []counters, add func(float64, ...string)) {
			for _, cause := range admission.Causes() {
				add(float64(s.admission.Refused(cause)), cause.String())
			}
		}),
	newMetric("addresses", "Addresses tracked for the limits by address.", gauge, nil,
		ofServer(func(s *Server) float64 { return float64(s.admission.AddressStats().Known) })),
	newMetric("banned_addresses", "Addresses banned now because they connected too often.", gauge, nil,
		ofServer(func(s *Server) float64 { return float64(s.admission.AddressStats().Banned) })),
	newMetric("bans_total", "Bans of addresses that connected too often.", counter, nil,
		ofServer(func(s *Server) float64 { return float64(s.admission.AddressStats().Bans) })),
	newMetric("auth_total", "Checks of who a client is, by result: accepted, busy or the word of a close code. Absent "+
		"where clients are not identified.", counter, []string{"result"},
		ofAuth(func(st auth.Stats, add func(float64, ...string)) {
			add(float64(st.Accepted), "accepted")
			add(float64(st.Overloaded), "busy")
			for word, n := range st.Refused {
				add(float64(n), word)
			}
		})),
	newMetric("auth_waiting", "Checks under way or waiting for their turn.", gauge, nil,
		ofAuth(func(st auth.Stats, add func(float64, ...string)) { add(float64(st.Waiting)) })),
	newMetric("auth_failures_total", "Fetches of a JWK set and calls of a hook that failed.", counter,
		[]string{"of"}, ofAuth(func(st auth.Stats, add func(float64, ...string)) {
			add(float64(st.JWKSFailures), "jwks")
			add(float64(st.HookFailures), "hook")
		})),
	newMetric("closed_total", "Sessions that ended.", counter, []string{"reason"},
		byLabel(int(numReasons), func(i int) string { return Reason(i).String() },
			func(c *counters, i int) uint64 { return c.closed[i] })),
	newMetric("frames_total", "Frames, by op.", counter, []string{"direction", "op"},
		func(_ *Server, loops []counters, add func(float64, ...string)) {
			for op := range opLabels {
				add(sum(loops, func(c *counters) uint64 { return c.framesIn[op] }), "in", opName(op))
				add(sum(loops, func(c *counters) uint64 { return c.framesOut[op] }), "out", opName(op))
			}
		}),
	newMetric("bytes_total", "Bytes of whole frames, headers included.", counter, []string{"direction"},
		func(_ *Server, loops []counters, add func(float64, ...string)) {
			add(sum(loops, func(c *counters) uint64 { return c.bytesIn }), "in")
			add(sum(loops, func(c *counters) uint64 { return c.bytesOut }), "out")
		}),
	newMetric("expiry_averted_total", "Deadlines that passed without a close, by cause.", counter, []string{"why"},
		byLabel(int(numAverted), func(i int) string { return averteds[i] },
			func(c *counters, i int) uint64 { return c.averted[i] })),
	newMetric("goaways_total", "Clients asked to reconnect by a drain.", counter, nil,
		total(func(c *counters) uint64 { return c.goaways })),
	newMetric("handler_panics_total", "Panics of the handler; each cost one connection.", counter, nil,
		total(func(c *counters) uint64 { return c.panics })),
	newMetric("outbox_bytes", "Bytes waiting for slow peers.", gauge, nil,
		total(func(c *counters) int64 { return c.outboxBytes })),
	newMetric("input_bytes", "Memory of incomplete messages.", gauge, nil,
		total(func(c *counters) int64 { return c.inputBytes })),
	newMetric("held_bytes", "Memory that connections hold: incomplete messages, outboxes, spare buffers.", gauge, nil,
		ofServer(func(s *Server) float64 { return float64(s.accounts.Held()) })),
	newMetric("held_budget_bytes", "The most that connections may hold; beyond, those that hold the most are closed.",
		gauge, nil, ofServer(func(s *Server) float64 { return float64(s.accounts.Budget()) })),
	newMetric("stalls_total", "Times that an event loop could not run for more than three ticks.", counter,
		[]string{"loop"},
		perLoop(func(c *counters) float64 { return float64(c.stalls) })),
	newMetric("stalled_seconds_total", "Time for which event loops could not run; it is credited to the peers.",
		counter, []string{"loop"},
		perLoop(func(c *counters) float64 { return c.stalled.Seconds() })),
	newMetric("tls_certificate_not_after_timestamp_seconds",
		"When each certificate that is loaded ends, in seconds since 1970.", gauge, []string{"file"}, certificateEnds),
	newMetric("wheel_rebuilds_total", "Timing wheels replaced by the watchdog.", counter, nil,
		ofServer(func(s *Server) float64 { return float64(s.wheel.Rebuilds()) })),
}

var (
	latenessDesc = prometheus.NewDesc("heartwheel_expiry_error_seconds",
		"Time from the idle timeout until a peer was declared dead, on the loop's clock, which stands still while the "+
			"loop cannot run.", nil, nil)
	lagDesc = prometheus.NewDesc("heartwheel_loop_lag_seconds",
		"Time from waking an event loop until it ran.", []string{"loop"}, nil)
)

// Describe implements prometheus.Collector. Safe for concurrent use.
func (s *Server) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metrics {
		ch <- m.desc
	}
	ch <- latenessDesc
	ch <- lagDesc
}

// Collect implements prometheus.Collector. Safe for concurrent use.
func (s *Server) Collect(ch chan<- prometheus.Metric) {
	loops := s.read()
	for _, m := range metrics {
		m.emit(s, loops, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
		})
	}
	var late histogram
	for i := range loops {
		late.add(&loops[i].lateness)
		ch <- loops[i].lag.metric(lagDesc, strconv.Itoa(i))
	}
	ch <- late.metric(latenessDesc)
}

// metric turns the histogram into Prometheus' cumulative form, in seconds.
func (h *histogram) metric(desc *prometheus.Desc, labels ...string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	var n uint64
	for i, b := range bounds {
		n += h.counts[i]
		buckets[float64(b)/1e9] = n
	}
	return prometheus.MustNewConstHistogram(desc, n+h.counts[len(bounds)], float64(h.sum)/1e9, buckets, labels...)
}
