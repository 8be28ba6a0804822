package server

import (
	"heartwheel/codec"
	"heartwheel/internal/auth"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// An edge is what the connections of a listener speak: bytes ↔ plaintext ↔
// messages ↔ their meaning. Without transport and framing the bytes on the wire
// are the messages.
type edge struct {
	upgrade  *upgrade       // connections begin with an HTTP request; nil: none does
	framing  func() framing // makes one for each connection; nil: none
	protocol Protocol
	native   bool // protocol is the native one
	bodies   bool // and each message of the framing is the body of one frame
	pings    bool // where this side beats, the framing has a frame for that
	layered  bool // bytes on the wire are not native frames as they are

	auth      *auth.Authenticator // nil: clients are not identified
	mode      auth.Mode           // how
	cookies   bool                // a hook gets those of a request, which may do without a token then
	end, path int                 // index of the endpoint, and of its path
}

// A transport turns the bytes of one connection into plaintext and back: TLS. Loop
// only, no I/O.
type transport interface {
	// Open appends to dst the plaintext of the whole records that in begins
	// with, and returns how many bytes they took. What is left begins in of the
	// next call. Plaintext that comes with an error is used before it.
	Open(dst, in []byte) (plain []byte, used int, err error)

	// Need returns how many bytes in must have for Open to do anything with it.
	Need(in []byte) int

	// Seal appends to dst the records for plain, which follows what was sealed
	// before, and first what Open has left to answer.
	Seal(dst, plain []byte) ([]byte, error)

	// Pending reports whether Open has left something to answer.
	Pending() bool

	// AppendClose appends what ends this side in order. Nothing is sealed after it.
	AppendClose(dst []byte) []byte

	// Kept returns how many bytes the transport holds for what was received.
	Kept() int
}

// A framing carries messages in the plaintext of one connection, such as
// WebSocket. Loop only, no I/O.
type framing interface {
	// Next returns what the first frame in in carries, and how many bytes the
	// frame took: 0 if it is not whole. end says that p ends a message. p may be
	// a part of in, which Next may change.
	Next(in []byte) (p []byte, k websocket.Kind, end bool, used int, err error)

	// Need returns how many bytes in must have for Next to return its first frame,
	// or to know that; 0: not known.
	Need(in []byte) int

	// Append appends to dst a frame with one message or the content of a control
	// frame.
	Append(dst, p []byte, k websocket.Kind) []byte
}

// A closer is a framing with a frame that ends the connection.
type closer interface {
	AppendClose(dst []byte, code uint16, reason string) []byte
	AppendCloseAnswer(dst, p []byte) []byte
}

// sealSize is how much plaintext is sealed at once, a TLS record. What is sealed
// cannot be overtaken any more.
const sealSize = 16 << 10

// edgeState is what a connection needs for its edge.
type edgeState struct {
	transport transport // nil: none
	framing   framing   // nil: none
	upgrading bool      // the HTTP request has not been answered
	text      bool      // what the protocol gets next is of a text message
	end       bool      // and ends its message
	closed    bool      // this side's close frame is in the outbox, or written
	kept      int       // bytes that the transport holds, as in the account
	partial   [stageMessage][]byte
}

// A stage is a step on the way of what has arrived.
type stage uint8

const (
	stageWire    stage = iota // bytes, for the transport
	stagePlain                // plaintext, for the framing
	stageMessage              // for the protocol
)

// openEdge makes what c needs for its edge; its transport is there already.
func (l *loop) openEdge(c *Conn) {
	e := &l.edges[c.edge]
	if e.upgrade == nil && e.framing == nil {
		return
	}
	x := c.ensureExt()
	if x.edge == nil {
		x.edge = new(edgeState)
	}
	if e.upgrade != nil {
		x.edge.upgrading = true
	} else {
		x.edge.framing = e.framing()
	}
}

// firstStage is where what has arrived for c begins.
func (c *Conn) firstStage() stage {
	switch {
	case c.ext == nil || c.ext.edge == nil:
		return stageMessage
	case c.ext.edge.transport != nil:
		return stageWire
	}
	return c.ext.edge.afterWire()
}

// afterWire is where plaintext goes.
func (s *edgeState) afterWire() stage {
	if s.framing == nil && !s.upgrading {
		return stageMessage
	}
	return stagePlain
}

// consume has a stage act on what is whole in b, and returns how many bytes that
// took. For need see Protocol.Input; heard: a whole frame or message was there. all
// says that b is all there is: the last piece that the framing gave ends with it.
func (l *loop) consume(c *Conn, s stage, b []byte, all bool) (used, need int, heard bool) {
	var err error
	switch s {
	case stageWire:
		used, need, heard, err = l.open(c, b)
	case stagePlain:
		used, need, heard, err = l.unframe(c, b)
	case stageMessage:
		end := all && c.ext != nil && c.ext.edge != nil && c.ext.edge.end
		used, need, err = l.protocol(c).Input(Session{c}, b, end)
		heard = used > 0
	}
	if err != nil {
		l.refuse(c, err)
	}
	return used, need, heard
}

// open gives what it finds in the records of b to the next stage.
func (l *loop) open(c *Conn, b []byte) (used, need int, heard bool, err error) {
	e := c.ext.edge
	l.plain, used, err = e.transport.Open(l.plain[:0], b)
	if kept := e.transport.Kept(); kept != e.kept {
		delta := kept - e.kept
		e.kept = kept
		l.hold(c, delta)
	}
	if len(l.plain) > 0 {
		heard = l.feed(c, e.afterWire(), l.plain)
	}
	if e.transport.Pending() {
		l.answerRecords(c)
	}
	switch {
	case err == tlsedge.ErrClosed: // the peer sends nothing more, as after a FIN
		c.flags |= flagEnded
		if c.state == stateOpen {
			l.flushEnded(c)
		}
		return len(b), 0, heard, nil
	case err != nil: // nothing can be sealed any more
		l.logOffence(c, Notice{Reason: ProtocolError, Code: ProtocolError.Code(), Text: err.Error()})
		l.terminate(c, ProtocolError, false)
	case used == 0:
		need = e.transport.Need(b)
	}
	return used, need, heard, nil
}

// answerRecords sends what the transport of c has to answer, such as to a key update,
// or with an alert. It follows what is sealed already.
func (l *loop) answerRecords(c *Conn) {
	var err error
	if l.sealed, err = c.ext.edge.transport.Seal(l.sealed[:0], nil); err != nil || c.state >= stateTerminated {
		return
	}
	n := 0
	if c.queued() == 0 {
		if n, err = l.io.write(c, l.sealed); err != nil && err != errWouldBlock {
			l.terminate(c, writeReason(err), true)
			return
		}
	}
	if n < len(l.sealed) {
		l.enqueue(c, batch{}, 0, l.sealed[n:])
	}
}

// closeTransport tells the peer, in the words of the transport, that this side sends
// nothing more. All that was sent has gone out; if the socket is full nevertheless, the
// peer learns it from the FIN.
func (l *loop) closeTransport(c *Conn) {
	if c.ext != nil && c.ext.edge != nil && c.ext.edge.transport != nil && !c.has(flagAbort) {
		l.sealed = c.ext.edge.transport.AppendClose(l.sealed[:0])
		_, _ = l.io.write(c, l.sealed)
	}
}

// unframe gives what it finds in the frames of b to the protocol. A control frame
// may come between those of a message.
func (l *loop) unframe(c *Conn, b []byte) (used, need int, heard bool, err error) {
	e := c.ext.edge
	if e.upgrading {
		used, err = l.upgrade(c, b)
		if heard = used > 0; err != nil || !heard || e.upgrading {
			return used, 0, heard, err
		}
	}
	for used < len(b) && c.receiving() {
		p, kind, end, n, err := e.framing.Next(b[used:])
		if err != nil {
			return used, 0, heard, err
		}
		if n == 0 {
			if used == 0 {
				need = e.framing.Need(b)
			}
			break
		}
		used += n
		heard = true
		if kind >= websocket.KindPing {
			l.control(c, kind, p)
			continue
		}
		if kind == websocket.KindNone {
			continue
		}
		e.end, e.text = end, kind == websocket.KindText
		if len(p) == 0 && end && len(c.ext.partial) == 0 { // an empty message
			l.consume(c, stageMessage, p, true)
		} else if len(p) > 0 || end {
			l.feed(c, stageMessage, p)
		}
	}
	return used, need, heard, nil
}

// A mark is where a message in loop.out ends, of a connection that is not plain
// native.
type mark struct {
	end    int
	urgent bool
}

// mark frames what is in out from start on, and marks the messages. Those of
// the native protocol tell themselves how many they are and which are urgent.
func (l *loop) mark(c *Conn, start int, urgent bool) {
	native, header := l.edges[c.edge].native, 0
	if l.edges[c.edge].bodies {
		header = codec.HeaderSize
	}
	var f framing
	b := l.out[start:]
	if c.ext != nil && c.ext.edge != nil && c.ext.edge.framing != nil {
		f = c.ext.edge.framing
		l.unframed = append(l.unframed[:0], b...)
		b, l.out = l.unframed, l.out[:start]
	}
	if f != nil && !native { // one message, which may be empty
		l.out = f.Append(l.out, b, websocket.KindBinary)
		l.marks = append(l.marks, mark{len(l.out), urgent})
		b = nil
	}
	for end := start; len(b) > 0; {
		n := len(b)
		if native {
			n, urgent = frameLen(b), overtakes(frameOp(b))
		}
		if end += n; f != nil {
			l.out = f.Append(l.out, b[header:n], websocket.KindBinary)
			end = len(l.out)
		}
		l.marks = append(l.marks, mark{end, urgent})
		b = b[n:]
	}
	if cap(l.unframed) > 4*flushLimit {
		l.unframed = nil
	}
}

// A batch is messages on their way out, back to back.
type batch struct {
	b     []byte
	marks []mark // nil: plain native frames
	off   int    // where b begins, as marks count
}

// first returns the length of the first message and whether it overtakes data.
// This and queue.unsent are all that knows where messages end.
func (m *batch) first() (n int, urgent bool) {
	if m.marks == nil {
		return frameLen(m.b), overtakes(frameOp(m.b))
	}
	return m.marks[0].end - m.off, m.marks[0].urgent
}

// pop takes the first message off, or what is left of it: n bytes.
func (m *batch) pop(n int) {
	m.b, m.off = m.b[n:], m.off+n
	if m.marks != nil {
		m.marks = m.marks[1:]
	}
}

// written takes n bytes off and returns how many are left of a message that is
// half written.
func (m *batch) written(n int) (left int) {
	for n > 0 {
		size, _ := m.first()
		if size > n {
			m.b, m.off = m.b[n:], m.off+n
			return size - n
		}
		m.pop(size)
		n -= size
	}
	return 0
}

// write writes plaintext. It returns how much of it was written or sealed, and
// what the socket did not take of the sealed, which is valid until the next call.
func (l *loop) write(c *Conn, b []byte) (n int, sealed []byte, err error) {
	if c.ext == nil || c.ext.edge == nil || c.ext.edge.transport == nil {
		n, err = l.io.write(c, b)
		return n, nil, err
	}
	for n < len(b) {
		piece := b[n:min(n+sealSize, len(b))]
		if l.sealed, err = c.ext.edge.transport.Seal(l.sealed[:0], piece); err != nil {
			return n, nil, err
		}
		n += len(piece)
		took, err := l.io.write(c, l.sealed)
		if took < len(l.sealed) || err != nil {
			return n, l.sealed[took:], err
		}
	}
	return n, nil, nil
}
