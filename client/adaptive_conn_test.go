package client

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// twenty begins with 20 s.
func twenty() *Adaptive { return &Adaptive{Start: 20 * time.Second} }

// The first beat, after 0.75 of an interval, proves less than one. The next
// three do, and the request after them is in force when the server says so.
func TestAdaptiveWishes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := adapting(t, twenty(), time.Second, time.Hour)
		r.cfg.Beat = time.Minute // not used
		c := r.connect()
		time.Sleep(170 * time.Second)
		wantTimes(t, "requests", r.requests(), 20, 30, 45)
		wantTimes(t, "CONFIG", r.peer().times(codec.OpConfig), 75, 165)
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 15, 35, 55, 75, 105, 135, 165)
		if b := c.Beats(); b.Interval != 45*time.Second || b.Timeout != 112500*time.Millisecond {
			t.Errorf("figures %+v", b)
		}
		c.Close()
	})
}

// A request that has no answer changes nothing, and is not repeated.
func TestAdaptiveWishWithoutAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := adapting(t, twenty(), time.Second, time.Hour)
		r.onFrame = nil
		c := r.connect()
		time.Sleep(200 * time.Second)
		wantTimes(t, "requests", r.requests(), 20, 30)
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 15, 35, 55, 75, 95, 115, 135, 155, 175, 195)
		if i := c.Beats().Interval; i != 20*time.Second {
			t.Errorf("interval %s", i)
		}
		c.Close()
	})
}

// What the server decides holds: at the beginning, later, and by itself.
func TestAdaptiveServerDecides(t *testing.T) {
	for _, test := range []struct {
		low, top float64
		requests []float64
		interval float64
	}{
		{1, 12, []float64{20}, 12},
		{1, 25, []float64{20, 30}, 25},
		{28, 3600, []float64{20, 42, 63}, 63},
	} {
		bubble(t, func(t *testing.T) {
			d := seconds(test.low, test.top, test.interval)
			r := adapting(t, twenty(), d[0], d[1])
			c := r.connect()
			time.Sleep(250 * time.Second)
			wantTimes(t, "requests", r.requests(), test.requests...)
			if i := c.Beats().Interval; i != d[2] {
				t.Errorf("interval is %s, the server allows %s to %s", i, d[0], d[1])
			}
			before := len(r.peer().times(codec.OpBeat))
			r.peer().write(codec.AppendConfig(nil, codec.Config{BeatMS: 5000, TimeoutMS: 12500}))
			time.Sleep(101 * time.Second)
			if n := len(r.peer().times(codec.OpBeat)) - before; n < 20 || c.Beats().Interval != 5*time.Second {
				t.Errorf("%d beats in 101 s, every %s, after the server said 5 s", n, c.Beats().Interval)
			}
			c.Close()
		})
	}
}

