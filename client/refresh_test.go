package client

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/auth"
	"heartwheel/server"
)

// A source is a TokenFunc that counts, and may fail.
type source struct {
	mu    sync.Mutex
	began time.Time
	asked []time.Duration // guarded by mu
	addrs []string        // guarded by mu
	fail  error           // guarded by mu
}

func (s *source) token(_ context.Context, addr string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, time.Since(s.began))
	s.addrs = append(s.addrs, addr)
	return fmt.Sprint("token ", len(s.asked)), s.fail
}

func (s *source) failWith(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

// times returns when it was asked from the nth time on.
func (s *source) times(n int) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked[min(n, len(s.asked)):])
}

// answerTokens has the server of r answer a token with another life of that long.
func answerTokens(r *rig, ms int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onFrame = func(p *peer, f codec.Frame) {
		if f.Op == codec.OpConfig {
			p.write(codec.AppendConfig(nil, codec.Config{BeatMS: 10_000, TimeoutMS: 25_000, ExpiresMS: ms}))
		}
	}
}

// A token is replaced after three quarters of its life on the same connection, again and
// again; other CONFIGs do not move that. After errors it is asked for again until it has
// expired, and then for the next connection.
func TestRefresh(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.ExpiresMS = 40_000
		answerTokens(r, 40_000)
		s := &source{began: r.began}
		r.cfg.TokenFunc = s.token
		c := r.connect()
		time.Sleep(20 * time.Second)
		r.peer().write(codec.AppendConfig(nil, codec.Config{BeatMS: 10_000, TimeoutMS: 25_000, ExpiresMS: 20_000}))
		time.Sleep(80 * time.Second)
		wantTimes(t, "asked", s.times(0), 0, 30, 60, 90)
		wantTimes(t, "CONFIG", r.peer().times(codec.OpConfig), 30, 60, 90)
		for i, f := range r.peer().frames(codec.OpConfig) {
			want := codec.Config{Token: fmt.Sprint("token ", i+2)}
			if cfg, err := codec.ParseConfig(f.Payload); err != nil || cfg != want {
				t.Errorf("CONFIG %d is %+v, %v", i, cfg, err)
			}
		}
		s.failWith(errors.New("no ticket today"))
		time.Sleep(30*time.Second - time.Millisecond)
		wantTimes(t, "asked", s.times(4), 120, 120.75, 122.25, 125.25)
		if c.State() != Connected || len(r.dialTimes()) != 1 {
			t.Errorf("%s after %d dials", c.State(), len(r.dialTimes()))
		}
		s.failWith(nil)
		time.Sleep(5 * time.Second)
		r.peer().write(codec.AppendClose(nil, codec.CodeTokenExpired, ""))
		time.Sleep(5 * time.Second)
		if n := len(s.times(0)); c.State() != Connected || len(r.dialTimes()) != 2 || n != 9 {
			t.Errorf("%s after %d dials, asked %d times", c.State(), len(r.dialTimes()), n)
		}
		if slices.ContainsFunc(s.addrs, func(a string) bool { return a != "server:1" }) {
			t.Errorf("asked for %q", s.addrs)
		}
		c.Close()
	})
}

// A server that gives short lives, or answers with no longer one, gets one CONFIG a
// second at most; a life without an end, or no TokenFunc, ends it.
func TestRefreshBounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.ExpiresMS = 1
		answerTokens(r, 1200)
		s := &source{began: r.began}
		r.cfg.TokenFunc = s.token
		c := r.connect()
		time.Sleep(60 * time.Second)
		if n := len(s.times(0)); n < 50 || n > 62 {
			t.Errorf("asked %d times in a minute", n)
		}
		answerTokens(r, 0)
		time.Sleep(3 * time.Second)
		n := len(s.times(0))
		time.Sleep(time.Hour)
		if got := len(s.times(0)); got != n {
			t.Errorf("asked %d times more for a token that does not expire", got-n)
		}
		c.Close()
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.ExpiresMS = 1000
		r.cfg.Token = "t"
		c := r.connect()
		time.Sleep(time.Minute)
		if got := r.peer().times(codec.OpConfig); len(got) > 0 {
			t.Errorf("CONFIG at %v without a TokenFunc", got)
		}
		c.Close()
	})
}

