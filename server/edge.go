package server

// An edge is what the connections of a listener speak: bytes ↔ plaintext ↔
// messages ↔ their meaning. Where transport and framing are nil, the bytes on
// the wire are the messages.
type edge struct {
	transport func() Transport // makes one for each connection
	framing   func() Framing   // likewise
	protocol  Protocol
	native    bool // protocol is the native one
}

// A Transport turns the bytes of one connection into plaintext and back, such as
// TLS. Loop only, no I/O.
type Transport interface {
	// Open appends to dst the plaintext of the whole records that in begins
	// with, and returns how many bytes they took. What is left begins in of the
	// next call. Plaintext that comes with an error is used before it.
	Open(dst, in []byte) (plain []byte, used int, err error)

	// Seal appends to dst the records for plain, which follows what was sealed
	// before.
	Seal(dst, plain []byte) ([]byte, error)
}

// A Framing carries messages in the plaintext of one connection, such as
// WebSocket. Loop only, no I/O.
type Framing interface {
	// Next returns what the first frame in in carries, and how many bytes the
	// frame took: 0 if it is not whole. end says that p ends a message. p may be
	// a part of in, which Next may change.
	Next(in []byte) (p []byte, end bool, used int, err error)

	// Append appends to dst a frame with one message.
	Append(dst, message []byte) []byte
}

// sealSize is how much plaintext is sealed at once, a TLS record. What is sealed
// cannot be overtaken any more.
const sealSize = 16 << 10

// edgeState is what a connection needs for its edge.
type edgeState struct {
	transport Transport // nil: none
	framing   Framing   // nil: none
	partial   [stageMessage][]byte
	end       bool // what the protocol gets next ends a message
}

// A stage is a step on the way of what has arrived.
type stage uint8

const (
	stageWire    stage = iota // bytes, for the transport
	stagePlain                // plaintext, for the framing
	stageMessage              // for the protocol
)

// openEdge makes what c needs for its edge.
func (l *loop) openEdge(c *Conn) {
	e := &l.edges[c.edge]
	if e.transport == nil && e.framing == nil {
		return
	}
	s := new(edgeState)
	if e.transport != nil {
		s.transport = e.transport()
	}
	if e.framing != nil {
		s.framing = e.framing()
	}
	c.ensureExt().edge = s
}

// firstStage is where what has arrived for c begins.
func (c *Conn) firstStage() stage {
	switch {
	case c.ext == nil || c.ext.edge == nil:
		return stageMessage
	case c.ext.edge.transport == nil:
		return stagePlain
	}
	return stageWire
}

// afterWire is where plaintext goes.
func (s *edgeState) afterWire() stage {
	if s.framing == nil {
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
		e := c.ext.edge
		l.plain, used, err = e.transport.Open(l.plain[:0], b)
		if len(l.plain) > 0 {
			heard = l.feed(c, e.afterWire(), l.plain)
		}
	case stagePlain:
		e := c.ext.edge
		for used < len(b) && c.receiving() {
			var p []byte
			var n int
			if p, e.end, n, err = e.framing.Next(b[used:]); n == 0 || err != nil {
				break
			}
			used += n
			heard = true
			if len(p) == 0 && e.end && len(c.ext.partial) == 0 { // an empty message
				l.consume(c, stageMessage, p, true)
			} else if len(p) > 0 || e.end {
				l.feed(c, stageMessage, p)
			}
		}
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

// A mark is where a message in loop.out ends, of a connection that is not plain
// native.
type mark struct {
	end    int
	urgent bool
}

// mark frames what is in out from start on, and marks the messages. Those of
// the native protocol tell themselves how many they are and which are urgent.
func (l *loop) mark(c *Conn, start int, urgent bool) {
	native := l.edges[c.edge].native
	var f Framing
	b := l.out[start:]
	if c.ext != nil && c.ext.edge != nil && c.ext.edge.framing != nil {
		f = c.ext.edge.framing
		l.unframed = append(l.unframed[:0], b...)
		b, l.out = l.unframed, l.out[:start]
	}
	for end := start; len(b) > 0; {
		n := len(b)
		if native {
			n, urgent = frameLen(b), overtakes(frameOp(b))
		}
		if end += n; f != nil {
			l.out = f.Append(l.out, b[:n])
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
