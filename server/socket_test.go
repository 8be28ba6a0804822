package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/address"
)

// patience is how long a test waits for what must happen; no test passes or
// fails by how fast the machine is within it.
const patience = 30 * time.Second

// start runs a server on a free port until the test ends, when Run must return
// nil.
func start(t *testing.T, cfg Config, h Handler) *Server {
	t.Helper()
	s, stop := startUntil(t, cfg, h)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return s
}

// startUntil runs a server; stop ends it and returns what Run returned.
func startUntil(t *testing.T, cfg Config, h Handler) (s *Server, stop func() error) {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{"tcp://127.0.0.1:0"}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Drain == 0 {
		cfg.Drain = 200 * time.Millisecond
	}
	s, err := New(cfg, h)
	if err != nil {
		t.Fatal(err)
	}
	return s, run(s)
}

// run runs a server that was made; stop ends it and returns what Run returned.
func run(s *Server) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// dial connects to s; every later read and write must end within patience.
func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// expect reads exactly want.
func expect(t *testing.T, c net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil {
		t.Fatalf("after %d of %d bytes: %v", n, len(want), err)
	}
	for i := range got {
		if got[i] != want[i] {
			end := min(i+16, len(got))
			t.Fatalf("byte %d on is % x, want % x", i, got[i:end], want[i:end])
		}
	}
}

