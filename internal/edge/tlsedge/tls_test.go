package tlsedge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/testcert"
)

// An authority issues certificates for tests.
type authority struct {
	*testcert.Authority
	dir string // of its files; its own certificate is ca.pem
}

func newAuthority(t testing.TB) *authority {
	a := testcert.New(t)
	return &authority{a, filepath.Dir(a.File)}
}

// issue writes NAME.pem and NAME.key, and returns them.
func (a *authority) issue(t testing.TB, name string, names []string) (p Pair) {
	t.Helper()
	p.Cert, p.Key = a.Issue(t, name, names...)
	return p
}

func write(t testing.TB, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newServer(t testing.TB, c Config) *Server {
	t.Helper()
	c.Timeout = time.Minute // no test waits for it, and a busy machine may be slow
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A served is a connection of the server whose loop is the goroutine of echo.
type served struct {
	tr  *Transport
	err error
}

// echo does the handshake and sends back all plaintext, in reads of at most size
// bytes. A byte 0 that is read has the server send close_notify.
func echo(s *Server, c net.Conn, size int) <-chan served {
	done := make(chan served, 1)
	go func() {
		defer c.Close()
		tr, err := s.Handshake(c)
		if err != nil {
			done <- served{nil, err}
			return
		}
		var in, plain, out []byte
		b := make([]byte, size)
		for {
			n, err := c.Read(b)
			if err != nil {
				done <- served{tr, err}
				return
			}
			in = append(in, b[:n]...)
			var used int
			plain, used, err = tr.Open(plain[:0], in)
			in = in[used:]
			out, _ = tr.Seal(out[:0], plain)
			if err != nil || bytes.IndexByte(plain, 0) >= 0 {
				out = tr.AppendClose(out)
			}
			_, _ = c.Write(out)
			if err != nil {
				done <- served{tr, err}
				return
			}
		}
	}()
	return done
}

// pair returns both ends of a TCP connection.
func pair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// dribble writes a byte at a time.
type dribble struct{ net.Conn }

func (d dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// exchange sends content of n bytes and reads it back.
func exchange(t testing.TB, c io.ReadWriter, n int) {
	t.Helper()
	want := bytes.Repeat([]byte("x"), n)
	go func() { _, _ = c.Write(want) }()
	got := make([]byte, n)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes: %v", n, err)
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := newServer(t, Config{Certificates: []Pair{a.issue(t, "s", []string{"s.example"})}, ALPN: []string{"mqtt"}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, size := range []int{1, 7, 64 << 10} {
			t.Run(fmt.Sprintf("%s in reads of %d", tls.VersionName(version), size), func(t *testing.T) {
				conn, server := pair(t)
				done := echo(s, server, size)
				if size == 1 {
					conn = dribble{conn}
				}
				cache := tls.NewLRUClientSessionCache(1)
				config := &tls.Config{RootCAs: a.Pool, ServerName: "s.example",
					MinVersion: version, MaxVersion: version,
					NextProtos: []string{"mqtt"}, ClientSessionCache: cache}
				c := tls.Client(conn, config)
				for _, n := range []int{1, 2, 1000, 16 << 10, 40_000} {
					exchange(t, c, n)
				}
				if p := c.ConnectionState().NegotiatedProtocol; p != "mqtt" {
					t.Errorf("protocol %q", p)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("after close_notify: %v", err)
				}
				r := <-done
				if r.err != ErrClosed || r.tr.Kept() < 8<<10 || r.tr.State().Version != version {
					t.Errorf("server: %v, %d bytes kept", r.err, r.tr.Kept())
				}
				if _, _, err := r.tr.Open(nil, nil); err != ErrClosed {
					t.Errorf("Open again: %v", err)
				}
				if _, err := r.tr.Seal(nil, []byte("x")); err == nil {
					t.Error("sealed after AppendClose")
				}
				conn, server = pair(t)
				done = echo(s, server, size)
				if err := s.Reload(); err != nil {
					t.Fatal(err)
				}
				c = tls.Client(conn, config)
				exchange(t, c, 1)
				if !c.ConnectionState().DidResume {
					t.Error("not resumed after a reload")
				}
				_, _ = c.Write([]byte{0})
				_, _ = io.ReadFull(c, make([]byte, 1))
				if _, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("after close_notify of the server: %v", err)
				}
				c.Close()
				<-done
			})
		}
	}
}

// connect returns a Transport and its client, over a connection that the test reads
// itself.
func connect(t testing.TB, s *Server, c *tls.Config) (tr *Transport, client *tls.Conn, wire net.Conn) {
	t.Helper()
	conn, server := pair(t)
	client = tls.Client(conn, c)
	failed := make(chan error, 1)
	go func() { failed <- client.Handshake() }()
	tr, err := s.Handshake(server)
	if err = errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	return tr, client, server
}

// records reads n bytes or more from the wire.
func records(t testing.TB, wire net.Conn, n int) []byte {
	t.Helper()
	b := make([]byte, n+(1<<15))
	n, err := io.ReadAtLeast(wire, b, n)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// TestForged: a changed record ends the connection with an alert, after the
// plaintext before it.
func TestForged(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := newServer(t, Config{Certificates: []Pair{a.issue(t, "s", []string{"s.example"})}})
	for name, forge := range map[string]func(b []byte, second int) []byte{
		"content": func(b []byte, second int) []byte { b[len(b)-1] ^= 1; return b },
		"type":    func(b []byte, second int) []byte { b[second] = 99; return b },
		"length": func(b []byte, second int) []byte { // known before its bytes are there
			b[second+3] = 0xFF
			return b[:second+5]
		},
	} {
		tr, client, wire := connect(t, s, &tls.Config{RootCAs: a.Pool, ServerName: "s.example"})
		_, _ = client.Write([]byte("first"))
		one := records(t, wire, 1)
		_, _ = client.Write([]byte("second"))
		both := forge(append(one, records(t, wire, 1)...), len(one))
		plain, used, err := tr.Open(nil, both)
		var e *codec.Error
		if string(plain) != "first" || !errors.As(err, &e) || e.Code != codec.CodeProtocolError || used < len(one) {
			t.Errorf("%s: %q, %d, %v", name, plain, used, err)
		}
		if !tr.Pending() {
			t.Errorf("%s: no alert", name)
		}
		out, err := tr.Seal(nil, nil)
		if err != nil || tr.Pending() {
			t.Errorf("%s: Seal: %v", name, err)
		}
		_, _ = wire.Write(out)
		if _, err := client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "remote error") {
			t.Errorf("%s: client: %v", name, err)
		}
	}
}

// TestClientCertificates: what is wrong with a client's certificate, or missing, is
// said on both sides; the right one is in State.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	certificates := []Pair{a.issue(t, "s", []string{"s.example"})}
	config := Config{Certificates: certificates, ClientCA: filepath.Join(a.dir, "ca.pem")}
	s := newServer(t, config)
	config.ClientOptional = true
	optional := newServer(t, config)
	load := func(p Pair) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	good := load(a.issue(t, "device-1", []string{"d.example"}))
	for _, c := range []struct {
		name   string
		server *Server
		certs  []tls.Certificate
		want   string
	}{
		{"right", s, good, ""},
		{"none", s, nil, "didn't provide a certificate"},
		{"another authority", s, load(other.issue(t, "d", []string{"d.example"})), "unknown authority"},
		{"none, optional", optional, nil, ""},
		{"another authority, optional", optional, load(other.issue(t, "e", []string{"d.example"})),
			"unknown authority"},
	} {
		conn, server := pair(t)
		client := tls.Client(conn, &tls.Config{RootCAs: a.Pool, ServerName: "s.example", GetClientCertificate: func(
			*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(c.certs) == 0 {
				return &tls.Certificate{}, nil
			}
			return &c.certs[0], nil
		}})
		go func() { _ = client.Handshake() }()
		tr, err := c.server.Handshake(server)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && len(c.certs) > 0 && tr.State().PeerCertificates[0].Subject.CommonName != "device-1" {
			t.Errorf("%s: %v", c.name, tr.State().PeerCertificates[0].Subject)
		}
	}
}

// TestReload: the name chooses the certificate, a reload changes it for the next
// handshake, and one that fails changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one, two := a.issue(t, "one", []string{"one.example"}), a.issue(t, "two", []string{"two.example"})
	s := newServer(t, Config{Certificates: []Pair{one, two}})
	check := func(serverName, want string) {
		t.Helper()
		_, client, _ := connect(t, s, &tls.Config{ServerName: serverName, InsecureSkipVerify: true})
		if got := client.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
			t.Errorf("for %q: certificate of %s, want %s", serverName, got, want)
		}
	}
	check("one.example", "one.example")
	check("two.example", "two.example")
	check("other.example", "one.example")
	check("", "one.example")
	if s.Changed() {
		t.Error("changed")
	}
	a.issue(t, "two", []string{"new.example"})
	if !s.Changed() {
		t.Error("a new file is not noticed")
	}
	check("two.example", "two.example")
	if err := s.Reload(); err != nil || s.Changed() {
		t.Fatal(err)
	}
	check("new.example", "new.example")
	if c := s.Certificates(); len(c) != 2 || c[1].Names[0] != "new.example" || time.Until(c[1].NotAfter) > time.Hour {
		t.Errorf("certificates %+v", c)
	}
	write(t, one.Cert, []byte("not a certificate"))
	if err := s.Reload(); err == nil || !s.Changed() {
		t.Errorf("a bad file: %v", err)
	}
	check("one.example", "one.example")
}

