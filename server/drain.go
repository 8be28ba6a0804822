package server

import (
	"math/rand/v2"
	"time"

	"heartwheel/codec"
)

// A drain takes Config.Drain at most. In its first nine tenths the connections
// receive a notice (GOAWAY) at an even rate, each with a time to reconnect within.
// Each is closed when twice that time at most has passed, which spreads clients
// that ignore the notice too. What is left at the end is closed at once.
const (
	drainWindow = 0.9
	drainHold   = 0.06
)

// drainStep is how often a drain goes on.
const drainStep = 20 * time.Millisecond

// drainState is a loop's part in a drain. Loop only.
type drainState struct {
	conns      []*Conn // everything that was open when it began; nil: no drain
	from       int64   // monotonic: a stall does not lengthen the drain
	window     int64   // ns in which all are notified
	hold       int64   // ns from the notice to the close
	told, shut int     // how many of conns are notified, and closed
}

// startDrain begins a drain.
func (l *loop) startDrain() {
	d := &l.drain
	d.conns = l.conns()
	rand.Shuffle(len(d.conns), func(i, j int) { d.conns[i], d.conns[j] = d.conns[j], d.conns[i] })
	d.from = l.mono()
	d.window = int64(drainWindow * float64(l.cfg.Drain))
	d.hold = int64(drainHold * float64(l.cfg.Drain))
}

// conns lists the loop's connections.
func (l *loop) conns() []*Conn {
	all := make([]*Conn, 0, l.wheel.Len())
	for t := range l.wheel.All {
		all = append(all, timerConn(t))
	}
	return all
}

// stepDrain notifies and closes the connections that are due, at most closesPerRun
// of each, and reports whether more are due.
func (l *loop) stepDrain() (more bool) {
	d := &l.drain
	if d.shut == len(d.conns) {
		return false
	}
	passed := l.mono() - d.from
	for n := 0; n < closesPerRun && d.told < d.dueBy(passed); n++ {
		l.goAway(d.conns[d.told])
		d.told++
	}
	shut := min(d.told, d.dueBy(passed-d.hold))
	for n := 0; n < closesPerRun && d.shut < shut; n++ {
		if c := d.conns[d.shut]; !c.closing() {
			l.close(c, Draining, codec.CodeDraining, "server is going away")
		} else if c.state == stateFlushing && c.has(flagEnded) && c.ext.closeAt == 0 {
			l.startGrace(c)
		}
		d.conns[d.shut] = nil
		d.shut++
	}
	return d.told < d.dueBy(passed) || d.shut < shut
}

// dueBy returns how many connections are notified in the first passed ns of the
// drain. The first is at once.
func (d *drainState) dueBy(passed int64) int {
	if passed < 0 {
		return 0
	}
	if passed >= d.window {
		return len(d.conns)
	}
	return min(len(d.conns), 1+int(float64(len(d.conns))*float64(passed)/float64(d.window)))
}

// goAway sends a notice with a random time to reconnect within.
func (l *loop) goAway(c *Conn) {
	if c.closing() {
		return
	}
	after := rand.Int64N(min(int64(l.cfg.Spread), l.drain.hold/2) + 1)
	if l.notify(c, Notice{
		Reason: Draining, Code: codec.CodeDraining, Text: "server is going away", After: time.Duration(after),
	}) {
		l.stats.goaways++
	}
}

// stop closes everything that is still open, without waiting for slow peers.
func (l *loop) stop() {
	for _, c := range l.conns() {
		l.close(c, Draining, codec.CodeDraining, "server is going away")
		l.terminate(c, Draining, false)
	}
}
