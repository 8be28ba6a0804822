package examples

import (
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/codec"
)

// A fakeServer is a listener whose test answers by hand.
type fakeServer struct {
	*net.TCPListener
	t *testing.T
}

func newFake(t *testing.T) *fakeServer {
	t.Helper()
	return newFakeOn(t, ownAddress())
}

func newFakeOn(t *testing.T, addr string) *fakeServer {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return &fakeServer{ln.(*net.TCPListener), t}
}

var hosts atomic.Uint32

// ownAddress returns a listen address for a server that ends before its client: on
// Linux a loopback address of its own, so that no other process takes the port.
func ownAddress() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.9.0.%d:0", hosts.Add(1))
}

// A peer is a connection of a client to a fakeServer.
type peer struct {
	net.Conn
	t   *testing.T
	buf []byte // received, not decoded yet
}

// acceptPlain takes a connection.
func (s *fakeServer) acceptPlain() *peer {
	s.t.Helper()
	_ = s.SetDeadline(time.Now().Add(limit))
	conn, err := s.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &peer{Conn: conn, t: s.t}
}

// accept takes a connection and its HELLO.
func (s *fakeServer) accept() *peer {
	s.t.Helper()
	p := s.acceptPlain()
	hello := p.want(codec.OpHello)
	if h, err := codec.ParseHello(hello.Payload); err != nil || h.V != codec.Version {
		s.t.Fatalf("got HELLO %q: %v", hello.Payload, err)
	}
	return p
}

// welcome answers HELLO with the beating side, H in ms, and a reconnect window of a
// millisecond.
func (p *peer) welcome(beats string, beatMS int64) {
	p.t.Helper()
	p.write(codec.AppendWelcome(nil, codec.Welcome{Session: "s", BeatMS: beatMS, TimeoutMS: beatMS * 5 / 2,
		Beats:    beats,
		MaxFrame: 1000, SpreadMS: 1}))
}

func (p *peer) write(frames []byte) {
	p.t.Helper()
	if _, err := p.Write(frames); err != nil {
		p.t.Fatal(err)
	}
}

// frame returns the next frame, or why there is none.
func (p *peer) frame() (codec.Frame, error) { return p.frameWithin(limit) }

func (p *peer) frameWithin(limit time.Duration) (codec.Frame, error) {
	for {
		f, n, err := codec.Decode(p.buf, codec.DefaultMaxFrame)
		if n > 0 || err != nil {
			p.buf = p.buf[n:]
			return f, err
		}
		_ = p.SetReadDeadline(time.Now().Add(limit))
		chunk := make([]byte, 4096)
		n, err = p.Read(chunk)
		p.buf = append(p.buf[:len(p.buf):len(p.buf)], chunk[:n]...)
		if err != nil {
			return codec.Frame{}, err
		}
	}
}

// want returns the next frame that is not a beat, unless a beat is what it wants.
func (p *peer) want(op codec.Op) codec.Frame {
	p.t.Helper()
	for {
		f, err := p.frame()
		if err != nil {
			p.t.Fatalf("instead of %s: %v", op, err)
		}
		if f.Op == op {
			return f
		}
		if f.Op != codec.OpBeat {
			p.t.Fatalf("got %s %q instead of %s", f.Op, f.Payload, op)
		}
	}
}
