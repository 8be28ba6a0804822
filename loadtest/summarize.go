package loadtest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

// measurements are all that a run has gathered. Times are in ns of epoll.Monotonic.
type measurements struct {
	plan        *Plan
	settings    []report.Setting
	environment report.Environment
	probed      probeResult
	start, hold int64 // hold is 0 if it never began
	interrupted bool
	results     []*engine.Result // in any order
	server      *report.Server
	samples     []report.Sample
	events      []report.Event
	notes       []string
	errors      []string
}

// cpuBound is the processor time of an event loop, in percent of a core, at which the
// generator counts as limited.
const cpuBound = 95

// lagSamples is how many lags make a p99: ten then lie above it. Of fewer, the median
// is judged, which a few late ones do not move.
const lagSamples = 1000

// summarize is pure: the same measurements give the same run.
func summarize(m *measurements) *report.Run {
	total := engine.MergeResults(m.results, len(m.plan.Faults))
	s := &report.Summary{
		Schema: report.Schema, Plan: m.settings, Environment: m.environment, Server: m.server,
		Phases: m.phases(total), Connections: m.connections(total), Frames: m.frames(total),
		FalseKills:  report.Closes{Count: total.Tallies.FalseKills, Examples: worstFew(total.FalseKills)},
		Unexplained: report.Closes{Count: total.Tallies.Unexplained, Examples: worstFew(total.Unexplained)},
		Generator:   m.generator(total), SLO: []report.SLOResult{}, Notes: append([]string{}, m.notes...),
		Errors: append([]string{}, m.errors...),
	}
	out := &report.Run{Summary: s, Samples: m.samples, Events: m.events}
	if !s.Generator.Limited {
		s.Response, s.Service = latency(total.Response, report.ResponseName), latency(total.Service, report.ServiceName)
		out.Response, out.Service = total.Response.HDR(), total.Service.HDR()
	}
	if len(m.plan.Faults) > 0 {
		s.Detection = m.detection(total)
		if n := len(s.Phases); n > 0 { // faults that an interrupted run did not reach
			out.Events = slices.DeleteFunc(out.Events, func(e report.Event) bool {
				return e.Kind == report.EventFault &&
					e.T > s.Phases[n-1].EndS
			})
		}
		out.Detection = detectionHist(total.Faults).HDR()
		out.Events = append(out.Events, faultOver(s.Detection)...)
	}
	slices.SortStableFunc(out.Events, func(a, b report.Event) int { return cmp.Compare(a.T, b.T) })
	if text := m.guessTimeout(total); text != "" {
		s.Notes = append(s.Notes, text)
	}
	for i := range m.plan.SLO {
		s.SLO = append(s.SLO, m.plan.SLO[i].evaluate(s))
	}
	s.Verdict = decide(s, m.plan.SLO, m.interrupted)
	return out
}

// guessTimeout says what T is if the server's closes show another one than the run goes
// by: all that it closed had been silent for the same time.
func (m *measurements) guessTimeout(t *engine.Result) string {
	const few = 3
	bound := max(int64(m.plan.Bound), int64(m.probed.timeout)/10)
	var silent []int64 // ns
	if m.probed.timeout == 0 {
		silent = t.Silences
	} else {
		for i := range m.plan.Faults {
			if k, _ := engine.FaultKindByName(m.plan.Faults[i].Kind); k.Expect == engine.ExpectTimeout {
				for _, us := range t.Faults[i].Errors {
					silent = append(silent, int64(m.probed.timeout)+int64(us)*1000)
				}
			}
		}
	}
	if len(silent) < few {
		return ""
	}
	least, most := slices.Min(silent), slices.Max(silent)
	off := least - int64(m.probed.timeout)
	if most-least > bound || m.probed.timeout != 0 && off >= 0 && off <= bound {
		return ""
	}
	guess := time.Duration(least).Round(10 * time.Millisecond)
	return fmt.Sprintf("all %s that the server closed had been silent for the same time: looks like T = %s; "+
		"try --timeout %s", wording.Plural(len(silent), "connection"), wording.Duration(guess), wording.Duration(guess))
}

// worstFew has the examples in order: the least silent first.
func worstFew(found []engine.CloseExample) []report.CloseExample {
	list := []report.CloseExample{}
	for _, e := range found {
		list = append(list, report.CloseExample(e))
	}
	slices.SortFunc(list, func(a, b report.CloseExample) int {
		return cmp.Or(cmp.Compare(a.SilentMS, b.SilentMS), cmp.Compare(a.AtS, b.AtS),
			cmp.Compare(a.Connection, b.Connection))
	})
	return list[:min(len(list), engine.MaxExamples)]
}

// at is t in seconds after the start.
func (m *measurements) at(t int64) float64 { return engine.Since(m.start, t) }

