package server

import (
	"cmp"
	"log/slog"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

// An account counts the memory that the connections of one loop make it keep, by
// capacity: incomplete input, outboxes, and buffers that wait for their next use.
// What it may come to is the budget. Loop only, except where fields say otherwise.
type account struct {
	holders []*Conn // those with ext.mem > 0, in no order
	bytes   int64   // the sum of their ext.mem
	pool    pool

	shedding bool     // shed runs: what it sends is not cause for another
	victims  []victim // scratch of shed

	// Safe for concurrent use.
	total  atomic.Int64                 // a copy of sum
	budget atomic.Int64                 // bytes
	trim   atomic.Bool                  // a call of loop.trim is posted
	onShed func(conns int, bytes int64) // never nil, never blocks; static after construction
}

// holderBytes is what a holder costs beside its buffers.
const holderBytes = int64(unsafe.Sizeof(ext{}) + unsafe.Sizeof(outbox{}) + unsafe.Sizeof(&Conn{}))

// init makes an account without a bound.
func (a *account) init() {
	a.budget.Store(math.MaxInt64)
	a.onShed = func(int, int64) {}
}

// sum returns what is kept.
func (a *account) sum() int64 {
	return a.bytes + int64(len(a.holders))*holderBytes + int64(a.pool.bytes)
}

// hold counts delta bytes more that c makes its loop keep, or fewer. It may close
// c, or others, before it returns: then the memory is beyond the budget. The caller
// must not use what another connection than the current one holds after it.
func (l *loop) hold(c *Conn, delta int) {
	if delta == 0 {
		return
	}
	a, x := &l.account, c.ext
	had := x.mem
	x.mem += delta
	a.bytes += int64(delta)
	switch {
	case had == 0:
		a.holders = append(a.holders, c)
		x.holder, x.memAt = len(a.holders)-1, l.nowMS()
	case x.mem == 0:
		last := len(a.holders) - 1
		other := a.holders[last]
		a.holders[x.holder], other.ext.holder = other, x.holder
		a.holders[last] = nil
		a.holders = a.holders[:last]
		if last == 0 && cap(a.holders) > holdersKept {
			a.holders = nil
		}
	}
	a.pool.allow(int(a.bytes)) // as much waits as is in use, so that queues that fill and drain make no garbage
	sum := a.sum()
	a.total.Store(sum)
	if delta > 0 && sum > a.budget.Load() && !a.shedding {
		l.shed()
	}
}

// holdersKept is how many places for holders an account without any keeps.
const holdersKept = 1024

// memory re-derives ext.mem.
func (x *ext) memory() int {
	n := x.out.memory() + cap(x.partial)
	if x.edge != nil {
		n += cap(x.edge.partial[stageWire]) + cap(x.edge.partial[stagePlain]) + x.edge.kept
	}
	return n
}

// unhold gives back all that c holds, unsent messages included.
func (l *loop) unhold(c *Conn) {
	x := c.ext
	l.stats.outboxBytes -= int64(x.out.len())
	mem := x.out.memory()
	x.out.drop()
	l.hold(c, -mem)
	l.dropPartials(c)
	if x.edge != nil {
		l.hold(c, -x.edge.kept)
		x.edge.kept = 0
	}
}

// shedMargin is the part of the budget that shed makes free, so that it does not
// run again at once.
const shedMargin = 8

// A victim is a connection that shed may close.
type victim struct {
	conn *Conn
	pace float64 // see loop.pace; negative: it goes in any case
}

// shed closes connections until what the others hold is a margin below the budget:
// those that hold the most first, and the slowest first among those that hold about
// the same (within a factor of two). One that holds nothing is never closed. It
// visits every holder, twice.
func (l *loop) shed() {
	a := &l.account
	a.shedding = true
	defer func() {
		a.shedding = false
		a.total.Store(a.sum())
	}()
	a.pool.clear()
	var byClass [bits.UintSize + 1]int64
	pending := int64(0)                        // is freed when the current callback ends
	for i := len(a.holders) - 1; i >= 0; i-- { // backwards, as unhold moves the last one
		c := a.holders[i]
		switch mem := c.ext.mem; {
		case c == l.cur && c.closing():
			pending += int64(mem)
		case c.state == stateTerminated:
			l.unhold(c)
		default:
			byClass[bits.Len(uint(mem))] += int64(mem)
		}
	}
	budget := a.budget.Load()
	excess := a.sum() - pending - budget
	if excess <= 0 {
		return
	}
	excess += budget / shedMargin
	class := len(byClass) - 1
	for ; class > 0 && excess > byClass[class]; class-- { // all of them have to go
		excess -= byClass[class]
	}
	before := a.sum()
	closed := l.closeHolders(class, excess)
	a.pool.clear() // what was freed here is not needed soon
	a.onShed(closed, before-a.sum())
}

// closeHolders closes the holders of the classes above class, and of class the
// slowest, until excess bytes of it are free. It returns how many it has closed.
func (l *loop) closeHolders(class int, excess int64) (closed int) {
	a := &l.account
	all := a.victims[:0]
	for _, c := range a.holders {
		switch n := bits.Len(uint(c.ext.mem)); {
		case c == l.cur && c.closing() || n < class:
		case n > class:
			all = append(all, victim{c, -1})
		default:
			all = append(all, victim{c, l.pace(c)})
		}
	}
	slices.SortFunc(all, func(v, w victim) int { return cmp.Compare(v.pace, w.pace) })
	for ; closed < len(all); closed++ {
		v := all[closed]
		if v.pace >= 0 {
			if excess <= 0 {
				break
			}
			excess -= int64(v.conn.ext.mem)
		}
		l.shedOne(v.conn)
	}
	if clear(all); cap(all) <= holdersKept {
		a.victims = all[:0]
	} else {
		a.victims = nil
	}
	return closed
}

// pace returns how fast bytes have gone in and out since c began to hold some.
func (l *loop) pace(c *Conn) float64 {
	x := c.ext
	written := int64(0)
	if x.out != nil {
		written = x.out.progress.written
	}
	return (float64(x.mem) + float64(written)) / float64(l.nowMS()-x.memAt+1)
}

// shedOne closes c for what it holds, and frees that at once unless c is the
// current connection, whose callback may be using it.
func (l *loop) shedOne(c *Conn) {
	reads := c.queued() == 0 && !c.closing()
	if c != l.cur {
		l.unhold(c)
	}
	if reads {
		l.end(c, Notice{Reason: Shed, Code: codec.CodeOverloaded, After: l.cfg.Spread,
			Text: "this connection held much of the server's memory, which is short"})
	} else {
		l.terminate(c, Shed, true)
	}
}

// setBudget changes the budget. Safe for concurrent use.
func (l *loop) setBudget(bytes int64) {
	a := &l.account
	a.budget.Store(bytes)
	if a.total.Load() > bytes && a.trim.CompareAndSwap(false, true) {
		_ = l.mail.postOwn(func() {
			a.trim.Store(false)
			if a.sum() > a.budget.Load() {
				l.shed()
			}
		})
	}
}

// accounts are those of all loops. It implements admission.Holders; nil has none.
// Safe for concurrent use.
type accounts struct {
	loops     []*loop
	least     int64 // budget of a loop: what one connection may need
	most      int64 // budget of all
	log       *slog.Logger
	admission *admission.Control

	shedLog logLimiter
	closed  atomic.Int64 // connections closed since the last line
	freed   atomic.Int64 // bytes, likewise
}

// newAccounts gives the loops a budget. Called before they have connections.
func newAccounts(loops []*loop, cfg *Config, control *admission.Control) *accounts {
	input := 1 << bits.Len(uint(cfg.MaxFrame+codec.HeaderSize))
	a := &accounts{loops: loops, least: int64(input + cfg.Outbox + 2*blockMost), log: cfg.Logger, admission: control,
		most: admission.MachineBudget(cfg.Processes)}
	for _, l := range loops {
		l.account.onShed = a.onShed
	}
	a.SetBudget(a.most)
	return a
}

// onShed logs what a loop has closed.
func (a *accounts) onShed(conns int, bytes int64) {
	a.admission.Freed()
	a.closed.Add(int64(conns))
	a.freed.Add(bytes)
	a.shedLog.log(a.log, slog.LevelWarn, connLogEvery,
		"connections hold as much memory as they may: those that hold the most are closed",
		func() []any {
			return []any{"closed", a.closed.Swap(0), "freed", a.freed.Swap(0), "held", a.Held(), "budget", a.Budget(),
				"fix", "raise the memory limit, or lower the largest frame or the outbox"}
		})
}

// Budget returns what all loops may keep.
func (a *accounts) Budget() (sum int64) {
	if a == nil {
		return 0
	}
	for _, l := range a.loops {
		sum += l.account.budget.Load()
	}
	return sum
}

// Held returns what all loops keep.
func (a *accounts) Held() (sum int64) {
	if a == nil {
		return 0
	}
	for _, l := range a.loops {
		sum += l.account.total.Load()
	}
	return sum
}

// SetBudget divides bytes among them.
func (a *accounts) SetBudget(bytes int64) {
	bytes = min(bytes, a.most)
	for _, l := range a.loops {
		l.setBudget(max(bytes/int64(len(a.loops)), a.least))
	}
}
