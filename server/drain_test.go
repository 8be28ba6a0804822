package server

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// drained is what happened to one connection in a drain.
type drained struct {
	c       *Conn
	goaways []codec.Goaway
	at      time.Duration // of the first, since the drain began
	early   bool          // it leaves when it is told
	before  bool          // it has left before
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 10000
		// long: one tick is 1 % of a tenth
		cfg := Config{Beat: time.Minute, Drain: 2 * time.Minute, Spread: 5 * time.Second}
		r := newRig(t, cfg, nil)
		r.wait(30 * time.Millisecond)
		all := make([]*drained, n)
		var from time.Time
		for i := range all {
			d := &drained{c: r.open(), early: i%10 == 0, before: i%1000 == 1}
			all[i] = d
			s := r.sock(d.c)
			s.forget = true
			s.onWrite = func(b []byte) {
				f, _, err := codec.Decode(b, codec.DefaultMaxFrame)
				if err != nil {
					t.Error(err)
				}
				if f.Op != codec.OpGoaway {
					return
				}
				if g, err := codec.ParseGoaway(f.Payload); err != nil {
					t.Error(err)
				} else if d.goaways = append(d.goaways, g); len(d.goaways) == 1 {
					d.at = time.Since(from)
				}
				if d.early {
					r.arrive(d.c, codec.AppendClose(nil, codec.CodePeerClosed, ""))
				}
			}
		}
		from = time.Now()
		if err := r.loop.mail.postOwn(r.loop.startDrain); err != nil {
			t.Fatal(err)
		}
		r.wait(0)
		// these are in the drain's list, but leave before their turn, which is later but for the first of them
		for _, d := range all {
			if d.before {
				r.feed(d.c, codec.AppendClose(nil, codec.CodePeerClosed, ""))
			}
		}
		r.wait(cfg.Drain / 2)
		r.check()
		r.wait(cfg.Drain/2 + tick)
		r.check()

		window, hold := time.Duration(drainWindow*float64(cfg.Drain)), time.Duration(drainHold*float64(cfg.Drain))
		var tenths [10]int
		var told, low, high int
		for _, d := range all {
			e := r.end(d.c)
			if d.before {
				if len(d.goaways) > 1 || e.why != PeerClosed {
					t.Fatalf("one that left before: %d GOAWAYs, closed as %s", len(d.goaways), e.why)
				}
				if len(d.goaways) == 0 {
					continue
				}
			}
			if len(d.goaways) != 1 {
				t.Fatalf("a connection got %d GOAWAYs", len(d.goaways))
			}
			told++
			g := d.goaways[0]
			after := time.Duration(g.AfterMS) * time.Millisecond
			if g.Code != codec.CodeDraining || after < 0 || after > hold/2 {
				t.Fatalf("GOAWAY %+v, want code 3001 and at most %v", g, hold/2)
			}
			if after < hold/4 {
				low++
			} else {
				high++
			}
			tenths[min(int(d.at*10/window), 9)]++
			stayed := e.at.Sub(from) - d.at
			switch {
			case !e.closed:
				t.Fatal("a connection is open after the drain")
			case d.early || d.before:
				if e.why != PeerClosed || stayed > tick {
					t.Fatalf("one that left when told: closed as %s after %v", e.why, stayed)
				}
			case e.why != Draining || e.aborted:
				t.Fatalf("closed as %s (abort %v)", e.why, e.aborted)
			case stayed < hold-tick || stayed > hold+tick:
				t.Fatalf("closed %v after it was told, want %v", stayed, hold)
			}
			if end := e.at.Sub(from); end > window+hold+slack || end > cfg.Drain {
				t.Fatalf("closed %v after the drain began", end)
			}
		}
		for i, k := range tenths {
			if d := k - told/10; d*50 > told/10+50 || -d*50 > told/10+50 {
				t.Errorf("tenth %d of the window has %d of %d, more than 2 %% off: %v", i, k, told, tenths)
			}
		}
		if low < told*45/100 || high < told*45/100 {
			t.Errorf("after_ms is not spread: %d in the lower half, %d in the upper", low, high)
		}
		s := r.stats()
		if s.goaways != uint64(told) || s.totalClosed() != n {
			t.Errorf("counted %d GOAWAYs of %d, closed %d of %d", s.goaways, told, s.totalClosed(), n)
		}
	})
}

// A short spread is kept to, and CLOSE comes behind GOAWAY.
func TestDrainFrames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Beat: time.Minute, Spread: 200 * time.Millisecond, Drain: 20 * time.Second}, nil)
		var all []*Conn
		for range 200 {
			all = append(all, r.open())
		}
		r.do(r.loop.startDrain)
		r.wait(20*time.Second + tick)
		for _, c := range all {
			r.wantClose(c, Draining, codec.CodeDraining)
			f := r.frames(c)
			if len(f) != 2 || f[0].Op != codec.OpGoaway {
				t.Fatalf("frames %v", f)
			}
			if g, err := codec.ParseGoaway(f[0].Payload); err != nil || g.AfterMS < 0 || g.AfterMS > 200 {
				t.Errorf("GOAWAY %+v %v", g, err)
			}
		}
	})
}

