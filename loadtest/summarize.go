package loadtest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"heartwheel/codec"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// material is all that a run has gathered. Times are of one monotonic clock,
// in ns.
type material struct {
	plan        *Plan
	settings    []report.Setting
	environment report.Environment
	probed      probed
	start, hold int64 // hold is 0 if it never began
	interrupted bool
	results     []*result // of each loop that had one, in any order
	server      *report.Server
	samples     []report.Sample
	events      []report.Event
	errors      []string
}

// cpuBound is the processor time of an event loop, in percent of a core, from
// which on it has no time to be on time.
const cpuBound = 95

// summarize turns the material into what is shown and written. Pure: the same
// material gives the same run.
func summarize(m *material) *report.Run {
	total := mergeResults(m.results, len(m.plan.Faults))
	s := &report.Summary{
		Schema: report.Schema, Plan: m.settings, Environment: m.environment, Server: m.server,
		Phases: m.phases(total), Connections: m.connections(total), Frames: m.frames(total),
		FalseKills:  report.Closes{Count: total.Tallies.FalseKills, Examples: firstFew(total.FalseKills)},
		Unexplained: report.Closes{Count: total.Tallies.Unexplained, Examples: firstFew(total.Unexplained)},
		Generator:   m.generator(total), SLO: []report.SLOResult{}, Errors: append([]string{}, m.errors...),
	}
	out := &report.Run{Summary: s, Samples: m.samples, Events: m.events}
	if !s.Generator.Limited {
		s.Response, s.Service = total.Response.latency(report.ResponseName), total.Service.latency(report.ServiceName)
		out.Response, out.Service = total.Response.some(), total.Service.some()
	}
	if len(m.plan.Faults) > 0 {
		s.Detection = m.detection(total)
		if n := len(s.Phases); n > 0 { // faults that a run that was interrupted did not come to
			out.Events = slices.DeleteFunc(out.Events, func(e report.Event) bool { return e.Kind == report.EventFault && e.T > s.Phases[n-1].EndS })
		}
		out.Detection = detectionHist(total.Faults).some()
		out.Events = append(out.Events, faultOver(s.Detection)...)
	}
	slices.SortStableFunc(out.Events, func(a, b report.Event) int { return cmp.Compare(a.T, b.T) })
	for i := range m.plan.SLO {
		s.SLO = append(s.SLO, m.plan.SLO[i].evaluate(s))
	}
	s.Verdict = decide(s, m.plan.SLO, m.interrupted)
	return out
}

// mergeResults adds up what the loops have measured.
func mergeResults(results []*result, faults int) *result {
	t := &result{Failures: map[string]*failure{}, Told: map[int]int{}, Faults: make([]faultTally, faults)}
	for _, r := range results {
		t.Tallies.add(&r.Tallies)
		t.Response.merge(r.Response)
		t.Service.merge(r.Service)
		t.Lag.merge(r.Lag)
		t.Connect.merge(r.Connect)
		t.ConnectLag.merge(r.ConnectLag)
		for text, f := range r.Failures {
			have := t.Failures[text]
			if have == nil {
				have = &failure{}
				t.Failures[text] = have
			}
			have.Count += f.Count
			have.Example = firstText(have.Example, f.Example)
		}
		for code, n := range r.Told {
			t.Told[code] += n
		}
		for i := range r.Faults {
			t.Faults[i].merge(&r.Faults[i])
		}
		t.WrongExample = firstText(t.WrongExample, r.WrongExample)
		t.FalseKills = append(t.FalseKills, r.FalseKills...)
		t.Unexplained = append(t.Unexplained, r.Unexplained...)
		t.Unanswered += r.Unanswered
		t.OldestUnanswered = max(t.OldestUnanswered, r.OldestUnanswered)
		t.AnsweredInHold += r.AnsweredInHold
		t.FirstConnect = earliest(t.FirstConnect, r.FirstConnect)
		t.LastConnect = max(t.LastConnect, r.LastConnect)
		t.HoldEnd = max(t.HoldEnd, r.HoldEnd)
		t.Closed = max(t.Closed, r.Closed)
	}
	return t
}

// merge adds o to t.
func (t *faultTally) merge(o *faultTally) {
	t.Start, t.End = earliest(t.Start, o.Start), max(t.End, o.End)
	t.Injected += o.Injected
	t.Detected += o.Detected
	t.Undetected += o.Undetected
	t.Early += o.Early
	t.Late += o.Late
	t.Errors = append(t.Errors, o.Errors...)
	t.Examples = append(t.Examples, o.Examples...)
	t.Asked += o.Asked
	t.Back += o.Back
	t.BackRefused += o.BackRefused
	t.BackFailed += o.BackFailed
	t.LastBack = max(t.LastBack, o.LastBack)
	t.BackTime.merge(o.BackTime)
}

