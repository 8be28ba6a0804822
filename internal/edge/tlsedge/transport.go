package tlsedge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"heartwheel/codec"
)

// headerSize is a record's type, version and length. RFC 8446, 5.1.
const headerSize = 5

// ErrClosed is the error of Open after the peer's close_notify: it will send no
// more.
var ErrClosed = &codec.Error{Code: codec.CodePeerClosed, Text: "tls: the peer has closed its side"}

// A Transport is one connection after its handshake. It does no I/O: its records
// come and go by Open and Seal. Loop only.
type Transport struct {
	conn    *tls.Conn
	wire    *wire
	largest int // record that was opened, in bytes
	err     error
}

// Open appends to dst the plaintext of the whole records that in begins with, and
// returns how many bytes they took. What is left begins in of the next call. It
// keeps no part of in.
//
// What this side has to answer, to a key update or with an alert, is taken by the
// next Seal: where Pending is true after Open, call Seal with no plaintext.
//
// Plaintext that comes with an error is used before it. The error is a *codec.Error,
// ErrClosed if the peer has closed in order, and comes back from every later call.
func (t *Transport) Open(dst, in []byte) (plain []byte, used int, err error) {
	if t.err != nil {
		return dst, 0, t.err
	}
	for len(in)-used >= headerSize {
		size := recordSize(in[used:])
		if len(in)-used < size {
			// An impossible length is refused before its bytes are waited for.
			if size > maxRecord {
				t.wire.in = in[used : used+headerSize]
				dst, err = t.read(dst, 0)
				t.wire.in = nil
			}
			break
		}
		t.largest = max(t.largest, size)
		t.wire.in = in[used : used+size]
		dst, err = t.read(dst, size)
		t.wire.in = nil
		if used += size; err != nil {
			break
		}
	}
	if err != nil {
		t.err = err
	}
	return dst, used, err
}

// read appends to dst what a record of size bytes, which is in wire, carries.
func (t *Transport) read(dst []byte, size int) ([]byte, error) {
	for {
		dst = slices.Grow(dst, max(size, 1))
		n, err := t.conn.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		switch {
		case err == nil:
		case err == errWouldBlock:
			return dst, nil
		case errors.Is(err, io.EOF):
			return dst, ErrClosed
		default:
			return dst, &codec.Error{Code: codec.CodeProtocolError, Text: err.Error()}
		}
	}
}

// Pending reports whether Seal has something to append even without plaintext.
func (t *Transport) Pending() bool { return len(t.wire.out) > 0 }

// Seal appends to dst what Open has left to answer, and the records for plain.
// Each has up to 16 KiB of it. After an error of Open it still appends the alert.
func (t *Transport) Seal(dst, plain []byte) ([]byte, error) {
	dst = append(dst, t.wire.out...)
	t.wire.out = nil
	if len(plain) == 0 {
		return dst, nil
	}
	t.wire.out = dst
	_, err := t.conn.Write(plain)
	dst, t.wire.out = t.wire.out, nil
	if err != nil {
		return dst, &codec.Error{Code: codec.CodeWriteError, Text: err.Error()}
	}
	return dst, nil
}

// AppendClose appends the close_notify that ends this side, once. Nothing can be
// sealed after it.
func (t *Transport) AppendClose(dst []byte) []byte {
	dst = append(dst, t.wire.out...)
	t.wire.out = dst
	_ = t.conn.CloseWrite() // an error is that of an earlier end
	dst, t.wire.out = t.wire.out, nil
	return dst
}

// Need returns how many bytes in must have for Open to do anything with it.
func (t *Transport) Need(in []byte) int {
	if len(in) < headerSize {
		return headerSize
	}
	return recordSize(in)
}

// Kept returns how many bytes crypto/tls keeps because of the largest record so
// far: it never gives its input buffer back (golang/go#43563). A connection of
// small records keeps the size of its handshake, which this does not count.
func (t *Transport) Kept() int {
	if t.largest <= smallRecord {
		return 0
	}
	return t.largest
}

