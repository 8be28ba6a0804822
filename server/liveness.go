package server

import (
	"math"
	"time"

	"heartwheel/codec"
	"heartwheel/wheel"
)

// incompleteLimit is how long part of a message, or a handshake, may be
// outstanding (codec/SPEC.md, heartbeats).
const incompleteLimit = 10 * time.Second

// incompletePart is how much of a message adds a second to incompleteLimit by its
// arrival, in bytes: what comes at that pace may take its time.
const incompletePart = 16 << 10

// incompleteBy returns when the message, or the handshake, of c must be complete.
func (l *loop) incompleteBy(c *Conn) int64 {
	by := l.sinceMS(c.partialAt) + int64(incompleteLimit)
	if c.ext != nil && !c.has(flagHandshake) {
		by += int64(c.ext.held()/incompletePart) * int64(time.Second)
	}
	return by
}

// heard records at least one whole message. Part of another may follow it.
func (l *loop) heard(c *Conn) {
	c.timer.Touch(l.now)
	if c.partialAt == 0 && c.flags&(flagServerBeats|flagAverted) == 0 && (c.ext == nil || c.ext.idle()) {
		return // as nearly always: Touch has moved the deadline
	}
	c.flags &^= flagAsked
	if !c.has(flagHandshake) { // else only the end of the handshake counts
		c.flags &^= flagAverted
		c.partialAt = 0
	}
	if c.ext != nil {
		if c.ext.held() == 0 {
			c.dropExt()
		} else if c.partialAt == 0 && c.state != statePaused {
			c.partialAt = l.nowMS()
		}
	}
	l.recheck(c)
}

// heardPart records bytes that complete no message. Nothing may be incomplete then:
// a TLS record may have no content.
func (l *loop) heardPart(c *Conn) {
	switch part := c.ext != nil && c.ext.held() > 0; {
	case c.has(flagHandshake):
	case part && c.partialAt == 0:
		c.partialAt = l.nowMS()
		l.recheck(c)
	case !part && c.partialAt != 0:
		c.partialAt = 0
		l.recheck(c)
	}
	if c.has(flagAverted) && l.io.unread(c) == 0 {
		l.look(c) // what was unread at the deadline has been read and was no message
	}
}

// setBeat sets the beat interval and the idle timeout of c.
func (l *loop) setBeat(c *Conn, beat, timeout time.Duration) {
	was := c.timeout
	c.beat, c.timeout = uint32(beat.Milliseconds()), uint32(timeout.Milliseconds())
	l.sending(c) // sentAt has a new unit, and the peer hears of the change anyway
	if c.timer.Armed() && c.timeout != was {
		l.io.setTimeout(c, timeout)
	}
	l.recheck(c)
}

// decide returns the beat interval H and the idle timeout T for the interval that
// a client asks for, 0 for none: H clamped to the range, T = 2.5 × H unless set (codec/SPEC.md).
func (c *Config) decide(wish time.Duration) (beat, timeout time.Duration) {
	beat = c.Beat
	if wish > 0 {
		beat = min(max(wish, c.BeatMin), c.BeatMax)
	}
	if c.Timeout == 0 {
		return beat, beat * 5 / 2
	}
	return min(beat, c.Timeout*2/3), c.Timeout
}

// writeStallMost is the longest write stall by default.
const writeStallMost = 8 * time.Second

// writeStall returns how long the peer of c may take too little of what waits for
// it. By default that ends within the idle timeout: what a peer that is gone was
// sent must not keep it longer than silence would.
func (l *loop) writeStall(c *Conn) time.Duration {
	if l.cfg.WriteStall != 0 {
		return l.cfg.WriteStall
	}
	return min(writeStallMost, c.Timeout()*4/5)
}

// recheck moves the deadline of c to the next time that look has to run.
func (l *loop) recheck(c *Conn) {
	if c.timer.Armed() {
		l.wheel.SetTimeout(&c.timer, l.untilCheck(c))
	}
}

const (
	// checkStep is what times of beats and stall checks are rounded up to, so that
	// those of many peers share a wake-up. Only deaths must be exact.
	checkStep = 100 * time.Millisecond

	// lookAgain is how long the loop has to read what has arrived before a
	// deadline.
	lookAgain = 100 * time.Millisecond
)

// untilCheck returns how long after its last whole message look has to run for c.
func (l *loop) untilCheck(c *Conn) time.Duration {
	last := c.timer.Last()
	if !c.timer.Armed() && last == 0 {
		last = l.now
	}
	at := int64(math.MaxInt64)
	if !c.closing() { // else it has closeAt
		reads := c.state != statePaused
		if reads && !c.has(flagHandshake) { // else partialAt holds its 10 s
			at = last + int64(c.Timeout())
		}
		if reads && c.has(flagServerBeats) {
			at = min(at, l.beatAt(c, last))
		}
		if c.partialAt != 0 && (reads || c.has(flagHandshake)) {
			at = min(at, l.incompleteBy(c))
		}
	}
	if c.ext != nil {
		if c.ext.expireAt != 0 && !c.closing() {
			at = min(at, c.ext.expireAt)
		}
		if c.ext.out.len() > 0 {
			at = min(at, roundUp(c.ext.out.progress.lookAt, min(checkStep, l.writeStall(c)/stallLooks)))
		}
		if c.ext.closeAt != 0 {
			at = min(at, c.ext.closeAt)
		}
	}
	return time.Duration(at - last)
}

