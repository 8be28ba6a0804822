package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

var errRefused = fmt.Errorf("dial: %w", syscall.ECONNREFUSED)

// The first delay is spread over the server's window, then the window doubles
// from 0.5 s to 30 s, and a connection that lasts for 30 s starts anew.
func TestReconnectDelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		time.Sleep(40 * time.Second)
		r.setRefuse(errRefused)
		r.peer().hangUp()
		time.Sleep(200 * time.Second)
		// Half of 4 s, and then of 1, 2, 4, 8, 16, 30, 30 s: the loss was the first.
		want := []float64{0, 42, 42.5, 43.5, 45.5, 49.5, 57.5, 72.5, 87.5}
		wantTimes(t, "dials", r.dialTimes()[:len(want)], want...)
		r.setRefuse(nil)
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if c.State() != Connected {
			t.Fatalf("%s at %s", c.State(), r.now())
		}
		lastDial := func() time.Duration { d := r.dialTimes(); return d[len(d)-1] }
		// Not stable: the window stays at 30 s.
		lost := r.now()
		r.peer().hangUp()
		time.Sleep(16 * time.Second)
		if d := lastDial() - lost; d != 15*time.Second {
			t.Errorf("after an unstable connection the delay was %s, want 15 s", d)
		}
		// Stable: as at the beginning.
		time.Sleep(stable)
		lost = r.now()
		r.peer().hangUp()
		time.Sleep(16 * time.Second)
		if d := lastDial() - lost; d != 2*time.Second {
			t.Errorf("after a stable connection the delay was %s, want 2 s", d)
		}
		c.Close()
	})
}

// Jitter is full: the delays of any window are uniform over all of it.
func TestBackoffWindows(t *testing.T) {
	for _, test := range []struct {
		failures       int
		lasted, spread time.Duration
		failed, lost   time.Duration // the windows
	}{
		{0, 0, 0, 500 * time.Millisecond, 500 * time.Millisecond},
		{0, 0, 100 * time.Millisecond, 500 * time.Millisecond, 100 * time.Millisecond},
		{0, time.Hour, 5 * time.Second, 500 * time.Millisecond, 5 * time.Second},
		{1, 0, 5 * time.Second, time.Second, 5 * time.Second},
		{5, 0, 5 * time.Second, 16 * time.Second, 16 * time.Second},
		{5, stable - 1, 5 * time.Second, 16 * time.Second, 16 * time.Second},
		{5, stable, 5 * time.Second, 16 * time.Second, 5 * time.Second},
		{6, 0, 0, 30 * time.Second, 30 * time.Second},
		{math.MaxInt, 0, time.Minute, 30 * time.Second, time.Minute},
	} {
		for _, draw := range []float64{0, 0.25, 1} {
			b := backoff{failures: test.failures, rand: func() float64 { return draw }}
			if got, want := b.failed(), time.Duration(draw*float64(test.failed)); got != want {
				t.Errorf("%+v: failed %s, want %s", test, got, want)
			}
			b = backoff{failures: test.failures, rand: func() float64 { return draw }}
			if got, want := b.lost(test.lasted, test.spread), time.Duration(draw*float64(test.lost)); got != want {
				t.Errorf("%+v: lost %s, want %s", test, got, want)
			}
		}
	}
}

// GOAWAY is obeyed: its delay, its address; until then the connection is used.
func TestGoaway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.RedirectHosts = []string{"other"}
		c := r.connect()
		time.Sleep(time.Second)
		old := r.peer()
		old.write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, Reason: "bye", AfterMS: 1234,
			Addr: "other:2"}))
		time.Sleep(time.Second)
		if err := c.Send(t.Context(), []byte("still here")); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		wantTimes(t, "dials", r.dialTimes(), 0, 2.234)
		if got := r.dialled(); !slices.Equal(got, []string{"server:1", "other:2"}) {
			t.Errorf("dialled %v", got)
		}
		wantTimes(t, "CLOSE", old.times(codec.OpClose), 2.234)
		if n := len(old.frames(codec.OpData)); n != 1 {
			t.Errorf("%d DATA on the old connection", n)
		}
		waited := r.states()[2].what
		if waited.State != Waiting || waited.In != 0 || waited.Addr != "other:2" ||
			!strings.Contains(waited.String(), "3001 draining: bye") {
			t.Errorf("told %q", waited)
		}
		// The other server's loss leads back to the address of Dial.
		r.peer().hangUp()
		time.Sleep(10 * time.Second)
		if got := r.dialled(); got[len(got)-1] != "server:1" {
			t.Errorf("dialled %v", got)
		}
		c.Close()
	})
}