// earliest is the smaller of two times, of which 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// firstText is the text that comes first in the order of its bytes, so that it
// does not depend on which loop reported first. Empty is none.
func firstText(a, b string) string {
	if a == "" || b != "" && b < a {
		return b
	}
	return a
}

func firstFew(list []report.CloseExample) []report.CloseExample {
	list = append([]report.CloseExample{}, list...)
	slices.SortFunc(list, func(a, b report.CloseExample) int {
		return cmp.Or(cmp.Compare(a.AtS, b.AtS), cmp.Compare(a.Connection, b.Connection))
	})
	return list[:min(len(list), examples)]
}

// at is a time as seconds after the start.
func (m *material) at(t int64) float64 { return since(m.start, t) }

func (m *material) phases(t *result) []report.Phase {
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
		list = append(list, report.Phase{Name: "hold", StartS: m.at(m.hold), EndS: m.at(max(end, m.hold))}, report.Phase{Name: "close", StartS: m.at(max(end, m.hold)), EndS: m.at(max(t.Closed, end, m.hold))})
	}
	return list
}

func (m *material) connections(t *result) report.Connections {
	c := report.Connections{
		Asked: m.plan.Connections, Established: t.Tallies.Established, Failed: t.Tallies.Failed, Failures: []report.Failure{},
		Refused: t.Tallies.Refused, Told: []report.Told{}, Reconnects: t.Tallies.Reconnects, AtEnd: t.Tallies.Open,
		RateAsked: m.plan.ConnectRate.String(), TimeUS: t.Connect.us(),
	}
	if m.plan.Mode == modeChurn {
		// Those on their way at the end have neither failed nor not.
		c.Asked = t.Tallies.Attempts - t.Tallies.Connecting
	}
	for _, text := range slices.Sorted(maps.Keys(t.Failures)) {
		c.Failures = append(c.Failures, report.Failure{Error: text, Count: t.Failures[text].Count, Example: t.Failures[text].Example})
	}
	slices.SortStableFunc(c.Failures, func(a, b report.Failure) int { return b.Count - a.Count })
	for _, code := range slices.Sorted(maps.Keys(t.Told)) {
		c.Told = append(c.Told, report.Told{Code: code, Meaning: codec.Code(code).String(), Count: t.Told[code]})
	}
	if took := float64(t.LastConnect-t.FirstConnect) / 1e9; took > 0 {
		c.RateReal = math.Round(float64(t.Tallies.Attempts-1)/took*10) / 10
	}
	return c
}

func (m *material) frames(t *result) report.Frames {
	f := report.Frames{
		Sent: t.Tallies.Sent, Answered: t.Tallies.Answered, Unanswered: t.Unanswered, OldestUnansweredMS: wording.Thousandths(ms64(t.OldestUnanswered)),
		Wrong: t.Tallies.Wrong, WrongExample: t.WrongExample, ServerBeats: t.Tallies.ServerBeats,
	}
	if took := float64(t.HoldEnd-m.hold) / 1e9; m.hold != 0 && took > 0 {
		f.PerSecond = math.Round(float64(t.AnsweredInHold)/took*10) / 10
	}
	return f
}

func (m *material) generator(t *result) report.Generator {
	g := report.Generator{
		LagUS: t.Lag.us(), ConnectLagUS: t.ConnectLag.us(), CPU: []report.ProcessCPU{}, Lapses: t.Tallies.Lapses, Why: []string{},
		LagBoundUS: wording.Thousandths(float64(m.plan.MaxLag) / 1e3), CPUBound: cpuBound,
	}
	var heap int64
	for n, p := range m.byProcess() {
		g.CPU = append(g.CPU, report.ProcessCPU{Process: n, CPUPercent: p.ProcCPU, LoopPercent: p.LoopCPU})
		g.RSSBytes += p.RSS
		heap += p.Heap
		if p.LoopCPU >= cpuBound {
			g.Why = append(g.Why, fmt.Sprintf("an event loop of process %d used %s of a core, and from %s on it has no time to be on time; use more --loops or --processes, or ask for less",
				n, wording.Percent(p.LoopCPU), wording.Percent(cpuBound)))
		}
	}
	if open := t.Tallies.Open; open > 0 {
		g.HeapPerConn = math.Round(float64(heap) / float64(open))
	}
	lag := func(d *report.Distribution, what string) {
		if d != nil && d.P99 > g.LagBoundUS {
			g.Why = append(g.Why, fmt.Sprintf("%s lagged behind their schedule by %s (p99), and the bound is %s; use more --processes, ask for less, or free the machine of other work",
				what, wording.Microseconds(d.P99), wording.Microseconds(g.LagBoundUS)))
		}
	}
	lag(g.LagUS, "frames")
	lag(g.ConnectLagUS, "connects")
	if g.Lapses > 0 {
		g.Why = append(g.Why, fmt.Sprintf("%s had no beat for T because the generator was late", wording.Plural(g.Lapses, "connection")))
	}
	g.Limited = len(g.Why) > 0
	return g
}

