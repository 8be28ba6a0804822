package server

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"heartwheel/internal/testcert"
)

// echoes wants the connection to echo a message.
func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	frame := data("hello")
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
	expect(t, c, frame)
}

// Old versions are refused, and both new ones are spoken.
func TestTLSVersions(t *testing.T) {
	t.Parallel()
	cfg, tc := secureConfig(t)
	s, urls := edgeURLs(t, cfg, Echo{})
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13} {
		for _, url := range urls[1:] {
			tc := tc.Clone()
			tc.MinVersion, tc.MaxVersion = version, version
			c := dialByHand(t, url, tc).(*tls.Conn)
			err := c.Handshake()
			if old := version < tls.VersionTLS12; old != (err != nil) ||
				old && !strings.Contains(err.Error(), "protocol version not supported") {
				t.Errorf("%s over %s: %v", tls.VersionName(version), url, err)
			}
			_ = c.Close()
		}
	}
	eventually(t, "all are closed", func() bool { return s.Stats().Connections == 0 })
	if n := s.Stats().Refused["tls_handshake"]; n != 4 {
		t.Errorf("%d refused: %v", n, s.Stats().Refused)
	}
}

// A client of TLS 1.2 that has no cipher with authenticated encryption is refused.
func TestTLSCiphers(t *testing.T) {
	t.Parallel()
	cfg, tc := secureConfig(t)
	_, urls := edgeURLs(t, cfg, Echo{})
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:       true,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384:       true,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256: true,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA:          false,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256:       false,
		tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA:              false,
	} {
		tc := tc.Clone()
		tc.MaxVersion, tc.CipherSuites = tls.VersionTLS12, []uint16{suite}
		if err := dialByHand(t, urls[2], tc).(*tls.Conn).Handshake(); (err == nil) != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

// A session is resumed, also after its certificate was replaced; a full handshake sees
// the new one.
func TestTLSResumption(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	cert, key := ca.Issue(t, "server", "localhost")
	cfg := Config{Loops: 1, Listen: []string{"tls://127.0.0.1:0"}, Edge: Edge{Certificates: []Certificate{{cert, key}}}}
	s, urls := edgeURLs(t, cfg, Echo{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		tc := &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", MinVersion: version, MaxVersion: version}
		first := dialByHand(t, urls[0], tc).(*tls.Conn)
		echoes(t, first)
		old := first.ConnectionState().PeerCertificates[0].SerialNumber

		tc.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for round, resumed := range []bool{false, true, true} {
			if round == 2 { // with the same names, a new key
				ca.Issue(t, "server", "localhost")
				if err := s.Reload(cfg); err != nil {
					t.Fatal(err)
				}
			}
			c := dialByHand(t, urls[0], tc).(*tls.Conn)
			echoes(t, c)
			if got := c.ConnectionState().DidResume; got != resumed {
				t.Errorf("%s, connection %d: resumed %v", tls.VersionName(version), round, got)
			}
		}
		echoes(t, first) // its session is as it was
		tc.ClientSessionCache = nil
		c := dialByHand(t, urls[0], tc).(*tls.Conn)
		echoes(t, c)
		if c.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(old) == 0 {
			t.Error("the certificate is the old one")
		}
	}
}

// The client's name chooses the certificate; ALPN matters to wss alone.
func TestTLSNames(t *testing.T) {
	t.Parallel()
	ca := testcert.New(t)
	var edge Edge
	for _, name := range []string{"one.example", "two.example", "*.wild.example"} {
		cert, key := ca.Issue(t, strings.Trim(name, "*."), name)
		edge.Certificates = append(edge.Certificates, Certificate{cert, key})
	}
	cfg := Config{Loops: 1, Listen: []string{"tls://127.0.0.1:0", "wss://127.0.0.1:0/"}, Edge: edge}
	_, urls := edgeURLs(t, cfg, Echo{})
	for name, want := range map[string]string{
		"one.example": "one.example", "two.example": "two.example", "TWO.example": "two.example",
		"a.wild.example": "*.wild.example", "unknown.example": "one.example", "": "one.example",
	} {
		for _, url := range urls {
			c := dialByHand(t, url, &tls.Config{ServerName: name, InsecureSkipVerify: true}).(*tls.Conn)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			if got := c.ConnectionState().PeerCertificates[0].DNSNames[0]; got != want {
				t.Errorf("%s: for %q the certificate is that of %s, want %s", url, name, got, want)
			}
		}
	}
	for _, tt := range []struct {
		url    string
		offer  []string
		agreed string
		fails  bool
	}{
		{urls[0], nil, "", false},
		{urls[0], []string{"h2"}, "", false}, // the native stream names no protocol
		{urls[1], nil, "", false},
		{urls[1], []string{"h2", "http/1.1"}, "http/1.1", false},
		{urls[1], []string{"h2"}, "", true},
	} {
		c := dialByHand(t, tt.url, &tls.Config{NextProtos: tt.offer, InsecureSkipVerify: true}).(*tls.Conn)
		err := c.Handshake()
		if tt.fails != (err != nil) || err != nil && !strings.Contains(err.Error(), "no application protocol") ||
			c.ConnectionState().NegotiatedProtocol != tt.agreed {
			t.Errorf("%s, %q: %q, %v", tt.url, tt.offer, c.ConnectionState().NegotiatedProtocol, err)
		}
	}
}

// With a CA for clients each must have a certificate of it.
func TestTLSClientCertificates(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	ca, other := testcert.New(t), testcert.New(t)
	cert, key := ca.Issue(t, "server", "localhost")
	s, urls := edgeURLs(t, Config{
		Loops: 1, Listen: []string{"tls://127.0.0.1:0"}, Logger: logTo(&log, slog.LevelInfo),
		Edge: Edge{Certificates: []Certificate{{cert, key}}, ClientCA: ca.File},
	}, Echo{})
	load := func(a *testcert.Authority, until time.Time) []tls.Certificate {
		cert, key := a.IssueUntil(t, until, "device", "device.example")
		c, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	soon := time.Now().Add(time.Hour)
	for name, tt := range map[string]struct {
		certs      []tls.Certificate
		says, logs string
	}{
		"its own":     {load(ca, soon), "", ""},
		"none":        {nil, "certificate required", "didn't provide a certificate"},
		"of another":  {load(other, soon), "unknown certificate authority", "unknown authority"},
		"one expired": {load(ca, time.Now().Add(-time.Minute)), "expired certificate", "expired"},
	} {
		s.tlsLog.last.Store(0)
		c := dialByHand(t, urls[0], &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", GetClientCertificate: func(
			*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if tt.certs == nil {
				return &tls.Certificate{}, nil
			}
			return &tt.certs[0], nil
		}}).(*tls.Conn)
		_, _ = c.Write(data("x"))
		got := make([]byte, len(data("x")))
		if _, err := io.ReadFull(c, got); (tt.says == "") != (err == nil) ||
			err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", name, err)
		}
		if tt.logs != "" {
			eventually(t, name, func() bool { return len(log.lines("a TLS handshake failed", tt.logs)) == 1 })
		}
	}
}

