package server

import (
	"bytes"
	"errors"
	"log/slog"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/edge/websocket"
)

// input acts on what has arrived for c, without copying it. What is left of b is
// kept for the next call. A panic costs only the connection.
func (l *loop) input(c *Conn, b []byte) {
	if c.closing() {
		return // closing: nothing that arrives matters any more
	}
	l.cur, l.asked = c, c
	defer l.recoverAndFlush()
	if !c.has(flagLayered) && (c.ext == nil || len(c.ext.partial) == 0) { // nearly always; not through an interface
		used, err := l.frames(c, b)
		if used == len(b) && c.state == stateOpen {
			l.heard(c)
		} else {
			l.inputLeft(c, b[used:], used > 0, err)
		}
		return
	}
	heard := l.feed(c, c.firstStage(), b)
	l.inputDone(c, heard)
}

// inputLeft keeps what the native protocol has left of its input, or closes the
// connection for it.
func (l *loop) inputLeft(c *Conn, left []byte, heard bool, err error) {
	if err != nil {
		l.refuse(c, err)
	} else if !c.closing() && len(left) > 0 {
		l.keepPartial(c, stageMessage, left)
	}
	l.inputDone(c, heard)
}

// inputDone ends input. heard means that a whole message has arrived.
func (l *loop) inputDone(c *Conn, heard bool) {
	switch {
	case c.closing():
		if c.ext != nil {
			l.dropPartials(c)
		}
	case heard:
		l.heard(c)
		if c.state == statePaused {
			l.arrivedInPause(c)
		}
	case c.state == statePaused:
		l.arrivedInPause(c)
	default:
		l.heardPart(c)
	}
}

// feed gives a stage what has arrived for it, and reports whether a whole message
// was there. What the stage leaves begins what it gets the next time.
func (l *loop) feed(c *Conn, s stage, b []byte) (heard bool) {
	if c.ext != nil && len(*c.ext.partialOf(s)) > 0 {
		b, heard = l.complete(c, s, b)
	}
	if len(b) > 0 && c.receiving() {
		used, _, h := l.consume(c, s, b, true)
		heard = heard || h
		b = b[used:]
	}
	if len(b) > 0 && !c.closing() {
		l.keepPartial(c, s, b)
	}
	return heard
}

// needUnknown is how many bytes are added to a partial message, at least, when
// its length is not known.
const needUnknown = 512

// complete adds to a partial message as much of b as completes it, has the stage
// act on it, and returns what of b comes after it.
func (l *loop) complete(c *Conn, s stage, b []byte) (after []byte, heard bool) {
	p := c.ext.partialOf(s)
	added := 0
	for c.receiving() {
		used, need, h := l.consume(c, s, *p, added == len(b))
		heard = heard || h
		if left := len(*p) - used; used > 0 && left <= added {
			l.detach(c)
			l.dropPartial(c, p)
			return b[added-left:], heard // goes on where it lies
		} else if used > 0 { // more was there, held back by a pause
			l.detach(c)
			rest := bytes.Clone((*p)[used:])
			l.dropPartial(c, p)
			l.keepPartial(c, s, rest)
			added = 0
		}
		if added == len(b) {
			return nil, heard
		}
		missing := need - len(*p)
		if missing <= 0 {
			missing = max(len(*p), needUnknown)
		}
		n := min(missing, len(b)-added)
		l.keepPartial(c, s, b[added:added+n])
		added += n
	}
	return b[added:], heard
}

// keepPartial keeps b, the next bytes of a message that is incomplete. They take
// memory as they arrive, whatever length a header promises.
func (l *loop) keepPartial(c *Conn, s stage, b []byte) {
	p := c.ensureExt().partialOf(s)
	had := cap(*p)
	*p = append(l.account.pool.grow(*p, len(b)), b...)
	l.stats.inputBytes += int64(cap(*p) - had)
	l.hold(c, cap(*p)-had)
}

// dropPartial gives the memory of a partial message back.
func (l *loop) dropPartial(c *Conn, p *[]byte) {
	b := *p
	*p = nil
	l.account.pool.put(b)
	l.stats.inputBytes -= int64(cap(b))
	l.hold(c, -cap(b))
}

// dropPartials does so for all stages.
func (l *loop) dropPartials(c *Conn) {
	l.dropPartial(c, &c.ext.partial)
	if e := c.ext.edge; e != nil {
		l.dropPartial(c, &e.partial[stageWire])
		l.dropPartial(c, &e.partial[stagePlain])
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
	if errors.Is(err, codec.ErrProxy) {
		l.connLog.proxy.log(l.log, slog.LevelError, proxyLogEvery,
			"a load balancer sends PROXY protocol headers, which this server does not read: its connections are closed",
			func() []any {
				return []any{"addr", c.RemoteAddr().String(),
					"fix", "name its address as a sender of them (proxy-from), or turn them off there " +
						"(HAProxy: no send-proxy; AWS: proxy_protocol_v2 off)"}
			})
	}
	l.end(c, Notice{Reason: why, Code: code, Text: err.Error(), cause: err})
}

// proxyLogEvery is the least time between two messages of a loop about PROXY
// headers: a load balancer sends one on every connection.
const proxyLogEvery = time.Minute

// close sends a final message and closes the connection once that has gone out.
func (l *loop) close(c *Conn, why Reason, code codec.Code, text string) {
	l.end(c, Notice{Reason: why, Code: code, Text: text})
}

// end is close with a whole Notice.
func (l *loop) end(c *Conn, n Notice) {
	if c.closing() {
		return
	}
	n.Final = true
	l.logOffence(c, n)
	if l.notify(c, n); c.closing() {
		return
	}
	c.state, c.reason = stateFlushing, n.Reason
	l.readOn(c) // a peer that waits for us to read may not read before
	if c != l.cur {
		l.finishFlush(c)
	}
}

// notify sends a notice, and reports whether the protocol of c has one. The final one
// comes after what was sent before it. Answers that take the outbox beyond its bound
// leave room for it.
func (l *loop) notify(c *Conn, n Notice) (told bool) {
	asked := l.asked
	l.asked = c
	defer func() { l.asked = asked }()
	start := l.begin()
	if c.upgrading() {
		l.refuseUpgrade(c, n)
		return false
	}
	l.out = l.protocol(c).AppendNotice(l.out, Session{c}, n)
	if told = len(l.out) > start; told {
		_ = l.sent(c, start, !n.Final)
	}
	if n.Final {
		l.closeFrame(c, n)
	}
	return told
}

// sendBeat asks a silent peer for a sign of life.
func (l *loop) sendBeat(c *Conn) {
	if l.edges[c.edge].pings {
		l.sendControl(c, websocket.KindPing, nil)
		return
	}
	start := l.begin()
	l.out = l.protocol(c).AppendBeat(l.out, Session{c})
	_ = l.sent(c, start, true)
}

func (l *loop) protocol(c *Conn) Protocol { return l.edges[c.edge].protocol }