// TestFiles: each mistake is named with its file, all of them at once.
func TestFiles(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	one, two := a.issue(t, "one", []string{"x.example"}), a.issue(t, "two", []string{"X.example"})
	text := filepath.Join(a.dir, "text")
	write(t, text, []byte("hello"))
	gone := filepath.Join(a.dir, "gone")
	_, err := New(Config{ClientCA: one.Cert, Certificates: []Pair{
		one, two, {gone, one.Key}, {one.Cert, gone}, {one.Cert, two.Key}, {text, one.Key}, {one.Cert, text},
		{one.Key, one.Cert},
	}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		one.Cert + " and " + two.Cert + " are both for X.example", "certificate: open " + gone + ": no such file",
		"key of " + one.Cert + ": open " + gone, "key " + two.Key + " is not that of certificate " + one.Cert,
		text + " is not in PEM", one.Key + " has no CERTIFICATE, but PRIVATE KEY",
		one.Cert + ` has "CN=one", which is no authority`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in:\n%v", want, err)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no certificate, no error")
	}
}

// TestSlots: clients that are silent, or that stop after their ClientHello, keep no
// slot; the only one is free for a client that goes on.
func TestSlots(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := newServer(t, Config{Certificates: []Pair{a.issue(t, "s", []string{"s.example"})}, Handshakes: 1})
	hello := make([]byte, 1<<12)
	conn, server := pair(t)
	go func() { _ = tls.Client(conn, &tls.Config{ServerName: "s.example"}).Handshake() }()
	n, _ := server.Read(hello)
	var stuck []<-chan served
	for i := range 20 {
		conn, server := pair(t)
		stuck = append(stuck, echo(s, server, 1))
		_, _ = conn.Write(hello[:n*(i%2)])
		if i%2 == 1 { // the server has answered
			_, _ = io.ReadFull(conn, make([]byte, 100))
		}
		defer conn.Close()
	}
	_, client, _ := connect(t, s, &tls.Config{RootCAs: a.Pool, ServerName: "s.example"})
	if !client.ConnectionState().HandshakeComplete {
		t.Error("no handshake")
	}
	for _, done := range stuck {
		select {
		case r := <-done:
			t.Errorf("ended: %v", r.err)
		default:
		}
	}
	for _, c := range []struct{ first, want string }{
		{"GET / HTTP/1.1\r\n\r\n", ErrNotTLS.Error()}, {"\x00\x00\x00\x00\x00", ErrNotTLS.Error()},
		{"", "not complete after 20ms"},
	} {
		cfg := s.loaded.Load().c
		cfg.Timeout = 20 * time.Millisecond
		if c.first != "" {
			cfg.Timeout = time.Minute
		}
		quick, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn, server := pair(t)
		_, _ = io.WriteString(conn, c.first)
		if _, err := quick.Handshake(server); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.first, err)
		}
	}
}