// A client without TLS on a port that has it costs a line in the log.
func TestPlainOnTLSPort(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	cfg, _ := secureConfig(t)
	cfg.Logger = logTo(&log, slog.LevelInfo)
	s, urls := edgeURLs(t, cfg, Echo{})
	open := func(url string) net.Conn { // as if it were plain
		_, host, _ := strings.Cut(url, "://")
		host, _, _ = strings.Cut(host, "/")
		return dialByHand(t, "tcp://"+host, nil)
	}
	for _, url := range urls[1:] {
		for _, b := range []string{string(data("hello")), "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "\x00\x00\x00\x00"} {
			s.tlsLog.last.Store(0)
			before := len(log.lines("the client connects without TLS"))
			c := open(url)
			_, _ = io.WriteString(c, b)
			if strings.HasPrefix(b, "\x00\x00\x00\x00") { // a record's header is 5 bytes
				_, _ = io.WriteString(c, "\x00")
			}
			_, _ = io.Copy(io.Discard, c)
			eventually(t, "a line says so", func() bool {
				return len(log.lines("the client connects without TLS")) > before
			})
		}
	}
}

// So does a client with TLS on a port without it.
func TestTLSOnPlainPort(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"ws://127.0.0.1:0/": "connect with ws instead of wss", "tcp://127.0.0.1:0": "connect without TLS",
	} {
		var log syncBuffer
		s, urls := edgeURLs(t, Config{Loops: 1, Listen: []string{listen}, Logger: logTo(&log, slog.LevelInfo)}, Echo{})
		_, host, _ := strings.Cut(strings.TrimSuffix(urls[0], "/"), "://")
		if c, err := tls.Dial("tcp", host, &tls.Config{InsecureSkipVerify: true}); err == nil {
			t.Errorf("a handshake with %s", listen)
			_ = c.Close()
		}
		eventually(t, "it is closed", func() bool { return s.Stats().Closed["protocol_error"] == 1 })
		if l := log.lines("TLS handshake where", want); len(l) != 1 {
			t.Errorf("%s: %q", listen, log.lines())
		}
	}
}

// A renegotiation ends the connection with an alert; a key update goes on. crypto/tls
// asks for neither, openssl does.
func TestTLSRenegotiation(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip(err)
	}
	t.Parallel()
	cfg, _ := secureConfig(t)
	s, urls := edgeURLs(t, cfg, Echo{})
	run := func(stdin string, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, openssl, append([]string{"s_client", "-connect",
			strings.TrimPrefix(urls[2], "tls://")}, args...)...)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = r
		done := make(chan []byte, 1)
		go func() { b, _ := cmd.CombinedOutput(); done <- b }()
		eventually(t, "it is connected", func() bool { return s.Stats().Connections == 1 && s.Stats().Accepted > 0 })
		time.Sleep(50 * time.Millisecond) // it reads commands once it is connected
		_, _ = io.WriteString(w, stdin)
		if strings.HasPrefix(stdin, "K") {
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(w, "Q\n")
		}
		out := string(<-done)
		_ = w.Close()
		_ = r.Close()
		eventually(t, "it is closed", func() bool { return s.Stats().Connections == 0 })
		return out
	}
	if out := run("R\n", "-tls1_2"); !strings.Contains(out, "RENEGOTIATING") || !strings.Contains(out, "alert") {
		t.Errorf("a renegotiation: %s", out)
	}
	if out := run("K\n", "-tls1_3"); !strings.Contains(out, "KEYUPDATE") || strings.Contains(out, "alert") {
		t.Errorf("a key update: %s", out)
	}
	if st := s.Stats(); st.Closed["protocol_error"] != 1 || st.Closed["peer_closed"] != 1 {
		t.Errorf("closed %v", st.Closed)
	}
}
