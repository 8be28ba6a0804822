package server

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// within fails the test unless at lies between want and want plus 3 ms after
// from: the wheel takes 1 ms at most, and times of an incomplete frame are kept
// in whole ms, rounded up.
func within(t *testing.T, what string, from, at time.Time, want time.Duration) {
	t.Helper()
	const exact = 3 * time.Millisecond
	if d := at.Sub(from); d < want || d > want+exact {
		t.Errorf("%s after %v, want between %v and %v", what, d, want, want+exact)
	}
}

func hello(h codec.Hello) []byte { return codec.AppendHello(nil, h) }

func wish(beat time.Duration) []byte {
	return codec.AppendConfig(nil, codec.Config{BeatMS: beat.Milliseconds()})
}

func TestIdleExpiry(t *testing.T) {
	type step struct {
		after time.Duration
		b     []byte
	}
	cases := []struct {
		name    string
		cfg     Config
		steps   []step        // what the peer sends
		last    int           // the last of them that refreshes, -1 for none
		timeout time.Duration // what is in force in the end
	}{
		{"standard", profile(t, "standard"), nil, -1, 37500 * time.Millisecond},
		{"fast", profile(t, "fast"), nil, -1, 7500 * time.Millisecond},
		{"iot", profile(t, "iot"), nil, -1, 150 * time.Second},
		{"timeout set", Config{Beat: 4 * time.Second, Timeout: 6 * time.Second}, nil, -1, 6 * time.Second},
		{"timeout with odd ms", Config{Timeout: 7123 * time.Millisecond}, nil, -1, 7123 * time.Millisecond},
		{"wish in HELLO", Config{}, []step{{0, hello(codec.Hello{BeatMS: 2000})}}, 0, 5 * time.Second},
		{"wish in CONFIG", Config{}, []step{{3 * time.Second, wish(2 * time.Second)}}, 0, 5 * time.Second},
		{"shorter wish late in the old timeout", Config{}, []step{{37 * time.Second, wish(time.Second)}},
			0, 2500 * time.Millisecond},
		{"longer wish", Config{}, []step{{time.Second, wish(time.Minute)}}, 0, 150 * time.Second},
		{"beat", Config{}, []step{{20 * time.Second, beat}, {37499 * time.Millisecond, beat}},
			1, 37500 * time.Millisecond},
		{"traffic instead of beats", profile(t, "fast"), []step{{7 * time.Second, data("x")},
			{7 * time.Second, codec.AppendPong(nil, nil)},
			{7 * time.Second, codec.AppendFrame(nil, 0x55, nil)},
			{7 * time.Second, codec.AppendPing(nil, []byte("p"))}}, 3, 7500 * time.Millisecond},
		{"part of a frame does not refresh", profile(t, "fast"),
			[]step{{time.Second, beat}, {5 * time.Second, data("long")[:6]}}, 0, 7500 * time.Millisecond},
		{"dripped header does not refresh", profile(t, "fast"),
			[]step{{time.Second, beat}, {2 * time.Second, []byte{0}}, {2 * time.Second, []byte{0}},
				{2 * time.Second, []byte{0}}}, 0, 7500 * time.Millisecond},
	}
	for _, tc := range cases {
		for _, phase := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond, 99999 * time.Microsecond} {
			t.Run(fmt.Sprintf("%s/%v", tc.name, phase), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, tc.cfg, nil)
					r.wait(time.Second + phase)
					from := time.Now()
					c := r.open()
					for i, s := range tc.steps {
						r.wait(s.after)
						r.alive(c, "before a step")
						r.feed(c, s.b)
						if i <= tc.last {
							from = time.Now()
						}
					}
					r.check()
					r.wait(tc.timeout + time.Second)
					e := r.wantEnd(c, IdleTimeout, true)
					within(t, "expired", from, e.at, tc.timeout)
					if r.rec.why[c] != IdleTimeout || !r.rec.at[c].Equal(e.at) {
						t.Errorf("close event %s at %v, the socket closed at %v", r.rec.why[c], r.rec.at[c], e.at)
					}
					for _, f := range r.frames(c) {
						if f.Op == codec.OpClose || f.Op == codec.OpGoaway {
							t.Errorf("an expired peer was sent %s", f.Op)
						}
					}
					if s := r.stats(); s.closed[IdleTimeout] != 1 || s.stalls != 0 {
						t.Errorf("counted %d expiries, %d stalls", s.closed[IdleTimeout], s.stalls)
					}
				})
			})
		}
	}
}