// GOAWAY leads to another host only if that is allowed, and no token goes there that
// was not meant for it.
func TestGoawayHost(t *testing.T) {
	for _, test := range []struct {
		name, addr string
		hosts      []string
		goes       string
	}{
		{"another host", "other:2", nil, "server:1"},
		{"another port", "server:2", nil, "server:2"},
		{"in capitals", "SERVER:2", nil, "SERVER:2"},
		{"a name that begins alike", "server.evil:1", nil, "server:1"},
		{"a final dot", "server.:1", nil, "server:1"},
		{"an address", "192.0.2.1:1", nil, "server:1"},
		{"allowed", "other:2", []string{"spare", "Other"}, "other:2"},
		{"IPv6 allowed", "[2001:db8::1]:2", []string{"2001:db8::1"}, "[2001:db8::1]:2"},
		{"not the allowed one", "third:2", []string{"other"}, "server:1"},
	} {
		for _, refused := range []bool{false, true} { // GOAWAY in place of WELCOME
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.RedirectHosts, r.cfg.RetryDial = test.hosts, true
				r.cfg.TokenFunc = func(_ context.Context, addr string) (string, error) { return "for " + addr, nil }
				sent := codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 1, Addr: test.addr})
				var greeted atomic.Bool
				r.greet = func(p *peer) {
					first := !greeted.Swap(true)
					if first && refused {
						p.write(sent)
					} else {
						p.write(codec.AppendWelcome(nil, welcomed))
					}
					if first && !refused {
						p.write(sent)
					}
				}
				c := r.connect()
				time.Sleep(5 * time.Second)
				got := r.dialled()
				h, err := codec.ParseHello(r.peer().frames(codec.OpHello)[0].Payload)
				if len(got) != 2 || got[1] != test.goes || err != nil || h.Token != "for "+test.goes {
					t.Errorf("%s: dialled %q with %q, want %s", test.name, got, h.Token, test.goes)
				}
				c.Close()
			})
		}
	}
}

// A fixed token is for the host of Dial alone.
func TestRedirectHostsNeedTokenFunc(t *testing.T) {
	f := func(context.Context, string) (string, error) { return "", nil }
	for _, test := range []struct {
		cfg   Config
		words string
	}{
		{Config{Token: "t", RedirectHosts: []string{"other"}}, "RedirectHosts is [other]: Token is for Dial's host"},
		{Config{Token: "t", TokenFunc: f}, "TokenFunc is set with Token: "},
		{Config{RedirectHosts: []string{"other:9000"}}, `RedirectHosts is ["other:9000"]: must be hosts`},
		{Config{RedirectHosts: []string{""}}, `RedirectHosts is [""]: must be hosts without a port`},
		{Config{RedirectHosts: []string{"other"}}, ""},
		{Config{TokenFunc: f, RedirectHosts: []string{"other", "192.0.2.1", "::1"}}, ""},
	} {
		err := test.cfg.Validate()
		if test.words == "" && err != nil || test.words != "" && (!errors.Is(err, ErrConfig) ||
			!strings.Contains(err.Error(), test.words)) {
			t.Errorf("%v, want %q", err, test.words)
		}
	}
}

// The error of a lost connection differs from that of one that was never made.
func TestLossInWords(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().hangUp()
		synctest.Wait()
		const want = "the server closed the connection without giving a reason; connecting again in 2s"
		if got := r.last().what.String(); got != want {
			t.Errorf("told %q, want %q", got, want)
		}
		c.Close()
	})
}

// A server that closes before its own after_ms is still obeyed.
func TestGoawayThenClosed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 3000, Addr: "no port"}))
		time.Sleep(time.Second)
		r.peer().write(codec.AppendClose(nil, codec.CodeDraining, ""))
		r.peer().hangUp()
		time.Sleep(5 * time.Second)
		wantTimes(t, "dials", r.dialTimes(), 0, 3)
		if got := r.dialled(); got[1] != "server:1" {
			t.Errorf("dialled %v", got)
		}
		c.Close()
	})
}

