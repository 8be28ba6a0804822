package server

import "net"

// A detached is the socket of a connection that the engine has given up because the
// peer sends nothing more: a duplicate, to write what waits.
type detached struct {
	fd   int
	addr net.Addr
}

func (d detached) Fd() int              { return d.fd }
func (d detached) RemoteAddr() net.Addr { return d.addr }

// owes reports whether c, whose peer sends nothing more, has answers to come: waiting
// in its outbox, or to what a pause holds back. A HELLO with nothing behind it is not
// waited for: its peer has given up, as a rule.
func (c *Conn) owes() bool {
	if c.ext == nil || c.state >= stateTerminated {
		return false
	}
	return c.queued() > 0 || c.state == statePaused && c.ext.held() > 0
}

// inputEnded goes on with a connection that owes answers on a socket of its own. It
// closes once they have gone out, bounded by the write stall and a drain.
func (l *loop) inputEnded(c *Conn, sock netConn) {
	l.clock()
	if c.ext.watched() {
		l.io.unwatch(c)
		c.ext.out.watched = false
	}
	c.sock = sock
	c.flags |= flagEnded
	c.flags &^= flagUnread
	if c.queued() > 0 {
		l.await(c)
	}
	if c.state == stateOpen || c.state == statePaused && c.ext.held() == 0 {
		l.flushEnded(c)
	}
	l.recheck(c)
	l.reap()
}

// flushEnded closes a connection whose input has ended and is acted on.
func (l *loop) flushEnded(c *Conn) {
	c.state, c.reason = stateFlushing, PeerClosed
	c.flags &^= pauseCauses
	l.recheck(c) // a pause that ends has moved the deadline
}