// A beat that ends no silence proves nothing.
func TestAdaptiveTraffic(t *testing.T) {
	for name, talk := range map[string]func(t *testing.T, r *rig, c *Client){
		"own": func(t *testing.T, _ *rig, c *Client) { // unanswered: beats ask after 20 s without a word
			time.Sleep(5 * time.Second)
			if err := c.Send(t.Context(), nil); err != nil {
				t.Error(err)
			}
		},
		"the server's": func(_ *testing.T, r *rig, _ *Client) { // beats follow 20 s of this side's silence
			time.Sleep(7 * time.Second)
			r.peer().write(codec.AppendPong(nil, nil))
		},
		"beats by hand": func(t *testing.T, _ *rig, c *Client) {
			time.Sleep(19 * time.Second)
			if _, err := c.Beat(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"slow": func(t *testing.T, _ *rig, c *Client) { // each write takes 9 s, and so the beat behind them waits
			for range 4 {
				if err := c.Send(t.Context(), make([]byte, writeChunk)); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(36 * time.Second)
		},
	} {
		bubble(t, func(t *testing.T) {
			r := adapting(t, twenty(), time.Second, time.Hour)
			answer := r.onFrame
			r.onFrame = func(p *peer, f codec.Frame) {
				if len(f.Payload) == writeChunk {
					time.Sleep(9 * time.Second)
				}
				answer(p, f)
			}
			c := r.connect()
			before := c.Beats().Answered
			for end := r.now() + 10*time.Minute; r.now() < end; {
				talk(t, r, c)
			}
			if n := c.Beats().Answered - before; n < 5 {
				t.Errorf("%s: only %d beats answered", name, n)
			}
			if got := r.requests(); len(got) != 1 {
				t.Errorf("%s: requests %v", name, got)
			}
			c.Close()
		})
	}
}

// A full silence without an answer steps back, as soon as the server is given
// up: to the middle between it and what is proven, or to half.
func TestAdaptiveStepsBack(t *testing.T) {
	for _, test := range []struct {
		after    float64 // until then beats are answered
		lost     float64
		requests []float64
	}{
		{0, 25, []float64{20, 7.5}},
		{40, 65, []float64{20, 10}},
		{80, 115, []float64{20, 30, 25}},
	} {
		bubble(t, func(t *testing.T) {
			var saved []Learned
			a := twenty()
			a.Save = func(_ string, l Learned) { saved = append(saved, l) }
			r := adapting(t, a, time.Second, time.Hour)
			c := r.connect()
			time.Sleep(seconds(test.after)[0])
			r.peer().setSilent(true)
			time.Sleep(seconds(test.lost - test.after + 2)[0])
			synctest.Wait()
			all := r.states()
			if e := all[2]; e.what.State != Waiting || !errors.Is(e.what.Err, ErrSilent) ||
				e.time != seconds(test.lost)[0] {
				t.Errorf("%s: %s, want a loss at %v s", e.time, e.what, test.lost)
			}
			if e := all[len(all)-1].what; e.State != Connected || e.Interval != c.Beats().Interval ||
				c.Beats().Interval != seconds(test.requests...)[len(test.requests)-1] {
				t.Errorf("%s, beats every %s", e, c.Beats().Interval)
			}
			wantTimes(t, "requests", r.requests(), test.requests...)
			if len(saved) != len(test.requests)-1 {
				t.Errorf("saved %+v, want every change once", saved)
			}
			c.Close()
		})
	}
}

// Of several unanswered beats the first counts: the silence before it is the one that
// the path did not survive.
func TestAdaptiveFirstQuestion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := adapting(t, &Adaptive{Start: 4 * time.Second}, time.Second, time.Hour)
		c := r.connect()
		p := r.peer()
		p.setSilent(true)
		for range 4 {
			time.Sleep(time.Second)
			_ = c.Send(t.Context(), nil)
		}
		time.Sleep(15 * time.Second)
		wantTimes(t, "beats", p.times(codec.OpBeat), 3, 8, 12)
		wantTimes(t, "requests", r.requests(), 4, 4)
		c.Close()
	})
}

// Beats keep to min_beat_ms: 27 s is the shortest jitter of 30 s.
func TestAdaptiveServerBears(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := adapting(t, twenty(), time.Second, time.Hour)
		r.greet = func(p *peer) {
			w := welcomed
			w.BeatMS, w.TimeoutMS, w.MinBeatMS = 20_000, 100_000, 27_000
			p.write(codec.AppendWelcome(nil, w))
		}
		c := r.connect()
		if i := c.Beats().Interval; i != 30*time.Second {
			t.Errorf("interval is %s, want 30s", i)
		}
		time.Sleep(95 * time.Second)
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 30, 60, 90)
		c.Close()
	})
}