// Sending by the server is no sign of life of the peer.
func TestSendingDoesNotRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, profile(t, "fast"), nil)
		c := r.open()
		from := time.Now()
		for range 7 {
			r.wait(time.Second)
			r.do(func() {
				if err := c.Send(codec.OpData, []byte("push")); err != nil {
					t.Error(err)
				}
			})
		}
		r.wait(time.Second)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 7500*time.Millisecond)
		if n := len(r.frames(c)); n != 7 {
			t.Errorf("%d frames went out", n)
		}
	})
}

// An aborted connection drops what waits for it.
func TestExpiryDropsOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := profile(t, "fast")
		cfg.WriteStall = time.Minute
		r := newRig(t, cfg, nil)
		c := r.open()
		from := time.Now()
		r.do(func() {
			r.sock(c).room = 5
			_ = c.Send(codec.OpData, []byte("does not fit"))
		})
		if r.stats().outboxBytes == 0 {
			t.Fatal("nothing waits")
		}
		r.wait(8 * time.Second)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 7500*time.Millisecond)
		if s := r.stats(); s.outboxBytes != 0 || r.sock(c).watched {
			t.Errorf("%d bytes still wait, watched %v", s.outboxBytes, r.sock(c).watched)
		}
	})
}

func TestServerBeats(t *testing.T) {
	const h, idle = 3 * time.Second, 7500 * time.Millisecond
	count := func(r *rig, c *Conn) int { return len(r.take(c)) }

	t.Run("each H until T", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.Beats = ServerBeats
			r := newRig(t, cfg, nil)
			r.wait(77 * time.Millisecond)
			c := r.open()
			from := time.Now()
			var at []time.Duration
			for time.Since(from) < 9*time.Second {
				r.wait(10 * time.Millisecond)
				for _, f := range r.take(c) {
					if f.Op != codec.OpBeat {
						t.Fatalf("sent %s", f.Op)
					}
					at = append(at, time.Since(from))
				}
			}
			if len(at) != 2 {
				t.Fatalf("beats at %v, want two", at)
			}
			for i, d := range at {
				if want := time.Duration(i+1) * h; d < want || d > want+tick+10*time.Millisecond {
					t.Errorf("beat %d at %v, want within a tick of %v", i, d, want)
				}
			}
			within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
		})
	})
	t.Run("many when T is long", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{Beat: 2 * time.Second, Timeout: 60 * time.Second, Beats: ServerBeats}, nil)
			c := r.open()
			from := time.Now()
			r.wait(61 * time.Second)
			if n := count(r, c); n != 29 && n != 30 {
				t.Errorf("%d beats in 60 s of silence, want one each 2 s", n)
			}
			within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, time.Minute)
		})
	})
	t.Run("answer", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.Beats = ServerBeats
			r := newRig(t, cfg, nil)
			c := r.open()
			var last time.Time
			for i := range 20 {
				r.wait(h - 1)
				if n := count(r, c); n != 0 {
					t.Fatalf("round %d: beat before H of silence", i)
				}
				r.wait(1)
				if n := count(r, c); n != 1 {
					t.Fatalf("round %d: %d beats after H of silence", i, n)
				}
				r.feed(c, beat)
				if n := count(r, c); n != 0 {
					t.Fatalf("round %d: the answer was answered", i)
				}
				last = time.Now()
			}
			r.wait(idle + slack)
			within(t, "expired", last, r.wantEnd(c, IdleTimeout, true).at, idle)
		})
	})
	t.Run("together", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.Beats = ServerBeats
			r := newRig(t, cfg, nil)
			var cs []*Conn
			for range 50 {
				r.wait(7*time.Millisecond + 137*time.Microsecond)
				cs = append(cs, r.open())
			}
			polls, wakes := 0, 0
			for range 400 {
				r.wait(10 * time.Millisecond)
				before := polls
				for _, c := range cs {
					polls += count(r, c)
				}
				if polls > before {
					wakes++
				}
			}
			if polls != len(cs) || wakes > 5 { // 357 ms are 4 or 5 steps
				t.Errorf("%d polls at %d times, want %d at 5", polls, wakes, len(cs))
			}
		})
	})
	t.Run("before T, however short", func(t *testing.T) {
		for _, ms := range []struct{ h, t, phase time.Duration }{{100, 150, 0}, {100, 150, 60}, {120, 200, 20},
			{100, 0, 40}, {200, 300, 80}} {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{Beat: ms.h * time.Millisecond,
					Timeout: ms.t * time.Millisecond, Beats: ServerBeats}, nil)
				r.wait(time.Second + ms.phase*time.Millisecond)
				c := r.open()
				for range 1000 { // of 5 ms
					r.wait(5 * time.Millisecond)
					if count(r, c) > 0 {
						r.feed(c, beat)
					}
				}
				r.alive(c, "a peer that answers each poll")
			})
		}
	})
	// Each side talks every H/2 or not at all. A silent peer answers beats.
	for _, tc := range []struct {
		name         string
		peer, server bool
		least, most  time.Duration // between two beats
	}{
		{"talkative peer", true, false, h, h},
		{"talkative server", false, true, h, h + tick},
		{"both silent", false, false, h, h},
		{"both talkative", true, true, time.Hour, time.Hour},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := profile(t, "fast")
				cfg.Beats = ServerBeats
				r := newRig(t, cfg, nil)
				c := r.open()
				from := time.Now()
				last := from
				for step := 1; time.Since(from) < time.Minute; step++ {
					r.wait(10 * time.Millisecond)
					for _, f := range r.take(c) {
						if f.Op != codec.OpBeat {
							continue
						}
						if d := time.Since(last); d < tc.least || d > tc.most+10*time.Millisecond {
							t.Fatalf("%v after the start: a beat after %v, want %v to %v",
								time.Since(from), d, tc.least, tc.most)
						}
						last = time.Now()
						r.feed(c, beat)
					}
					if step%150 != 0 {
						continue
					}
					if tc.peer {
						r.feed(c, data("x"))
					}
					if tc.server {
						r.do(func() { r.loop.clock(); _ = c.Send(codec.OpData, []byte("push")) })
					}
				}
				r.alive(c, "a peer that talks or answers")
				if d := time.Since(last); d > tc.most+10*time.Millisecond {
					t.Errorf("no beat for the last %v", d)
				}
			})
		})
	}
	// What the server sends is as good as a beat, also where it goes back as it came.
	t.Run("echo", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.Beats = ServerBeats
			r := newRig(t, cfg, Echo{})
			c := r.open()
			for i := range 100 {
				r.wait(h - tick)
				r.feed(c, data("x"))
				if n := count(r, c); n != 1 {
					t.Fatalf("round %d: %d frames, want the echo", i, n)
				}
			}
			r.wait(h + tick)
			if n := count(r, c); n != 1 {
				t.Errorf("%d beats after H of silence", n)
			}
		})
	})
}