// beatUnit is the unit of sentAt, and what times of beats are rounded up to.
func (c *Conn) beatUnit() int64 { return int64(min(checkStep, c.Beat()/4)) }

// sending notes that this side sends something to c now.
func (l *loop) sending(c *Conn) {
	c.sentAt = uint16(roundUp(l.now, time.Duration(c.beatUnit()))/c.beatUnit() - 1)
}

// beatAt returns when this side has to beat: after H of its own silence, so that
// the peer knows that it is there, and after H without a whole message, so that the
// peer has something to answer. The latter is not repeated while data goes out: it
// arrives or the connection ends. last is the time of the last message.
func (l *loop) beatAt(c *Conn, last int64) int64 {
	unit, h := c.beatUnit(), int64(c.Beat())
	now := l.now / unit
	silent := now - int64(uint16(now)-c.sentAt) // sentAt wraps after 1.8 h or 16,384 H, the shorter
	at := (silent + 1 + (h+unit-1)/unit) * unit
	if !c.has(flagAsked) {
		at = min(at, roundUp(last+h, time.Duration(unit)))
	}
	return at
}

// roundUp returns the first multiple of step that is not before at.
func roundUp(at int64, step time.Duration) int64 {
	n := max(int64(step), 1)
	return (at + n - 1) / n * n
}

// sinceMS returns the loop clock in ns of a stamp made by nowMS.
func (l *loop) sinceMS(stamp uint32) int64 {
	return l.now - int64(int32(uint32(l.now/1e6)-stamp))*1e6
}

// due is called for a connection whose deadline has come.
func (l *loop) due(t *wheel.Timer) {
	c := timerConn(t)
	l.cur = c
	defer l.recoverAndFlush()
	l.look(c)
	l.relieve(c)
}

// look does what is due, and arms the next deadline if c stays open.
func (l *loop) look(c *Conn) {
	t := &c.timer
	reads := c.state != statePaused
	switch silence := time.Duration(l.now - t.Last()); {
	case c.ext != nil && c.ext.closeAt != 0 && l.now >= c.ext.closeAt:
		l.terminate(c, c.reason, true)
	case c.queued() > 0 && l.now >= c.ext.out.progress.lookAt && l.stalled(c):
		if c.has(flagEnded) && c.reason == PeerClosed { // it has lost answers
			c.reason = SlowConsumer
		}
		l.terminate(c, SlowConsumer, true)
	case c.closing(): // it has closeAt
	case c.ext != nil && c.ext.expireAt != 0 && l.now >= c.ext.expireAt:
		l.end(c, Notice{Reason: TokenExpired, Code: codec.CodeTokenExpired, Text: "token has expired"})
	case c.partialAt != 0 && (reads || c.has(flagHandshake)) && l.now >= l.incompleteBy(c):
		if reads && !c.has(flagAverted) && l.avert(c) {
			return
		}
		l.expirePartial(c)
	case reads && silence >= c.Timeout() && !c.has(flagHandshake):
		if l.avert(c) {
			return
		}
		l.stats.lateness.observe(int64(silence - c.Timeout()))
		l.terminate(c, IdleTimeout, true)
	case reads && c.has(flagServerBeats) && l.now >= l.beatAt(c, t.Last()):
		l.sendBeat(c)
		c.flags |= flagAsked
		// Counted from when it was due, a multiple of the unit: one that is a little
		// late does not make the next one later.
		c.sentAt = uint16(l.now/c.beatUnit() - 1)
	}
	if !c.closing() || c.state == stateFlushing {
		l.wheel.Arm(t, t.Last(), l.untilCheck(c))
	}
}

// avert gives a connection whose deadline has passed lookAgain more if its socket
// holds bytes, of whatever kind: what has reached this machine counts, read or
// not.
func (l *loop) avert(c *Conn) bool {
	if l.io.unread(c) == 0 {
		return false
	}
	c.flags |= flagAverted
	l.stats.averted[avertedUnread]++
	l.wheel.Arm(&c.timer, c.timer.Last(), time.Duration(l.now-c.timer.Last())+lookAgain)
	return true
}

// stalled reports whether a peer is too slow. It tries to write first, as a socket
// reports room only when it is nearly empty.
func (l *loop) stalled(c *Conn) bool {
	l.drainOutbox(c)
	o := c.ext.out
	return c.state != stateTerminated && o.len() > 0 &&
		o.progress.stalled(l.now, l.writeStall(c), l.io.unacked(c), o.len())
}

// expirePartial closes a connection that left a message or its handshake
// incomplete.
func (l *loop) expirePartial(c *Conn) {
	switch {
	case !c.has(flagHandshake):
		l.close(c, Incomplete, codec.CodeIncomplete, "frame not completed in time")
	case c.upgrading():
		l.close(c, Incomplete, codec.CodeIncomplete, "HTTP request not completed within 10 s")
	case !c.has(flagPending | flagAuth):
		l.close(c, Incomplete, codec.CodeIncomplete, "HELLO not received within 10 s")
	default: // not the peer's fault: it may come back
		l.close(c, Internal, codec.CodeInternalError, "HELLO not answered within 10 s")
	}
}
