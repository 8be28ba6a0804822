package server

import "heartwheel/codec"

// heldMost is how much of what arrives is kept while a connection is paused,
// beside one message: what one read brings. No more is read where the system can
// stop it.
const heldMost = readSize

// pauseCauses are why a connection may be paused. It goes on when none is left.
const pauseCauses = flagPending | flagAuth | flagFull

// fullAt is how many bytes in its outbox stop a connection's input, and relievedAt
// how few let it go on. Collecting answers up to collectMost, the outbox is never
// above its bound by what a peer asks for, except for the answers to one message,
// see enqueue.
func (c *Config) fullAt() int      { return c.Outbox / 2 }
func (c *Config) relievedAt() int  { return c.Outbox / 4 }
func (c *Config) collectMost() int { return min(flushLimit, c.Outbox/2) }

// pause stops input of c: no message of it is acted on before resume. Meanwhile
// its idle timeout rests, unread bytes are no sign of life, and of the limits for
// incomplete messages only that of the handshake counts.
//
// With a full outbox it is not read any more. With a HELLO pending its socket is
// read once more, if it has something: so the end of a peer that sends nothing is
// noticed at once.
func (l *loop) pause(c *Conn, cause connFlags) {
	if c.closing() || c.has(cause) {
		return
	}
	c.flags |= cause
	if cause == flagFull {
		c.ext.fullSince = l.now
		l.stopReading(c)
	}
	if c.state == stateOpen {
		c.state = statePaused
		l.recheck(c)
	}
}

func (l *loop) stopReading(c *Conn) {
	if !c.has(flagUnread | flagEnded) {
		c.flags |= flagUnread
		l.io.pause(c)
	}
}

func (l *loop) readOn(c *Conn) {
	if c.has(flagUnread) {
		c.flags &^= flagUnread
		l.io.resume(c)
	}
}

// arrivedInPause stops the reading of a paused connection for which something is
// kept.
func (l *loop) arrivedInPause(c *Conn) {
	if c.ext == nil || c.ext.held() == 0 {
		return
	}
	l.stopReading(c)
	switch most := heldMost + l.cfg.MaxFrame; {
	case c.ext.held() <= most:
	case c.has(flagPending | flagAuth):
		l.close(c, ProtocolError, codec.CodeRateLimited, "too much was sent before HELLO was answered")
	default:
		l.terminate(c, SlowConsumer, true)
	}
}

// resume takes a cause for the pause away. If it was the last one, what has arrived
// meanwhile is acted on. The idle timeout goes on with what was left of it, or
// starts anew where HELLO was pending. Called in a callback of c.
func (l *loop) resume(c *Conn, cause connFlags) {
	if c.state != statePaused || !c.has(cause) {
		return
	}
	c.flags &^= cause
	heard := cause != flagFull
	if heard && !c.has(flagHandshake) {
		c.partialAt = 0
	}
	if c.has(pauseCauses) {
		if heard { // the other pause begins now
			c.timer.Touch(l.now)
			c.ext.fullSince = l.now
			l.recheck(c)
		}
		return
	}
	c.state = stateOpen
	c.flags &^= flagAverted
	if !heard {
		l.rested(c, l.now-c.ext.fullSince)
	}
	l.asked = c
	for s := stageMessage; c.ext != nil; s-- { // what is kept farther in came first
		heard = l.feed(c, s, nil) || heard
		if s == c.firstStage() {
			break
		}
	}
	if c.closing() {
		l.inputDone(c, false)
		return
	}
	if c.state == stateOpen {
		if c.has(flagEnded) {
			l.flushEnded(c)
			return
		}
		l.readOn(c)
	}
	if c.ext != nil {
		c.dropExt()
	}
	switch {
	case heard:
		l.heard(c)
	case c.ext != nil && c.ext.held() > 0 && c.state == stateOpen:
		l.heardPart(c)
	}
	l.recheck(c)
}

// rested moves the times of c, which ran on during a pause, by its length.
func (l *loop) rested(c *Conn, pause int64) {
	c.timer.Touch(c.timer.Last() + pause)
	if c.partialAt != 0 && !c.has(flagHandshake) {
		c.partialAt = (c.partialAt + uint32(pause/1e6)) | 1
	}
}

// relieve ends the pause of a connection whose outbox has drained. Called in a
// callback of c.
func (l *loop) relieve(c *Conn) {
	if c.has(flagFull) && c.queued() <= l.cfg.relievedAt() {
		l.resume(c, flagFull)
	}
}
