package wheel

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// stallTicks is the longest gap between two readings of the loop clock,
	// in ticks, that still counts as ordinary work.
	stallTicks = 3

	// relinksPerDue bounds how many refreshed timers one Advance relinks, as a
	// multiple of how many due ones it may report. A relink is a few dozen
	// nanoseconds, a close is some microseconds.
	relinksPerDue = 16

	// maxLimit keeps relinksPerDue x limit within an int.
	maxLimit = 1 << 24

	// The timers that are near are swept through when the first of them is due,
	// but not sooner after the last time than nearPause, nor than sweepPause for
	// each of them, up to a tick. A visit takes 7 ns where there are 100, 25
	// where there are 10,000 and 100 where there are 100,000 (BenchmarkSweep): so
	// sweeps take 0.4, 5 and 20 percent of the loop.
	nearPause  = int64(200 * time.Microsecond)
	sweepPause = int64(500 * time.Nanosecond)

	never = math.MaxInt64
)

// Loop holds the deadlines of one event loop.
//
// Every method is Loop only, which means: one goroutine at a time, unless it
// says otherwise.
type Loop struct {
	// Static after construction.
	w     *Wheel
	rec   *ledger
	alarm alarm // wakes the loop at wakeAt
	tick  int64
	mask  int64
	lists []Timer // sentinels of the circular lists: slot k&mask stands for tick k; behind the slots, two for what is near

	// Owned by the loop.
	asked    []int64 // tick for which slot i has last asked to be woken
	cur      int64   // first tick that has not been visited to its end
	floor    int64   // first tick to come: nothing is linked in a slot before it
	n        int     // armed timers
	near     int32   // list of the timers that are too close to their deadlines for a slot
	sweeping int32   // the other one: what is left to visit of the sweep under way
	crowd    int     // timers in both
	nearAt   int64   // loop clock; none in near is due before
	restTo   int64   // loop clock of the next sweep, at the earliest
	wakeAt   int64   // monotonic time the alarm was last set to
	aimed    bool    // it was set since the latest Advance began, so that one is to come
	prev     int64   // previous reading of the monotonic clock; -1 before the first
	credit   int64   // what the loop clock is behind the monotonic clock
	iters    *iteration

	// Read by anyone.
	stalls   atomic.Uint64
	credited atomic.Int64
}

// iteration is an All in progress.
type iteration struct {
	next  *Timer
	outer *iteration
}

func newLoop(w *Wheel, rec *ledger) *Loop {
	n := w.cfg.Slots
	l := &Loop{
		w:        w,
		rec:      rec,
		alarm:    w.newAlarm(func() { w.wake(rec) }),
		tick:     int64(w.cfg.Tick),
		mask:     int64(n - 1),
		lists:    make([]Timer, n+2),
		asked:    make([]int64, n),
		near:     int32(n),
		sweeping: int32(n + 1),
		nearAt:   never,
		wakeAt:   never,
		prev:     -1,
	}
	for i := range l.lists {
		s := &l.lists[i]
		s.next, s.prev, s.list = s, s, int32(i)
	}
	l.cur = w.clock()/l.tick + 1
	l.floor = l.cur
	return l
}

// Now reads the loop clock in ns: monotonic time less what has been credited.
// Call it once at the start of every callback of the loop and hand the result
// to Touch, Arm and Advance.
//
// If more than three ticks have passed since the previous call, then this
// process was stopped, starved or blocked, and the loop could not read its
// sockets meanwhile. All of that but one tick is credited: the loop clock does
// not move during it, so no deadline runs out in the time of our own stall. The
// wheel asks for a call every tick, also of an idle loop, so that only a stall
// can make the gap that long.
func (l *Loop) Now() int64 {
	m := l.w.clock()
	if gap := m - l.prev; gap > stallTicks*l.tick && l.prev >= 0 {
		l.stalled(gap - l.tick)
	}
	l.prev = m
	return m - l.credit
}

