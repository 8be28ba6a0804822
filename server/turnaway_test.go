package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// A loop takes back what was counted for a connection when it ends, however it
// ends, once.
func TestLoopLeavesTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{AddressMax: 10}, nil)
		r.do(func() { r.loop.addresses = newAddresses(&r.cfg) })
		a := r.loop.addresses
		peer := netip.MustParseAddr("192.0.2.1") // of every fake socket
		var conns []*Conn
		for range 4 {
			wantOutcome(t, a.admit(peer, false), "in")
			conns = append(conns, r.open())
		}
		s := checked(r)
		s.addresses = a
		if c := s.Check(); !c.OK {
			t.Errorf("%+v", c)
		}
		r.do(func() { r.loop.lost(conns[0], PeerReset) })
		r.do(func() { r.loop.lost(conns[0], PeerReset); conns[0].Close(3000, "") })
		r.do(func() { conns[1].Close(3000, ""); r.loop.reap() })
		if n := a.figures().conns; n != 2 {
			t.Errorf("%d connections are counted, want 2", n)
		}
		s.admission.live.Add(-1)
		if c := s.Check(); c.OK || !strings.Contains(fmt.Sprint(c.Problems), "by their addresses") {
			t.Errorf("one too few by the gauge: %+v", c)
		}
		r.wait(time.Hour) // the rest are silent
		if n := a.figures().conns; n != 0 {
			t.Errorf("%d connections are counted at the end", n)
		}
	})
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

// What each that is turned away is told, over sockets. The server counts it,
// keeps nothing of it, and serves the others.
func TestTurnedAway(t *testing.T) {
	for why, test := range map[string]struct {
		cfg  Config
		room int // connections that are let in
		code codec.Code
		from time.Duration // after_ms
		to   time.Duration
	}{
		"address_rate":  {Config{AddressRate: 1, AddressBurst: 3, Spread: 2 * time.Second}, 3, codec.CodeRateLimited, 2 * time.Second, 2 * time.Second},
		"address_limit": {Config{AddressMax: 2}, 2, codec.CodeOverloaded, 5 * time.Second, 5 * time.Second},
		"flapping":      {Config{FlapLimit: 4, BanTime: time.Hour}, 4, codec.CodeRateLimited, time.Hour - patience, time.Hour},
		"banned":        {Config{Ban: []string{"127.0.0.2"}}, 0, codec.CodeBanned, 0, 0},
	} {
		t.Run(why, func(t *testing.T) {
			var log bytes.Buffer
			test.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			s, stop := startUntil(t, test.cfg, Echo{})
			if why == "address_rate" {
				s.addresses.mu.Lock()
				s.addresses.now = func() int64 { return 0 } // no time passes in which the rate gives another
				s.addresses.mu.Unlock()
			}
			for range test.room {
				in(t, dialFrom(t, s, "127.0.0.2"))
			}
			over := dialFrom(t, s, "127.0.0.2")
			g, err := codec.ParseGoaway(readFrame(t, over).Payload)
			if err != nil || g.Code != test.code || g.Reason == "" {
				t.Fatalf("told %+v, %v; want code %d", g, err, test.code)
			}
			if after := time.Duration(g.AfterMS) * time.Millisecond; after < test.from || after > test.to {
				t.Errorf("told to come back after %s, want %s to %s", after, test.from, test.to)
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
			if n := s.addresses.figures().conns; n != 0 {
				t.Errorf("%d connections are counted after the end", n)
			}
		})
	}
}

// Who comes again and again is told ten times in a second, and reset otherwise.
func TestMostAreReset(t *testing.T) {
	s := start(t, Config{Ban: []string{"127.0.0.0/30"}}, Echo{})
	s.addresses.mu.Lock()
	s.addresses.now = func() int64 { return 0 } // all of it is in the same second
	s.addresses.mu.Unlock()
	for i := range 3 * noticesPerSecond {
		c, err := dialAs(s, "127.0.0.2")
		var b []byte
		if err == nil { // else it was reset while it still connected
			b, err = io.ReadAll(c)
			_ = c.Close()
		}
		told := err == nil && bytes.Equal(b, s.notices[refusedBanned])
		reset := errors.Is(err, syscall.ECONNRESET) && len(b) == 0
		if i < noticesPerSecond && !told || i >= noticesPerSecond && !reset {
			t.Fatalf("dial %d: read %q, %v", i+1, b, err)
		}
	}
	in(t, dialFrom(t, s, "127.0.0.4"))
}

// Whatever becomes of a connection between its arrival and its loop, its
// address is left as it was. The last place is fought for, so that some find
// the server full only after their address was counted.
func TestAdmitTakesBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tc := nc.(*net.TCPConn)
	cfg := Config{AddressMax: 1000}.WithDefaults()
	s := &Server{addresses: newAddresses(&cfg)}
	s.admission.cap = 1
	var wg sync.WaitGroup
	var most atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 100_000 {
				in := s.admit(tc).ok
				if n := s.admission.live.Load(); n > 1 {
					most.Store(n)
				}
				if in {
					runtime.Gosched()
					s.leaveAddress(tc)
					s.admission.leave()
				}
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 1 {
		t.Errorf("%d connections were counted, and there is room for 1", n)
	}
	if f := s.addresses.figures(); f.conns != 0 || s.admission.live.Load() != 0 {
		t.Errorf("%d connections are counted by address, %d in all, and there are none", f.conns, s.admission.live.Load())
	}
	if v := s.admit(tc); !v.ok {
		t.Fatalf("refused as %s", v.outcome())
	}
	s.refuse(refusedEnroll, tc) // it closes tc
	if f := s.addresses.figures(); f.conns != 0 || s.admission.live.Load() != 0 {
		t.Errorf("after a refusal %d connections are counted by address, %d in all", f.conns, s.admission.live.Load())
	}
}