func TestPartialFrame(t *testing.T) {
	frame := data("0123456789abcdef")
	for _, tc := range []struct {
		name  string
		every time.Duration // between two bytes; 0: one part at once
		first []byte        // comes in front, in the same read
	}{
		{"at once", 0, nil},
		{"dripped", time.Second, nil},
		{"dripped fast", 100 * time.Millisecond, nil},
		{"behind a frame", 0, beat},
		{"dripped behind a frame", time.Second, beat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{}, nil)
				c := r.open()
				r.wait(3*time.Second + 33*time.Millisecond)
				from := time.Now()
				if tc.every == 0 {
					r.feed(c, append(append([]byte(nil), tc.first...), frame[:9]...))
				} else {
					long := data(strings.Repeat("x", 500))
					r.feed(c, append(append([]byte(nil), tc.first...), long[0]))
					for i := 1; i < 300 && time.Since(from) < 9900*time.Millisecond; i++ {
						r.wait(tc.every)
						r.feed(c, long[i:i+1])
					}
					r.alive(c, "within the 10 s")
				}
				r.wait(time.Until(from.Add(11 * time.Second)))
				e := r.wantClose(c, Incomplete, codec.CodeIncomplete)
				within(t, "closed", from, e.at, 10*time.Second)
			})
		})
	}
	t.Run("completed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			c := r.open()
			for range 5 { // each begins anew
				r.feed(c, frame[:9])
				r.wait(9900 * time.Millisecond)
				r.feed(c, frame[9:], frame[:3])
				r.wait(9900 * time.Millisecond)
				r.feed(c, frame[3:])
			}
			r.wait(30 * time.Second)
			r.alive(c, "after the frames were completed")
			if n := len(r.rec.got); n != 10 {
				t.Errorf("%d frames, want 10", n)
			}
		})
	})
	t.Run("other frames do not help the one begun", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			// The end of one frame and the beginning of the next: the time
			// runs from the beginning of the present one.
			r := newRig(t, Config{}, nil)
			c := r.open()
			r.feed(c, frame[:9])
			r.wait(9 * time.Second)
			from := time.Now()
			r.feed(c, append(append([]byte(nil), frame[9:]...), frame[:9]...))
			r.wait(11 * time.Second)
			within(t, "closed", from, r.wantClose(c, Incomplete, codec.CodeIncomplete).at, 10*time.Second)
		})
	})
}

