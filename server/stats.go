package server

import (
	"fmt"
	"time"

	"heartwheel/codec"
)

// opLabels is the number of labels for ops: one for each that is known, and the
// last one for extensions.
const opLabels = int(codec.OpPublish) + 2

// counters are a loop's figures. Loop only: others ask the loop for a copy.
type counters struct {
	opened      uint64
	closed      [numReasons]uint64
	goaways     uint64
	panics      uint64
	averted     [numAverted]uint64
	framesIn    [opLabels]uint64
	framesOut   [opLabels]uint64
	bytesIn     uint64 // of complete frames
	bytesOut    uint64 // of frames handed over for sending
	outboxBytes int64
	inputBytes  int64     // memory of incomplete messages
	lateness    histogram // of idle expiries, after T
	lag         histogram // from waking the loop until it ran

	// Set by snapshot.
	stalls   uint64
	stalled  time.Duration
	sessions int // armed deadlines
}

func opLabel(op codec.Op) int {
	if int(op) < opLabels-1 {
		return int(op)
	}
	return opLabels - 1
}

func opName(i int) string {
	if i == opLabels-1 {
		return "ext"
	}
	return codec.Op(i).String()
}

func (s *counters) received(op codec.Op, n int) {
	s.framesIn[opLabel(op)]++
	s.bytesIn += uint64(n)
}

func (s *counters) sent(op codec.Op) { s.framesOut[opLabel(op)]++ }

func (s *counters) totalClosed() (n uint64) {
	for _, c := range s.closed {
		n += c
	}
	return n
}

// bounds are the upper edges of the histograms' buckets, in ns. 200 ms, two ticks,
// is the promised limit of lateness.
var bounds = [...]int64{1e5, 1e6, 2e6, 5e6, 10e6, 20e6, 50e6, 100e6, 150e6, 200e6, 300e6, 500e6, 1e9, 2e9, 5e9, 10e9}

// A histogram counts durations by bucket. Not safe for concurrent use.
type histogram struct {
	counts [len(bounds) + 1]uint64
	sum    int64
}

func (h *histogram) observe(ns int64) {
	i := 0
	for i < len(bounds) && ns > bounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += ns
}

func (h *histogram) add(o *histogram) {
	for i := range h.counts {
		h.counts[i] += o.counts[i]
	}
	h.sum += o.sum
}

// snapshot returns a complete copy of the figures. Loop only.
func (l *loop) snapshot() counters {
	s := l.stats
	s.stalls, s.stalled = l.wheel.Stalls()
	s.sessions = l.wheel.Len()
	return s
}

// check re-derives what must hold on this loop between callbacks. Loop only.
func (l *loop) check() error {
	if err := l.wheel.Check(); err != nil {
		return err
	}
	live := l.stats.opened - l.stats.totalClosed()
	if n := uint64(l.wheel.Len()); n != live {
		return fmt.Errorf("%d deadlines are armed, but opened − closed = %d", n, live)
	}
	var waiting, partial, mem int64
	holders := 0
	for t := range l.wheel.All {
		c := timerConn(t)
		if c.loop != l || c.sock == nil || c.state == stateNew || c.state == stateClosed {
			return fmt.Errorf("connection %s is armed in state %d", c.ID(), c.state)
		}
		if c.state <= stateOpen && (c.state == statePaused) != c.has(pauseCauses) {
			return fmt.Errorf("connection %s is in state %d with flags %#x", c.ID(), c.state, c.flags)
		}
		waiting += int64(c.queued())
		if err := l.checkHolder(c); err != nil {
			return err
		}
		if c.ext != nil {
			mem += int64(c.ext.mem)
			holders += min(c.ext.mem, 1)
		}
		if c.ext != nil {
			partial += int64(cap(c.ext.partial))
			if e := c.ext.edge; e != nil {
				partial += int64(cap(e.partial[stageWire]) + cap(e.partial[stagePlain]))
			}
		}
	}
	if waiting != l.stats.outboxBytes {
		return fmt.Errorf("outboxes hold %d bytes, but %d are counted", waiting, l.stats.outboxBytes)
	}
	if partial != l.stats.inputBytes {
		return fmt.Errorf("incomplete messages take %d bytes, but %d are counted", partial, l.stats.inputBytes)
	}
	a := &l.account
	if mem != a.bytes || holders != len(a.holders) || a.sum() != a.total.Load() {
		return fmt.Errorf("%d connections hold %d bytes, but %d and %d are counted, %d in all", holders, mem,
			len(a.holders), a.bytes, a.total.Load())
	}
	return a.pool.check()
}

// checkHolder re-derives what c holds.
func (l *loop) checkHolder(c *Conn) error {
	switch x := c.ext; {
	case x == nil:
	case x.mem != x.memory():
		return fmt.Errorf("connection %s holds %d bytes, but %d are counted", c.ID(), x.memory(), x.mem)
	case x.mem > 0 && l.account.holders[x.holder] != c:
		return fmt.Errorf("connection %s is not where its place among the holders is", c.ID())
	}
	return nil
}
