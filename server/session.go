package server

import (
	"errors"

	"heartwheel/codec"
)

// input gives the protocol what has arrived. It acts on messages where they lie;
// what is left of b is kept for the next call. A panic costs the connection and
// nothing else.
func (l *loop) input(c *Conn, b []byte) {
	if c.state != stateOpen {
		return // closing: nothing that arrives matters any more
	}
	defer l.enter(c).leave()
	heard := false
	if c.ext != nil && len(c.ext.partial) > 0 {
		b, heard = l.complete(c, b)
	}
	if len(b) > 0 && c.state == stateOpen {
		used, _ := l.consume(c, b)
		heard = heard || used > 0
		b = b[used:]
	}
	if c.state != stateOpen {
		l.dropPartial(c)
		return
	}
	if len(b) > 0 {
		l.keepPartial(c, b)
	}
	if heard {
		l.heard(c)
	} else {
		l.heardPart(c)
	}
}

// consume has the protocol act on the whole messages in b.
func (l *loop) consume(c *Conn, b []byte) (used, need int) {
	var err error
	if c.edge == 0 { // not through the interface
		used, need, err = native{l}.Input(Session{c}, b, false)
	} else {
		used, need, err = l.edges[c.edge].protocol.Input(Session{c}, b, false)
	}
	if err != nil {
		l.refuse(c, err)
	}
	return used, need
}

// complete adds as much of b to the partial frame as completes it, acts on that,
// and returns what of b comes after it.
func (l *loop) complete(c *Conn, b []byte) (after []byte, heard bool) {
	x := c.ext
	for {
		used, need := l.consume(c, x.partial)
		switch {
		case c.state != stateOpen:
			return nil, false
		case used > 0:
			l.begin() // copies the frames that go back as they came
			l.dropPartial(c)
			return b, true
		case len(b) == 0:
			return nil, false
		}
		n := min(max(need-len(x.partial), 1), len(b))
		l.keepPartial(c, b[:n])
		b = b[n:]
	}
}

// keepPartial keeps b, the next bytes of a frame that is incomplete. They take
// memory as they arrive, whatever length the header promises.
func (l *loop) keepPartial(c *Conn, b []byte) {
	x := c.ensureExt()
	had := cap(x.partial)
	x.partial = append(x.partial, b...)
	l.stats.inputBytes += int64(cap(x.partial) - had)
}

// dropPartial gives the memory of a partial frame back.
func (l *loop) dropPartial(c *Conn) {
	if c.ext != nil && c.ext.partial != nil {
		l.stats.inputBytes -= int64(cap(c.ext.partial))
		c.ext.partial = nil
	}
}

// refuse closes a connection for what it has sent.
func (l *loop) refuse(c *Conn, err error) {
	code, why := codec.CodeProtocolError, ProtocolError
	var e *codec.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	if code == codec.CodeFrameTooLarge {
		why = FrameTooLarge
	}
	l.close(c, why, code, err.Error())
}

// close sends a final message and closes the connection once that has gone out.
func (l *loop) close(c *Conn, why Reason, code codec.Code, text string) {
	l.end(c, Notice{Reason: why, Code: code, Text: text})
}

// end is close with a whole notice.
func (l *loop) end(c *Conn, n Notice) {
	if c.state != stateOpen {
		return
	}
	n.Final = true
	l.notify(c, n)
	if c.state != stateOpen {
		return
	}
	c.state, c.reason = stateFlushing, n.Reason
	if c != l.cur {
		l.settleFlush(c)
	}
}

// notify sends a notice. The final one comes after what was sent before it.
func (l *loop) notify(c *Conn, n Notice) {
	start := l.begin()
	l.out = l.protocol(c).AppendNotice(l.out, Session{c}, n)
	_ = l.sent(c, start, !n.Final)
}

// sendBeat asks a silent peer for a sign of life.
func (l *loop) sendBeat(c *Conn) {
	start := l.begin()
	l.out = l.protocol(c).AppendBeat(l.out, Session{c})
	_ = l.sent(c, start, true)
}

func (l *loop) protocol(c *Conn) Protocol { return l.edges[c.edge].protocol }
