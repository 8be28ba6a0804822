package server

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/testcert"
)

// A tlsPeer is the client of a connection whose server is a tlsedge.Transport. After
// the handshake it does no I/O: open and seal are for what has come and what goes.
type tlsPeer struct {
	conn  *tls.Conn
	wire  *tlsWire
	plain []byte // all that was opened
	seen  int    // bytes that open has taken
	ended error  // of reading
}

// newTLSServer returns a server for tests in a bubble, whose clock is behind the
// certificate's: their clients do not verify it.
func newTLSServer(t *testing.T) *tlsedge.Server {
	t.Helper()
	cert, key := testcert.New(t).Issue(t, "server", "localhost")
	s, err := tlsedge.New(tlsedge.Config{Certificates: []tlsedge.Pair{{Cert: cert, Key: key}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// handshake returns both ends of a new connection.
func handshake(t testing.TB, s *tlsedge.Server, c *tls.Config) (*tlsedge.Transport, *tlsPeer) {
	t.Helper()
	to, from := make(chan []byte, 64), make(chan []byte, 64)
	p := &tlsPeer{wire: &tlsWire{in: from, out: to}}
	p.conn = tls.Client(p.wire, c)
	done := make(chan error, 1)
	go func() { done <- p.conn.Handshake() }()
	tr, err := s.Handshake(&tlsWire{in: to, out: from})
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	p.wire.driven = true
	return tr, p
}

// seal returns the records for plain.
func (p *tlsPeer) seal(t testing.TB, plain []byte) []byte {
	t.Helper()
	if _, err := p.conn.Write(plain); err != nil {
		t.Fatal(err)
	}
	return p.sent()
}

// sent returns the records that wait to be sent.
func (p *tlsPeer) sent() []byte {
	b := p.wire.sent
	p.wire.sent = nil
	return b
}

// open takes all that the server has ever written, and returns its plaintext and
// whether nothing is left. The error of reading is in ended.
func (p *tlsPeer) open(all []byte) (plain []byte, whole bool) {
	p.wire.left = append(p.wire.left, all[p.seen:]...)
	p.seen = len(all)
	b := make([]byte, 1<<15)
	for p.ended == nil {
		n, err := p.conn.Read(b)
		if p.plain = append(p.plain, b[:n]...); errors.Is(err, errDry) {
			break
		}
		p.ended = err
	}
	// crypto/tls takes part of a record too.
	return p.plain, wholeRecords(all)
}

// wholeRecords reports whether b is TLS records and nothing else.
func wholeRecords(b []byte) bool {
	for len(b) >= 5 {
		n := 5 + int(b[3])<<8 + int(b[4])
		if len(b) < n {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

// tlsWire is one end of a connection in memory that never blocks a writer. Driven,
// it does not block a reader either.
type tlsWire struct {
	in     <-chan []byte
	out    chan<- []byte
	left   []byte
	driven bool
	sent   []byte // driven: what was written
}

var errDry net.Error = dry{}

type dry struct{}

func (dry) Error() string   { return "nothing has come" }
func (dry) Timeout() bool   { return true }
func (dry) Temporary() bool { return true }

func (w *tlsWire) Read(p []byte) (int, error) {
	for len(w.left) == 0 {
		if !w.driven {
			w.left = <-w.in
			continue
		}
		select {
		case w.left = <-w.in: // session tickets
		default:
			return 0, errDry
		}
	}
	n := copy(p, w.left)
	w.left = w.left[n:]
	return n, nil
}

func (w *tlsWire) Write(p []byte) (int, error) {
	if w.driven {
		w.sent = append(w.sent, p...)
	} else {
		w.out <- bytes.Clone(p)
	}
	return len(p), nil
}

func (*tlsWire) Close() error                     { return nil }
func (*tlsWire) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*tlsWire) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*tlsWire) SetDeadline(time.Time) error      { return nil }
func (*tlsWire) SetReadDeadline(time.Time) error  { return nil }
func (*tlsWire) SetWriteDeadline(time.Time) error { return nil }