// stalled credits d: every tick now comes that much later in monotonic time.
func (l *Loop) stalled(d int64) {
	l.stalls.Add(1)
	l.credited.Add(d)
	l.credit += d

	l.rec.mu.Lock()
	for i := range l.asked {
		if s := &l.lists[i]; s.next == s {
			l.asked[i] = 0 // asks again, for the new time, when it is used
		} else {
			l.rec.set(i, l.dueAt(l.asked[i]))
		}
	}
	l.rec.mu.Unlock()
	l.w.kick()
}

// dueAt returns the monotonic time at which tick k begins.
func (l *Loop) dueAt(k int64) int64 { return k*l.tick + l.credit }

// Stalls returns how often Now has credited a stall, and how much in all. Safe
// for concurrent use.
func (l *Loop) Stalls() (n uint64, total time.Duration) {
	return l.stalls.Load(), time.Duration(l.credited.Load())
}

// Len returns the number of armed timers.
func (l *Loop) Len() int { return l.n }

// Arm starts t, or starts it anew: its last sign of life is now (loop clock)
// and it is due timeout later. The timeout is rounded up to milliseconds and
// clamped to 0 … 49 days; 0 is due at once.
func (l *Loop) Arm(t *Timer, now int64, timeout time.Duration) {
	t.last = now
	t.timeout = timeoutMillis(timeout)
	l.raise(l.prev - l.credit)
	if t.Armed() {
		l.hasten(t)
		return
	}
	l.n++
	l.link(t, l.place(t.Deadline()), false)
	l.aim()
}

// SetTimeout changes the timeout of t and keeps its last sign of life. It does
// not arm t.
func (l *Loop) SetTimeout(t *Timer, timeout time.Duration) {
	t.timeout = timeoutMillis(timeout)
	l.raise(l.prev - l.credit)
	if t.Armed() {
		l.hasten(t)
	}
}

// hasten relinks t if its slot is visited too late for it. If it is due later
// it stays: the visit of its slot puts it where it then belongs.
func (l *Loop) hasten(t *Timer) {
	if l.isNear(t) {
		l.nearAt = min(l.nearAt, t.Deadline())
	} else if k := l.place(t.Deadline()); k < l.tickOf(t.list) {
		l.unlink(t)
		l.link(t, k, false)
	}
	l.aim()
}

// Cancel stops t. It does nothing if t is not armed.
func (l *Loop) Cancel(t *Timer) {
	if !t.Armed() {
		return
	}
	l.unlink(t)
	l.n--
}

// Advance calls due for every timer that is due at now (loop clock), in no
// particular order and never before its deadline. The timer is not armed any
// more when due is called; due may arm it again, and may arm or cancel any other
// timer of this loop.
//
// It makes at most limit calls of due (a limit under 1 counts as 1) and relinks
// at most 16 times as many timers that were refreshed meanwhile. If that was
// not enough it returns true: let other events be served, then call it again.
// What was not armed and due arms is never due in the same call. Where many are
// due together some wait for the next wake: for 200 µs, or 0.5 µs for each that
// is due within two ticks if that is more, but not more than a tick.
func (l *Loop) Advance(now int64, limit int, due func(*Timer)) (more bool) {
	limit = min(max(limit, 1), maxLimit)
	moves := relinksPerDue * limit

	l.raise(now)
	l.aimed = false
	l.sweep(now)
	// From both ends in turn: every timer is a cache miss, and this way two are
	// under way at once. All state is in l, so due may do with it what it likes.
	for back := false; ; back = !back {
		s := &l.lists[l.sweeping]
		if s.next == s {
			if l.cur >= l.floor {
				break
			}
			s = &l.lists[l.cur&l.mask]
		}
		t := s.next
		if t == s {
			l.cur++
			continue
		}
		if back {
			t = s.prev
		}
		if d := t.Deadline(); d > now {
			if moves == 0 {
				more = true
				break
			}
			moves--
			l.unlink(t)
			l.link(t, l.place(d), back)
			continue
		}
		if limit == 0 {
			more = true
			break
		}
		limit--
		l.unlink(t)
		l.n--
		due(t)
	}
	l.aim()
	return more
}

