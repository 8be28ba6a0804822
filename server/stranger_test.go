package server

import (
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// Connections without HELLO take only their share: one more closes the oldest,
// which may come back, and no connection that has said HELLO.
func TestStrangersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{RequireHello: true, Spread: 3 * time.Second}, nil)
		r.loop.strangers.most = 3
		known := r.open()
		r.feed(known, hello(codec.Hello{}))
		var all []*Conn
		for range 3 {
			all = append(all, r.open())
		}
		r.feed(all[1], hello(codec.Hello{})) // leaves one place
		all = append(all, r.open())
		for _, c := range append(all, known) {
			r.alive(c, "within the limit")
		}
		all = append(all, r.open())
		if c := all[0]; c.state != stateClosed || c.reason != HelloLimit {
			t.Fatalf("the oldest: state %d, %s", c.state, c.reason)
		}
		g := r.frames(all[0])
		if len(g) != 1 || g[0].Op != codec.OpGoaway {
			t.Fatalf("sent %v", g)
		}
		if away, err := codec.ParseGoaway(g[0].Payload); err != nil || away.Code != codec.CodeOverloaded ||
			away.AfterMS != 3000 {
			t.Errorf("%+v, %v", away, err)
		}
		for _, c := range append(all[1:], known) {
			r.alive(c, "not the oldest")
		}
		r.check()
	})
}

// What strangers cost does not grow with the connections that come and go while
// one waits.
func TestStrangersQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{RequireHello: true}, nil)
		r.loop.strangers.most = 100
		waits := r.open()
		for range 1000 {
			c := r.open()
			r.feed(c, hello(codec.Hello{}))
			r.do(func() { r.loop.lost(c, PeerReset) })
		}
		s := &r.loop.strangers
		if len(s.waits) != 1 || len(s.queue) > 2+strangersLeast {
			t.Errorf("%d wait, %d are queued", len(s.waits), len(s.queue))
		}
		r.alive(waits, "the first")
		r.feed(waits, hello(codec.Hello{}))
		if len(s.waits) != 0 {
			t.Errorf("%d wait", len(s.waits))
		}
	})
}

// A HELLO that the handler has yet to answer has arrived: its connection is no
// stranger.
func TestPendingHelloIsNoStranger(t *testing.T) {
	for _, require := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r, _ := pendingRig(t, Config{RequireHello: require})
			r.loop.strangers.most = 1
			first := r.open()
			r.feed(first, hello(codec.Hello{}))
			for range 5 {
				r.open()
			}
			r.alive(first, "whose HELLO is pending")
		})
	}
}

func TestStrangersMost(t *testing.T) {
	for _, c := range []struct{ connections, loops, want int }{
		{20_000, 2, 5000}, {20_000, 1, 10_000}, {10, 4, strangersLeast}, {0, 1, strangersLeast},
	} {
		if got := strangersMost(c.connections, c.loops); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