func TestUnreadAtDeadline(t *testing.T) {
	const idle = 7500 * time.Millisecond
	start := func(t *testing.T) (*rig, *Conn) {
		r := newRig(t, profile(t, "fast"), nil)
		return r, r.open()
	}
	// late puts bytes into the socket of c that the loop reads only when told.
	late := func(r *rig, c *Conn, b []byte) {
		s := r.sock(c)
		s.mu.Lock()
		s.inbox = append(s.inbox, b...)
		s.mu.Unlock()
	}
	t.Run("completes a frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := start(t)
			r.wait(7 * time.Second)
			late(r, c, beat)
			r.wait(650 * time.Millisecond)
			r.alive(c, "with unread bytes")
			r.do(func() { r.read(c) })
			from := time.Now()
			if n := r.stats().averted[avertedUnread]; n == 0 {
				t.Error("not counted as averted")
			}
			r.wait(8 * time.Second)
			within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
		})
	})
	t.Run("completes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := start(t)
			from := time.Now()
			r.wait(7 * time.Second)
			late(r, c, data("long")[:6])
			r.wait(650 * time.Millisecond)
			r.alive(c, "with unread bytes")
			r.do(func() { r.read(c) })
			read := time.Now()
			r.do(func() { r.sock(c).setUnread(3) }) // more of the same is no excuse
			r.wait(slack)
			e := r.wantEnd(c, IdleTimeout, true)
			if e.at.Sub(read) > slack {
				t.Errorf("closed %v after the read", e.at.Sub(read))
			}
			if e.at.Sub(from) < idle {
				t.Errorf("closed early, after %v", e.at.Sub(from))
			}
		})
	})
	t.Run("stays unread", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := start(t)
			from := time.Now()
			r.do(func() { r.sock(c).setUnread(1) })
			r.wait(20 * time.Second)
			r.alive(c, "with unread bytes")
			n := r.stats().averted[avertedUnread]
			if ticks := uint64((20*time.Second - idle) / tick); n < ticks/2 || n > ticks+2 {
				t.Errorf("averted %d times, want about each of %d ticks", n, ticks)
			}
			r.do(func() { r.sock(c).setUnread(0) })
			now := time.Now()
			r.wait(slack)
			if e := r.wantEnd(c, IdleTimeout, true); e.at.Sub(now) > slack || e.at.Sub(from) < 20*time.Second {
				t.Errorf("closed %v after nothing was unread", e.at.Sub(now))
			}
			if s := r.stats(); s.averted[avertedUnread] != n {
				t.Errorf("averted %d times, then %d", n, s.averted[avertedUnread])
			}
		})
	})
	t.Run("partial frame", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			c := r.open()
			r.feed(c, data("long")[:6])
			r.wait(9900 * time.Millisecond)
			late(r, c, data("long")[6:])
			r.wait(slack)
			r.alive(c, "with the rest unread")
			r.do(func() { r.read(c) })
			r.wait(20 * time.Second)
			r.alive(c, "after the frame was completed")
			if len(r.rec.got) != 1 {
				t.Errorf("%d frames", len(r.rec.got))
			}
		})
	})
}

