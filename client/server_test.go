package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// A tinyServer is a server on a real socket in this process, one goroutine for
// each connection. It welcomes, answers beats, and returns DATA.
type tinyServer struct {
	ln      net.Listener
	welcome codec.Welcome
	greet   func(nc net.Conn) // called before HELLO is read; may be nil

	mu    sync.Mutex
	wg    sync.WaitGroup
	conns map[net.Conn]bool // guarded by mu
	ended bool              // guarded by mu
}

// startTiny serves on 127.0.0.1, with TLS if cert is not nil.
func startTiny(tb testing.TB, cert *tls.Certificate, greet func(net.Conn)) *tinyServer {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*cert}})
	}
	return serveTiny(tb, ln, greet)
}

// serveTiny serves on ln.
func serveTiny(tb testing.TB, ln net.Listener, greet func(net.Conn)) *tinyServer {
	s := &tinyServer{ln: ln, welcome: welcomed, greet: greet, conns: map[net.Conn]bool{}}
	s.wg.Go(s.accept)
	tb.Cleanup(s.stop)
	return s
}

func (s *tinyServer) addr() string { return s.ln.Addr().String() }

// stop ends everything and waits for it. It may be called again.
func (s *tinyServer) stop() {
	s.mu.Lock()
	s.ended = true
	_ = s.ln.Close()
	for nc := range s.conns {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// awaitEmpty waits until every client has closed its end.
func (s *tinyServer) awaitEmpty(tb testing.TB) {
	tb.Helper()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(limit) {
			tb.Fatalf("%d connections are left open", n)
		}
	}
}

func (s *tinyServer) accept() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.ended {
			_ = nc.Close()
		} else {
			s.conns[nc] = true
			s.wg.Go(func() { s.serve(nc) })
		}
		s.mu.Unlock()
	}
}

func (s *tinyServer) serve(nc net.Conn) {
	defer func() {
		_ = nc.Close()
		s.mu.Lock()
		delete(s.conns, nc)
		s.mu.Unlock()
	}()
	if s.greet != nil {
		s.greet(nc)
	}
	var buf []byte
	for b := make([]byte, 4096); ; {
		n, err := nc.Read(b)
		if err != nil {
			return
		}
		buf = append(buf, b[:n]...)
		var out []byte
		for {
			f, n, err := codec.Decode(buf, codec.DefaultMaxFrame)
			if err != nil {
				_, _ = nc.Write(codec.AppendClose(out, codec.CodeProtocolError, err.Error()))
				return
			}
			if n == 0 {
				break
			}
			switch f.Op {
			case codec.OpHello:
				out = codec.AppendWelcome(out, s.welcome)
			case codec.OpBeat, codec.OpData:
				out = codec.AppendFrame(out, f.Op, f.Payload)
			} // CLOSE: the client closes the socket
			buf = buf[n:]
		}
		if _, err := nc.Write(out); err != nil {
			return
		}
	}
}

// certificate makes a self-signed certificate for host, and a pool that trusts it.
func certificate(tb testing.TB, host string) (*tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "heartwheel test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
