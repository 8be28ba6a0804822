package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// TestReloadIsForNewcomers checks what other beat times, a beat floor and
// RequireHello mean for connections that are open and for those that come.
func TestReloadIsForNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, Echo{})
		old := r.open()
		reload := func(cfg Config) {
			cfg = cfg.WithDefaults()
			r.do(func() { r.loop.reload(newInForce(cfg, nil), 0) })
		}
		cfg := profile(t, "fast")
		cfg.BeatFloor, cfg.RequireHello = 500*time.Millisecond, true
		reload(cfg)
		newcomer := r.open()
		if old.Timeout() != 37500*time.Millisecond || newcomer.Timeout() != 7500*time.Millisecond {
			t.Errorf("the timeouts are %s and %s, want 37.5s and 7.5s", old.Timeout(), newcomer.Timeout())
		}
		for range 10 { // far below the floor, which it was not told of
			r.feed(old, codec.AppendBeat(nil))
		}
		r.alive(old, "after ten beats at once")
		r.feed(newcomer, codec.AppendBeat(nil))
		r.wantClose(newcomer, ProtocolError, codec.CodeProtocolError)

		cfg.RequireHello = false
		reload(cfg)
		second := r.open()
		for range 4 {
			r.feed(second, codec.AppendBeat(nil))
		}
		r.wantEnd(second, BeatTooOften, false)

		r.feed(old, codec.AppendConfig(nil, codec.Config{BeatMS: 60_000})) // asks again: the range is the new one
		if old.Beat() != 15*time.Second {
			t.Errorf("the interval asked for is %s, want 15s", old.Beat())
		}
		cfg.BeatFloor = 100 * time.Millisecond // lower: for all, and none of them is below it
		reload(cfg)
		r.wait(time.Second)
		r.feed(old, codec.AppendBeat(nil))
		r.alive(old, "after one beat")
	})
}

// TestReloadUnderLoad reloads while connections come, go and beat, of which none
// is lost.
func TestReloadUnderLoad(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}, Loops: 2}
	s := start(t, cfg, Echo{})
	held := dial(t, s)
	beats := func(c net.Conn, n int) error {
		b := make([]byte, codec.HeaderSize)
		for range n {
			if _, err := c.Write(codec.AppendBeat(nil)); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, b); err != nil {
				return err
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	var done atomic.Bool
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				c, err := net.Dial("tcp", s.Addrs()[0].String())
				if err == nil {
					err = errors.Join(c.SetDeadline(time.Now().Add(patience)), beats(c, 20), c.Close())
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	fast := profile(t, "fast")
	for i := range 200 {
		next := cfg
		next.Drain = 200 * time.Millisecond
		if i%2 == 0 {
			next.Beat, next.BeatMin, next.BeatMax = fast.Beat, fast.BeatMin, fast.BeatMax
			next.MaxConnections, next.AddressMax, next.Ban = 100, 100, []string{"192.0.2.0/24"}
			next.Spread, next.WriteStall = time.Second, time.Second
		}
		if err := s.Reload(next); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	wg.Wait()
	_ = held.SetDeadline(time.Now().Add(patience))
	if err := beats(held, 3); err != nil {
		t.Error("the connection that was there is lost:", err)
	}
	if check := s.Check(); !check.OK {
		t.Errorf("%+v", check)
	}
}

// TestReloadRefuses checks that a wrong Config, and one that differs in what cannot
// change, changes nothing.
func TestReloadRefuses(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}, MaxConnections: 50, MemoryLimit: -1, Loops: 1,
		Logger: slog.New(slog.DiscardHandler)}
	s, stop := startUntil(t, cfg, Echo{})
	for want, change := range map[string]func(*Config){
		"Config.Listen":                  func(c *Config) { c.Listen = []string{"tcp://127.0.0.1:1"} },
		`Config.MaxFrame "1000": cannot`: func(c *Config) { c.MaxFrame, c.Outbox = 1000, 256<<10 },
		"Config.Outbox":                  func(c *Config) { c.Outbox = 1 << 20 },
		"Config.MemoryLimit":             func(c *Config) { c.MemoryLimit = 0 },
		`Config.Loops "2": cannot change while the server runs; it is 1`: func(c *Config) { c.Loops = 2 },
		`Config.Beat "1ns"`: func(c *Config) { c.Beat = 1 },
	} {
		next := cfg
		next.MaxConnections = 60
		change(&next)
		err := s.Reload(next)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) || s.MaxConnections() != 50 {
			t.Errorf("%v, want %q; the limit is %d", err, want, s.MaxConnections())
		}
	}
	next := cfg
	next.MaxConnections, next.Listen = 60, []string{"TCP://127.0.0.1:00"} // the same address
	if err := s.Reload(next); err != nil || s.MaxConnections() != 60 {
		t.Errorf("%v, and the limit is %d, want 60", err, s.MaxConnections())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := s.Reload(next); !errors.Is(err, ErrClosed) {
		t.Errorf("after a drain: %v", err)
	}
}

// TestReloadStrangers checks that the bound on connections without HELLO follows the
// connection limit.
func TestReloadStrangers(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}, Loops: 2, MaxConnections: 1000}
	s := start(t, cfg, Echo{})
	for _, c := range []struct{ connections, want int }{{1000, 250}, {400, 100}, {2000, 500}} {
		cfg.MaxConnections = c.connections
		if err := s.Reload(cfg); err != nil {
			t.Fatal(err)
		}
		for _, l := range s.loops {
			most := 0
			if s.ask(l, func() { most = l.strangers.most }); most != c.want {
				t.Errorf("of %d connections %d may be strangers on a loop, want %d", c.connections, most, c.want)
			}
		}
	}
}

// A drain does not wait for a JWK set that a reload fetches, which changes nothing then.
func TestDrainDuringReload(t *testing.T) {
	asked, released := make(chan struct{}, 1), make(chan struct{})
	release := sync.OnceFunc(func() { close(released) })
	keys := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-released
	}))
	defer keys.Close()
	defer release()
	s, stop := startUntil(t, Config{}, Echo{})
	reloaded := make(chan error, 1)
	cfg := Config{Listen: s.cfg.Listen, Edge: Edge{Auth: Auth{Mode: "jwt", JWKS: keys.URL}}}
	go func() { reloaded <- s.Reload(cfg) }()
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case err := <-reloaded:
		t.Fatalf("the drain waited for the reload: %v", err)
	}
	release()
	if err := <-reloaded; err == nil {
		t.Error("Reload returned no error after the end")
	}
}
