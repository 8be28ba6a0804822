package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"heartwheel/codec"
	"heartwheel/server"
)

// A webServer is the server side of a WebSocket by a library of others. Its methods
// do not call each other; read may run beside the others.
type webServer interface {
	read() ([]byte, error) // of a binary message
	write(b []byte) error  // a binary message
	ping(done func()) error
	close(code int, reason string)
	raw(b []byte) // bytes that are no whole frame, and the end
}

// A coderServer is one by coder/websocket. Each write of a piece is a fragment.
type coderServer struct {
	*coder.Conn
	piece int
	nc    net.Conn
}

func (c coderServer) read() ([]byte, error) {
	kind, b, err := c.Read(context.Background())
	if err == nil && kind != coder.MessageBinary {
		err = errors.New("not binary")
	}
	return b, err
}

func (c coderServer) write(b []byte) error {
	w, err := c.Writer(context.Background(), coder.MessageBinary)
	if err != nil {
		return err
	}
	for n := min(c.piece, len(b)); len(b) > 0; n = min(c.piece, len(b)) {
		if _, err := w.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return w.Close()
}

func (c coderServer) ping(done func()) error {
	go func() {
		if c.Ping(context.Background()) == nil {
			done()
		}
	}()
	return nil
}

func (c coderServer) close(code int, reason string) { _ = c.Close(coder.StatusCode(code), reason) }
func (c coderServer) raw(b []byte)                  { _, _ = c.nc.Write(b); _ = c.nc.Close() }

// A gorillaServer is one by gorilla/websocket, whose fragments are as large as its
// write buffer.
type gorillaServer struct{ *gorilla.Conn }

func (c gorillaServer) read() ([]byte, error) {
	kind, b, err := c.ReadMessage()
	if err == nil && kind != gorilla.BinaryMessage {
		err = errors.New("not binary")
	}
	return b, err
}

func (c gorillaServer) write(b []byte) error {
	w, err := c.NextWriter(gorilla.BinaryMessage)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.MultiReader(bytes.NewReader(b))) // Write alone would send one frame
	return errors.Join(err, w.Close())
}

func (c gorillaServer) ping(done func()) error {
	c.SetPongHandler(func(string) error { done(); return nil })
	return c.WriteControl(gorilla.PingMessage, []byte("beat"), time.Now().Add(time.Minute))
}

func (c gorillaServer) close(code int, reason string) {
	_ = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason), time.Now().Add(time.Minute))
}
func (c gorillaServer) raw(b []byte) { _, _ = c.NetConn().Write(b); _ = c.NetConn().Close() }

// A bridge is an HTTP server that carries the protocol between WebSockets and
// heartwheel's own server, over TCP. piece is the size of fragments.
type bridge struct {
	accept func(w http.ResponseWriter, r *http.Request) (webServer, error)
	to     string
	closes chan error // why a client's messages ended
}

// startBridge returns a bridge to a server's address, and its URL. With ca it speaks TLS.
func startBridge(t *testing.T, library string, piece int, to string, ca *tls.Config) (b *bridge, url string) {
	b = &bridge{to: to, closes: make(chan error, 100)}
	switch library {
	case "coder":
		b.accept = func(w http.ResponseWriter, r *http.Request) (webServer, error) {
			h := &hijacked{ResponseWriter: w}
			c, err := coder.Accept(h, r, nil)
			if err == nil {
				c.SetReadLimit(1 << 20)
			}
			return coderServer{c, piece, h.nc}, err
		}
	case "gorilla":
		up := &gorilla.Upgrader{WriteBufferSize: piece}
		b.accept = func(w http.ResponseWriter, r *http.Request) (webServer, error) {
			c, err := up.Upgrade(w, r, nil)
			return gorillaServer{c}, err
		}
	}
	s := httptest.NewUnstartedServer(b)
	if t.Cleanup(s.Close); ca == nil {
		s.Start()
	} else {
		s.StartTLS()
		ca.RootCAs = x509.NewCertPool()
		ca.RootCAs.AddCert(s.Certificate())
	}
	return b, "ws" + strings.TrimPrefix(s.URL, "http")
}

// hijacked keeps the connection.
type hijacked struct {
	http.ResponseWriter
	nc net.Conn
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.nc = nc
	return nc, rw, err
}

func (b *bridge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	web, err := b.accept(w, r)
	if err != nil {
		return
	}
	nc, err := net.Dial("tcp", b.to)
	if err != nil {
		web.close(1014, "no server")
		return
	}
	var writing sync.Mutex
	write := func(m []byte) error {
		writing.Lock()
		defer writing.Unlock()
		return web.write(m)
	}
	go func() {
		defer nc.Close()
		for {
			m, err := web.read()
			if err != nil {
				select {
				case b.closes <- err:
				default:
				}
				return
			}
			switch string(m) {
			case "\x03cut":
				web.raw([]byte{0x82, 100, 3, 'x'})
			case "\x03too much":
				_ = write(make([]byte, 1<<20))
			case "\x03restart":
				web.close(1012, "")
			default:
				_, _ = nc.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(m))), m...))
			}
		}
	}()
	serverBeats := false
	in := bufio.NewReader(nc)
	for head := make([]byte, codec.HeaderSize); ; {
		if _, err := io.ReadFull(in, head); err != nil {
			web.raw(nil)
			return
		}
		m := make([]byte, binary.BigEndian.Uint32(head))
		if _, err := io.ReadFull(in, m); err != nil {
			web.raw(nil)
			return
		}
		switch {
		case len(m) == 0 && serverBeats:
			err = web.ping(func() { _, _ = nc.Write(make([]byte, codec.HeaderSize)) })
		case len(m) > 0 && codec.Op(m[0]) == codec.OpClose:
			code, reason, _ := codec.ParseClose(m[1:])
			web.close(int(code), reason)
			return
		default:
			serverBeats = serverBeats || len(m) > 0 && codec.Op(m[0]) == codec.OpWelcome &&
				bytes.Contains(m, []byte(`"beats":"server"`))
			err = write(m)
		}
		if err != nil {
			return
		}
	}
}