// byProcess is the worst of the loops of each process.
func (m *material) byProcess() []result {
	list := make([]result, m.plan.Processes)
	for _, r := range m.results {
		p := &list[r.Loop/m.plan.Loops]
		p.ProcCPU, p.LoopCPU = max(p.ProcCPU, r.ProcCPU), max(p.LoopCPU, r.LoopCPU)
		p.RSS, p.Heap = max(p.RSS, r.RSS), max(p.Heap, r.Heap)
	}
	return list
}

func (m *material) detection(t *result) *report.Detection {
	d := &report.Detection{
		TimeoutMS: ms(m.probed.timeout), TimeoutFrom: m.probed.from, BoundMS: ms(m.plan.Bound), Faults: []report.FaultResult{}, Buckets: []report.Bucket{},
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

func (m *material) faultResult(f *Fault, got *faultTally) report.FaultResult {
	kind, _ := faultKindByName(f.Kind)
	slices.Sort(got.Examples) // whichever loop reported first
	fr := report.FaultResult{
		Fault: f.Text, Kind: f.Kind, Expect: kind.expect.words(), Observable: !kind.unseen,
		Injected: got.Injected, Detected: got.Detected, Undetected: got.Undetected, Early: got.Early, Late: got.Late,
		ErrorMS: errorsMS(got.Errors), Examples: append([]string{}, got.Examples[:min(len(got.Examples), examples)]...),
	}
	if got.Start != 0 {
		fr.StartS, fr.EndS = m.at(got.Start), m.at(got.End)
	}
	if got.Asked > 0 {
		fr.Reconnect = &report.Reconnect{Asked: got.Asked, Established: got.Back, Refused: got.BackRefused, Failed: got.BackFailed, TimeUS: got.BackTime.us()}
		if got.LastBack > got.Start {
			fr.Reconnect.TookMS = wording.Thousandths(ms64(got.LastBack - got.Start))
		}
	}
	switch {
	case kind.unseen:
		fr.Note = "a client that has reset cannot see what the server noticed"
		if s := m.server; s != nil && s.ClosedByReason != nil {
			fr.Note += fmt.Sprintf("; the server closed %s as peer_reset until the end of hold", wording.Plural(s.ClosedByReason["peer_reset"], "connection"))
		}
	case f.Kind == stallServer && m.hold != 0:
		fr.StartS, fr.EndS = m.at(m.hold+int64(f.At)), m.at(m.hold+int64(f.At+f.For))
		if m.server != nil {
			fr.Note = fmt.Sprintf("stopped for %s: %s %v", wording.Duration(f.For), "process", m.server.PIDs)
		}
	}
	return fr
}

// detectionHist is the errors as a histogram: early ones count as 0.
func detectionHist(faults []faultTally) hist {
	var h hist
	for i := range faults {
		for _, us := range faults[i].Errors {
			if h.h == nil {
				h = newHist(runDigits)
			}
			h.record(int64(us) * 1000)
		}
	}
	return h
}

// faultOver is the events of the ends of faults.
func faultOver(d *report.Detection) []report.Event {
	var list []report.Event
	for i := range d.Faults {
		f := &d.Faults[i]
		if f.EndS == 0 {
			continue
		}
		text := f.Kind + " over"
		if f.Injected > 0 && f.Observable {
			text += fmt.Sprintf(": %s noticed, %s not", wording.Grouped(f.Detected), wording.Grouped(f.Undetected))
		}
		if f.Reconnect != nil {
			text += fmt.Sprintf("; %s of %s back", wording.Grouped(f.Reconnect.Established), wording.Grouped(f.Reconnect.Asked))
		}
		list = append(list, report.Event{T: f.EndS, Kind: report.EventFaultOver, Fault: f.Fault, Count: f.Injected, Text: text})
	}
	return list
}
