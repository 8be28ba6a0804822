package loadtest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"heartwheel/internal/testcert"
	"heartwheel/loadtest/report"
	"heartwheel/server"
)

// localhost is a certificate for localhost, and the file of its authority.
func localhost(t testing.TB) (cert *tls.Certificate, ca string) {
	t.Helper()
	a := testcert.New(t)
	pair, err := tls.LoadX509KeyPair(a.Issue(t, "server", "localhost"))
	if err != nil {
		t.Fatal(err)
	}
	return &pair, a.File
}

// An edgeServer serves HTTP or a stream, with TLS by crypto/tls or without.
type edgeServer struct {
	cert *tls.Certificate // nil: no TLS
	http http.Handler     // nil: a stream
	echo func(io.ReadWriter)
}

// listen returns HOST:PORT.
func (s *edgeServer) listen(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*s.cert}})
	}
	var mu sync.Mutex
	var conns []net.Conn
	var wg sync.WaitGroup
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	keep := func(c net.Conn) {
		mu.Lock()
		conns = append(conns, c)
		mu.Unlock()
	}
	if s.http != nil {
		quiet := log.New(io.Discard, "", 0) // connections are reset during handshakes
		server := &http.Server{Handler: s.http, ErrorLog: quiet, ConnState: func(c net.Conn, state http.ConnState) {
			if state == http.StateNew {
				keep(c)
			}
		}}
		wg.Go(func() { _ = server.Serve(ln) })
		return ln.Addr().String()
	}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			keep(c)
			wg.Go(func() {
				s.echo(c)
				c.Close()
			})
		}
	})
	return ln.Addr().String()
}

func echoStream(c io.ReadWriter) { _, _ = io.Copy(c, c) }

// echoGorilla echoes messages, and answers pings, at /chat with the right headers.
func echoGorilla(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/chat" || r.Header.Get("Authorization") != "Bearer secret" {
		http.Error(w, "not for you", http.StatusUnauthorized)
		return
	}
	u := gorilla.Upgrader{CheckOrigin: func(r *http.Request) bool {
		return r.Header.Get("Origin") == "https://app.example" && r.Host == "localhost:"+port(r)
	}}
	c, err := u.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, p, err := c.ReadMessage()
		if err != nil {
			return
		}
		// In fragments, where it is longer than gorilla's buffer.
		to, err := c.NextWriter(kind)
		if err != nil {
			return
		}
		_, _ = to.Write(p)
		if to.Close() != nil {
			return
		}
	}
}

func port(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Context().Value(http.LocalAddrContextKey).(net.Addr).String())
	return port
}

func echoCoder(w http.ResponseWriter, r *http.Request) {
	c, err := coder.Accept(w, r, &coder.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		kind, p, err := c.Read(context.Background())
		if err != nil || c.Write(context.Background(), kind, p) != nil {
			return
		}
	}
}

// answeredRun is doRun for as long as a slow machine needs for an answer.
func answeredRun(t *testing.T, pairs ...string) testRun {
	t.Helper()
	for hold := 250 * time.Millisecond; ; hold *= 4 {
		r := doRun(t, nil, append(pairs, "duration", hold.String())...)
		if r.Frames.Answered > 0 || r.Frames.Wrong > 0 || hold > 10*time.Second {
			if r.Frames.Answered == 0 || r.Verdict.Word != report.Pass && r.Verdict.Word != report.Invalid {
				t.Error(r.out)
			}
			return r
		}
	}
}

// Every edge works against servers of others, in every mode.
func TestEdges(t *testing.T) {
	t.Parallel()
	cert, ca := localhost(t)
	local := func(scheme, addr, path string) string {
		return scheme + "://localhost:" + addr[strings.LastIndex(addr, ":")+1:] + path
	}
	headers := []string{"header", "Origin: https://app.example", "header", "Authorization: Bearer secret"}
	for _, c := range []struct {
		name, scheme, path string
		server             edgeServer
		modes              string
		pairs              []string
	}{
		{"tls", "tls", "", edgeServer{cert: cert, echo: echoStream}, "empty echo churn", []string{"ca", ca}},
		{"ws gorilla", "ws", "/chat", edgeServer{http: http.HandlerFunc(echoGorilla)}, "empty echo churn", headers},
		{"wss gorilla", "wss", "/chat", edgeServer{cert: cert, http: http.HandlerFunc(echoGorilla)}, "ping",
			append([]string{"insecure", "true"}, headers...)},
		{"ws coder", "ws", "", edgeServer{http: http.HandlerFunc(echoCoder)}, "ping", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			target := local(c.scheme, c.server.listen(t), c.path)
			for mode, more := range map[string][]string{
				"ping":  {"connections", "20", "frame", "ping"},
				"empty": {"connections", "20", "frame", "empty"},
				"echo":  {"connections", "5", "mode", "echo", "payload", "20000", "inflight", "2"},
				"churn": {"connections", "200", "mode", "churn", "connect-rate", "10"}, // never all of them at once
			} {
				if !strings.Contains(c.modes, mode) {
					continue
				}
				r := answeredRun(t, append(append([]string{"target", target, "interval", "100ms", "timeout", "1h",
					"connect-timeout", "1m"}, c.pairs...), more...)...)
				parts := &r.Connections
				if parts.TCPUS == nil || (parts.TLSUS == nil) == strings.Contains(c.scheme, "s") && c.scheme != "ws" ||
					(parts.UpgradeUS == nil) != (c.scheme == "tls") {
					t.Errorf("%s: parts of the connect time: %+v", mode, parts)
				}
				unverified := strings.Contains(r.out, "certificate was not verified")
				if unverified != (c.scheme == "wss") || strings.Contains(r.out, "secret") {
					t.Errorf("%s: %s", mode, r.out)
				}
			}
		})
	}
}