// Servers by other libraries, which send whole messages or fragments: frames of every
// size, beats of either side that hold the connection while nothing else happens, codes,
// messages that are cut off or too large.
func TestWebInterop(t *testing.T) {
	t.Parallel()
	const beat, timeout = 200 * time.Millisecond, time.Second
	s, _ := startReal(t, server.Config{Beat: beat, BeatMin: beat, Timeout: timeout, Spread: 50 * time.Millisecond})
	t.Cleanup(func() {
		if n := s.Stats().Closed["idle_timeout"]; n != 0 {
			t.Errorf("%d idle", n)
		}
	})
	for _, test := range []struct {
		library     string
		piece       int
		serverBeats bool
		ca          *tls.Config
	}{
		{"coder", 1000, false, nil}, {"coder", 1 << 20, true, new(tls.Config)},
		{"gorilla", 1000, true, new(tls.Config)}, {"gorilla", 1 << 20, false, nil},
	} {
		t.Run(fmt.Sprintf("%s/%d/%t", test.library, test.piece, test.serverBeats), func(t *testing.T) {
			t.Parallel()
			b, url := startBridge(t, test.library, test.piece, s.Addrs()[0].String(), test.ca)
			o := newEventLog()
			c, err := Dial(t.Context(), url, Config{ServerBeats: test.serverBeats, OnState: o.event, TLS: test.ca,
				rand: func() float64 { return 0 }}) // no backoff
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range []int{0, 1, 125, 126, 999, 1000, 40_000, 65_535} {
				sent := bytes.Repeat([]byte{byte(n)}, n)
				if err := c.Send(t.Context(), sent); err != nil {
					t.Fatal(err)
				}
				if got, err := c.Receive(t.Context(), nil); err != nil || !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes come back as %d, %v", n, len(got), err)
				}
			}
			time.Sleep(timeout + timeout/10)
			if len(o.states()) != 2 {
				t.Fatalf("%v: %v", o.states(), c.Err())
			}
			if n := c.Beats().Sent; n < 3 {
				t.Errorf("%d beats in 5 intervals", n)
			}
			if rtt, err := c.Beat(t.Context()); err != nil || rtt <= 0 {
				t.Errorf("beat: %s, %v", rtt, err)
			}
			for i, end := range []struct{ say, words string }{
				{"cut", "the server closed the connection without giving a reason"},
				{"too much", "frame is larger than the limit"},
				{"restart", "closed the WebSocket with code 1012 (service restart)"},
				{"3004 oops", "the server said 3004 internal_error: oops"},
			} {
				if err := c.Send(t.Context(), []byte(end.say)); err != nil {
					t.Fatal(err)
				}
				if e := o.await(t, Waiting, i+1); !strings.Contains(e.String(), end.words) {
					t.Errorf("%s: %s", end.say, e)
				}
				if _, err := c.Beat(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			limit := time.After(20 * time.Second)
			for coder.CloseStatus(err) != 3000 && !gorilla.IsCloseError(err, 3000) {
				select {
				case err = <-b.closes: // of an earlier connection, or the last
				case <-limit:
					t.Fatal("the client did not leave with 3000")
				}
			}
		})
	}
}

// Two hundred WebSockets that connect, beat and close leave no goroutine and nothing on
// the other side.
func TestWebNoLeak(t *testing.T) {
	s, _ := startReal(t, server.Config{})
	_, url := startBridge(t, "gorilla", 1<<20, s.Addrs()[0].String(), nil)
	first, err := Dial(t.Context(), url, Config{}) // all of the servers runs once it is there
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	ignore := goleak.IgnoreCurrent()
	for range 20 {
		done := make(chan error, 10)
		for range cap(done) {
			go func() {
				c, err := Dial(t.Context(), url, Config{})
				if err == nil {
					_, err = c.Beat(t.Context())
					c.Close()
				}
				done <- err
			}()
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	for limit := time.Now().Add(20 * time.Second); s.Stats().Connections > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d connections are left", s.Stats().Connections)
		}
	}
	goleak.VerifyNone(t, ignore)
}

// An idle WebSocket is one goroutine, as any connection.
func TestWebOneGoroutine(t *testing.T) {
	rigScheme = "ws"
	defer func() { rigScheme = "tcp" }()
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		time.Sleep(time.Minute)
		c.conn.mu.Lock()
		if n := c.conn.running; n != 1 {
			t.Errorf("%d goroutines", n)
		}
		c.conn.mu.Unlock()
		c.Close()
	})
}
