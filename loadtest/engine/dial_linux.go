package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/edge/websocket"
	"heartwheel/internal/epoll"
	"heartwheel/internal/wording"
)

// A connectQueue holds the connections under way by their deadlines. As the timeout
// is the same for all, that is the order in which they began.
type connectQueue struct {
	entries []connectDeadline
	head    int
}

type connectDeadline struct {
	conn int32
	gen  uint32
	at   int64 // the deadline
}

func (q *connectQueue) push(o connectDeadline) {
	if q.head > 1024 && q.head > len(q.entries)/2 {
		q.entries = q.entries[:copy(q.entries, q.entries[q.head:])]
		q.head = 0
	}
	q.entries = append(q.entries, o)
}

// connectsDue begins the connects that are due and returns when the next one is.
func (l *loop) connectsDue(now int64) (next int64) {
	churn := l.load.Mode == ModeChurn
	for range maxConnects {
		if !churn && l.dialed == int64(len(l.conns)) {
			return now + idleWait
		}
		due := l.start + int64(l.connects.due(l.dialed*int64(l.of)+int64(l.index)))
		if due > now {
			return due
		}
		i := int32(l.dialed)
		l.dialed++
		l.tallies.Attempts++
		if l.result.FirstConnect == 0 {
			l.result.FirstConnect = epoll.Monotonic()
		}
		if churn {
			if len(l.free) == 0 {
				l.countFailure(-1, now, fmt.Sprintf("not begun: all %s of the plan were still open",
					wording.Plural(l.load.Connections, "connection")))
				continue
			}
			i = l.free[len(l.free)-1]
			l.free = l.free[:len(l.free)-1]
		}
		l.dial(i, due)
		now = epoll.Monotonic()
		l.result.LastConnect = now
	}
	return now // there may be more
}

// dial begins to connect. due is when it should have begun; 0: at no set time.
func (l *loop) dial(i int32, due int64) {
	c, now := &l.conns[i], epoll.Monotonic()
	if due != 0 {
		l.result.ConnectLag.Record(now - due)
		l.tickLag.Record(now - due)
	}
	*c = conn{gen: c.gen + 1, injection: -1, state: stateConnecting, flags: c.flags & flagReconnect,
		reconnectOf: c.reconnectOf, stateSince: now, lastFrame: now}
	c.sendSeq = firstSeq(l.number(i))
	c.answerSeq = c.sendSeq
	l.tallies.Connecting++
	if l.links != nil {
		l.links[i] = newLink()
	}
	fd, err := l.dialer.Dial(l.number(i))
	c.fd = int32(fd)
	if err != nil {
		l.failConn(i, now, dialError(err))
		return
	}
	if err := l.poller.Add(fd, watched, c.key(i)); err != nil {
		l.failConn(i, now, "epoll: "+err.Error())
		return
	}
	l.connecting.push(connectDeadline{i, c.gen, now + int64(l.load.ConnectTimeout)})
}

// watched are the events of a connection: all of them, edge-triggered.
const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// key names the connection's socket in its events.
func (c *conn) key(i int32) epoll.Key { return epoll.Key{ID: i, Gen: c.gen} }

// dialError says why no connect could begin, and what to do.
func dialError(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return "this process may not open more files; spread the connections over more --processes"
	case errors.Is(err, epoll.ErrSource):
		return err.Error() + "; give --source addresses of this machine"
	case errors.Is(err, epoll.ErrNoPort):
		return err.Error() + "; give more of them with --source"
	}
	return err.Error()
}

// connected handles the end of a connect. It returns false if the connection is
// gone.
func (l *loop) connected(i int32, c *conn, at int64) bool {
	if err := epoll.ConnectError(int(c.fd)); err != nil {
		l.failConn(i, at, err.Error())
		return false
	}
	if l.links == nil {
		l.begin(i, c, at)
		return c.state != stateClosed
	}
	l.result.TCP.Record(at - c.stateSince)
	c.waitingSince = at
	if l.edge.tls {
		c.state = stateHandshake
		l.handshakes.start(l, i, c)
	} else {
		l.upgrade(i, c, at)
	}
	return c.state != stateClosed
}

// upgrade asks for a WebSocket, if the load has them.
func (l *loop) upgrade(i int32, c *conn, at int64) {
	if !l.edge.ws {
		l.begin(i, c, at)
		return
	}
	c.state, c.waitingSince = stateUpgrade, at
	l.writeBytes(i, c, l.edge.seal(&l.links[i], l.load.Request.Append(nil, l.nonceOf(i, c))), at)
}

func (l *loop) nonceOf(i int32, c *conn) (n websocket.Nonce) {
	binary.BigEndian.PutUint64(n[:], l.nonce)
	binary.BigEndian.PutUint32(n[8:], uint32(l.number(i)))
	binary.BigEndian.PutUint32(n[12:], c.gen)
	return n
}

// handleResponse handles what has come of the response to the request. It returns how
// many bytes it took, 0 if it is not whole, and false if the connection is gone.
func (l *loop) handleResponse(i int32, c *conn, b []byte, at int64) (used int, ok bool) {
	used, err := websocket.ReadResponse(b, l.nonceOf(i, c))
	var refused *websocket.RefusedError
	switch {
	case errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable:
		l.countRefused(c, at)
		l.closeConn(i)
	case err != nil:
		l.failConn(i, at, err.Error())
	case used > 0:
		l.result.Upgrade.Record(at - c.waitingSince)
		l.begin(i, c, at)
	}
	return used, c.state != stateClosed
}