// Losses that the path did not cause teach nothing.
func TestAdaptiveOtherEnds(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, r *rig, c *Client){
		"GOAWAY": func(_ *testing.T, r *rig, _ *Client) {
			r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 20_000}))
		},
		"GOAWAY, then the server is gone": func(_ *testing.T, r *rig, _ *Client) {
			time.Sleep(20 * time.Second)
			r.peer().hangUp()
			time.Sleep(3 * time.Second)
			r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 45_000}))
			time.Sleep(20 * time.Second)
			r.peer().hangUp() // after the same silence as the one before
		},
		"CLOSE in place of an answer": func(_ *testing.T, r *rig, _ *Client) {
			time.Sleep(30 * time.Second)
			r.peer().write(codec.AppendClose(nil, codec.CodeInternalError, ""))
		},
		"gone amid traffic": func(t *testing.T, r *rig, c *Client) {
			time.Sleep(15 * time.Second)
			_ = c.Send(t.Context(), nil)
			time.Sleep(10 * time.Second)
			r.peer().hangUp()
		},
		"no connection": func(_ *testing.T, r *rig, _ *Client) {
			r.peer().write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}))
			r.setRefuse(errRefused)
			time.Sleep(5 * time.Minute)
			r.setRefuse(nil)
		},
		"no WELCOME": func(_ *testing.T, r *rig, _ *Client) {
			r.peer().write(codec.AppendClose(nil, codec.CodeDraining, ""))
			r.mu.Lock()
			greet := r.greet
			r.greet = func(*peer) {}
			r.mu.Unlock()
			time.Sleep(5 * time.Minute)
			r.mu.Lock()
			r.greet = greet
			r.mu.Unlock()
		},
		"a hold": func(t *testing.T, r *rig, c *Client) {
			for range 3 {
				r.peer().write(codec.AppendData(nil, make([]byte, 100)))
			}
			time.Sleep(70 * time.Second)
			r.peer().hangUp()
			for range 3 {
				if _, err := c.Receive(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
		},
		"gone in a hold": func(t *testing.T, r *rig, c *Client) {
			for range 3 {
				r.peer().write(codec.AppendData(nil, make([]byte, 100)))
			}
			time.Sleep(time.Second)
			r.peer().nc.Close() // seen by the beat that cannot be written
			time.Sleep(30 * time.Second)
			for range 2 {
				if _, err := c.Receive(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
		},
		"a question across a hold": func(t *testing.T, r *rig, c *Client) {
			r.peer().setSilent(true)
			time.Sleep(31 * time.Second)
			for range 3 {
				r.peer().write(codec.AppendBeat(codec.AppendData(nil, make([]byte, 100))))
			}
			time.Sleep(31 * time.Second)
			for range 3 {
				if _, err := c.Receive(t.Context(), nil); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Second)
			r.peer().hangUp()
		},
		"a late timer": func(_ *testing.T, r *rig, c *Client) {
			r.peer().setSilent(true)
			time.Sleep(29 * time.Second)
			c.conn.mu.Lock()
			c.conn.armed -= 5 * time.Second
			c.conn.mu.Unlock()
		},
		"a late timer behind a question": func(_ *testing.T, r *rig, c *Client) {
			r.peer().setSilent(true)
			time.Sleep(31 * time.Second)
			c.conn.mu.Lock()
			c.conn.armed -= 5 * time.Second
			c.conn.mu.Unlock()
		},
		"an end seen late": func(_ *testing.T, r *rig, c *Client) {
			time.Sleep(29 * time.Second)
			c.conn.mu.Lock()
			c.conn.armed -= 5 * time.Second
			c.conn.mu.Unlock()
			r.peer().hangUp()
		},
	} {
		bubble(t, func(t *testing.T) {
			var saved []Learned
			a := twenty()
			a.Save = func(_ string, l Learned) { saved = append(saved, l) }
			r := adapting(t, a, time.Second, time.Hour)
			r.cfg.ReceiveBuffer = 100
			c := r.connect()
			time.Sleep(75*time.Second + 1)
			end(t, r, c)
			time.Sleep(35 * time.Second)
			synctest.Wait()
			if c.State() != Connected || r.losses() == 0 {
				t.Errorf("%s: %s after %d losses", name, c.State(), r.losses())
			}
			if w := r.requests(); w[len(w)-1] != 30*time.Second ||
				!slices.Equal(saved, []Learned{{Good: 20 * time.Second}}) {
				t.Errorf("%s: requests %v, saved %+v", name, w, saved)
			}
			asked := c.Beats().Sent
			for r.peer().setSilent(true); c.Beats().Sent == asked; {
				time.Sleep(time.Second)
			}
			c.Close() // with a beat unanswered
			if len(saved) != 1 {
				t.Errorf("%s: saved %+v after Close", name, saved)
			}
		})
	}
}

// Save may call the client, and Network and Load decide what is requested next.
func TestAdaptiveRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		var client atomic.Pointer[Client]
		network, memory := "home", map[string]Learned{}
		a := twenty()
		a.Network = func() string {
			mu.Lock()
			defer mu.Unlock()
			return network
		}
		a.Load = func(key string) (Learned, bool) {
			mu.Lock()
			defer mu.Unlock()
			l, ok := memory[key]
			return l, ok
		}
		a.Save = func(key string, l Learned) {
			c := client.Load()
			_, _ = c.Beats(), c.State()
			mu.Lock()
			defer mu.Unlock()
			memory[key] = l
		}
		r := adapting(t, a, time.Second, time.Hour)
		c := r.connect()
		client.Store(c)
		moveTo := func(to string) {
			mu.Lock()
			network = to
			mu.Unlock()
			r.peer().hangUp()
			time.Sleep(5 * time.Second)
		}
		time.Sleep(76 * time.Second)
		moveTo("train")
		time.Sleep(76 * time.Second)
		moveTo("home")
		r.peer().setSilent(true)
		time.Sleep(40 * time.Second) // 22.5 s until the first beat, 10 s, 2 s
		wantTimes(t, "requests", r.requests(), 20, 30, 20, 30, 30, 20.454)
		c.Close()
		want := map[string]Learned{"home": {Good: 20 * time.Second, Bad: 22500 * time.Millisecond},
			"train": {Good: 20 * time.Second}}
		if memory["home"] != want["home"] || memory["train"] != want["train"] || len(memory) != 2 {
			t.Errorf("kept %+v, want %+v", memory, want)
		}
		c = r.connect() // as after a restart
		time.Sleep(time.Second)
		if w := r.requests(); w[len(w)-1] != w[len(w)-2] {
			t.Errorf("requests %v", w)
		}
		c.Close()
	})
}