// readFrame reads one frame.
func readFrame(t *testing.T, c net.Conn) codec.Frame {
	t.Helper()
	f, err := nextFrame(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// nextFrame is readFrame where there may be none.
func nextFrame(c net.Conn) (codec.Frame, error) {
	var b []byte
	for {
		f, n, err := codec.Decode(b, codec.MaxFrameLimit)
		if err != nil || n > 0 {
			return f, err
		}
		one := make([]byte, 1)
		if _, err := c.Read(one); err != nil {
			return codec.Frame{}, fmt.Errorf("after % x: %w", b, err)
		}
		b = append(b, one...)
	}
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestEchoOverASocket(t *testing.T) {
	s := start(t, Config{}, Echo{})
	c := dial(t, s)
	msg := codec.AppendData(codec.AppendPing(codec.AppendBeat(nil), []byte("p")), []byte("hello"))
	want := codec.AppendData(codec.AppendPong(codec.AppendBeat(nil), []byte("p")), []byte("hello"))
	for i := range msg { // byte at a time
		if _, err := c.Write(msg[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, c, want)
	if _, err := c.Write(bytes.Repeat(msg, 50)); err != nil { // all at once
		t.Fatal(err)
	}
	expect(t, c, bytes.Repeat(want, 50))
	_ = c.Close()
	eventually(t, "the close is counted", func() bool { return s.Stats().Closed["peer_closed"] == 1 })
	if ck := s.Check(); !ck.OK || ck.Accepted != 1 || ck.Sessions != 0 {
		t.Errorf("check: %+v", ck)
	}
}

func TestFramesLargerThanTheReadBuffer(t *testing.T) {
	s := start(t, Config{MaxFrame: 1 << 20, Outbox: 4 << 20}, Echo{})
	c := dial(t, s)
	msg := codec.AppendData(nil, bytes.Repeat([]byte("0123456789abcdef"), 60_000))
	msg = append(msg, msg...)
	go func() { _, _ = c.Write(msg) }()
	expect(t, c, msg)
	if _, err := c.Write(beat); err != nil { // after that: it may overtake data
		t.Fatal(err)
	}
	expect(t, c, beat)
}

// A reader that pauses gets every byte in order once it reads again: the
// server waits for room in the socket without spinning or losing anything.
func TestReaderThatPauses(t *testing.T) {
	const frames, size = 1500, 16 << 10
	s := start(t, Config{Outbox: 64 << 20, WriteStall: time.Minute}, Echo{})
	c := dial(t, s)
	var sent []byte
	for i := range frames {
		sent = codec.AppendData(sent, bytes.Repeat([]byte{byte(i)}, size))
	}
	if _, err := c.Write(sent); err != nil { // not reading yet
		t.Fatal(err)
	}
	eventually(t, "bytes wait in the outbox", func() bool { return s.Stats().OutboxBytes > 0 })
	expect(t, c, sent)
	eventually(t, "the outbox is empty", func() bool { return s.Stats().OutboxBytes == 0 })
	if ck := s.Check(); !ck.OK {
		t.Errorf("check: %+v", ck)
	}
}

func TestConnectionLimit(t *testing.T) {
	s := start(t, Config{MaxConnections: 2}, Echo{})
	a, b := dial(t, s), dial(t, s)
	eventually(t, "both are in", func() bool { return s.Stats().Accepted == 2 })
	over := dial(t, s)
	g, err := codec.ParseGoaway(readFrame(t, over).Payload)
	if err != nil || g.Code != codec.CodeOverloaded {
		t.Fatalf("told %+v, %v; want code 3020", g, err)
	}
	if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after GOAWAY: %v, want the end of the stream", err)
	}
	if n := s.Stats().Refused["overloaded"]; n != 1 {
		t.Errorf("refused %d, want 1", n)
	}
	_ = a.Close()
	eventually(t, "a place is free", func() bool { return s.Stats().Connections == 1 })
	c := dial(t, s)
	for _, in := range []net.Conn{b, c} {
		_, _ = in.Write(codec.AppendBeat(nil))
		expect(t, in, codec.AppendBeat(nil))
	}
}

func TestDrainOverSockets(t *testing.T) {
	// One on each loop, which tells its first at once; the pace of the others is
	// tested on a clock of its own.
	const loops = 4
	s, stop := startUntil(t, Config{Loops: loops, Drain: time.Second}, Echo{})
	var conns []net.Conn
	for n := range uint64(loops) {
		conns = append(conns, dial(t, s))
		eventually(t, "it is in", func() bool { return s.Stats().Accepted == n+1 })
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for _, c := range conns {
		f := readFrame(t, c)
		g, err := codec.ParseGoaway(f.Payload)
		if f.Op != codec.OpGoaway || err != nil || g.Code != codec.CodeDraining {
			t.Fatalf("got %s %+v %v, want GOAWAY 3001", f.Op, g, err)
		}
		f = readFrame(t, c)
		if code, _, _ := codec.ParseClose(f.Payload); f.Op != codec.OpClose || code != codec.CodeDraining {
			t.Fatalf("got %s %d, want CLOSE 3001", f.Op, code)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if _, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
		t.Error("the port still accepts")
	}
}

// hooks is a Handler whose callbacks a test chooses.
type hooks struct {
	open  func(*Conn)
	frame func(*Conn, codec.Frame) error
	close func(*Conn, Reason)
}

func (h hooks) Open(c *Conn) {
	if h.open != nil {
		h.open(c)
	}
}
func (h hooks) Frame(c *Conn, f codec.Frame) error {
	if h.frame != nil {
		return h.frame(c, f)
	}
	return nil
}
func (h hooks) Close(c *Conn, why Reason) {
	if h.close != nil {
		h.close(c, why)
	}
}

func TestPostFromElsewhere(t *testing.T) {
	conns := make(chan *Conn, 1)
	s := start(t, Config{}, hooks{open: func(c *Conn) { conns <- c }})
	c := dial(t, s)
	conn := <-conns
	var want []byte
	for i := range 1000 {
		payload := []byte{byte(i), byte(i >> 8)}
		want = codec.AppendData(want, payload)
		if err := conn.Post(func(c *Conn) { _ = c.Send(codec.OpData, payload) }); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, c, want)
}

func TestPanicOverASocket(t *testing.T) {
	var closes atomic.Int32
	s := start(t, Config{Loops: 1}, hooks{
		frame: func(c *Conn, f codec.Frame) error {
			if string(f.Payload) == "boom" {
				panic("boom")
			}
			return Echo{}.Frame(c, f)
		},
		close: func(_ *Conn, why Reason) {
			if why == Internal {
				closes.Add(1)
			}
		},
	})
	good, bad := dial(t, s), dial(t, s)
	_, _ = bad.Write(codec.AppendData(nil, []byte("boom")))
	if f := readFrame(t, bad); f.Op != codec.OpClose {
		t.Fatalf("got %s, want CLOSE", f.Op)
	}
	msg := codec.AppendData(nil, []byte("still here"))
	_, _ = good.Write(msg)
	expect(t, good, msg)
	if st := s.Stats(); st.Panics != 1 || st.Closed["internal_error"] != 1 || closes.Load() != 1 {
		t.Errorf("panics %d, closed %d, close events %d; want 1 each", st.Panics,
			st.Closed["internal_error"], closes.Load())
	}
}

// An event loop that ends by itself ends Run with its reason: half a server
// must not go on looking healthy.
func TestEngineEndEndsRun(t *testing.T) {
	s, stop := startUntil(t, Config{Loops: 2}, Echo{})
	eventually(t, "the server is ready", s.ready.Load)
	breakPoller(t, s.engines[1])
	s.loops[1].mail.wake() // an idle loop does nothing that could fail
	eventually(t, "Run notices", func() bool { return !s.ready.Load() })
	if err := stop(); err == nil || !strings.Contains(err.Error(), "event loop 1 ended") {
		t.Errorf("Run returned %v, want the end of event loop 1", err)
	}
}

func TestSocketOptions(t *testing.T) {
	ln, err := listen(&Server{log: slog.New(slog.DiscardHandler)}, anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	wantOptionsOf(t, ln)
}

// wantOptionsOf looks whether connections of ln have their options, inherited where
// the system can, and set on each where they are not.
func wantOptionsOf(t *testing.T, ln *listener) {
	t.Helper()
	const timeout = 7500 * time.Millisecond
	in := acceptOne(t, ln)
	if len(wantOptions(timeout)) > 0 && checkOptions(in, timeout) == nil {
		t.Error("the options are right before they were set: the check cannot fail")
	}
	for _, want := range []optionState{optionsSet, optionsInherited} {
		if want == optionsInherited {
			ln.setOptions(timeout)
		}
		in := acceptOne(t, ln)
		if err := ln.ensureOptions(in, timeout); err != nil {
			t.Fatal(err)
		}
		if err := checkOptions(in, timeout); err != nil {
			t.Error(err)
		}
		if got := ln.options.Load(); len(wantOptions(timeout)) > 0 && got != want {
			t.Errorf("the state of the options is %d, want %d", got, want)
		}
		wantPlainTCP(t, in)
	}
}

// acceptOne returns a connection that ln has accepted.
func acceptOne(t *testing.T, ln *listener) *net.TCPConn {
	t.Helper()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in := nc.(*net.TCPConn)
	t.Cleanup(func() { _ = in.Close() })
	return in
}

func TestPortTaken(t *testing.T) {
	s := start(t, Config{}, Echo{})
	_, err := New(Config{Listen: []string{"tcp://" + s.Addrs()[0].String()}}, Echo{})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), s.Addrs()[0].String()) {
		t.Errorf("error is %v; want EADDRINUSE with the address", err)
	}
}

// The kernel's own patience follows the idle timeout that was negotiated.
func TestHelloMovesTheKernelsTimeout(t *testing.T) {
	conns := make(chan *Conn, 1)
	s := start(t, Config{}, hooks{open: func(c *Conn) { conns <- c }})
	c := dial(t, s)
	_, _ = c.Write(codec.AppendHello(nil, codec.Hello{BeatMS: 60_000}))
	w, err := codec.ParseWelcome(readFrame(t, c).Payload)
	if err != nil || w.BeatMS != 60_000 || w.TimeoutMS != 150_000 {
		t.Fatalf("welcome %+v, %v", w, err)
	}
	opts := make(chan error, 1)
	_ = (<-conns).Post(func(c *Conn) {
		for _, o := range wantOptions(150 * time.Second) {
			if got, err := unix.GetsockoptInt(c.sock.Fd(), o.level, o.name); err != nil || got != o.value {
				opts <- errors.Join(err, errors.New(o.word))
				return
			}
		}
		opts <- nil
	})
	if err := <-opts; err != nil {
		t.Errorf("not set for the new timeout: %v", err)
	}
}

// anyPort takes a free port of 127.0.0.1.
var anyPort = address.Address{Scheme: address.TCP, Host: "127.0.0.1"}