func (m *measurements) phases(t *engine.Result) []report.Phase {
	list := []report.Phase{}
	end := t.HoldEnd
	if m.hold != 0 && end == 0 { // stopped just before it began
		end = m.hold
	}
	if m.plan.Mode != modeChurn {
		connected := m.hold
		if connected == 0 {
			connected = t.Closed
		}
		list = append(list, report.Phase{Name: "connect", StartS: 0, EndS: max(0, m.at(connected))})
	}
	if m.hold != 0 {
		list = append(list, report.Phase{Name: "hold", StartS: m.at(m.hold), EndS: m.at(max(end, m.hold))},
			report.Phase{Name: "close", StartS: m.at(max(end, m.hold)), EndS: m.at(max(t.Closed, end, m.hold))})
	}
	return list
}

func (m *measurements) connections(t *engine.Result) report.Connections {
	c := report.Connections{
		Asked: m.plan.Connections, Established: t.Tallies.Established, Failed: t.Tallies.Failed,
		Failures: []report.Failure{},
		Refused:  t.Tallies.Refused, Told: []report.Told{}, Reconnects: t.Tallies.Reconnects, AtEnd: t.Tallies.Open,
		RateAsked: m.plan.ConnectRate.String(), TimeUS: distribution(t.Connect),
		TCPUS: distribution(t.TCP), TLSUS: distribution(t.TLS), UpgradeUS: distribution(t.Upgrade),
	}
	if m.plan.Mode == modeChurn {
		// Those under way at the end have neither failed nor succeeded.
		c.Asked = t.Tallies.Attempts - t.Tallies.Connecting
	}
	other := report.Failure{Error: engine.OtherFailures}
	if f := t.Failures[other.Error]; f != nil {
		other.Count, other.Example = f.Count, f.Example
		delete(t.Failures, other.Error)
	}
	for _, text := range slices.Sorted(maps.Keys(t.Failures)) {
		c.Failures = append(c.Failures, report.Failure{Error: text, Count: t.Failures[text].Count,
			Example: t.Failures[text].Example})
	}
	slices.SortStableFunc(c.Failures, func(a, b report.Failure) int { return b.Count - a.Count })
	for _, f := range c.Failures[min(engine.MaxFailures, len(c.Failures)):] {
		other.Count += f.Count
	}
	c.Failures = c.Failures[:min(engine.MaxFailures, len(c.Failures))]
	if other.Count > 0 {
		c.Failures = append(c.Failures, other)
	}
	for _, code := range slices.Sorted(maps.Keys(t.Told)) {
		c.Told = append(c.Told, report.Told{Code: code, Meaning: codec.Code(code).String(), Count: t.Told[code]})
	}
	if took := float64(t.LastConnect-t.FirstConnect) / 1e9; took > 0 {
		c.RateReal = math.Round(float64(t.Tallies.Attempts-1)/took*10) / 10
	}
	return c
}

func (m *measurements) frames(t *engine.Result) report.Frames {
	f := report.Frames{
		Sent: t.Tallies.Sent, Scheduled: t.Scheduled, SentOnSchedule: t.SentOnSchedule,
		Answered: t.Tallies.Answered, Unanswered: t.Unanswered,
		OldestUnansweredMS: wording.Thousandths(ms(time.Duration(t.OldestUnanswered))),
		Wrong:              t.Tallies.Wrong, WrongExample: t.WrongExample, ServerBeats: t.Tallies.ServerBeats,
	}
	if took := float64(t.HoldEnd-m.hold) / 1e9; m.hold != 0 && took > 0 {
		f.PerSecond = math.Round(float64(t.AnsweredInHold)/took*10) / 10
	}
	return f
}

func (m *measurements) generator(t *engine.Result) report.Generator {
	g := report.Generator{
		LagUS: distribution(t.Lag), ConnectLagUS: distribution(t.ConnectLag), CPU: []report.ProcessCPU{},
		Lapses: t.Tallies.Lapses, Why: []string{},
		LagBoundUS: wording.Thousandths(float64(m.plan.MaxLag) / 1e3), CPUBound: cpuBound,
	}
	var heap int64
	for n, p := range m.byProcess() {
		g.CPU = append(g.CPU, report.ProcessCPU{Process: n, CPUPercent: p.ProcCPU, LoopPercent: p.LoopCPU})
		g.RSSBytes += p.RSS
		heap += p.Heap
		if p.LoopCPU >= cpuBound {
			g.Why = append(g.Why, fmt.Sprintf("an event loop of process %d used %s of a core, and the bound is %s; "+
				"use more --loops or --processes, or a lower load",
				n, wording.Percent(p.LoopCPU), wording.Percent(cpuBound)))
		}
	}
	if open := t.Tallies.Open; open > 0 {
		g.HeapPerConn = math.Round(float64(heap) / float64(open))
	}
	lag := func(d *report.Distribution, what string) {
		if d == nil {
			return
		}
		value, name := d.P99, "p99"
		if d.Count < lagSamples {
			value, name = d.P50, "median"
		}
		if value > g.LagBoundUS {
			g.Why = append(g.Why, fmt.Sprintf("%s lagged behind their schedule by %s (%s), and the bound is %s; "+
				"use more --processes, a lower load, or a machine with less other work",
				what, wording.Microseconds(value), name, wording.Microseconds(g.LagBoundUS)))
		}
	}
	lag(g.LagUS, "frames")
	lag(g.ConnectLagUS, "connects")
	if g.Lapses > 0 {
		g.Why = append(g.Why, fmt.Sprintf("%s had no beat for T because the generator was late",
			wording.Plural(g.Lapses, "connection")))
	}
	g.Limited = len(g.Why) > 0
	return g
}

