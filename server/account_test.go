package server

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// incomplete gives c the first n bytes of the largest message.
func (r *rig) incomplete(c *Conn, n int) {
	r.feed(c, codec.AppendData(nil, make([]byte, r.cfg.MaxFrame-16))[:n])
}

// wantShed fails the test unless c has closed for what it held, with GOAWAY.
func (r *rig) wantShed(c *Conn) {
	r.t.Helper()
	r.wantEnd(c, Shed, false)
	all := r.frames(c)
	if len(all) == 0 || all[len(all)-1].Op != codec.OpGoaway {
		r.t.Fatalf("frames %v do not end in GOAWAY", all)
	}
	g, err := codec.ParseGoaway(all[len(all)-1].Payload)
	if err != nil || g.Code != codec.CodeOverloaded || g.AfterMS <= 0 {
		r.t.Fatalf("GOAWAY %+v (%v)", g, err)
	}
}

// waits puts n bytes into the outbox of c.
func (r *rig) waits(c *Conn, n int) {
	r.do(func() {
		r.loop.clock()
		r.sock(c).room = 0
		for ; n > 0; n -= 8 << 10 {
			_ = c.Send(codec.OpData, make([]byte, 8<<10))
		}
		r.loop.reap()
	})
}

// budget sets what the loop's connections may hold.
func (r *rig) budget(n int64) {
	r.loop.setBudget(n)
	if r.bare {
		r.loop.run()
	}
}

// accountRig has loops whose messages are up to 1 MiB.
func accountRig(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) { f(newRig(t, Config{MaxFrame: 2 << 20}, nil)) })
}

// Those that hold the most are closed first, whatever it is that they hold, until
// the rest is a margin below the budget. One that holds nothing never is.
func TestShedLargestFirst(t *testing.T) {
	accountRig(t, func(r *rig) {
		idle := r.open()
		small, middle, large, waiting := r.open(), r.open(), r.open(), r.open()
		r.incomplete(small, 30_000)
		r.incomplete(middle, 100_000)
		r.incomplete(large, 500_000)
		r.waits(waiting, 300<<10)
		sum := r.loop.account.total.Load()
		if sum < 930_000 || sum > 1_300_000 {
			t.Fatalf("%d bytes are held", sum)
		}
		r.budget(sum) // enough
		r.wait(0)
		r.alive(large, "within the budget")

		r.budget(sum - 1)
		r.wait(0)
		r.wantShed(large)
		for _, c := range []*Conn{idle, small, middle, waiting} {
			r.alive(c, "the largest was enough")
		}
		r.check()

		r.budget(100_000)
		r.wait(0)
		r.wantEnd(waiting, Shed, true) // it reads nothing, so nothing more is said
		r.wantShed(middle)
		r.alive(small, "the others were enough")

		r.budget(0)
		r.wait(0)
		r.wantShed(small)
		r.alive(idle, "it holds nothing")
		if n := r.loop.account.total.Load(); n != 0 {
			t.Errorf("%d bytes are held by none", n)
		}
		r.check()
	})
}

// Among those that hold about the same the slowest are closed first.
func TestShedSlowestFirst(t *testing.T) {
	accountRig(t, func(r *rig) {
		var all []*Conn
		for range 8 {
			c := r.open()
			r.incomplete(c, 40_000)
			all = append(all, c)
			r.wait(100 * time.Millisecond)
		}
		reads := r.open() // as old as the others, but it takes what waits for it
		r.waits(reads, 64<<10)
		r.do(func() {
			r.loop.clock()
			r.writable(reads, 10<<20)
			r.sock(reads).room = 0
			r.loop.reap()
		})
		r.waits(reads, 40<<10)

		r.budget(r.loop.account.total.Load() - 3*(64<<10))
		r.wait(0)
		closed := 0
		for _, c := range all {
			if r.end(c).closed {
				closed++
			}
		}
		// Three for the budget, and those of the margin.
		if closed < 4 || closed > 6 {
			t.Errorf("%d were closed", closed)
		}
		for _, c := range all[closed:] {
			r.alive(c, "it began later than those that were closed")
		}
		r.alive(reads, "it is faster")
		r.check()
	})
}

// What arrives beyond the budget closes connections before the callback ends, so
// that a loop never holds more than the budget and one message.
func TestShedAtOnce(t *testing.T) {
	const budget = 1 << 20
	for _, test := range []struct {
		name string
		more func(r *rig, c *Conn)
	}{
		{"incomplete input", func(r *rig, c *Conn) { r.incomplete(c, 60_000) }},
		{"outbox", func(r *rig, c *Conn) { r.waits(c, 64<<10) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newBareRig(t, Config{}, nil)
			r.budget(budget)
			most, beating := int64(0), r.open()
			var sheds, conns int
			r.loop.account.onShed = func(n int, _ int64) { sheds++; conns += n }
			for range 200 {
				test.more(r, r.open())
				most = max(most, r.loop.account.total.Load())
				r.feed(beating, beat)
			}
			r.check()
			r.alive(beating, "it holds nothing")
			if most > budget+(128<<10) {
				t.Errorf("%d bytes were held", most)
			}
			closed := r.stats().closed[Shed]
			if closed < 180 || int(closed) != conns {
				t.Errorf("%d were closed, %d reported", closed, conns)
			}
			if sheds > conns/2+1 { // the margin is two of them
				t.Errorf("it took %d sheds to close %d", sheds, conns)
			}
		})
	}
}

