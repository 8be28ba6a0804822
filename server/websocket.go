package server

import (
	"net/http"
	"net/netip"

	"heartwheel/codec"
	"heartwheel/internal/auth"
	"heartwheel/internal/edge/websocket"
)

// An upgrade is how the connections of a listener become WebSockets.
type upgrade struct {
	*websocket.Upgrader
	edges   map[string]uint8 // what is spoken on a path: index in loop.edges
	trusted []netip.Prefix   // proxies whose headers name the client
}

// upgrade acts on the HTTP request that b begins with, and returns how many bytes
// it took: 0 if it is not whole.
func (l *loop) upgrade(c *Conn, b []byte) (used int, err error) {
	r, used, answer := l.edges[c.edge].upgrade.Read(b)
	switch {
	case answer != nil:
		l.answerHTTP(c, answer)
		return len(b), nil
	case r == nil:
		return 0, nil
	case !l.bindForwarded(c, r):
		return len(b), nil
	}
	e := c.ext.edge
	c.edge = l.edges[c.edge].upgrade.edges[r.Path]
	e.upgrading, e.framing = false, l.edges[c.edge].framing()
	start := l.begin()
	l.out = r.AppendAccept(l.out)
	l.sentFramed(c, start, false)
	Session{c}.Established()
	if l.authenticator(c) == nil {
		l.startProtocol(c)
		return used, nil
	}
	token := auth.TokenOf(r.HTTP, tokenCookie)
	cookies := l.edges[c.edge].cookies && r.HTTP.Header.Get("Cookie") != ""
	if token == "" && !cookies { // it comes in the first message, or is not needed
		l.startProtocol(c)
		return used, nil
	}
	// A refusal is a close frame: browsers do not tell pages the status of a response.
	l.identify(c, auth.Request{Token: token, Header: r.HTTP.Header}, true, func() { l.startProtocol(c) })
	return used, nil
}

// answerHTTP answers a request that is not for a WebSocket, and closes the
// connection.
func (l *loop) answerHTTP(c *Conn, a *websocket.Answer) {
	why := PeerClosed // it has what it asked for
	if a.Status == 0 || a.Status >= http.StatusBadRequest && a.Status < http.StatusInternalServerError {
		why = ProtocolError
		l.logOffence(c, Notice{Reason: why, Code: why.Code(), Text: a.Why})
	}
	l.sendRaw(c, a.Bytes)
	c.state, c.reason = stateFlushing, why
}

// refuseUpgrade answers the HTTP request of a connection that is closed before it
// has become a WebSocket.
func (l *loop) refuseUpgrade(c *Conn, n Notice) {
	if !n.Final {
		return
	}
	status := http.StatusServiceUnavailable
	switch n.Reason {
	case Incomplete:
		status = http.StatusRequestTimeout
	case ProtocolError, FrameTooLarge:
		status = http.StatusBadRequest
	case BadToken:
		status = http.StatusUnauthorized
	case RateLimited, BeatTooOften:
		status = http.StatusTooManyRequests
	}
	l.sendRaw(c, websocket.Refuse(status, n.Text, n.After).Bytes)
}

// control acts on a control frame.
func (l *loop) control(c *Conn, k websocket.Kind, p []byte) {
	switch k {
	case websocket.KindPing:
		if !l.edges[c.edge].native || (native{l}).mayBeat(c) {
			l.sendControl(c, websocket.KindPong, p)
		}
	case websocket.KindClose:
		c.state, c.reason = stateFlushing, PeerClosed
		if e := c.ext.edge; !e.closed {
			e.closed = true
			start := l.begin()
			l.out = e.framing.(closer).AppendCloseAnswer(l.out, p)
			l.sentFramed(c, start, false)
		}
	}
}

// sendControl sends a control frame, which overtakes waiting data.
func (l *loop) sendControl(c *Conn, k websocket.Kind, p []byte) {
	start := l.begin()
	l.out = c.ext.edge.framing.Append(l.out, p, k)
	l.sentFramed(c, start, true)
}

// closeFrame ends c with a close frame, if its framing has one.
func (l *loop) closeFrame(c *Conn, n Notice) {
	if c.ext == nil || c.ext.edge == nil || c.ext.edge.closed {
		return
	}
	f, ok := c.ext.edge.framing.(closer)
	if !ok {
		return
	}
	c.ext.edge.closed = true
	code := uint16(n.Code)
	if n.cause != nil {
		code = websocket.CloseCode(n.cause)
	}
	start := l.begin()
	l.out = f.AppendClose(l.out, code, n.Text)
	l.sentFramed(c, start, false)
}

// nativeBodies is the native protocol where each message is the body of one frame: a
// text message is that of DATA, an empty one is the empty frame (codec/SPEC.md).
type nativeBodies struct{ native }

// Start has this side beat, as browsers cannot, unless the client asks for the other.
func (n nativeBodies) Start(s Session) {
	s.SetBeat(s.Beat(), s.Timeout(), ServerBeats)
	n.native.Start(s)
}

func (n nativeBodies) Input(s Session, p []byte, end bool) (used, need int, err error) {
	if !end {
		return 0, 0, nil
	}
	f := codec.Frame{Op: codec.OpData, Payload: p}
	if !s.ext.edge.text {
		f, err = codec.DecodeBody(p, n.cfg.MaxFrame)
	} else if len(p) >= n.cfg.MaxFrame { // the op counts too
		err = websocket.ErrTooLarge
	}
	if err != nil {
		return 0, 0, err
	}
	n.stats.received(f.Op, len(p))
	n.frame(s.Conn, f)
	return len(p), 0, nil
}

// AppendNotice says it in GOAWAY; what is final and does not ask the client to wait
// is said by the close frame alone.
func (n nativeBodies) AppendNotice(dst []byte, s Session, notice Notice) []byte {
	if notice.Final && !waits(notice.Reason) {
		return dst
	}
	return n.native.AppendNotice(dst, s, notice)
}