// Unread bytes save an incomplete frame once, not for ever.
func TestUnreadAtPartialDeadline(t *testing.T) {
	for _, read := range []bool{false, true} {
		t.Run(fmt.Sprintf("read=%v", read), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{}, nil)
				c := r.open()
				from := time.Now()
				r.feed(c, data("a long one")[:6])
				r.do(func() { r.sock(c).setUnread(2) })
				r.wait(10*time.Second + lookAgain/2)
				r.alive(c, "at its deadline, with unread bytes")
				want := 10*time.Second + lookAgain
				if read { // and still incomplete: it is looked at then
					want = time.Since(from)
					r.do(func() { r.sock(c).setUnread(0) })
					r.feed(c, data("a long one")[6:8])
				}
				r.wait(2 * time.Second)
				within(t, "closed", from, r.wantClose(c, Incomplete, codec.CodeIncomplete).at, want)
				if n := r.stats().averted[avertedUnread]; n != 1 {
					t.Errorf("averted %d times", n)
				}
			})
		})
	}
}

// The 10 s for a frame, and for HELLO, stand still while we cannot read.
func TestStallPartial(t *testing.T) {
	for _, require := range []bool{false, true} {
		t.Run(fmt.Sprintf("require=%v", require), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{RequireHello: require}, nil)
				late, never := r.open(), r.open()
				b := hello(codec.Hello{})
				r.feed(late, b[:5])
				r.feed(never, b[:5])
				r.wait(5 * time.Second)
				r.do(func() { time.Sleep(20 * time.Second); r.loop.run() })
				resumed := time.Now()
				r.wait(4 * time.Second)
				r.feed(late, b[5:])
				r.wait(2 * time.Second)
				r.alive(late, "one that completed it in time")
				e := r.wantClose(never, Incomplete, codec.CodeIncomplete)
				if d := e.at.Sub(resumed); d < 5*time.Second-tick || d > 5*time.Second+slack {
					t.Errorf("closed %v after the stall with 5 s left", d)
				}
			})
		})
	}
}

