package server

import (
	"bytes"
	"errors"
	"time"
)

// errWouldBlock means that the socket is full.
var errWouldBlock = errors.New("server: socket is full")

// closeGrace is how long a closing connection waits for a slow peer to take
// what was sent to it.
const closeGrace = 2 * time.Second

// begin returns where the next message starts in out. It first copies the frames
// that were to go out from the read buffer.
func (l *loop) begin() int {
	if len(l.back) > 0 {
		l.out = append(l.out, l.back...)
		l.back = nil
	}
	return len(l.out)
}

// copyMost is how many bytes are better copied than written by themselves.
const copyMost = 8 << 10

// detach sends or copies the frames that go back as they came, as the memory that
// they were read into is about to be reused.
func (l *loop) detach(c *Conn) {
	l.reading = nil
	if len(l.back) > copyMost {
		l.flush(c)
	} else {
		l.begin()
	}
}

// sent takes the messages that were just appended to out for c. An urgent one
// overtakes waiting data; native frames tell that themselves. Those of the
// current connection stay there until its callback ends, so that all answers
// to one read leave in one write; others go out at once.
func (l *loop) sent(c *Conn, start int, urgent bool) error {
	l.stats.bytesOut += uint64(len(l.out) - start)
	if c.has(flagServerBeats) {
		l.sending(c)
	}
	if c.has(flagLayered) {
		return l.sentMarked(c, start, urgent)
	}
	if c == l.cur && c.queued() == 0 {
		if len(l.out) >= l.collect {
			l.flush(c)
		}
	} else {
		l.push(c, l.out[start:])
		l.out = l.out[:start]
	}
	return l.outcome(c)
}

// sentMarked is sent for connections that are not plain native.
func (l *loop) sentMarked(c *Conn, start int, urgent bool) error {
	marked := len(l.marks)
	l.mark(c, start, urgent)
	return l.collectMarked(c, start, marked)
}

// sentFramed takes what was appended to out for c and is framed already, or is no
// message at all.
func (l *loop) sentFramed(c *Conn, start int, urgent bool) {
	if len(l.out) == start {
		return
	}
	l.stats.bytesOut += uint64(len(l.out) - start)
	if c.has(flagServerBeats) {
		l.sending(c)
	}
	marked := len(l.marks)
	l.marks = append(l.marks, mark{len(l.out), urgent})
	_ = l.collectMarked(c, start, marked)
}

// sendRaw sends b as it is: HTTP.
func (l *loop) sendRaw(c *Conn, b []byte) {
	start := l.begin()
	l.out = append(l.out, b...)
	l.sentFramed(c, start, false)
}

// collectMarked takes what is in out from start on, whose marks begin at marked.
func (l *loop) collectMarked(c *Conn, start, marked int) error {
	if c == l.cur && c.queued() == 0 {
		if len(l.out) >= l.collect {
			l.flush(c)
		}
	} else {
		l.pushMarked(c, batch{l.out[start:], l.marks[marked:], start})
		l.out, l.marks = l.out[:start], l.marks[:marked]
	}
	return l.outcome(c)
}

// outcome returns the error for a sender to c.
func (l *loop) outcome(c *Conn) error {
	switch {
	case c.state != stateTerminated:
		return nil
	case c.reason == SlowConsumer:
		return ErrSlowConsumer
	}
	return ErrClosed // the write failed
}

// flush writes what the current connection's callback has collected.
func (l *loop) flush(c *Conn) {
	if b := l.back; len(b) > 0 {
		l.back = nil // first: push may close another connection, which sends
		l.push(c, b)
	}
	if len(l.out) > 0 {
		if !c.has(flagLayered) {
			l.push(c, l.out)
		} else {
			l.pushMarked(c, batch{b: l.out, marks: l.marks})
			l.marks = l.marks[:0]
		}
		l.out = l.out[:0]
	}
	if c.state == stateFlushing {
		l.finishFlush(c)
	}
}

// finishFlush ends a closing connection that has nothing left to send, and starts
// the grace period of any other, except one that its peer has ended: that has as
// long as it keeps reading.
func (l *loop) finishFlush(c *Conn) {
	if c.queued() == 0 {
		l.terminate(c, c.reason, false)
	} else if c.ext.closeAt == 0 && !(c.has(flagEnded) && c.reason == PeerClosed) {
		l.startGrace(c)
	}
}

// startGrace cuts c off after closeGrace.
func (l *loop) startGrace(c *Conn) {
	c.ext.closeAt = l.now + int64(closeGrace)
	l.recheck(c)
}

// push writes messages to the socket, or queues them behind others.
func (l *loop) push(c *Conn, b []byte) {
	if c.state == stateTerminated || c.state == stateClosed {
		return
	}
	n := 0
	if c.queued() == 0 {
		var err error
		if n, err = l.io.write(c, b); err != nil && err != errWouldBlock {
			l.terminate(c, writeReason(err), true)
			return
		}
	}
	if n < len(b) {
		l.pushRest(c, batch{b: b}, n, nil)
	}
}

