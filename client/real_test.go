package client

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/server"
)

var long = flag.Bool("long", false, "also run what waits longer, in real time")

// echo is a server.Handler that returns DATA, except that "CODE reason" ends the
// connection with that code.
type echo struct{ nothingServed }

func (echo) Frame(c *server.Conn, f codec.Frame) error {
	code, reason, found := strings.Cut(string(f.Payload), " ")
	if n, err := strconv.ParseUint(code, 10, 16); found && err == nil {
		c.Close(codec.Code(n), reason)
		return nil
	}
	return c.Send(f.Op, f.Payload)
}

// startReal runs heartwheel's server in this process until the test ends or stop
// is called, which drains it.
func startReal(t *testing.T, cfg server.Config) (s *server.Server, stop func()) {
	t.Helper()
	if cfg.Listen == nil {
		cfg.Listen = []string{"tcp://127.0.0.1:0"}
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := server.New(cfg, echo{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// An eventLog collects changes of state.
type eventLog struct {
	mu     sync.Mutex
	events []Event       // guarded by mu
	next   chan struct{} // has a token when there is another
}

func newEventLog() *eventLog { return &eventLog{next: make(chan struct{}, 100)} }

func (o *eventLog) event(e Event) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, e)
	o.next <- struct{}{}
}

// states returns the states so far.
func (o *eventLog) states() (all []State) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range o.events {
		all = append(all, e.State)
	}
	return all
}

// await returns the n-th event of a state, once it has come.
func (o *eventLog) await(t *testing.T, state State, n int) Event {
	t.Helper()
	for limit := time.After(30 * time.Second); ; {
		o.mu.Lock()
		left := n
		for _, e := range o.events {
			if e.State == state {
				if left--; left == 0 {
					o.mu.Unlock()
					return e
				}
			}
		}
		o.mu.Unlock()
		select {
		case <-o.next:
		case <-limit:
			t.Fatalf("not %s for the %d. time: %v", state, n, o.states())
		}
	}
}

// The real server keeps a client that beats, or answers, for many timeouts: by its own
// count it has closed none as idle. T is long enough for pauses of this machine.
func TestRealServerKeeps(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name          string
		client        bool
		beat, timeout time.Duration
		least         uint64 // empty frames sent in five timeouts
	}{
		{"client beats", true, 200 * time.Millisecond, time.Second, 10},
		// Above 400 ms the server polls, two ticks late at most, before it is asked.
		{"server beats", false, 800 * time.Millisecond, 1200 * time.Millisecond, 4},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			beat, timeout := test.beat, test.timeout
			s, _ := startReal(t, server.Config{Beat: beat, BeatMin: beat, Timeout: timeout})
			o := newEventLog()
			c, err := Dial(t.Context(), "tcp://"+s.Addrs()[0].String(),
				Config{ServerBeats: !test.client, OnState: o.event})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if e := o.await(t, Connected, 1); e.Interval != beat || e.Timeout != timeout || e.Session == "" {
				t.Errorf("decided %+v", e)
			}
			began := time.Now()
			late := time.Duration(0) // how late this machine was at worst
			for time.Since(began) < 5*timeout {
				from := time.Now()
				time.Sleep(beat / 4)
				late = max(late, time.Since(from)-beat/4)
			}
			b, stats := c.Beats(), s.Stats()
			t.Logf("%+v, late by up to %s", b, late)
			if late > beat {
				t.Skipf("nothing can be told here: this machine was late by %s", late)
			}
			if stats.Connections != 1 || stats.Closed["idle_timeout"] != 0 || len(o.states()) != 2 {
				t.Errorf("%d connections, closed %v, told %v", stats.Connections, stats.Closed, o.states())
			}
			if b.Sent < test.least || test.client && b.Answered < test.least {
				t.Errorf("beats %+v", b)
			}
			rtt, err := c.Beat(t.Context())
			if err != nil || rtt <= 0 {
				t.Errorf("beat: %s, %v", rtt, err)
			}
		})
	}
}

