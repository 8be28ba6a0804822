package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

// A loop releases the Ticket of a connection that ends, however it ends, once.
func TestLoopReleasesTheTicket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{AddressMax: 10}, nil)
		a, err := admission.New(r.cfg.admission())
		if err != nil {
			t.Fatal(err)
		}
		r.do(func() {
			count := r.loop.release
			r.loop.release = func(ticket *admission.Ticket) { count(ticket); a.Release(ticket) }
		})
		var conns []*Conn
		var tickets []admission.Ticket
		for range 4 {
			ticket, refusal := a.Admit(netip.MustParseAddr("192.0.2.1"))
			if refusal.Refused() {
				t.Fatal(refusal.Cause)
			}
			c := r.open()
			r.do(func() { c.ticket = ticket })
			conns, tickets = append(conns, c), append(tickets, ticket)
		}
		s := checked(r)
		s.admission = a
		if c := s.Check(); !c.OK {
			t.Errorf("%+v", c)
		}
		r.do(func() { r.loop.lost(conns[0], PeerReset) })
		r.do(func() { r.loop.lost(conns[0], PeerReset); conns[0].Close(3000, "") })
		r.do(func() { conns[1].Close(3000, ""); r.loop.reap() })
		if n := a.AddressStats().Connections; n != 2 || a.Connections() != 2 {
			t.Errorf("%d connections are counted, %d by address, want 2", a.Connections(), n)
		}
		r.wait(time.Hour) // the others are silent
		if n := a.AddressStats().Connections; n != 0 || a.Connections() != 0 {
			t.Errorf("%d connections are counted at the end, %d by address", a.Connections(), n)
		}
		a.Release(&tickets[0]) // a copy, which may not be used
		if c := s.Check(); c.OK || !strings.Contains(fmt.Sprint(c.Problems), "by their addresses") {
			t.Errorf("one released twice: %+v", c)
		}
	})
}

// startStopped is startUntil with the clock of the address limits stopped.
func startStopped(t *testing.T, cfg Config) (s *Server, stop func() error) {
	t.Helper()
	cfg.Listen, cfg.Drain = []string{"tcp://127.0.0.1:0"}, 200*time.Millisecond
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	s.admission.Close()
	limits := s.cfg.admission()
	limits.Now = func() time.Duration { return 0 }
	if s.admission, err = admission.New(limits); err != nil {
		t.Fatal(err)
	}
	for _, l := range s.loops {
		l.release = s.admission.Release
	}
	return s, run(s)
}

// dialFrom connects to s from an address of the loopback network.
func dialFrom(t *testing.T, s *Server, source string) net.Conn {
	t.Helper()
	c, err := dialAs(s, source)
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		t.Skipf("cannot connect from %s here: %v", source, err)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func dialAs(s *Server, source string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	c, err := d.Dial("tcp", s.Addrs()[0].String())
	if err == nil {
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// in sees that c is served.
func in(t *testing.T, c net.Conn) {
	t.Helper()
	_, _ = c.Write(beat)
	expect(t, c, beat)
}

// What refused connections are sent, over sockets. The server counts them, keeps
// nothing of them, and serves the others.
func TestRefused(t *testing.T) {
	for why, test := range map[string]struct {
		cfg  Config
		room int // connections that are let in
		code codec.Code
		from time.Duration // after_ms
		to   time.Duration
	}{
		"address_rate": {Config{AddressRate: 1, AddressBurst: 3, Spread: 2 * time.Second}, 3, codec.CodeRateLimited,
			2 * time.Second, 2 * time.Second},
		"address_limit": {Config{AddressMax: 2}, 2, codec.CodeOverloaded, 5 * time.Second, 5 * time.Second},
		"flapping": {Config{FlapLimit: 4, BanTime: time.Hour}, 4, codec.CodeRateLimited, time.Hour - patience,
			time.Hour},
		"banned": {Config{Ban: []string{"127.0.0.2"}}, 0, codec.CodeBanned, 0, 0},
	} {
		t.Run(why, func(t *testing.T) {
			var log bytes.Buffer
			test.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s, stop := startStopped(t, test.cfg) // no time passes in which the rate gives another
			for range test.room {
				in(t, dialFrom(t, s, "127.0.0.2"))
			}
			over := dialFrom(t, s, "127.0.0.2")
			g, err := codec.ParseGoaway(readFrame(t, over).Payload)
			if err != nil || g.Code != test.code || g.Reason == "" {
				t.Fatalf("got %+v, %v; want code %d", g, err, test.code)
			}
			if after := time.Duration(g.AfterMS) * time.Millisecond; after < test.from || after > test.to {
				t.Errorf("after_ms is %s, want %s to %s", after, test.from, test.to)
			}
			if _, err := over.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("after GOAWAY: %v, want the end of the stream", err)
			}
			in(t, dialFrom(t, s, "127.0.0.3"))
			st := s.Stats()
			if st.Refused[why] != 1 || st.Accepted != uint64(test.room)+1 || st.Connections != test.room+1 {
				t.Errorf("%+v", st)
			}
			if c := s.Check(); !c.OK {
				t.Errorf("%+v", c)
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if said := strings.Contains(log.String(), "address=127.0.0.2/32"); said != (why == "flapping") {
				t.Errorf("the log says %s", &log)
			}
			if n := s.admission.AddressStats().Connections; n != 0 {
				t.Errorf("%d connections are counted after the end", n)
			}
		})
	}
}

// An address that connects again and again gets ten notices within a second, and
// resets otherwise.
func TestMostAreReset(t *testing.T) {
	const noticesPerSecond = 10
	s, stop := startStopped(t, Config{Ban: []string{"127.0.0.0/30"}}) // all of it is in the same second
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	for i := range 3 * noticesPerSecond {
		c, err := dialAs(s, "127.0.0.2")
		var b []byte
		if err == nil { // else it was reset while it still connected
			b, err = io.ReadAll(c)
			_ = c.Close()
		}
		notice := err == nil && bytes.Equal(b, s.inForce.Load().notices[admission.Banned])
		reset := errors.Is(err, syscall.ECONNRESET) && len(b) == 0
		if i < noticesPerSecond && !notice || i >= noticesPerSecond && !reset {
			t.Fatalf("dial %d: read %q, %v", i+1, b, err)
		}
	}
	in(t, dialFrom(t, s, "127.0.0.4"))
}

// TestTrustedIsServed: a health check that connects again and again from a
// trusted address is never refused, the same from another is.
func TestTrustedIsServed(t *testing.T) {
	s, stop := startStopped(t, Config{FlapLimit: 2, AddressMax: 2, Trust: []string{"127.0.0.2"}})
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	for range 10 {
		in(t, dialFrom(t, s, "127.0.0.2"))
	}
	for range 2 {
		in(t, dialFrom(t, s, "127.0.0.3"))
	}
	over := dialFrom(t, s, "127.0.0.3")
	if g, err := codec.ParseGoaway(readFrame(t, over).Payload); err != nil || g.Code != codec.CodeRateLimited {
		t.Errorf("got %+v, %v", g, err)
	}
	if c := s.Check(); !c.OK || c.Connections != 12 {
		t.Errorf("%+v", c)
	}
}