// countRefused counts a connection that the server refuses because it is at its limit.
func (l *loop) countRefused(c *conn, at int64) {
	if c.state == stateUp {
		l.undoEstablished(c)
	}
	if c.flags&flagReconnect != 0 {
		l.reconnectTally(c.reconnectOf, at).ReconnectRefused++
	} else {
		l.tallies.Refused++
	}
}

// begin sends HELLO, if the load has it.
func (l *loop) begin(i int32, c *conn, at int64) {
	if !l.load.Hello {
		l.established(i, c, at)
		return
	}
	c.state = stateHello
	hello := l.hello
	if hello == nil {
		hello = l.load.AppendHello(nil, l.number(i))
	}
	l.write(i, c, hello, epoll.Monotonic())
}

// established makes the connection beat.
func (l *loop) established(i int32, c *conn, at int64) {
	c.state = stateUp
	l.tallies.Connecting--
	l.tallies.Open++
	took := at - c.stateSince
	c.stateSince = at
	switch {
	case c.flags&flagReconnect != 0:
		l.tallies.Reconnects++
		l.reconnectTally(c.reconnectOf, at).Reconnected++
		l.result.Faults[c.reconnectOf].ReconnectTime.Record(took)
	default:
		l.tallies.Established++
		l.result.Connect.Record(took)
	}
	switch {
	case l.load.Mode == ModeChurn:
		l.sendBeat(i, c, at)
	case l.load.Mode == ModeEcho && l.inHold(at):
		l.sendEcho(i, l.load.Inflight, at)
	}
}

// undoEstablished takes back the count of established: the connection was refused
// or never answered.
func (l *loop) undoEstablished(c *conn) {
	if c.flags&flagReconnect != 0 {
		l.tallies.Reconnects--
		l.result.Faults[c.reconnectOf].Reconnected--
	} else {
		l.tallies.Established--
	}
}

// reconnectTally is the tally of a fault one of whose reconnects has ended.
func (l *loop) reconnectTally(fault uint8, at int64) *FaultTally {
	t := &l.result.Faults[fault]
	t.LastReconnect = at
	t.End = max(t.End, at)
	if t.ReconnectTime.h == nil {
		t.ReconnectTime = NewHistogram(RunDigits)
	}
	return t
}

func (l *loop) inHold(t int64) bool { return l.hold != 0 && t >= l.hold }

// expireConnects fails the connects past their deadline and returns the next one.
func (l *loop) expireConnects(now int64) (next int64) {
	q := &l.connecting
	for ; q.head < len(q.entries); q.head++ {
		o := q.entries[q.head]
		c := &l.conns[o.conn]
		if c.gen != o.gen || c.state == stateUp && l.load.Mode != ModeChurn || c.state == stateClosed {
			continue
		}
		if o.at > now {
			return o.at
		}
		limit := wording.Duration(l.load.ConnectTimeout)
		switch c.state {
		case stateHandshake:
			l.failConn(o.conn, now, "no TLS handshake within "+limit)
		case stateUpgrade:
			l.failConn(o.conn, now, "no response to the WebSocket request within "+limit)
		case stateHello:
			l.failConn(o.conn, now, "no WELCOME within "+limit)
		case stateUp:
			l.failConn(o.conn, now, "no answer to the beat within "+limit)
		default:
			l.failConn(o.conn, now, "not connected within "+limit)
		}
	}
	q.entries, q.head = q.entries[:0], 0
	if l.connectedSent { // those left are few
		q.entries = nil
	}
	return now + int64(time.Second)
}

// failConn ends a connection that was never of use.
func (l *loop) failConn(i int32, at int64, text string) {
	c := &l.conns[i]
	again, fault := c.flags&flagReconnect != 0, c.reconnectOf
	if c.state == stateUp {
		l.undoEstablished(c)
	}
	l.closeConn(i)
	if again {
		l.reconnectTally(fault, at).ReconnectFailed++
		l.addExample(&l.result.Faults[fault], 0, fmt.Sprintf("connection %d did not reconnect: %s", l.number(i), text))
		return
	}
	l.countFailure(i, at, text)
}

// countFailure counts a failed connect; i is −1 if none was begun.
func (l *loop) countFailure(i int32, at int64, text string) {
	l.tallies.Failed++
	text = cut(text)
	f := l.result.Failures[text]
	if f == nil && len(l.result.Failures) >= MaxFailures {
		text = OtherFailures
		f = l.result.Failures[text]
	}
	if f == nil {
		f = &Failure{}
		if i >= 0 {
			f.Example = fmt.Sprintf("at %.3f s connection %d", Since(l.start, at), l.number(i))
			l.event(at, EventConnect, "", 1, fmt.Sprintf("connection %d: %s", l.number(i), text))
		}
		l.result.Failures[text] = f
	}
	f.Count++
}

// closeConn resets the connection, takes back its count as open or connecting, and
// drops all that belongs to it.
func (l *loop) closeConn(i int32) {
	c := &l.conns[i]
	switch c.state {
	case stateConnecting, stateHandshake, stateUpgrade, stateHello:
		l.tallies.Connecting--
	case stateUp:
		l.tallies.Open--
	}
	owned := c.state != stateHandshake || l.handshakes.end(l, i)
	if l.links != nil {
		l.links[i] = link{}
	}
	if c.fd >= 0 && owned {
		unix.Close(int(c.fd))
	}
	if c.flags&flagPartial != 0 {
		delete(l.partial, i)
	}
	if c.flags&flagUnsent != 0 {
		delete(l.unsent, i)
	}
	if c.flags&flagRecord != 0 {
		delete(l.records, i)
	}
	if c.flags&flagCloseNotice != 0 {
		delete(l.closeNotices, i)
	}
	c.state, c.fd, c.flags = stateClosed, -1, 0
	if l.load.Mode == ModeChurn {
		l.free = append(l.free, i)
	}
}
