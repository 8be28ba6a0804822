package server

import (
	"errors"
	"time"
)

// errWouldBlock: the socket takes nothing more for now.
var errWouldBlock = errors.New("server: socket is full")

// closeGrace is how long a closing connection waits for a slow peer to take
// what was sent to it.
const closeGrace = 2 * time.Second

// begin returns where the next frame starts in out. What goes back from where
// it was read comes before it.
func (l *loop) begin() int {
	if len(l.back) > 0 {
		l.out = append(l.out, l.back...)
		l.back = nil
	}
	return len(l.out)
}

// sent takes the messages that were just appended to out for c. Those of the
// current connection stay there until its callback ends, so that all answers
// to one read leave in one write; others go out at once.
func (l *loop) sent(c *Conn, start int, urgent bool) error {
	l.stats.bytesOut += uint64(len(l.out) - start)
	if c == l.cur && c.pending() == 0 {
		if len(l.out) >= flushLimit {
			l.flush(c)
		}
	} else {
		l.push(c, l.out[start:])
		l.out = l.out[:start]
	}
	return l.outcome(c)
}

// outcome is what a sender is told.
func (l *loop) outcome(c *Conn) error {
	switch {
	case c.state != stateDoomed:
		return nil
	case c.reason == SlowConsumer:
		return ErrSlowConsumer
	}
	return ErrClosed // the write failed
}

// flush writes what the current connection's callback has collected.
func (l *loop) flush(c *Conn) {
	if len(l.back) > 0 {
		l.push(c, l.back)
		l.back = nil
	}
	if len(l.out) > 0 {
		l.push(c, l.out)
		l.out = l.out[:0]
	}
	if c.state == stateFlushing {
		l.settleFlush(c)
	}
}

// settleFlush ends a closing connection that has nothing left to send, and
// gives any other a limit.
func (l *loop) settleFlush(c *Conn) {
	if c.pending() == 0 {
		l.doom(c, c.reason, false)
	} else if c.ext.closeAt == 0 {
		c.ext.closeAt = l.now + int64(closeGrace)
		l.recheck(c)
	}
}

// push writes whole frames to the socket, or behind what waits already.
func (l *loop) push(c *Conn, frames []byte) {
	if c.state == stateDoomed || c.state == stateClosed {
		return
	}
	if c.pending() > 0 {
		l.enqueue(c, frames, 0)
		return
	}
	n, err := l.io.write(c, frames)
	if err != nil && err != errWouldBlock {
		l.doom(c, writeReason(err), true)
		return
	}
	if n < len(frames) {
		left := unsent(frames, n)
		l.enqueue(c, frames[n:], left)
	}
}

// enqueue puts frames into the outbox; the first left bytes are the rest of a
// frame that is half written.
func (l *loop) enqueue(c *Conn, frames []byte, left int) {
	o := &c.ensureExt().out
	first := o.len() == 0
	limit := l.cfg.Outbox
	for len(frames) > 0 {
		n, control := left, false
		if left == 0 {
			n = frameLen(frames)
			control = overtakes(frameOp(frames))
		}
		if !o.add(frames[:n], control, left, limit) {
			l.doom(c, SlowConsumer, true)
			return
		}
		l.stats.outboxBytes += int64(n)
		frames, left = frames[n:], 0
	}
	if first {
		o.pace.start(l.now, l.cfg.WriteStall, l.io.unacked(c), o.len())
		l.await(c)
		l.recheck(c)
	}
}

// await asks to be told when the socket of c has room.
func (l *loop) await(c *Conn) {
	if err := l.io.watch(c); err != nil {
		l.log.Error("cannot wait for a socket to become writable; its connection is closed", "conn", c.ID(), "error", err)
		l.doom(c, WriteError, true)
		return
	}
	c.ext.out.watched = true
}

// writable takes the news that the socket of c has room.
func (l *loop) writable(c *Conn) {
	if c.state != stateOpen && c.state != stateFlushing || c.pending() == 0 {
		return
	}
	l.clock()
	c.ext.out.watched = false
	if l.drainOutbox(c) {
		l.await(c)
	}
	l.settle()
}

// drainOutbox writes until the outbox is empty or the socket full, and reports
// whether something is left.
func (l *loop) drainOutbox(c *Conn) bool {
	o := &c.ext.out
	for b := o.next(); b != nil; b = o.next() {
		n, err := l.io.write(c, b)
		if n > 0 {
			o.wrote(n)
			o.pace.written += int64(n)
			l.stats.outboxBytes -= int64(n)
		}
		if err == errWouldBlock {
			return true
		}
		if err != nil {
			l.doom(c, writeReason(err), true)
			return false
		}
	}
	if c.state == stateFlushing {
		l.settleFlush(c)
	}
	return false
}

// When memory is nearly gone, a peer gives it back that has taken none of so
// many waiting bytes for so long. Who reads, however slowly, is left alone, and
// so is who holds too little to matter.
const (
	shedStall = 2 * time.Second
	shedBytes = 16 << 10
)

// shed closes those peers. It visits every session, about 10 ms for each
// 100,000, but only where enough is waiting.
func (l *loop) shed() {
	if l.stats.outboxBytes < shedBytes {
		return
	}
	for t := range l.wheel.All {
		c := timerConn(t)
		if c.pending() < shedBytes {
			continue
		}
		l.drainOutbox(c)
		if c.state != stateDoomed && c.pending() > 0 && c.ext.out.pace.tookNone(l.now, shedStall, l.io.unacked(c)) {
			l.doom(c, SlowConsumer, true)
		}
	}
}
