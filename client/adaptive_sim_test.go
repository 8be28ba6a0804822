package client

import (
	"math/rand/v2"
	"testing"
	"time"
)

// A simPath is a client that beats through a NAT to a server, in virtual time.
// Beats come as codec/SPEC.md says: the first after H × U(0.5, 1), then H ± 10 %.
type simPath struct {
	t        testing.TB
	s        search
	random   func() float64 // uniform in [0, 1)
	now      time.Time
	mapping  time.Duration // the NAT forgets a connection after this much silence; 0: never
	low, top time.Duration // the server's range
	rtt      time.Duration

	h      time.Duration // in force
	up     bool
	first  bool
	losses int
	saved  int
}

// mostLosses is what a search may cost, in connections.
const mostLosses = 6

func newPath(t testing.TB, a *Adaptive, seed uint64) *simPath {
	return &simPath{
		t: t, s: search{a: a}, random: rand.New(rand.NewPCG(seed, 4)).Float64,
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), low: time.Second, top: time.Hour,
	}
}

func (p *simPath) decide(request time.Duration) time.Duration { return min(max(request, p.low), p.top) }

// connect sends HELLO and takes WELCOME.
func (p *simPath) connect() {
	p.h = p.decide(p.s.begin(p.now))
	p.s.welcome(p.h, 0)
	p.up, p.first = true, true
	p.check()
}

// after takes what good or lost reported, as the transport does.
func (p *simPath) after(changed bool) {
	if changed {
		p.s.save()
		p.saved++
	}
	if p.up && p.s.asked {
		p.h = p.decide(p.s.interval())
		p.s.allowed(p.h)
	}
	p.check()
}

// check holds the interval against what the server and Max allow. Between
// connections it is a request, which the server has yet to answer.
func (p *simPath) check() {
	p.t.Helper()
	top := p.top
	if p.s.a.Max > 0 {
		top = min(top, p.s.a.Max)
	}
	if i := p.s.interval(); p.up && (i != p.h || i < p.low || i > max(top, p.low) || i%time.Millisecond != 0) {
		p.t.Fatalf("interval is %v with %v in force, not whole milliseconds from %v to %v", i, p.h, p.low, top)
	}
	if l := p.s.Learned; l != l.sane() {
		p.t.Fatalf("learned %+v, which would be refused when loaded", l)
	}
}

// beat lets one beat pass.
func (p *simPath) beat() {
	if !p.up {
		p.connect()
	}
	silence := time.Duration(float64(p.h) * (0.9 + p.random()/5))
	if p.first {
		silence = time.Duration(float64(p.h) * (0.5 + p.random()/2))
		p.first = false
	}
	p.now = p.now.Add(silence)
	silence -= min(p.rtt, silence) // the last byte was the answer to the beat before
	if p.mapping != 0 && silence >= p.mapping {
		p.now = p.now.Add(10 * time.Second)
		p.losses++
		p.up = false
		p.after(p.s.lost(silence, p.now))
		return
	}
	p.after(p.s.good(silence, p.now))
}

// run beats for a while and returns the connections lost in it.
func (p *simPath) run(d time.Duration) int {
	before := p.losses
	for end := p.now.Add(d); p.now.Before(end); {
		p.beat()
	}
	return p.losses - before
}

// settledAt returns a client that settled on a mapping, and its interval.
func settledAt(t *testing.T, a *Adaptive, seed uint64, mapping time.Duration) (*simPath, time.Duration) {
	t.Helper()
	p := newPath(t, a, seed)
	p.mapping = mapping
	for !p.s.settled() {
		p.beat()
	}
	p.run(time.Hour)
	return p, p.h
}