// raise keeps floor ahead of the loop clock, and where there is nothing to
// visit, cur with it.
func (l *Loop) raise(now int64) {
	if next := now/l.tick + 1; next > l.floor {
		l.floor = next
	}
	if l.n == 0 {
		l.cur = l.floor
	}
}

// sweep begins to visit what is near, if one of it may be due, the last sweep
// was not just now, and none is under way.
func (l *Loop) sweep(now int64) {
	if s := &l.lists[l.sweeping]; now < l.nearAt || now < l.restTo || s.next != s {
		return
	}
	l.near, l.sweeping = l.sweeping, l.near
	l.nearAt = never
	l.restTo = now + min(max(nearPause, int64(l.crowd)*sweepPause), l.tick)
}

// aim sets the alarm to the next sweep, unless it goes off earlier anyway, or
// just has: then the Advance that it leads to aims again.
func (l *Loop) aim() {
	if l.nearAt == never {
		return
	}
	at := max(l.nearAt, l.restTo) + l.credit
	if l.wakeAt <= at && (l.aimed || l.wakeAt > l.prev) {
		return
	}
	l.wakeAt, l.aimed = at, true
	l.alarm.Reset(time.Duration(at - l.w.clock()))
}

// All visits every armed timer, in no particular order, as in
//
//	for t := range l.All { … }
//
// Any timer may be cancelled or armed meanwhile: a cancelled one is not visited
// any more, one that is armed or moved may be visited or not, or twice.
func (l *Loop) All(yield func(*Timer) bool) {
	it := &iteration{outer: l.iters}
	l.iters = it
	defer func() { l.iters = it.outer }()
	for i := range l.lists {
		s := &l.lists[i]
		for it.next = s.next; it.next != s; {
			t := it.next
			it.next = t.next
			if !yield(t) {
				return
			}
		}
	}
}

// place returns the tick at which a timer with that deadline is to be visited:
// the last one that is a whole tick before it, so that who was touched by then
// moves on and few are near; at the latest the farthest one that the ring
// reaches, from where it hops on. Before floor means: it is near.
func (l *Loop) place(deadline int64) int64 {
	return min(deadline/l.tick-1, l.cur+l.mask)
}

// tickOf returns the tick that slot i stands for at present.
func (l *Loop) tickOf(i int32) int64 { return l.cur + (int64(i)-l.cur)&l.mask }

// isNear reports whether t, which is armed, is in no slot any more.
func (l *Loop) isNear(t *Timer) bool { return int64(t.list) > l.mask }

// link adds t to the slot of tick k, or to those near, at the end or at the
// front, and sees to it that the loop is woken for the slot; for those near aim
// does that. What comes from the back of a list goes to the front of the next,
// so that timers that are neighbours in memory stay neighbours in the lists.
func (l *Loop) link(t *Timer, k int64, front bool) {
	i := l.near
	if k >= l.floor {
		i = int32(k & l.mask)
	}
	t.list = i
	next := &l.lists[i]
	if front {
		next = next.next
	}
	prev := next.prev
	t.prev, t.next = prev, next
	prev.next, next.prev = t, t

	if k < l.floor {
		l.crowd++
		l.nearAt = min(l.nearAt, t.Deadline())
	} else if l.asked[i] != k {
		l.asked[i] = k
		if l.rec.ask(int(i), l.dueAt(k)) {
			l.w.kick()
		}
	}
}

// unlink takes t out of its list. What a slot has asked for, and the alarm,
// stay: at worst it is one wake too many.
func (l *Loop) unlink(t *Timer) {
	for it := l.iters; it != nil; it = it.outer {
		if it.next == t {
			it.next = t.next
		}
	}
	if l.isNear(t) {
		l.crowd--
	}
	t.prev.next = t.next
	t.next.prev = t.prev
	t.next, t.prev = nil, nil
}
