package tlsedge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// clientHello returns the first flight of a client.
func clientHello(t *testing.T) []byte {
	client, server := net.Pipe()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "s.example"}).Handshake()
	}()
	b := make([]byte, 1<<14)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	return b[:n]
}

// A ClientHello that ends anywhere, and one that comes too slowly, has the time of the
// whole handshake and no more, and keeps no slot.
func TestHelloIncomplete(t *testing.T) {
	t.Parallel()
	const timeout = 5 * time.Second
	a := newAuthority(t)
	hello := clientHello(t)
	s, err := New(Config{Certificates: []Pair{a.issue(t, "s", []string{"s.example"})}, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ended := make(chan error)
		var clients sync.WaitGroup
		defer clients.Wait()
		start := func(name string, send func(client net.Conn)) {
			client, server := net.Pipe()
			go func() {
				_, err := s.Handshake(server)
				_ = server.Close()
				if took := time.Since(began); took != timeout || !errors.Is(err, os.ErrDeadlineExceeded) ||
					!strings.Contains(err.Error(), "not complete after 5s") {
					ended <- fmt.Errorf("%s: after %v: %w", name, took, err)
					return
				}
				ended <- nil
			}()
			clients.Go(func() {
				send(client)
				_, _ = io.Copy(io.Discard, client)
			})
		}
		for n := range hello {
			start(fmt.Sprintf("%d bytes", n), func(client net.Conn) { _, _ = client.Write(hello[:n]) })
		}
		start("a byte a second", func(client net.Conn) {
			for i := range hello {
				if _, err := client.Write(hello[i : i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		start("nothing after the hello", func(client net.Conn) { _, _ = client.Write(hello) })
		for range len(hello) + 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		if n := len(s.slots); n != 0 {
			t.Errorf("%d slots are taken", n)
		}
	})
}