// BenchmarkIdle measures what a connection keeps, in bytes of heap: as the
// handshake left it, and after a record of 16 KiB.
func BenchmarkIdle(b *testing.B) {
	a := newAuthority(b)
	s := newServer(b, Config{Certificates: []Pair{a.issue(b, "s", []string{"s.example"})}})
	config := &tls.Config{RootCAs: a.Pool, ServerName: "s.example", DynamicRecordSizingDisabled: true}
	for _, size := range []int{1, 16 << 10} {
		b.Run(fmt.Sprintf("after %d bytes", size), func(b *testing.B) {
			const n = 200
			var all [n]*Transport
			plain := make([]byte, 0, 1<<16)
			for b.Loop() {
				before := heap()
				for i := range all {
					tr, client, wire := connect(b, s, config)
					go func() { _, _ = client.Write(make([]byte, size)) }()
					var in []byte
					for got := 0; got < size; {
						in = append(in, records(b, wire, 1)...)
						p, used, err := tr.Open(plain[:0], in)
						if err != nil {
							b.Fatal(err)
						}
						in, got = in[used:], got+len(p)
					}
					client.NetConn().Close()
					wire.Close()
					all[i] = tr
				}
				b.ReportMetric(float64(heap()-before)/n, "B/conn")
				runtime.KeepAlive(&all)
				clear(all[:])
			}
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkOpen is a record in and out.
func BenchmarkOpen(b *testing.B) {
	a := newAuthority(b)
	s := newServer(b, Config{Certificates: []Pair{a.issue(b, "s", []string{"s.example"})}})
	tr, client, wire := connect(b, s, &tls.Config{RootCAs: a.Pool, ServerName: "s.example"})
	var plain, out []byte
	for b.Loop() {
		_, _ = client.Write([]byte("0123456789abcdef"))
		plain, _, _ = tr.Open(plain[:0], records(b, wire, 1))
		out, _ = tr.Seal(out[:0], plain)
	}
}
