package server

import (
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// asks is a CONFIG that asks for the beat interval, in ms.
func asks(ms int64) []byte { return codec.AppendConfig(nil, codec.Config{BeatMS: ms}) }

// CONFIG has a rate that codec/SPEC.md states: 20 at once, and one a second.
func TestConfigRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Spread: 3 * time.Second}, nil)
		c, patient := r.open(), r.open()
		for i := range 20 {
			r.feed(c, asks(1000+int64(i)))
		}
		r.alive(c, "after 20 CONFIG")
		r.wait(time.Second)
		r.feed(c, asks(5000))
		r.alive(c, "after one more, a second later")
		r.feed(c, asks(5000))
		r.wantEnd(c, RateLimited, false)
		all := r.frames(c)
		last := all[len(all)-1]
		if g, err := codec.ParseGoaway(last.Payload); last.Op != codec.OpGoaway || err != nil || g.Code != 3013 ||
			g.AfterMS != 3000 {
			t.Errorf("the last frame is %s %q (%v), not GOAWAY 3013", last.Op, last.Payload, err)
		}
		if len(all) != 22 {
			t.Errorf("%d frames were sent, want 21 answers and GOAWAY", len(all))
		}
		for range 100 {
			r.feed(patient, asks(5000))
			r.wait(time.Second)
		}
		r.alive(patient, "with one CONFIG a second")
	})
}

// The states of that rate are forgotten, when a connection ends or by the CONFIG
// frames of others.
func TestConfigRateForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil)
		for range 1000 {
			r.feed(r.open(), asks(5000))
		}
		gone := r.open()
		r.feed(gone, asks(5000), codec.AppendClose(nil, 3000, ""))
		r.do(func() {
			if _, kept := r.loop.configs[gone]; kept {
				t.Error("the state of a connection that has ended is kept")
			}
		})
		r.wait(2 * time.Second)
		c := r.open()
		for range 501 {
			r.wait(time.Second)
			r.feed(c, asks(5000), beat)
		}
		r.do(func() {
			if n := len(r.loop.configs); n > 2 {
				t.Errorf("%d states are kept, of 1 connection that sends CONFIG", n)
			}
		})
	})
}

// CONFIG that changes nothing sets no socket option and leaves no garbage, and a
// connection that sends it takes no memory of its own.
func TestConfigThatChangesNothing(t *testing.T) {
	r, c := quiet(t)
	r.loop.received(c, asks(5000))
	n := testing.AllocsPerRun(1000, func() {
		r.loop.configs[c] = 0 // time passes
		r.loop.received(c, asks5000)
	})
	if n != 0 {
		t.Errorf("%g allocations, want 0", n)
	}
	if got := r.sock(c).timeouts; len(got) != 1 {
		t.Errorf("the timeout of the socket was set %d times, want once: %v", len(got), got)
	}
	if c.ext != nil {
		t.Error("it made what few connections need")
	}
}

var asks5000 = asks(5000)