// A stall of our own does not lengthen a drain, and a lone connection is told at
// once.
func TestDrainStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Beat: time.Minute, Drain: 10 * time.Second}, nil)
		c := r.open()
		r.do(r.loop.startDrain)
		r.wait(tick)
		one(r, c, codec.OpGoaway)
		r.alive(c, "right after it was told")
	})
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		r := newRig(t, Config{Beat: time.Minute, Drain: 10 * time.Second}, nil)
		for range n {
			r.open().quiet(r)
		}
		r.do(func() {
			r.loop.startDrain()
			time.Sleep(4 * time.Second) // in the loop: it cannot run
		})
		r.wait(5900 * time.Millisecond)
		if s := r.stats(); s.goaways != n || s.closed[Draining] != n {
			t.Errorf("told %d and closed %d of %d", s.goaways, s.closed[Draining], n)
		}
		r.check()
	})
}

// Without connections a drain has nothing to do, and one that was begun does
// not disturb who comes late.
func TestDrainEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Drain: time.Second}, Echo{})
		r.do(r.loop.startDrain)
		c := r.open()
		r.wait(5 * time.Second)
		r.alive(c, "one that came late")
		r.feed(c, beat)
		one(r, c, codec.OpBeat)
	})
}

// However many are due at once, one run does a bounded part of it.
func TestDrainIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Drain: time.Second}, nil)
		for range 20000 {
			r.open().quiet(r)
		}
		var told, closed uint64
		most := uint64(0)
		r.do(func() {
			r.onRun = func() {
				s := &r.loop.stats
				most = max(most, s.goaways-told, s.totalClosed()-closed)
				told, closed = s.goaways, s.totalClosed()
			}
			r.loop.startDrain()
		})
		r.wait(time.Second + tick)
		if s := r.stats(); s.goaways != 20000 || s.closed[Draining] != 20000 {
			t.Errorf("told %d and closed %d of 20000", s.goaways, s.closed[Draining])
		}
		if most != closesPerRun {
			t.Errorf("at most %d in one run, want %d", most, closesPerRun)
		}
		r.check()
	})
}

// quiet makes the socket of c forget what is written to it.
func (c *Conn) quiet(r *rig) *Conn {
	r.do(func() { r.sock(c).forget = true })
	return c
}

func TestMassExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, idle = 15000, 7500 * time.Millisecond
		r := newRig(t, profile(t, "fast"), nil)
		other := r.open()
		from := time.Now()
		var all []*Conn
		r.do(func() {
			for range n {
				c := r.loop.newConn(0, nil)
				r.opened(c)
				all = append(all, c)
			}
		})
		r.wait(5 * time.Second)
		r.feed(other, beat)
		r.take(other)

		var closed, most uint64
		runs, fed, answeredAt := 0, 0, []uint64{}
		r.do(func() {
			r.sock(other).onWrite = func([]byte) { answeredAt = append(answeredAt, r.loop.stats.totalClosed()) }
			r.onRun = func() {
				now := r.loop.stats.totalClosed()
				if now > closed {
					runs++
					most = max(most, now-closed)
					if runs == 5 || runs == 20 {
						fed++
						r.arrive(other, beat)
					}
				}
				closed = now
			}
		})
		r.wait(idle + slack - time.Since(from))
		r.do(func() { r.onRun = nil; r.sock(other).onWrite = nil })
		for _, c := range all {
			within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
			if t.Failed() {
				break
			}
		}
		if most != closesPerRun || runs < n/closesPerRun {
			t.Errorf("%d runs, at most %d closed in one, want %d", runs, most, closesPerRun)
		}
		r.alive(other, "in a mass expiry")
		if fed != 2 || len(answeredAt) != 2 || !slices.IsSorted(answeredAt) || answeredAt[1] >= n {
			t.Errorf("fed %d beats, answered when %v of %d were gone", fed, answeredAt, n)
		}
		r.check()
	})
}

// A drain's notice has room in an outbox that holds more than its bound, as answers
// may.
func TestDrainNoticeBehindLargeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxFrame: 1024, Outbox: 4096, Drain: 5 * time.Second}, nil)
		r.rec.onFrame = func(c *Conn, _ codec.Frame) error {
			for range 7 {
				_ = c.Send(codec.OpData, make([]byte, 1000))
			}
			return nil
		}
		c := r.open()
		fill(r, c)
		r.feed(c, data("ask"))
		r.do(r.loop.startDrain)
		r.do(r.loop.run)
		r.alive(c, "after its notice")
		r.do(func() { r.writable(c, -1) })
		if got := opsOf(r.frames(c)); len(got) != 8 || !slices.Contains(got, codec.OpGoaway) {
			t.Errorf("sent %v", got)
		}
	})
}

// A GOAWAY that nothing can say is not counted: before the upgrade to WebSocket, and with a
// foreign framing. Both are closed in their turn.
func TestDrainWithoutGoaway(t *testing.T) {
	for _, edge := range []Config{
		{Listen: []string{"ws://127.0.0.1:1/"}}, {Edge: Edge{Framing: Framing{Kind: FramingLines}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			edge.Drain = time.Second
			r := newRig(t, edge, nil)
			r.do(func() { r.edge = r.loop.setEdges(newInForce(r.cfg, nil))[0] })
			c := r.open()
			r.do(r.loop.startDrain)
			r.wait(time.Second)
			r.wantEnd(c, Draining, false)
			if n := r.stats().goaways; n != 0 {
				t.Errorf("%v: %d are counted", edge.Listen, n)
			}
		})
	}
}