// smallRecord is a record that fits in the input buffer as the handshake left it.
const smallRecord = 1 << 10

// State returns what the handshake agreed on: version, protocol of ALPN, server
// name, the client's certificates.
func (t *Transport) State() tls.ConnectionState { return t.conn.ConnectionState() }

// maxRecord is the longest record that any version allows: 2¹⁴ bytes and the
// 2048 of TLS 1.2's protection.
const maxRecord = headerSize + 1<<14 + 2048

// recordSize returns the size of the record that b begins with, header included.
func recordSize(b []byte) int { return headerSize + int(b[3])<<8 + int(b[4]) }

// wire is what a tls.Conn takes for its connection: the peer's during the
// handshake, after it the bytes that Open was given and Seal is to return.
//
// Its Read never returns bytes beyond the current record, so that at the end of
// the handshake nothing is left inside the tls.Conn, and its buffer never grows
// beyond one record.
type wire struct {
	peer  *handshake // nil after it
	in    []byte
	out   []byte
	left  int // bytes of the current record's content that are to come
	head  int // bytes of the current record's header that were read
	sizes [2]byte
}

// errWouldBlock is temporary, so that the tls.Conn goes on after it.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "tls: no more records" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

func (w *wire) Read(p []byte) (n int, err error) {
	if w.left > 0 {
		p = p[:min(len(p), w.left)]
	} else {
		p = p[:min(len(p), headerSize-w.head)]
	}
	switch {
	case w.peer != nil:
		n, err = w.peer.read(p)
	case len(w.in) == 0:
		return 0, errWouldBlock
	default:
		n = copy(p, w.in)
		w.in = w.in[n:]
	}
	if w.left > 0 {
		w.left -= n
		return n, err
	}
	for i, b := range p[:n] {
		if at := w.head + i; at >= 3 {
			w.sizes[at-3] = b
		}
	}
	if w.head += n; w.head == headerSize {
		w.head, w.left = 0, int(w.sizes[0])<<8+int(w.sizes[1])
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	if w.peer != nil {
		return w.peer.write(p)
	}
	w.out = append(w.out, p...)
	return len(p), nil
}

// Close does nothing: the socket is its loop's.
func (w *wire) Close() error { return nil }

func (w *wire) LocalAddr() net.Addr {
	if w.peer != nil {
		return w.peer.conn.LocalAddr()
	}
	return noAddr{}
}

func (w *wire) RemoteAddr() net.Addr {
	if w.peer != nil {
		return w.peer.conn.RemoteAddr()
	}
	return noAddr{}
}

// The deadlines are those of the Server during the handshake, and the loop's after
// it.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "" }

// A handshake is what a wire has for its duration.
type handshake struct {
	conn  net.Conn
	slots chan struct{} // one for each handshake that may compute
	hello bool          // a whole ClientHello has come
	holds bool          // a slot
	end   time.Time

	waited time.Duration // for a slot
}

// take takes a slot. A peer gets one only after its ClientHello, and never holds it
// while this side waits for the peer, so that silent and slow peers keep no slot
// from others.
func (h *handshake) take() error {
	if h.holds || !h.hello {
		return nil
	}
	select {
	case h.slots <- struct{}{}:
		h.holds = true
		return nil
	default:
	}
	began := time.Now()
	late := time.NewTimer(h.end.Sub(began))
	defer func() {
		late.Stop()
		h.waited += time.Since(began)
	}()
	select {
	case h.slots <- struct{}{}:
		h.holds = true
		return nil
	case <-late.C:
		return os.ErrDeadlineExceeded
	}
}

func (h *handshake) give() {
	if h.holds {
		<-h.slots
		h.holds = false
	}
}

func (h *handshake) read(p []byte) (int, error) {
	h.give()
	n, err := h.conn.Read(p)
	if err == nil {
		err = h.take()
	}
	return n, err
}

func (h *handshake) write(p []byte) (int, error) {
	h.give()
	n, err := h.conn.Write(p)
	if err == nil {
		err = h.take()
	}
	return n, err
}
