package faults

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/testcert"
)

// startSecure starts a server that listens at url, and returns the client's settings.
func startSecure(t *testing.T, url string, args ...string) (*serverProcess, *tls.Config) {
	t.Helper()
	ca := testcert.New(t)
	cert, key := ca.Issue(t, "server", "localhost")
	s := startServer(t, binary(t), append([]string{"--listen", url, "--tls-cert", cert, "--tls-key", key}, args...)...)
	_, host, _ := strings.Cut(s.addr, "://")
	if host == "" {
		host = s.addr
	}
	s.addr, _, _ = strings.Cut(host, "/")
	return s, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}
}

// dialSpread dials from an address of the loopback network, few connections to each.
func dialSpread(addr string, n int) (net.Conn, error) {
	d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(2+n/5000%200), 1)}}
	return d.Dial("tcp", addr)
}

// TestSilentHandshakes has many clients connect to a TLS listener and send nothing, or
// the first bytes of a ClientHello. Each is ended when its time is over and another
// takes its place, while valid handshakes are served.
func TestSilentHandshakes(t *testing.T) {
	parallelSmoke(t)
	silent := sized(300, 10_000, 10_000)
	lasts := sized(time.Second, 12*time.Second, 30*time.Second)
	const bound = time.Second
	s, config := startSecure(t, "tls://127.0.0.1:0")
	stop := make(chan struct{})
	var dialers sync.WaitGroup
	const workers = 4
	full := make(chan struct{}, workers)
	fail := func(err error) {
		select {
		case <-stop:
		default:
			t.Errorf("a silent client cannot connect: %v", err)
		}
	}
	for w := range workers {
		dialers.Go(func() {
			open := make([]net.Conn, silent/workers)
			defer func() {
				for _, c := range open {
					if c != nil {
						_ = c.Close()
					}
				}
			}()
			pause := 5 * time.Second / time.Duration(len(open)) // the time for a first byte
			for n := 0; ; n++ {
				c, err := dialSpread(s.addr, n*workers+w)
				if err != nil {
					fail(err)
					return
				}
				if n%3 == 2 {
					_, _ = c.Write([]byte("\x16\x03\x01\x02\x00\x01"))
				}
				if old := open[n%len(open)]; old != nil {
					_ = old.Close()
				}
				open[n%len(open)] = c
				if n == len(open)-1 {
					full <- struct{}{}
				}
				if n < len(open) {
					continue
				}
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
			}
		})
	}
	for range workers {
		<-full
	}
	watched, lag := watch(t, s), ownLag()
	var took []time.Duration
	for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		began := time.Now()
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: limit}, "tcp", s.addr, config)
		if err != nil {
			t.Fatalf("after %d handshakes: %v", len(took), err)
		}
		beat := codec.AppendBeat(nil)
		_, _ = c.Write(beat)
		if _, err := io.ReadFull(c, make([]byte, len(beat))); err != nil {
			t.Fatalf("a beat is not answered: %v", err)
		}
		took = append(took, time.Since(began))
		_ = c.Close()
	}
	late, longest := lag(), time.Duration(0)
	for _, d := range watched.stop() {
		longest = max(longest, d.longest+d.stolen)
	}
	late += longest
	close(stop)
	dialers.Wait()
	if p99 := quantile(took, 0.99); p99 > bound+late {
		t.Errorf("p99 of %d handshakes is %s, beside %d silent clients; the bound is %s and %s that was measured",
			len(took), p99, silent, bound, late)
	}
	figure(t, 25, "%d silent clients of TLS, %.0f/s new: %d handshakes p50 %s, p99 %s, most %s", silent,
		float64(silent)/5, len(took), quantile(took, 0.5).Round(time.Millisecond),
		quantile(took, 0.99).Round(time.Millisecond), quantile(took, 1).Round(time.Millisecond))
	s.await("all have gone", func(m metrics) bool { return m.value("heartwheel_connections") == 0 })
	s.check()
}

// TestEdgeMemory measures what an idle connection takes, with its deadline armed, over
// each kind of listener.
func TestEdgeMemory(t *testing.T) {
	if size == smoke {
		t.Skip("a few connections tell little")
	}
	conns := sized(0, 5_000, 10_000)
	for _, tt := range []struct {
		scheme string
		aim    int64 // bytes
	}{{"tcp", 640}, {"ws", 900}, {"tls", 9 << 10}, {"wss", 9 << 10}} {
		t.Run(tt.scheme, func(t *testing.T) {
			s, config := startSecure(t, tt.scheme+"://127.0.0.1:0", "--beat", "5m", "--beat-max", "5m")
			open := func(n int) net.Conn {
				c, err := dialSpread(s.addr, n)
				if err != nil {
					t.Fatal(err)
				}
				var conn = c
				if tt.scheme == "tls" || tt.scheme == "wss" {
					conn = tls.Client(c, config)
				}
				_ = conn.SetDeadline(time.Now().Add(limit))
				want := string(codec.AppendBeat(nil))
				send := want
				if tt.scheme == "ws" || tt.scheme == "wss" {
					send = "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
						"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
					want = "HTTP/1.1 101 Switching Protocols"
				}
				_, _ = io.WriteString(conn, send)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
					t.Fatalf("%q, %v", got, err)
				}
				return c // of a client of TLS only the socket is needed
			}
			warm := make([]net.Conn, 200) // what a server needs once
			for i := range warm {
				warm[i] = open(i)
			}
			for _, c := range warm {
				_ = c.Close()
			}
			s.await("they have gone", func(m metrics) bool { return m.value("heartwheel_connections") == 0 })
			empty := settled(t, s)
			all := make([]net.Conn, conns)
			defer func() {
				for _, c := range all {
					if c != nil {
						_ = c.Close()
					}
				}
			}()
			for i := range all {
				all[i] = open(i)
			}
			full := settled(t, s)
			each := (full - empty) / int64(conns)
			if each > tt.aim*3/2 {
				t.Errorf("%d bytes of RSS for each connection; the aim is %d", each, tt.aim)
			}
			figure(t, 26, "%s: %d B of RSS for each of %d idle connections (aim %d), %d kB without",
				tt.scheme, each, conns, tt.aim, empty>>10)
			if m := s.metrics(); m.value("heartwheel_connections") != float64(conns) {
				t.Errorf("%v connections", m.value("heartwheel_connections"))
			}
			s.check()
		})
	}
}

// settled returns the resident memory once garbage is collected and given back.
func settled(t *testing.T, s *serverProcess) int64 {
	t.Helper()
	least := resident(t, s.pid())
	for range 10 {
		resp, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/heap?gc=1", s.ops))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		time.Sleep(300 * time.Millisecond)
		least = min(least, resident(t, s.pid()))
	}
	return least
}
