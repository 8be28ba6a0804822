package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"heartwheel/codec"
)

// A thousand clients that connect, send and close leave no goroutine or connection behind.
func TestNoLeak(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := startTiny(t, nil, nil)
	defer s.stop()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				c, err := Dial(t.Context(), "tcp://"+s.addr(), Config{})
				if err != nil {
					t.Error(err)
					return
				}
				if err := c.Send(t.Context(), []byte("x")); err != nil {
					t.Error(err)
				}
				if _, err := c.Receive(t.Context(), nil); err != nil {
					t.Error(err)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	s.awaitEmpty(t)
}

// Neither do a thousand Dials that are cancelled at any point of the handshake with a slow
// server.
func TestNoLeakCancelledDial(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	const slowest = 20 * time.Millisecond
	s := startTiny(t, nil, func(nc net.Conn) {
		time.Sleep(rand.N(slowest))
		w := codec.AppendWelcome(nil, welcomed)
		_, _ = nc.Write(w[:rand.IntN(len(w))]) // no more than a part of it
	})
	defer s.stop()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // whose finalizers close forgotten connections
	var ends struct {
		sync.Mutex
		cancelled, other int
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(slowest))
				c, err := Dial(ctx, "tcp://"+s.addr(), Config{RetryDial: true})
				ends.Lock()
				switch {
				case err == nil:
					ends.other++
					c.Close()
				case errors.Is(err, context.DeadlineExceeded):
					ends.cancelled++
				default:
					ends.other++
				}
				ends.Unlock()
				cancel()
			}
		})
	}
	wg.Wait()
	s.awaitEmpty(t)
	t.Logf("%d cancelled, %d ended otherwise", ends.cancelled, ends.other)
	if ends.cancelled == 0 {
		t.Error("none was cancelled")
	}
}

// Close may be called in any state. It returns when all goroutines have ended, which is
// at once unless frames wait to be written.
func TestCloseAtAnyMoment(t *testing.T) {
	moments := map[string]func(r *rig) *Client{
		"dialling": func(r *rig) *Client {
			r.cfg.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return r.begin()
		},
		"in the handshake": func(r *rig) *Client {
			r.mute = true
			return r.begin()
		},
		"in half a WELCOME": func(r *rig) *Client {
			r.greet = func(p *peer) { p.write(welcomeJSON("1", "1")[:30]) }
			return r.begin()
		},
		"waiting": func(r *rig) *Client {
			c := r.connect()
			r.setRefuse(errRefused)
			r.peer().hangUp()
			return c
		},
		"waiting at first": func(r *rig) *Client {
			r.setRefuse(errRefused)
			return r.begin()
		},
		"connected": func(r *rig) *Client { return r.connect() },
		"sent away": func(r *rig) *Client {
			c := r.connect()
			r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 60_000}))
			return c
		},
		"in a wait for an answer": func(r *rig) *Client {
			c := r.connect()
			r.peer().setSilent(true)
			go func() {
				if _, err := c.Beat(context.Background()); !errors.Is(err, ErrClosed) {
					r.t.Errorf("Beat: %v", err)
				}
			}()
			return c
		},
		"reading stopped": func(r *rig) *Client {
			r.cfg.ReceiveBuffer = 10
			c := r.connect()
			for range 3 {
				r.peer().write(codec.AppendData(nil, make([]byte, 100)))
			}
			return c
		},
		"ended": func(r *rig) *Client {
			c := r.connect()
			r.peer().write(codec.AppendClose(nil, codec.CodeKicked, ""))
			return c
		},
	}
	for name, begin := range moments {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := begin(r)
				synctest.Wait()
				from := r.now()
				c.Close()
				if took := r.now() - from; took != 0 {
					t.Errorf("took %s", took)
				}
				if e := r.last(); c.State() != Ended || e.what.State != Ended {
					t.Errorf("%s, told %v", c.State(), e.what)
				}
				n := len(r.dialTimes())
				time.Sleep(time.Hour)
				if len(r.dialTimes()) != n {
					t.Error("dialled after Close")
				}
			})
		})
	}
}

// begin is Dial without the wait: the client is in its first attempt, as if it
// reconnected.
func (r *rig) begin() *Client {
	cfg := r.cfg
	cfg.RetryDial = true
	cfg = cfg.withDefaults()
	target, err := parseURL(rigScheme + "://server:1")
	if err != nil {
		r.t.Fatal(err)
	}
	c := &Client{cfg: &cfg, target: target, running: true}
	c.backoff.rand = cfg.rand
	go c.attempt()
	return c
}

// With a server that does not read, Close takes its second and ends blocked Sends.
func TestCloseWhileSendWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.SendBuffer = 100
		read := make(chan struct{})
		r.onFrame = func(_ *peer, f codec.Frame) {
			if f.Op == codec.OpData {
				<-read
			}
		}
		c := r.connect()
		ends := make(chan error, 10)
		for range 5 {
			go func() { ends <- c.Send(context.Background(), make([]byte, 90)) }()
			synctest.Wait()
		}
		sent := len(ends)
		from := r.now()
		c.Close()
		if took := r.now() - from; took != closeTimeout {
			t.Errorf("took %s, want %s", took, closeTimeout)
		}
		synctest.Wait()
		if len(ends) != 5 || sent > 3 {
			t.Fatalf("%d of 5 sends ended, %d of them before Close", len(ends), sent)
		}
		for i := range 5 {
			if err := <-ends; i >= sent && !errors.Is(err, ErrClosed) {
				t.Errorf("send %d: %v", i, err)
			}
		}
		close(read)
	})
}

// Close beside all other calls, under any schedule.
func TestCloseRaces(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s := startTiny(t, nil, nil)
	defer s.stop()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 10 {
				c, err := Dial(t.Context(), "tcp://"+s.addr(), Config{SendBuffer: 1000})
				if err != nil {
					t.Error(err)
					return
				}
				var calls sync.WaitGroup
				calls.Go(func() {
					for c.Send(context.Background(), make([]byte, 600)) == nil {
					}
				})
				calls.Go(func() {
					for {
						if _, err := c.Receive(context.Background(), nil); err != nil {
							return
						}
					}
				})
				calls.Go(func() {
					for {
						if _, err := c.Beat(context.Background()); err != nil {
							return
						}
					}
				})
				time.Sleep(rand.N(3 * time.Millisecond))
				for range 2 {
					calls.Go(func() { c.Close() })
				}
				calls.Wait()
			}
		})
	}
	wg.Wait()
}
