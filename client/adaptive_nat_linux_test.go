package client

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/internal/netlab"
	"heartwheel/server"
)

// TestAdaptiveNAT has clients search behind a real NAT: each settles below the NAT's
// timeout and then stays connected for 20 times that. Most of its time are the 10 s
// until a silent server is declared dead.
func TestAdaptiveNAT(t *testing.T) {
	if !*long {
		t.Skip("it waits a minute for real losses; run it with -long. TestAdaptivePath has the same in virtual time")
	}
	t.Parallel()
	const (
		mapping = time.Second
		exact   = 20 * time.Millisecond // how exact it is, see netlab.NAT
		clients = 8
		enough  = 65 * time.Second // for a search: two or three losses at 10 to 12 s each, and 10 s of beats
	)
	lab := netlab.NAT(t, mapping)
	addr := wideServer(t, lab.Server)
	pause := longestPause(t)
	all := make([]*searcher, clients)
	for i := range all {
		all[i] = newSearcher(t, lab.Client, addr)
	}
	for i, s := range all {
		select {
		case <-s.settled:
		case <-time.After(enough):
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("client %d has not settled: %s", i, s)
		}
	}
	time.Sleep(20 * mapping)
	for i, s := range all {
		h := s.c.Beats().Interval
		s.mu.Lock()
		t.Logf("client %d: %s", i, s)
		if reach := h * 11 / 10; reach >= mapping+exact || h < mapping/2 && pause() < lateTimer {
			t.Errorf("client %d beats every %s: not at most 1/1.1 and at least half of %s", i, h, mapping)
		} else if s.after != 0 && reach+pause()+exact < mapping {
			t.Errorf("client %d was lost %d times after it had settled on %s", i, s.after, h)
		}
		s.mu.Unlock()
	}
	t.Logf("this machine paused for at most %s", pause())
}

// A searcher is a client that searches, with its history.
type searcher struct {
	c       *Client
	began   time.Time
	settled chan struct{} // closed when it has and is connected again

	mu            sync.Mutex
	story         strings.Builder // guarded by mu
	before, after int             // guarded by mu: connections lost before it had settled, and after
	ended, over   bool            // guarded by mu: the search has ended, settled is closed
}

func newSearcher(t *testing.T, n *netlab.Namespace, addr string) *searcher {
	t.Helper()
	s := &searcher{began: time.Now(), settled: make(chan struct{})}
	var err error
	s.c, err = Dial(t.Context(), "tcp://"+addr, Config{
		Adaptive:    &Adaptive{Start: 400 * time.Millisecond, Save: s.learned},
		DialContext: n.Dial,
		OnState:     s.state,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.c.Close() })
	return s
}

// tell is called with mu held.
func (s *searcher) tell(format string, args ...any) {
	fmt.Fprintf(&s.story, "; %.1f s ", time.Since(s.began).Seconds())
	fmt.Fprintf(&s.story, format, args...)
}

func (s *searcher) learned(_ string, l Learned) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = s.ended || !l.At.IsZero()
	s.tell("survives %s, not %s", l.Good.Round(time.Millisecond), l.Bad.Round(time.Millisecond))
}

func (s *searcher) state(e Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case e.State == Connected:
		s.tell("connected, beats every %s", e.Interval)
		if s.ended && !s.over {
			s.over = true
			close(s.settled)
		}
	case e.State == Waiting:
		s.tell("lost")
		if s.over {
			s.after++
		} else {
			s.before++
		}
	}
}

// String is called with mu held.
func (s *searcher) String() string {
	return fmt.Sprintf("%d lost before it settled, %d after%s", s.before, s.after, &s.story)
}

// wideServer starts a server inside n that allows a wide range of intervals.
func wideServer(t *testing.T, n *netlab.Namespace) (addr string) {
	t.Helper()
	var s *server.Server
	n.Do(func() {
		var err error
		s, err = server.New(server.Config{
			Listen: []string{"tcp://" + netip.AddrPortFrom(n.Addr, 0).String()},
			Beat:   time.Second, BeatMin: 100 * time.Millisecond, BeatMax: time.Hour,
			Spread: time.Second, Logger: slog.New(slog.DiscardHandler),
		}, server.Echo{})
		if err != nil {
			t.Fatal(err)
		}
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s.Addrs()[0].String()
}

// longestPause measures the longest time that this process did not run, from now to the
// end of the test.
func longestPause(t *testing.T) (longest func() time.Duration) {
	var mu sync.Mutex
	var most time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			began := time.Now()
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			mu.Lock()
			most = max(most, time.Since(began)-10*time.Millisecond)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return most
	}
}
