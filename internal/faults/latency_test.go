package faults

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A probe measures how long beats of a few connections take to be answered: by
// the server that a test is about, and by another that has nothing else to do,
// in the same moments. What the second one sees is the machine's and the
// client's own share.
type probe struct {
	t     testing.TB
	conns [2][]*conn // of the server, of the idle one

	quit chan struct{}
	done chan probed
}

// latencies are what a probe saw, of the server and of the idle one.
type latencies [2][]time.Duration

type probed struct {
	of  int
	all []time.Duration
	err error
}

// More connections, not more beats of one, make more samples: a connection
// waits for the answer before it beats again.
const (
	probeConns = 16 // to each server
	probeEvery = 20 * time.Millisecond
)

func newProbe(t testing.TB, server, idle *serverProcess) *probe {
	t.Helper()
	p := &probe{t: t}
	for i, s := range []*serverProcess{server, idle} {
		for range probeConns {
			c := dial(t, s.addr)
			c.echo()
			p.conns[i] = append(p.conns[i], c)
		}
	}
	return p
}

// start begins to measure.
func (p *probe) start() {
	p.quit, p.done = make(chan struct{}), make(chan probed)
	for i, conns := range p.conns {
		for _, c := range conns {
			go func() {
				all, err := c.beatEvery(probeEvery, p.quit)
				p.done <- probed{i, all, err}
			}()
		}
	}
}

// stop ends measuring and adds what was seen to l.
func (p *probe) stop(l *latencies) {
	p.t.Helper()
	close(p.quit)
	for range 2 * probeConns {
		r := <-p.done
		if r.err != nil {
			p.t.Errorf("a connection that behaves: %v", r.err)
		}
		l[r.of] = append(l[r.of], r.all...)
	}
}

// beatEvery sends a beat each so often and returns how long the answers took,
// from when each beat was due, so that one delayed by the answer before it counts
// in full.
func (c *conn) beatEvery(every time.Duration, quit <-chan struct{}) (all []time.Duration, err error) {
	start := time.Now().Add(time.Duration(rand.Float64() * float64(every)))
	for due := start; ; due = due.Add(every) {
		time.Sleep(time.Until(due))
		select {
		case <-quit:
			return all, nil
		default:
		}
		if err := c.sendErr(beat); err != nil {
			return all, err
		}
		f, err := c.frameErr()
		if err != nil {
			return all, err
		}
		if f.Op != 0 || len(f.Payload) > 0 {
			return all, errors.New("a beat was answered by something else")
		}
		all = append(all, time.Since(due))
	}
}

// quantile returns the value below which a part of all lies; 0 if there is none.
func quantile(all []time.Duration, part float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(part*float64(len(sorted)-1)+0.5)].Round(10 * time.Microsecond)
}

// p99 returns that of the server and of the idle one.
func (l *latencies) p99() (server, idle time.Duration) {
	return quantile(l[0], 0.99), quantile(l[1], 0.99)
}

func (l *latencies) add(more latencies) {
	for i, all := range more {
		l[i] = append(l[i], all...)
	}
}