// What is wrong with an edge is said by the probe, with what to do.
func TestWrongEdges(t *testing.T) {
	t.Parallel()
	cert, _ := localhost(t)
	plain := (&edgeServer{echo: func(c io.ReadWriter) {
		_, _ = bufio.NewReader(c).ReadByte()
		_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	}}).listen(t)
	secure := (&edgeServer{cert: cert, echo: echoStream}).listen(t)
	full := (&edgeServer{http: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "at its limit", http.StatusServiceUnavailable)
	})}).listen(t)
	chat := (&edgeServer{http: http.HandlerFunc(echoGorilla)}).listen(t)
	for _, c := range []struct {
		target, want string
		pairs        []string
	}{
		{"tls://" + plain, "the server answers without TLS", []string{"insecure", "true"}},
		{"tls://" + secure, "certificate of the target tls://" + secure + " is not right: x509", nil},
		{"ws://" + plain, "refused with HTTP 400 Bad Request", nil},
		{"ws://" + full, "503 Service Unavailable: at its limit; it is at its limit: stop other clients", nil},
		{"ws://" + chat, "401 Unauthorized: not for you; give a token with --header", nil},
		{"ws://" + secure, "no response to the WebSocket request: EOF", nil},
	} {
		p, settings, err := Build(flags(append([]string{"target", c.target, "connections", "1"}, c.pairs...)...))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Run(Options{Plan: p, Settings: settings, Command: command, Stdout: io.Discard, Progress: io.Discard})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.target, err, c.want)
		}
	}
	var plan *PlanError
	p, _, err := Build(flags("target", "tls://"+secure, "ca", "missing.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(Options{Plan: p}); !errors.As(err, &plan) || !strings.Contains(err.Error(), "missing.pem") {
		t.Error(err)
	}
}

// Framings of others, with what they beat by.
func TestFramings(t *testing.T) {
	t.Parallel()
	target := listen(t, echo)
	pong := listen(t, func(_ int, c *net.TCPConn) { // a server of lines that answers PING with PONG
		lines := bufio.NewScanner(c)
		for lines.Scan() {
			text := lines.Text()
			if text == "PING" {
				text = "PONG"
			}
			if _, err := fmt.Fprintf(c, "%s\r\n", text); err != nil {
				return
			}
		}
	})
	for name, c := range map[string][]string{
		"length": {"target", target, "framing", "length-field", "beat-message", "hb"},
		"little": {"target", target, "framing", "length-field", "length-width", "2", "mode", "echo",
			"length-order", "little"},
		"whole": {"target", target, "framing", "length-field", "length-offset", "1", "mode", "echo",
			"length-adjust", "-5"},
		"varint":  {"target", target, "framing", "varint", "beat-message", `\x08\x01`},
		"lines":   {"target", pong, "framing", "lines", "beat-message", "PING", "answer-message", "PONG"},
		"nul":     {"target", target, "framing", "delimiter", "delimiter", `\x00`, "mode", "echo"},
		"strings": {"target", target, "framing", "delimiter", "delimiter", "END", "beat-message", `{"type":"ping"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answeredRun(t, append([]string{"connections", "5", "interval", "100ms", "timeout", "1h"}, c...)...)
		})
	}
	r := doRun(t, nil, "target", target, "framing", "lines", "beat-message", "PING", "answer-message", "PONG",
		"connections", "1", "interval", "100ms", "duration", "1s", "timeout", "1h")
	if r.Frames.Wrong == 0 || !strings.Contains(r.Frames.WrongExample, "data with 4 bytes (50 49 4e 47)") {
		t.Errorf("the beat as its answer: %s", r.out)
	}
}

// The server of this module detects every kind of dead peer on every edge, and kills
// no live one.
func TestOwnEdges(t *testing.T) {
	t.Parallel()
	a := testcert.New(t)
	cert, key := a.Issue(t, "server", "127.0.0.1")
	schemes := []string{"tls://", "ws://", "wss://"}
	s, err := server.New(server.Config{
		Listen: []string{"tls://127.0.0.1:0", "ws://127.0.0.1:0/live", "wss://127.0.0.1:0/live"},
		Edge:   server.Edge{Certificates: []server.Certificate{{Cert: cert, Key: key}}},
		Beat:   400 * time.Millisecond, Timeout: 1500 * time.Millisecond, BeatMin: 100 * time.Millisecond,
		Drain: time.Second, Logger: slog.New(slog.DiscardHandler)}, server.Echo{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { stop(); wg.Wait() })
	for i, addr := range s.Addrs() {
		t.Run(schemes[i], func(t *testing.T) {
			t.Parallel()
			target := schemes[i] + addr.String()
			if i > 0 {
				target += "/live"
			}
			pairs := []string{"target", target, "connections", "40", "interval", "300ms", "duration", "4s",
				"hello-device", "d-", "bound", "2s"}
			for _, fault := range []string{"silent:5@100ms", "freeze:2@100ms", "partial:2@100ms", "drip:2@100ms",
				"halfclose:2@100ms", "garbage:2@100ms,+reconnect", "oversize:2@100ms",
				"reset:2@100ms", "herd:4@200ms"} {
				pairs = append(pairs, "fault", fault)
			}
			if schemes[i] != "ws://" {
				pairs = append(pairs, "ca", a.File)
			}
			r := doRun(t, nil, pairs...)
			d := r.Detection
			if d.Injected != 19 || d.Detected != 17 || d.Undetected+d.Early != 0 || r.FalseKills.Count != 0 ||
				r.Unexplained.Count != 0 || r.Frames.Wrong != 0 || r.Connections.Reconnects != 6 {
				t.Error(r.out)
			}
		})
	}
}
