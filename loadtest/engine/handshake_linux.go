package engine

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/epoll"
)

// maxHandshakes bounds the handshakes of a loop that are under way: each has a
// goroutine and about 40 kB. How many compute is bounded by the tlsedge.Client.
const maxHandshakes = 1024

// handshakes are those of a loop. Loop only.
type handshakes struct {
	client  *tlsedge.Client
	running map[int32]*handshake
	waiting []connectDeadline // connections for which there was no room
	wg      sync.WaitGroup
}

// A handshake is one TLS handshake in a goroutine, which gets the socket for that
// time. It reads and writes without blocking; where it has to wait, the loop wakes it
// with the socket's next event. It is the net.Conn of its own handshake.
type handshake struct {
	fd    int
	ready chan struct{} // an event has come
	quit  chan struct{} // closed: the loop has given up

	mu   sync.Mutex // guards all below
	gone bool       // the loop has given up: the socket is the goroutine's to close
	done bool       // the socket is the loop's again

	transport *tlsedge.Transport
	waited    time.Duration // for other handshakes that computed
	at        int64         // when it was over
	err       error
}

// start begins the handshake of a connection, or lets it wait.
func (h *handshakes) start(l *loop, i int32, c *conn) {
	if len(h.running) >= maxHandshakes {
		h.waiting = append(h.waiting, connectDeadline{conn: i, gen: c.gen})
		return
	}
	s := &handshake{fd: int(c.fd), ready: make(chan struct{}, 1), quit: make(chan struct{})}
	h.running[i] = s
	poller, key := l.poller, c.key(i)
	h.wg.Go(func() {
		t, waited, err := h.client.Handshake(s)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.gone {
			unix.Close(s.fd)
			return
		}
		s.done, s.transport, s.waited, s.err, s.at = true, t, waited, err, epoll.Monotonic()
		// Another event for the loop, also of what has arrived meanwhile. The lock
		// keeps it from closing the socket before that.
		_ = poller.Modify(s.fd, watched, key)
	})
}

// ended says whether the handshake is over; if not, an event wakes it.
func (s *handshake) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		select {
		case s.ready <- struct{}{}:
		default:
		}
	}
	return s.done
}

// end ends the handshake of a connection, and says whether the socket is the loop's
// to close.
func (h *handshakes) end(l *loop, i int32) bool {
	s := h.running[i]
	if s == nil {
		return true
	}
	s.mu.Lock()
	done := s.done
	if s.gone = !done; s.gone {
		close(s.quit)
	}
	s.mu.Unlock()
	h.remove(l, i)
	return done
}

// remove forgets the handshake of a connection and starts one that waits.
func (h *handshakes) remove(l *loop, i int32) {
	delete(h.running, i)
	for len(h.waiting) > 0 && !l.done {
		w := h.waiting[0]
		h.waiting = h.waiting[1:]
		c := &l.conns[w.conn]
		if c.gen == w.gen && c.state == stateHandshake {
			h.start(l, w.conn, c)
			return
		}
	}
}

func (s *handshake) wait() error {
	select {
	case <-s.ready:
		return nil
	case <-s.quit:
		return net.ErrClosed
	}
}

func (s *handshake) Read(p []byte) (int, error) {
	for {
		switch n, err := epoll.Read(s.fd, p); {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return 0, err
		default:
			if err := s.wait(); err != nil {
				return 0, err
			}
		}
	}
}

func (s *handshake) Write(p []byte) (written int, err error) {
	for written < len(p) {
		switch n, err := epoll.Write(s.fd, p[written:]); {
		case n > 0:
			written += n
		case err == unix.EINTR:
		case err != unix.EAGAIN:
			return written, err
		default:
			if err := s.wait(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

// Close does nothing: the socket is the loop's. The deadline is the loop's too.
func (s *handshake) Close() error                     { return nil }
func (s *handshake) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *handshake) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *handshake) SetDeadline(time.Time) error      { return nil }
func (s *handshake) SetReadDeadline(time.Time) error  { return nil }
func (s *handshake) SetWriteDeadline(time.Time) error { return nil }

// handshakeEvent handles an event of a connection whose handshake is under way. It
// returns false if that is not over, or the connection is gone.
func (l *loop) handshakeEvent(i int32, c *conn, at int64) bool {
	s := l.handshakes.running[i]
	if s == nil || !s.ended() {
		return false
	}
	l.handshakes.remove(l, i)
	if s.err != nil {
		var e unix.Errno
		text := s.err.Error()
		if errors.Is(s.err, io.EOF) || errors.As(s.err, &e) && e == unix.ECONNRESET {
			text = "closed by the target during the TLS handshake"
		}
		l.failConn(i, at, text)
		return false
	}
	l.links[i].tls = s.transport
	l.result.TLS.Record(s.at - c.waitingSince - int64(s.waited))
	l.result.ConnectLag.Record(int64(s.waited))
	l.upgrade(i, c, s.at)
	return c.state != stateClosed
}