// One task that sends to many peers that read nothing stays within the budget too.
func TestShedWithinOneTask(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	r.budget(1 << 20)
	var all []*Conn
	for range 100 {
		c := r.open()
		r.sock(c).room = 0
		all = append(all, c)
	}
	most := int64(0)
	_ = all[0].Post(func(*Conn) {
		for range 4 {
			for _, c := range all {
				_ = c.Send(codec.OpData, make([]byte, 30<<10))
				most = max(most, r.loop.account.total.Load())
			}
		}
	})
	r.loop.run()
	if most > 1<<20+256<<10 {
		t.Errorf("%d bytes were held", most)
	}
	if n := r.stats().closed[Shed]; n < 60 {
		t.Errorf("%d were closed", n)
	}
	r.check()
}

// The connection whose callback runs may be the one that goes.
func TestShedCurrent(t *testing.T) {
	r := newBareRig(t, Config{MaxFrame: 2 << 20}, nil)
	r.budget(256 << 10)
	c := r.open()
	in := codec.AppendData(nil, make([]byte, 1<<20))
	r.feed(c, in[:100_000], in[100_000:200_000], in[200_000:300_000], in[300_000:])
	r.wantShed(c)
	if len(r.rec.got) != 0 {
		t.Error("its message was delivered")
	}
	c = r.open()
	r.rec.onFrame = func(c *Conn, f codec.Frame) error {
		for range 8 {
			_ = c.Send(codec.OpData, make([]byte, 60_000))
		}
		if len(f.Payload) != 100_000 || slices.Max(f.Payload) != 7 || slices.Min(f.Payload) != 7 {
			t.Error("its input was overwritten while it was in use")
		}
		return nil
	}
	r.sock(c).room = 0
	in = codec.AppendData(nil, slices.Repeat([]byte{7}, 100_000))
	r.feed(c, in[:50_000], in[50_000:])
	r.wantEnd(c, Shed, true)
	r.check()
}

// Small pieces count with what they cost: the session's rare part and its buffer.
func TestHeldCountsSmallPieces(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	for range 1000 {
		r.incomplete(r.open(), 5)
	}
	if n := r.loop.account.total.Load(); n < 1000*(holderBytes+5) || n > 1000*(holderBytes+32) {
		t.Errorf("1000 of them count as %d bytes", n)
	}
}

// Spare buffers have a bound, and go when memory is short.
func TestPoolBound(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	var all []*Conn
	for range 100 {
		c := r.open()
		r.waits(c, 128<<10)
		all = append(all, c)
	}
	for _, c := range all {
		r.writable(c, -1)
	}
	if n := r.loop.account.pool.bytes; n < poolMost/2 || n > poolMost {
		t.Errorf("%d bytes are kept for later", n)
	}
	r.check()
	r.budget(1)
	if n := r.loop.account.total.Load(); n != 0 {
		t.Errorf("%d bytes are kept although memory is short", n)
	}
}

// Messages that are not whole in a read, and outboxes that fill and drain, take
// their buffers from the pool.
func TestNoAllocationsHolding(t *testing.T) {
	r, c := quiet(t)
	large := codec.AppendData(nil, make([]byte, 40_000))
	r.rec = nil
	run := func() {
		r.loop.received(c, large[:20_000])
		r.loop.received(c, large[20_000:])
	}
	run()
	if n := testing.AllocsPerRun(100, run); n > 1 { // ext
		t.Errorf("%g allocations for a message in two parts", n)
	}
}

// A frame that goes back as it came is sent once, also if keeping it closes others.
func TestShedWhileEchoing(t *testing.T) {
	r := newBareRig(t, Config{}, nil)
	echo := func(c *Conn, f codec.Frame) error { return c.Send(codec.OpData, f.Payload) }
	other, c := r.open(), r.open()
	r.incomplete(other, 60_000)
	r.rec.onFrame = echo
	r.budget(r.loop.account.total.Load() + 1)
	in := codec.AppendData(nil, make([]byte, 30_000))
	r.sock(c).room = 0
	r.feed(c, in)
	r.wantShed(other)
	r.writable(c, -1)
	if n := len(r.sock(c).out); n != len(in) {
		t.Errorf("%d bytes came back for %d", n, len(in))
	}
	r.check()
}

func BenchmarkShed(b *testing.B) {
	r := newBareRig(b, Config{}, nil)
	for range 10_000 {
		r.feed(r.open(), codec.AppendData(nil, make([]byte, 6000))[:5000])
	}
	l := r.loop
	for b.Loop() { // visits all, closes none
		sum := l.account.sum()
		l.account.budget.Store(sum)
		l.shed()
	}
	l.account.budget.Store(1 << 40)
}

// As much waits for its next use as is in use, and a fixed amount beside it.
func TestPoolFollowsUse(t *testing.T) {
	var p pool
	const block = 32 << 10
	put := func(n int) {
		for range n {
			p.put(make([]byte, 0, block))
		}
		if err := p.check(); err != nil {
			t.Fatal(err)
		}
	}
	put(2 * poolMost / block)
	if p.bytes != poolMost {
		t.Errorf("%d bytes wait while nothing is in use", p.bytes)
	}
	p.allow(3 * poolMost)
	put(10 * poolMost / block)
	if p.bytes != 4*poolMost {
		t.Errorf("%d bytes wait while %d are in use", p.bytes, 3*poolMost)
	}
	before := p.bytes
	if b := p.make(block); cap(b) != block || p.bytes != before-block {
		t.Errorf("a block of %d bytes, and %d wait", cap(b), p.bytes)
	}
	p.allow(0)
	if p.bytes != poolMost || p.check() != nil {
		t.Errorf("%d bytes wait when what was in use has gone: %v", p.bytes, p.check())
	}
}