// byProcess has the worst loop of each process.
func (m *measurements) byProcess() []engine.Result {
	list := make([]engine.Result, m.plan.Processes)
	for _, r := range m.results {
		p := &list[r.Loop/m.plan.Loops]
		p.ProcCPU, p.LoopCPU = max(p.ProcCPU, r.ProcCPU), max(p.LoopCPU, r.LoopCPU)
		p.RSS, p.Heap = max(p.RSS, r.RSS), max(p.Heap, r.Heap)
	}
	return list
}

func (m *measurements) detection(t *engine.Result) *report.Detection {
	d := &report.Detection{
		TimeoutMS: ms(m.probed.timeout), TimeoutFrom: m.probed.timeoutSource, BoundMS: ms(m.plan.Bound),
		Faults: []report.FaultResult{}, Buckets: []report.Bucket{},
	}
	var all []int32
	for i := range m.plan.Faults {
		f, got := &m.plan.Faults[i], &t.Faults[i]
		fr := m.faultResult(f, got)
		d.Faults = append(d.Faults, fr)
		d.Injected += fr.Injected
		d.Detected += fr.Detected
		d.Undetected += fr.Undetected
		d.Early += fr.Early
		d.Late += fr.Late
		all = append(all, got.Errors...)
	}
	d.ErrorMS = errorsMS(all)
	if len(all) > 0 {
		d.Buckets = buckets(all, d.BoundMS)
	}
	return d
}

func (m *measurements) faultResult(f *Fault, got *engine.FaultTally) report.FaultResult {
	kind, _ := engine.FaultKindByName(f.Kind)
	fr := report.FaultResult{
		Fault: f.Text, Kind: f.Kind, Expect: kind.Expect.String(), Observable: !kind.Unobservable,
		Injected: got.Injected, Detected: got.Detected, Undetected: got.Undetected, Early: got.Early, Late: got.Late,
		ErrorMS: errorsMS(got.Errors), Examples: []string{},
	}
	for _, e := range engine.Worst(got.Examples) {
		fr.Examples = append(fr.Examples, e.Text)
	}
	if got.Start != 0 {
		fr.StartS, fr.EndS = m.at(got.Start), m.at(got.End)
	}
	if got.Reconnects > 0 {
		fr.Reconnect = &report.Reconnect{Asked: got.Reconnects, Established: got.Reconnected,
			Refused: got.ReconnectRefused,
			Failed:  got.ReconnectFailed, TimeUS: distribution(got.ReconnectTime)}
		if got.LastReconnect > got.Start {
			fr.Reconnect.TookMS = wording.Thousandths(ms(time.Duration(got.LastReconnect - got.Start)))
		}
	}
	switch {
	case kind.Unobservable:
		fr.Note = "a client that has reset the connection cannot see when the server detects it"
		if s := m.server; s != nil && s.ClosedByReason != nil {
			fr.Note += fmt.Sprintf("; the server counted %s closed as peer_reset by the end of hold",
				wording.Plural(s.ClosedByReason["peer_reset"], "connection"))
		}
	case f.Kind == engine.StallServer && m.hold != 0:
		fr.StartS, fr.EndS = m.at(m.hold+int64(f.At)), m.at(m.hold+int64(f.At+f.For))
		if m.server != nil {
			fr.Note = fmt.Sprintf("stopped for %s: %s %v", wording.Duration(f.For), "process", m.server.PIDs)
		}
	}
	return fr
}

// detectionHist is the histogram of the errors; early ones count as 0.
func detectionHist(faults []engine.FaultTally) engine.Histogram {
	h := engine.NewHistogram(engine.RunDigits)
	for i := range faults {
		for _, us := range faults[i].Errors {
			h.Record(int64(us) * 1000)
		}
	}
	return h
}

// faultOver is an event at the end of each fault.
func faultOver(d *report.Detection) []report.Event {
	var list []report.Event
	for i := range d.Faults {
		f := &d.Faults[i]
		if f.EndS == 0 {
			continue
		}
		text := f.Kind + " over"
		if f.Injected > 0 && f.Observable {
			text += fmt.Sprintf(": %s detected, %s not", wording.Grouped(f.Detected), wording.Grouped(f.Undetected))
		}
		if f.Reconnect != nil {
			text += fmt.Sprintf("; %s of %s reconnected", wording.Grouped(f.Reconnect.Established),
				wording.Grouped(f.Reconnect.Asked))
		}
		list = append(list, report.Event{T: f.EndS, Kind: report.EventFaultOver, Fault: f.Fault, Count: f.Injected,
			Text: text})
	}
	return list
}