// pushMarked is push for connections that are not plain native.
func (l *loop) pushMarked(c *Conn, m batch) {
	if c.state == stateTerminated || c.state == stateClosed || len(m.b) == 0 {
		return
	}
	var n int
	var sealed []byte
	if c.queued() == 0 {
		var err error
		if n, sealed, err = l.write(c, m.b); err != nil && err != errWouldBlock {
			l.terminate(c, writeReason(err), true)
			return
		}
	}
	l.pushRest(c, m, n, sealed)
}

// pushRest puts into the outbox what remains when n bytes were written or sealed.
func (l *loop) pushRest(c *Conn, m batch, n int, sealed []byte) {
	left := m.written(n)
	if len(m.b) > 0 || len(sealed) > 0 {
		l.enqueue(c, m, left, sealed)
	}
}

// enqueue puts messages into the outbox, behind what is sealed; the first left
// bytes are what remains of a message that is half written.
//
// The bound of the outbox is for what others send. What c asks for may take twice
// as much: its input stops when the outbox is nearly full, so that is what waited
// before and the answers to one message.
func (l *loop) enqueue(c *Conn, m batch, left int, sealed []byte) {
	o := c.ensureExt().ensureOut()
	o.pool = &l.account.pool
	limit := l.cfg.Outbox
	if c == l.asked {
		limit *= 2
	}
	first, had := o.len() == 0, o.memory()
	if m.marks != nil && o.lengths == nil {
		o.lengths = new(lengths)
	}
	if len(sealed) > 0 {
		o.sealed = append(o.sealed, sealed...)
		l.stats.outboxBytes += int64(len(sealed))
	}
	for len(m.b) > 0 {
		n, urgent := left, false
		if left == 0 {
			n, urgent = m.first()
		}
		if !o.add(m.b[:n], urgent, left, limit) {
			l.terminate(c, SlowConsumer, true)
			l.hold(c, o.memory()-had)
			return
		}
		l.stats.outboxBytes += int64(n)
		m.pop(n)
		left = 0
	}
	if l.hold(c, o.memory()-had); c.state == stateTerminated {
		return // for what it holds
	}
	if first {
		o.progress.start(l.now, l.writeStall(c), l.io.unacked(c), o.len())
		l.await(c)
		l.recheck(c)
	}
	if o.len() > l.cfg.fullAt() {
		l.pause(c, flagFull)
	}
}

// await waits for room in the socket of c.
func (l *loop) await(c *Conn) {
	if err := l.io.watch(c); err != nil {
		l.log.Error("cannot wait for a socket to become writable; its connection is closed",
			"conn", c.ID(), "error", err)
		l.terminate(c, WriteError, true)
		return
	}
	c.ext.out.watched = true
}

// writable writes what waits, now that the socket of c has room, and acts on what
// has arrived meanwhile.
func (l *loop) writable(c *Conn) {
	if c.closing() && c.state != stateFlushing || c.ext == nil || c.ext.out == nil {
		return
	}
	l.clock()
	l.writeAndRelieve(c)
	l.reap()
}

func (l *loop) writeAndRelieve(c *Conn) {
	l.cur = c
	defer l.recoverAndFlush()
	c.ext.out.watched = false
	if c.queued() > 0 && l.drainOutbox(c) {
		l.await(c)
	}
	l.relieve(c)
}

// drainOutbox writes until the outbox is empty or the socket full, and reports
// whether something is left.
func (l *loop) drainOutbox(c *Conn) bool {
	o := c.ext.out
	for o.len() > 0 {
		before, had := o.len(), o.memory()
		err := l.drainSome(c, o)
		l.stats.outboxBytes += int64(o.len() - before)
		l.hold(c, o.memory()-had)
		if err == errWouldBlock {
			return true
		}
		if err != nil {
			l.terminate(c, writeReason(err), true)
			return false
		}
	}
	if c.state == stateFlushing {
		l.finishFlush(c)
	}
	return false
}

// drainSome writes what is sealed, or what comes next.
func (l *loop) drainSome(c *Conn, o *outbox) error {
	if len(o.sealed) > 0 {
		n, err := l.io.write(c, o.sealed)
		o.progress.written += int64(n)
		if o.sealed = o.sealed[n:]; len(o.sealed) == 0 {
			o.sealed = nil
		}
		return err
	}
	b := o.next()
	if !c.has(flagLayered) {
		n, err := l.io.write(c, b)
		o.wrote(n)
		o.progress.written += int64(n)
		return err
	}
	n, sealed, err := l.write(c, b[:min(len(b), sealSize)])
	o.wrote(n)
	o.progress.written += int64(n - len(sealed)) // near enough: sealing adds little
	o.sealed = bytes.Clone(sealed)
	return err
}
