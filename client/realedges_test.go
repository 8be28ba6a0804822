package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"heartwheel/codec"
	"heartwheel/internal/address"
	"heartwheel/internal/testcert"
	"heartwheel/server"
)

// startEdges runs heartwheel's server with an address of each scheme, and returns
// their URLs and what trusts its certificate.
func startEdges(t *testing.T, cfg server.Config) (s *server.Server, urls []string, trust *tls.Config, stop func()) {
	t.Helper()
	ca := testcert.New(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1")
	cfg.Listen = []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/live", "wss://127.0.0.1:0/live"}
	cfg.Edge.Certificates = []server.Certificate{{Cert: cert, Key: key}}
	s, stop = startReal(t, cfg)
	for i, at := range s.Addrs() {
		a, err := address.Parse(cfg.Listen[i], schemes...)
		if err != nil {
			t.Fatal(err)
		}
		a.Port = uint16(at.(*net.TCPAddr).Port)
		urls = append(urls, a.String())
	}
	return s, urls, &tls.Config{RootCAs: ca.Pool}, stop
}

// The real server behind each scheme: frames of every size both ways, beats of either
// side, CONFIG by a WELCOME of its own, codes, and an orderly end that it sees.
func TestRealEdges(t *testing.T) {
	t.Parallel()
	beat := 100 * time.Millisecond
	s, urls, trust, _ := startEdges(t, server.Config{Beat: beat, BeatMin: beat, Timeout: 2 * time.Second,
		Spread: 50 * time.Millisecond})
	for _, url := range urls {
		for _, serverBeats := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%t", url[:strings.Index(url, ":")], serverBeats), func(t *testing.T) {
				t.Parallel()
				o := newEventLog()
				c, err := Dial(t.Context(), url, Config{TLS: trust, ServerBeats: serverBeats, OnState: o.event})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				for _, n := range []int{0, 1, 120, 125, 126, 200, 40_000, 65_535} {
					sent := bytes.Repeat([]byte{byte(n)}, n)
					if err := c.Send(t.Context(), sent); err != nil {
						t.Fatal(err)
					}
					if got, err := c.Receive(t.Context(), nil); err != nil || !bytes.Equal(got, sent) {
						t.Fatalf("%d bytes come back as %d, %v", n, len(got), err)
					}
				}
				if err := c.Send(t.Context(), make([]byte, 65_536)); !errors.Is(err, ErrFrameTooLarge) {
					t.Errorf("a frame too large: %v", err)
				}
				if rtt, err := c.Beat(t.Context()); err != nil || rtt <= 0 {
					t.Errorf("beat: %s, %v", rtt, err)
				}
				before := c.Beats().Sent
				for limit := time.Now().Add(20 * time.Second); c.Beats().Sent < before+2; time.Sleep(beat / 4) {
					if time.Now().After(limit) {
						t.Fatalf("beats %+v", c.Beats())
					}
				}
				for _, end := range []struct {
					code  codec.Code
					state State
				}{{3004, Waiting}, {3503, Ended}} {
					if err := c.Send(t.Context(), fmt.Appendf(nil, "%d so", end.code)); err != nil {
						t.Fatal(err)
					}
					e := o.await(t, end.state, 1)
					var said *CodeError
					if !errors.As(e.Err, &said) || said.Code != end.code || said.Reason != "so" {
						t.Errorf("ended with %v, want code %d", e.Err, end.code)
					}
				}
			})
		}
	}
	t.Cleanup(func() {
		if n := s.Stats().Closed["idle_timeout"]; n != 0 {
			t.Errorf("%d idle", n)
		}
	})
}

// A server that drains sends its clients to another connection, and nothing is left of
// those that it had.
func TestRealEdgesDrain(t *testing.T) {
	t.Parallel()
	s, urls, trust, drain := startEdges(t, server.Config{Drain: time.Second, Spread: 100 * time.Millisecond})
	var logs []*eventLog
	for _, url := range urls {
		o := newEventLog()
		c, err := Dial(t.Context(), url, Config{TLS: trust, OnState: o.event})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		logs = append(logs, o)
	}
	drain()
	for i, o := range logs {
		var code *CodeError
		if e := o.await(t, Waiting, 1); !errors.As(e.Err, &code) || code.Code != codec.CodeDraining {
			t.Errorf("%s: sent away with %v", urls[i], e.Err)
		}
	}
	if closed := s.Stats().Closed; closed["draining"]+closed["peer_closed"] != uint64(len(urls)) {
		t.Errorf("closed %v", closed)
	}
}