// No peer that beats is killed for a time in which we could not read, and one
// that is dead goes when its remaining time has passed after it.
func TestStall(t *testing.T) {
	const h, idle = 3 * time.Second, 7500 * time.Millisecond
	for _, share := range []float64{0.5, 1, 2, 4} {
		for _, order := range []string{"reads first", "wheel first"} {
			t.Run(fmt.Sprintf("%v T, %s", share, order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					stall := time.Duration(share * float64(idle))
					r := newRig(t, profile(t, "fast"), nil)
					var live []*Conn
					stop := make(chan struct{})
					defer close(stop)
					for i := range 20 {
						c := r.open()
						live = append(live, c)
						go func() { // a peer that beats, whatever we do
							if !sleepOr(time.Duration(i)*h/20, stop) {
								return
							}
							for {
								r.arrive(c, beat)
								if !sleepOr(h, stop) {
									return
								}
							}
						}()
					}
					r.wait(time.Second)
					dead := r.open()
					var silent []*Conn // dead when the stall begins, at several ages
					silent = append(silent, dead)
					r.wait(2 * time.Second)
					silent = append(silent, r.open())
					left := []time.Duration{idle - 2*time.Second, idle}
					r.do(func() {
						time.Sleep(stall)
						if order == "reads first" {
							for _, c := range live {
								r.read(c)
							}
						} else {
							r.loop.run()
						}
					})
					resumed := time.Now()
					r.check()
					if s := r.stats(); s.stalls == 0 || s.stalled < stall-slack || s.stalled > stall {
						t.Errorf("%d stalls, %v, want about %v", s.stalls, s.stalled, stall)
					}
					r.wait(idle + time.Second)
					for i, c := range silent {
						e := r.wantEnd(c, IdleTimeout, true)
						if d := e.at.Sub(resumed); d > left[i]+slack || d < left[i]-slack {
							t.Errorf("dead peer with %v left gone %v after the stall", left[i], d)
						}
					}
					r.wait(3 * idle)
					for _, c := range live {
						r.alive(c, "a peer that beats")
					}
				})
			})
		}
	}
}

// sleepOr sleeps, and reports false if stop was closed meanwhile.
func sleepOr(d time.Duration, stop chan struct{}) bool {
	select {
	case <-stop:
		return false
	case <-time.After(d):
		return true
	}
}

// After a stall a server that beats polls before it gives anybody up.
func TestStallServerBeats(t *testing.T) {
	const h, idle = 3 * time.Second, 7500 * time.Millisecond
	for _, share := range []float64{0.5, 1, 2, 4} {
		t.Run(fmt.Sprint(share), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := profile(t, "fast")
				cfg.Beats = ServerBeats
				r := newRig(t, cfg, nil)
				c, dead := r.open(), r.open()
				r.wait(h / 2)
				stall := time.Duration(share * float64(idle))
				r.do(func() { time.Sleep(stall); r.loop.run() })
				resumed := time.Now()
				r.alive(c, "at the end of the stall")
				for time.Since(resumed) < 3*idle {
					r.wait(10 * time.Millisecond)
					if len(r.take(c)) > 0 { // polled: it answers
						r.feed(c, beat)
					}
				}
				r.alive(c, "a peer that answers")
				if n := len(r.frames(dead)); n != 2 {
					t.Errorf("the dead peer was polled %d times, want twice", n)
				}
				e := r.wantEnd(dead, IdleTimeout, true)
				if d := e.at.Sub(resumed); d > idle-h/2+slack || d < idle-h/2-slack {
					t.Errorf("dead peer gone %v after the stall", d)
				}
			})
		})
	}
}

// A large message that keeps coming, at 16 KiB a second or more, may take longer than
// 10 s, up to the idle timeout; one that stops has what its bytes have bought.
func TestIncompleteGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxFrame: 1 << 20, Beat: 40 * time.Second}, nil)
		c := r.open()
		from := time.Now()
		frame := codec.AppendData(nil, make([]byte, 1<<20-1))
		for range 20 {
			r.feed(c, frame[:32<<10])
			frame = frame[32<<10:]
			r.wait(time.Second)
			r.alive(c, "while it sends 32 KiB a second")
		}
		r.wait(time.Minute)
		e := r.wantClose(c, Incomplete, codec.CodeIncomplete)
		within(t, "incomplete", from, e.at, 50*time.Second) // 10 s, and 40 × 16 KiB
	})
}