// The interval in the Config is granted within the server's range.
func TestRealServerWish(t *testing.T) {
	s, _ := startReal(t, server.Config{BeatMin: 2 * time.Second, BeatMax: 20 * time.Second})
	for request, want := range map[time.Duration]time.Duration{0: 15 * time.Second, time.Second: 2 * time.Second,
		7 * time.Second: 7 * time.Second, time.Hour: 20 * time.Second} {
		o := newEventLog()
		c, err := Dial(t.Context(), "tcp://"+s.Addrs()[0].String(), Config{Beat: request, OnState: o.event})
		if err != nil {
			t.Fatal(err)
		}
		if e := o.await(t, Connected, 1); e.Interval != want || e.Timeout != want*5/2 {
			t.Errorf("request %s: got %s and %s, want %s", request, e.Interval, e.Timeout, want)
		}
		c.Close()
	}
}

// A draining server sends its clients away, and they leave in order.
func TestRealServerDrain(t *testing.T) {
	t.Parallel()
	first, drain := startReal(t, server.Config{Drain: 5 * time.Second, Spread: 200 * time.Millisecond})
	o := newEventLog()
	c, err := Dial(t.Context(), "tcp://"+first.Addrs()[0].String(), Config{OnState: o.event})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	drain()
	e := o.await(t, Waiting, 1)
	var code *CodeError
	if !errors.As(e.Err, &code) || code.Code != codec.CodeDraining {
		t.Errorf("sent away with %v", e.Err)
	}
	if n := first.Stats().Closed["idle_timeout"]; n != 0 {
		t.Errorf("%d idle", n)
	}
	// The same address again is the contract; nothing listens there until now.
	again, err := server.New(server.Config{Listen: []string{"tcp://" + first.Addrs()[0].String()},
		Logger: slog.New(slog.DiscardHandler)}, echo{})
	if err != nil {
		t.Skipf("the port was taken: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- again.Run(ctx) }()
	defer func() {
		c.Close()
		stop()
		<-ended
	}()
	o.await(t, Connected, 2)
	if err := c.Send(t.Context(), []byte("moved")); err != nil {
		t.Error(err)
	}
	if got, err := c.Receive(t.Context(), nil); err != nil || string(got) != "moved" {
		t.Errorf("%q, %v", got, err)
	}
	if all := o.states(); !slices.Equal(all[:3], []State{Connecting, Connected, Waiting}) {
		t.Errorf("told %v", all)
	}
}

// GOAWAY with an address leads to another server.
func TestRealServerElsewhere(t *testing.T) {
	second, _ := startReal(t, server.Config{})
	sent := codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 20,
		Addr: second.Addrs()[0].String()})
	first := startTiny(t, nil, nil)
	o := newEventLog()
	c, err := Dial(t.Context(), "tcp://"+first.addr(), Config{OnState: o.event})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	first.mu.Lock()
	for nc := range first.conns {
		_, _ = nc.Write(sent)
	}
	first.mu.Unlock()
	if e := o.await(t, Connected, 2); e.Addr != second.Addrs()[0].String() || e.Interval != 15*time.Second {
		t.Errorf("%+v", e)
	}
	if n := second.Stats().Connections; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A client behind a load balancer that puts a PROXY header in front of its bytes comes
// back, however the header arrives.
func TestRealServerProxyHeader(t *testing.T) {
	s, _ := startReal(t, server.Config{})
	for name, header := range map[string][]string{
		"v1":           {"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"},
		"v1 in pieces": {"P", "RO", "XY TCP4 192.0.2.1 192.0.2.2 5 6\r\n"},
		"v2":           {"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"},
		"v2 in pieces": {"\r\n\r", "\n", "\x00\r\nQUIT\n\x20\x00\x00\x00"},
	} {
		_, err := Dial(t.Context(), "tcp://"+s.Addrs()[0].String(), Config{DialContext: func(
			ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dial(ctx, network, addr)
			for _, part := range header {
				if err != nil {
					return nil, err
				}
				_, err = nc.Write([]byte(part))
				time.Sleep(20 * time.Millisecond)
			}
			return nc, err
		}})
		t.Log(name)
		checkError(t, err, false, "the server said 3004 internal_error: codec: a PROXY protocol header")
	}
}