// Without after_ms the server's window applies, or all would return at once.
func TestGoawayWithoutTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}))
		time.Sleep(3 * time.Second)
		wantTimes(t, "dials", r.dialTimes(), 0, 2)
		c.Close()
	})
}

// A server that sends its clients away repeatedly is not hammered.
func TestGoawayForEver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.SpreadMS = 0
		r.greet = func(p *peer) {
			p.write(codec.AppendWelcome(nil, r.welcome))
			p.write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 1}))
		}
		c := r.connect()
		time.Sleep(time.Minute)
		if n := len(r.dialTimes()); n > 10 {
			t.Errorf("%d dials in a minute", n)
		}
		c.Close()
	})
}

// A refusal with GOAWAY adds its time to the backed-off delay.
func TestRefusedWithGoaway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.RetryDial, r.cfg.RedirectHosts = true, []string{"spare"}
		full := true
		r.greet = func(p *peer) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if full {
				full = false
				p.write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded, AfterMS: 5000,
					Addr: "spare:9"}))
				p.hangUp()
				return
			}
			p.write(codec.AppendWelcome(nil, r.welcome))
		}
		c := r.connect()
		wantTimes(t, "dials", r.dialTimes(), 0, 5.25)
		if got := r.dialled(); got[1] != "spare:9" {
			t.Errorf("dialled %v", got)
		}
		c.Close()
	})
}

// Final codes end the client, others do not.
func TestFinalCodes(t *testing.T) {
	for _, test := range []struct {
		code  codec.Code
		final bool
	}{
		{3000, false}, {3001, false}, {3499, false}, {3500, true}, {3510, true}, {3999, true},
		{4000, false}, {4499, false}, {4500, true}, {4999, true}, {2999, true}, {5000, true},
	} {
		for name, frame := range map[string][]byte{
			"CLOSE":  codec.AppendClose(nil, test.code, "so"),
			"GOAWAY": codec.AppendGoaway(nil, codec.Goaway{Code: test.code, Reason: "so", AfterMS: 10}),
		} {
			if rigScheme == "ws" && name == "CLOSE" && (test.code < 3000 || test.code > 4999) {
				continue // no code for a close frame: see TestWebClose
			}
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.connect()
				r.peer().write(frame)
				time.Sleep(time.Minute)
				if ended := c.State() == Ended; ended != test.final {
					t.Fatalf("%s %d: %s", name, test.code, c.State())
				}
				if !test.final {
					c.Close()
					return
				}
				<-c.Done()
				var code *CodeError
				var why *Error
				if err := c.Err(); !errors.As(err, &code) || code.Code != test.code || !errors.As(err, &why) ||
					!why.Final {
					t.Errorf("%s %d: %v", name, test.code, err)
				}
				if _, err := c.Receive(t.Context(), nil); !errors.As(err, &code) {
					t.Errorf("Receive: %v", err)
				}
				if err := c.Send(t.Context(), nil); !errors.As(err, &code) {
					t.Errorf("Send: %v", err)
				}
				if len(r.dialTimes()) != 1 {
					t.Errorf("%s %d: dialled again", name, test.code)
				}
				c.Close()
			})
		}
	}
}

// Each change of state is reported once and in order, and the session is resumed.
func TestStates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().hangUp()
		time.Sleep(10 * time.Second)
		c.Close()
		var got []string
		for _, e := range r.states() {
			got = append(got, fmt.Sprintf("%s %s", e.time, e.what.State))
		}
		want := []string{"0s connecting", "0s connected", "0s waiting", "2s connecting", "2s connected", "10s ended"}
		if !slices.Equal(got, want) {
			t.Errorf("states %q, want %q", got, want)
		}
		h, err := codec.ParseHello(r.peer().frames(codec.OpHello)[0].Payload)
		if err != nil || h.Resume != "s1" || h.V != 1 {
			t.Errorf("HELLO %+v, %v", h, err)
		}
		wantTimes(t, "CLOSE", r.peer().times(codec.OpClose), 10)
	})
}

