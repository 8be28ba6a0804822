package tlsedge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listenTLS is a crypto/tls server that echoes. Connections to the second address
// have to speak TLS 1.2.
func listenTLS(t *testing.T, p Pair) (addrs [2]string) {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	for i, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert},
			MaxVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(c, c)
					c.Close()
				}()
			}
		}()
		addrs[i] = l.Addr().String()
	}
	return addrs
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A Client talks to a server of crypto/tls, whatever the pieces in which records come.
func TestClient(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	addrs := listenTLS(t, a.issue(t, "s", []string{"s.example"}))
	client, err := NewClient(ClientConfig{CA: filepath.Join(a.dir, "ca.pem"), ServerName: "s.example",
		Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	for i, addr := range addrs {
		c := dial(t, addr)
		tr, _, err := client.Handshake(c)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Repeat([]byte("content "), 5000)
		out, _ := tr.Seal(nil, want)
		go func() { _, _ = c.Write(out) }()
		var got, in []byte
		for n := 1; len(got) < len(want); n = n*3 + 1 {
			b := make([]byte, min(n, 4096))
			k, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			in = append(in, b[:k]...)
			var used int
			if got, used, err = tr.Open(got, in); err != nil {
				t.Fatal(err)
			}
			in = in[used:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%d bytes, or not the same", len(got))
		}
		_, _ = c.Write(tr.AppendClose(nil))
		rest, _ := io.ReadAll(c)
		if _, _, err := tr.Open(nil, append(in, rest...)); err != ErrClosed {
			t.Errorf("server %d: %v", i, err)
		}
	}
}

// What is wrong with a certificate, or with the server, is said.
func TestClientErrors(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	certificate := a.issue(t, "s", []string{"s.example"})
	addr := listenTLS(t, certificate)[0]
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { plain.Close() })
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, c, 5)
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	ca := filepath.Join(a.dir, "ca.pem")
	for _, c := range []struct {
		config ClientConfig
		addr   string
		want   string
	}{
		{ClientConfig{CA: ca, ServerName: "s.example"}, addr, ""},
		{ClientConfig{CA: certificate.Cert, ServerName: "s.example"}, addr, ""},
		{ClientConfig{Insecure: true, ServerName: "other.example"}, addr, ""},
		{ClientConfig{CA: ca, ServerName: "other.example"}, addr, "not other.example"},
		{ClientConfig{CA: filepath.Join(other.dir, "ca.pem"), ServerName: "s.example"}, addr, "unknown authority"},
		{ClientConfig{Insecure: true}, plain.Addr().String(), ErrServerNotTLS.Error()},
	} {
		c.config.Timeout = time.Minute
		client, err := NewClient(c.config)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = client.Handshake(dial(t, c.addr))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.config, err, c.want)
		}
	}
	for file, want := range map[string]string{"missing.pem": "CA: open", certificate.Key: "has no CERTIFICATE"} {
		if _, err := NewClient(ClientConfig{CA: file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
	// A server that asks for a certificate gets the one that there is.
	asking := newServer(t, Config{Certificates: []Pair{certificate}, ClientCA: ca})
	for _, own := range []Pair{{}, a.issue(t, "device-1", []string{"d.example"})} {
		client, err := NewClient(ClientConfig{CA: ca, ServerName: "s.example", Certificate: own, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		near, far := pair(t)
		go func() { // with TLS 1.3 it ends before the server has looked at the certificate
			_, _, _ = client.Handshake(near)
			_, _ = io.Copy(io.Discard, near)
		}()
		tr, err := asking.Handshake(far)
		if err == nil {
			err = tr.State().PeerCertificates[0].VerifyHostname("d.example")
		}
		if (err == nil) != (own != Pair{}) {
			t.Errorf("%v: %v", own, err)
		}
		far.Close()
	}
	if _, err := NewClient(ClientConfig{Certificate: Pair{certificate.Cert, ca}}); err == nil {
		t.Error("a certificate without its key")
	}
	// Handshakes wait for each other, and for how long is known.
	client, _ := NewClient(ClientConfig{Insecure: true, Timeout: time.Minute, Handshakes: 1})
	client.slots <- struct{}{}
	release := time.AfterFunc(20*time.Millisecond, func() { <-client.slots })
	defer release.Stop()
	if _, waited, err := client.Handshake(dial(t, addr)); err != nil || waited < 10*time.Millisecond {
		t.Errorf("waited %v, %v", waited, err)
	}
	client.timeout = time.Millisecond
	client.slots <- struct{}{}
	var late net.Error
	if _, _, err := client.Handshake(dial(t, addr)); !errors.As(err, &late) || !late.Timeout() {
		t.Error(err)
	}
}