// A TokenFunc that hangs does not keep the client from beating, from closing or from
// noticing a loss, and a token that does not fit is not sent.
func TestRefreshHangs(t *testing.T) {
	for _, end := range []string{"close", "loss", "nothing"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.welcome.ExpiresMS = 40_000
			r.cfg.ConnectTimeout = 5 * time.Second
			var calls atomic.Int64
			r.cfg.TokenFunc = func(ctx context.Context, _ string) (string, error) {
				n := int(calls.Add(1))
				if n == 2 {
					<-ctx.Done()
				}
				return strings.Repeat("t", min(n, 2)*2048), nil
			}
			c := r.connect()
			time.Sleep(34 * time.Second)
			if calls.Load() != 2 || len(r.peer().times(codec.OpBeat)) < 3 {
				t.Errorf("%d calls, beats at %v", calls.Load(), r.peer().times(codec.OpBeat))
			}
			switch end {
			case "close":
				c.Close()
				if r.now() != 34*time.Second {
					t.Errorf("Close took until %s", r.now())
				}
			case "loss":
				r.peer().hangUp()
				time.Sleep(time.Second)
				if e := r.last(); e.what.State != Waiting || e.time != 34*time.Second {
					t.Errorf("%s at %s", e.what.State, e.time)
				}
			case "nothing": // until the token has expired
				time.Sleep(30 * time.Second)
				if got := r.peer().times(codec.OpConfig); len(got) > 0 || calls.Load() != 4 {
					t.Errorf("%d calls, CONFIG at %v", calls.Load(), got)
				}
			}
			c.Close()
		})
	}
}

// The code for an expired token ends a client whose token stays: at Dial, and later.
func TestStaleToken(t *testing.T) {
	refuse := func(p *peer) { p.write(codec.AppendClose(nil, codec.CodeTokenExpired, "")) }
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Token, r.cfg.RetryDial = "old", true
		r.greet = refuse
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := Dial(ctx, "tcp://server:1", r.cfg)
		checkError(t, err, true, "3005 token_expired")
		if len(r.dialTimes()) != 1 {
			t.Errorf("%d dials", len(r.dialTimes()))
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.Token = "old"
		c := r.connect()
		refuse(r.peer())
		synctest.Wait()
		if c.State() != Ended || !strings.Contains(fmt.Sprint(c.Err()), "3005 token_expired (trying again") {
			t.Errorf("%s: %v", c.State(), c.Err())
		}
		c.Close()
	})
	bubble(t, func(t *testing.T) { // of no token at all it may be a certificate's
		r := newRig(t)
		c := r.connect()
		refuse(r.peer())
		time.Sleep(10 * time.Second)
		if c.State() != Connected {
			t.Errorf("without a token: %s", c.State())
		}
		c.Close()
	})
}

// The real server with JSON Web Tokens of a few seconds keeps a connection beyond them.
func TestRealRefresh(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(strings.Repeat("s3cr3t", 6)), 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := auth.ReadSecret(file)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := auth.NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := startReal(t, server.Config{Edge: server.Edge{Auth: server.Auth{Mode: "jwt", SecretFile: file}}})
	url := "tcp://" + s.Addrs()[0].String()
	// A token has whole seconds, so a quarter of its life is at least 0.5 s. If this process
	// was held up for that long, a longer life is tried.
	for life := 3 * time.Second; ; life *= 2 {
		o, fresh := newEventLog(), make(chan time.Time, 100)
		c, err := Dial(t.Context(), url, Config{OnState: o.event,
			TokenFunc: func(context.Context, string) (string, error) {
				now := time.Now()
				fresh <- now.Add(life)
				return signer.Sign(auth.Claims{User: "alice", Issued: now, Expires: now.Add(life)})
			}})
		if err != nil {
			t.Fatal(err)
		}
		first := <-fresh
		var lag time.Duration
		for before := time.Now(); before.Before(first) && c.State() == Connected; {
			time.Sleep(10 * time.Millisecond)
			now := time.Now()
			lag, before = max(lag, now.Sub(before)-10*time.Millisecond), now
		}
		state, why := c.State(), c.Err()
		err = errors.Join(c.Send(t.Context(), []byte("hello")), why)
		c.Close()
		switch {
		case state == Connected && err == nil && len(fresh) == 1:
			return
		case lag < life/8 || life > 30*time.Second:
			t.Fatalf("tokens of %s: %s after %d more, %v; held up for %s", life, state, len(fresh), err, lag)
		}
	}
}
