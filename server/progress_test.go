package server

import (
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// A peer has to take 4 KiB of what waits in each WriteStall, by what its
// machine acknowledges. One that does lives; one that does not is closed, at
// the latest an eighth of WriteStall after its time.
func TestSlowConsumerPace(t *testing.T) {
	const stall, step = 8 * time.Second, time.Second
	cfg := Config{Outbox: 1 << 20, WriteStall: stall}
	fillUp := func(r *rig) (*Conn, time.Time) {
		c := r.open()
		r.do(func() { r.sock(c).room, r.sock(c).unacked = 20_000, 20_000 })
		start := time.Now()
		posted(t, r, c, func(c *Conn) {
			for range 10 {
				_ = c.Send(codec.OpData, make([]byte, 9000))
			}
		})
		return c, start
	}
	for _, test := range []struct {
		name  string
		act   func(r *rig, c *Conn, second int) // each whole second
		after time.Duration                     // at this time at the earliest; 0: it lives
		until time.Duration                     // at this time, and slack, at the latest
	}{
		{"none", func(*rig, *Conn, int) {}, stall, stall},
		{"511 B a second", func(r *rig, c *Conn, _ int) { r.sock(c).unacked -= 511 }, stall, stall},
		{"512 B a second", func(r *rig, c *Conn, _ int) { r.sock(c).unacked -= 512 }, 0, 0},
		{"4095 B once", func(r *rig, c *Conn, second int) {
			if second == 3 {
				r.sock(c).unacked -= 4095
			}
		}, stall, stall},
		{"4 KiB once", func(r *rig, c *Conn, second int) {
			if second == 3 {
				r.sock(c).unacked -= 4096
			}
		}, 3*time.Second + stall, 4*time.Second + stall},
		{"bytes that only moved to the socket", func(r *rig, c *Conn, _ int) {
			r.sock(c).unacked += 2000
			r.writable(c, 2000)
		}, stall, stall},
		{"600 B a second, and as many moved to the socket", func(r *rig, c *Conn, _ int) { r.writable(c, 600) }, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, cfg, nil)
				c, start := fillUp(r)
				for second := 1; second <= 30; second++ {
					if test.after != 0 && time.Duration(second)*step > test.after {
						r.wait(time.Until(start.Add(test.until + slack)))
						break
					}
					r.wait(time.Until(start.Add(time.Duration(second)*step - time.Millisecond)))
					r.alive(c, "before its time")
					r.do(func() { r.loop.clock(); test.act(r, c, second); r.loop.reap() })
				}
				if test.after == 0 {
					return
				}
				e := r.wantEnd(c, SlowConsumer, true)
				if took := e.at.Sub(start); took < test.after || took > test.until+slack {
					t.Errorf("closed %s after the start, want %s to %s", took, test.after, test.until+slack)
				}
				noBytesWait(t, r)
			})
		})
	}
}

// Unless it is set, the write stall is 8 s, or 0.8 of the connection's timeout if
// that is less. What follows a change of the timeout counts from then on.
func TestWriteStallDefault(t *testing.T) {
	for _, tc := range []struct {
		name string
		cfg  Config
		wish time.Duration // asked for in CONFIG
		want time.Duration
	}{
		{"standard", profile(t, "standard"), 0, 8 * time.Second},
		{"fast", profile(t, "fast"), 0, 6 * time.Second},
		{"fast, asked for 1 s", profile(t, "fast"), time.Second, 2 * time.Second},
		{"fast, asked for 15 s", profile(t, "fast"), 15 * time.Second, 8 * time.Second},
		{"set", Config{Timeout: 5 * time.Second, WriteStall: 20 * time.Second}, 0, 20 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, tc.cfg, nil)
				c := r.open()
				if tc.wish != 0 {
					r.feed(c, wish(tc.wish))
				}
				fill(r, c)
				from := time.Now()
				posted(t, r, c, func(c *Conn) { _ = c.Send(codec.OpData, make([]byte, 9000)) })
				for time.Since(from) < tc.want-100*time.Millisecond { // it beats, and does not read
					r.wait(100 * time.Millisecond)
					r.feed(c, codec.AppendPong(nil, nil))
				}
				r.wait(100*time.Millisecond + slack)
				within(t, "closed", from, r.wantEnd(c, SlowConsumer, true).at, tc.want)
			})
		})
	}
}