// A server that is full says so in the words of each edge, and lets the client in later.
func TestRealEdgesFull(t *testing.T) {
	t.Parallel()
	_, urls, trust, _ := startEdges(t, server.Config{MaxConnections: 1, Spread: 100 * time.Millisecond})
	first, err := Dial(t.Context(), urls[0], Config{})
	if err != nil {
		t.Fatal(err)
	}
	var clients []*eventLog
	for i, url := range urls[1:] {
		_, err := Dial(t.Context(), url, Config{TLS: trust})
		checkError(t, err, false, []string{"the connection was reset", "HTTP 503", "the connection was reset"}[i])
		o := newEventLog()
		clients = append(clients, o)
		go func() {
			c, err := Dial(t.Context(), url, Config{TLS: trust, RetryDial: true, OnState: o.event})
			if err != nil {
				t.Errorf("%s: %v", url, err)
				return
			}
			c.Close()
		}()
		o.await(t, Waiting, 1)
	}
	first.Close()
	for _, o := range clients {
		o.await(t, Ended, 1)
	}
}

// The wrong scheme for a port, in any pairing, is named with the one to use, or at least
// as a wrong one.
func TestRealEdgesMixedUp(t *testing.T) {
	t.Parallel()
	_, urls, trust, _ := startEdges(t, server.Config{})
	for _, url := range urls {
		served, rest, _ := strings.Cut(url, "://")
		for _, scheme := range schemes[:4] {
			hostport, _, _ := strings.Cut(rest, "/")
			wrong := scheme + "://" + hostport
			switch {
			case scheme == served && (served == "tcp" || served == "tls"):
				continue
			case scheme == served:
				wrong += "/live/not"
			}
			_, err := Dial(t.Context(), wrong, Config{TLS: trust, ConnectTimeout: 5 * time.Second})
			words := "check that it speaks this protocol and that the scheme of the address is right"
			switch served + " " + scheme {
			case "tcp ws", "tcp tls":
				words = "use tcp://"
			case "tcp wss":
				words = "does not speak TLS"
			case "tls wss":
				words = "use tls://"
			case "ws ws", "wss wss":
				words = "HTTP 404 Not Found: it has no WebSocket at /live/not; check the path"
			}
			checkError(t, err, !strings.HasPrefix(words, "check"), wrong, words)
		}
	}
}

// Behind somebody else's TLS, the stream may end at any byte.
func TestTLSPump(t *testing.T) {
	cert, pool := certificate(t, "127.0.0.1")
	trust := &tls.Config{RootCAs: pool}
	s, _ := startReal(t, server.Config{})
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pass := make(chan int64, 1) // how much of the server's bytes is for the next client; the rest is cut off
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			n := <-pass
			go func() {
				defer nc.Close()
				to, err := net.Dial("tcp", s.Addrs()[0].String())
				if err != nil || nc.(*tls.Conn).Handshake() != nil {
					return
				}
				defer to.Close()
				left := make(chan struct{})
				go func() {
					defer close(left)
					_, _ = io.Copy(to, nc)
				}()
				_, _ = io.CopyN(nc, to, n)
				_ = nc.(*tls.Conn).CloseWrite()
				<-left
			}()
		}
	}()
	url := "tls://" + ln.Addr().String()
	pass <- 1 << 20
	c, err := Dial(t.Context(), url, Config{TLS: trust})
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte{1}, 65_535)
	if err := c.Send(t.Context(), big); err != nil {
		t.Error(err)
	}
	if got, err := c.Receive(t.Context(), nil); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	c.Close()
	plain, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_, _ = plain.Write(codec.AppendHello(nil, codec.Hello{}))
	whole := make([]byte, codec.HeaderSize)
	if _, err := io.ReadFull(plain, whole); err != nil {
		t.Fatal(err)
	}
	// The time in a WELCOME has not always the same length.
	for n := range int64(binary.BigEndian.Uint32(whole)) - 20 {
		pass <- n
		_, err := Dial(t.Context(), url, Config{TLS: trust})
		words := "only part of its WELCOME"
		if n == 0 {
			words = "without giving a reason"
		}
		checkError(t, err, false, words)
	}
}

// A server that is dead is given up at once over TLS too, whose end waits for it.
func TestTLSReset(t *testing.T) {
	cert, pool := certificate(t, "server")
	issued := time.Now() // a bubble's clock begins in the year 2000
	for _, scheme := range []string{"tls", "wss"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.cfg.TLS = &tls.Config{RootCAs: pool, Time: func() time.Time { return issued }}
			var ends []io.Closer
			r.cfg.DialContext = func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				ends = append(ends, theirs)
				go func() {
					nc := tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{*cert}})
					w := codec.AppendWelcome(nil, welcomed)
					if scheme == "wss" {
						if _, err := ws.Upgrade(nc); err != nil {
							t.Error(err)
						}
						w = frame(ws.OpBinary, true, body(w))
					}
					_, _ = nc.Read(make([]byte, 4096))
					_, _ = nc.Write(w)
				}()
				return ours, nil
			}
			c, err := Dial(t.Context(), scheme+"://server:1", r.cfg)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(18 * time.Second)
			synctest.Wait()
			// The beat at 7.5 s is not taken for 10 s.
			if e := r.last(); e.time != 17500*time.Millisecond || !errors.Is(e.what.Err, ErrStalled) {
				t.Errorf("%s: at %s: %s", scheme, e.time, e.what)
			}
			c.Close()
			for _, end := range ends {
				_ = end.Close()
			}
		})
	}
}
