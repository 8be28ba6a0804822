package server

import "heartwheel/codec"

// heldMost is how much of what arrives is kept while a connection is paused,
// beside one message: what one read brings. No more is read where the system can
// stop it.
const heldMost = readSize

// pause stops input of c: no message of it is acted on before resume. Meanwhile
// its idle timeout rests, unread bytes are no sign of life, and of the limits for
// incomplete messages only that of the handshake counts.
//
// Its socket is read once more, if it has something: so the end of a peer that
// sends nothing is noticed at once.
func (l *loop) pause(c *Conn) {
	if c.state == stateOpen {
		c.state = statePaused
		l.recheck(c)
	}
}

// arrivedInPause stops the reading of a paused connection.
func (l *loop) arrivedInPause(c *Conn) {
	if !c.has(flagUnread) {
		c.flags |= flagUnread
		l.io.pause(c)
	}
	if c.ext.held() > heldMost+l.cfg.MaxFrame {
		l.close(c, ProtocolError, codec.CodeRateLimited, "too much was sent before HELLO was answered")
	}
}

// resume acts on what has arrived meanwhile. The idle timeout starts anew.
// Called in a callback of c.
func (l *loop) resume(c *Conn) {
	if c.state != statePaused {
		return
	}
	if c.has(flagUnread) {
		l.io.resume(c)
	}
	c.state = stateOpen
	c.flags &^= flagUnread | flagAverted
	c.partialAt = 0
	for s := stageMessage; c.ext != nil; s-- { // what is kept farther in came first
		l.feed(c, s, nil)
		if s == c.firstStage() {
			break
		}
	}
	if c.closing() {
		l.inputDone(c, false)
		return
	}
	if c.ext != nil {
		c.dropExt()
	}
	l.heard(c)
	l.recheck(c)
}