// A herd of 10,000 that loses its server at once comes back evenly over the
// server's window.
func TestHerd(t *testing.T) {
	t.Parallel()
	const herd, tenths = 10_000, 10
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.OnState = nil
		r.cfg.rand = nil // the real one
		clients := make([]*Client, herd)
		for i := range clients {
			clients[i] = r.connect()
		}
		time.Sleep(time.Second)
		for _, p := range r.peers[:herd] {
			p.hangUp()
		}
		time.Sleep(5 * time.Second)
		times := r.dialTimes()[herd:]
		var histogram [tenths]int
		window := time.Duration(welcomed.SpreadMS) * time.Millisecond
		for _, at := range times {
			histogram[min(int((at-time.Second)*tenths/window), tenths-1)]++
		}
		t.Logf("%d clients back within %s, by tenths of it: %v", len(times), window, histogram)
		if len(times) != herd {
			t.Errorf("%d dials", len(times))
		}
		for i, n := range histogram {
			if n < 800 || n > 1200 { // more than six standard deviations of 30: once in 10^8 runs
				t.Errorf("tenth %d: %d clients", i, n)
			}
		}
		for _, c := range clients {
			go c.Close()
		}
		synctest.Wait()
	})
}

// A session that does not fit HELLO beside the token is not resumed: the server would
// refuse such a HELLO for good.
func TestSessionBesideToken(t *testing.T) {
	for token, resumed := range map[string]bool{strings.Repeat("t", 3900): true, strings.Repeat("t", 4000): false} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.cfg.Token = token
			r.welcome.Session = strings.Repeat("s", codec.MaxSession)
			c := r.connect()
			r.peer().hangUp()
			time.Sleep(10 * time.Second)
			h, err := codec.ParseHello(r.peer().frames(codec.OpHello)[0].Payload)
			if err != nil || h.Token != token || (h.Resume != "") != resumed || len(r.dialTimes()) != 2 {
				t.Errorf("token of %d bytes: resume %q after %d dials, %v", len(token), h.Resume,
					len(r.dialTimes()), err)
			}
			c.Close()
		})
	}
}

// TokenFunc is asked for each connection, with its address: after 3005 the next HELLO
// has a new token. Its error is temporary; 3500 is final.
func TestTokenFunc(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		var mu sync.Mutex
		var asked []string // guarded by mu
		var fail error     // guarded by mu
		r.cfg.TokenFunc = func(_ context.Context, addr string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, addr)
			return fmt.Sprint("token ", len(asked)), fail
		}
		failWith := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fail = err
		}
		c := r.connect()
		token := func() string {
			h, err := codec.ParseHello(r.peer().frames(codec.OpHello)[0].Payload)
			if err != nil {
				t.Error(err)
			}
			return h.Token
		}
		if token() != "token 1" {
			t.Errorf("HELLO has %q", token())
		}
		r.peer().write(codec.AppendClose(nil, codec.CodeTokenExpired, ""))
		time.Sleep(10 * time.Second)
		mu.Lock()
		if token() != "token 2" || !slices.Equal(asked, []string{"server:1", "server:1"}) {
			t.Errorf("HELLO has %q, asked for %q", token(), asked)
		}
		mu.Unlock()
		failWith(errors.New("no ticket today"))
		r.peer().hangUp()
		time.Sleep(10 * time.Second)
		if c.State() == Ended || len(r.dialTimes()) != 2 || !strings.Contains(fmt.Sprint(c.Err()), "no ticket today") {
			t.Errorf("%s after %d dials: %v", c.State(), len(r.dialTimes()), c.Err())
		}
		failWith(nil)
		time.Sleep(time.Minute)
		r.peer().write(codec.AppendClose(nil, codec.CodeBadToken, ""))
		time.Sleep(time.Minute)
		if c.State() != Ended {
			t.Errorf("%s after 3500", c.State())
		}
		c.Close()
	})
}

// Close and ConnectTimeout end a TokenFunc that waits.
func TestTokenFuncHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.TokenFunc = func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		}
		_, err := Dial(t.Context(), "tcp://server:1", r.cfg)
		if r.now() != 10*time.Second || len(r.dialTimes()) != 0 {
			t.Errorf("after %s and %d dials: %v", r.now(), len(r.dialTimes()), err)
		}
		checkError(t, err, false, "the token: ")
	})
}

// A token that does not fit HELLO is never sent.
func TestTokenFuncTooLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.TokenFunc = func(context.Context, string) (string, error) { return strings.Repeat("t", 4096), nil }
		_, err := Dial(t.Context(), "tcp://server:1", r.cfg)
		checkError(t, err, false, "the token: ", "4096 bytes long")
		if len(r.dialTimes()) != 0 {
			t.Error("dialled")
		}
	})
}
