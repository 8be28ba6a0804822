package wheel

import (
	"math"
	"sync/atomic"
	"time"
)

const (
	// stallTicks is the longest gap between two readings of the loop clock, in
	// ticks, that does not count as a stall.
	stallTicks = 3

	// relinksPerDue bounds the refreshed timers that an Advance relinks, as a
	// multiple of the due ones that it may report. A relink takes some tens of
	// nanoseconds, a close some microseconds.
	relinksPerDue = 16

	// maxLimit keeps relinksPerDue x limit within an int.
	maxLimit = 1 << 24

	// A sweep visits all near timers when the first of them is due, but not
	// before nearPause after the last sweep, nor before sweepPause for each near
	// timer, a tick at most. A visit takes 7 ns with 100 near timers, 25 ns with
	// 10,000 and 100 ns with 100,000 (BenchmarkSweep): 0.4, 5 and 20 percent of
	// the loop's time.
	nearPause  = int64(200 * time.Microsecond)
	sweepPause = int64(500 * time.Nanosecond)

	never = math.MaxInt64
)

// A Loop holds the deadlines of one event loop.
//
// Its methods are for that event loop's goroutine ("Loop only"), unless they say
// otherwise.
type Loop struct {
	// Static after construction.
	w     *Wheel
	wakes *wakeTable
	alarm alarm // wakes the loop at alarmAt
	tick  int64
	mask  int64

	// Sentinels of circular lists. Slot k&mask is for tick k; the two after the
	// slots are for near timers.
	lists []Timer

	// Owned by the loop.
	requested    []int64 // by slot: tick of the latest wake requested
	cur          int64   // first tick whose slot has not been visited completely
	floor        int64   // first tick in the future: no timer is linked in a slot before it
	n            int     // armed timers
	pulsed       bool    // as in wakes
	near         int32   // list of the timers too close to their deadlines for a slot
	sweeping     int32   // the other one: near timers that the current sweep has yet to visit
	nearCount    int     // timers in both
	nearAt       int64   // loop clock; no timer in near is due before
	sweepFrom    int64   // loop clock; the next sweep does not begin before
	alarmAt      int64   // monotonic time that the alarm was last set to
	alarmPending bool    // the alarm was set since the latest Advance began, and has yet to cause another
	prev         int64   // previous reading of the monotonic clock; -1 before the first
	credit       int64   // monotonic clock less loop clock
	iters        *iteration

	// Atomic.
	stalls   atomic.Uint64
	credited atomic.Int64
}

// An iteration is a call of All in progress.
type iteration struct {
	next  *Timer
	outer *iteration
}

func newLoop(w *Wheel, wakes *wakeTable) *Loop {
	n := w.cfg.Slots
	l := &Loop{
		w:         w,
		wakes:     wakes,
		alarm:     w.newAlarm(func() { w.wake(wakes) }),
		tick:      int64(w.cfg.Tick),
		mask:      int64(n - 1),
		lists:     make([]Timer, n+2),
		requested: make([]int64, n),
		near:      int32(n),
		sweeping:  int32(n + 1),
		nearAt:    never,
		alarmAt:   never,
		prev:      -1,
	}
	for i := range l.lists {
		s := &l.lists[i]
		s.next, s.prev, s.list = s, s, int32(i)
	}
	l.cur = w.clock()/l.tick + 1
	l.floor = l.cur
	return l
}

// Now returns the loop clock in ns: monotonic time less the credit for stalls. Call
// it once at the start of every callback of the event loop, and pass the result to
// Touch, Arm and Advance.
//
// If more than three ticks have passed since the previous call while a timer was
// armed, this process was stopped, starved or blocked, and could not read its sockets
// meanwhile. All but one tick of that is credited: the loop clock does not count it, so
// no deadline expires because of a stall of our own. The wheel wakes every loop with an
// armed timer once a tick, so only a stall makes a gap that long.
func (l *Loop) Now() int64 {
	m := l.w.clock()
	if gap := m - l.prev; gap > stallTicks*l.tick && l.prev >= 0 && l.n > 0 {
		l.stalled(gap - l.tick)
	}
	l.prev = m
	return m - l.credit
}

// stalled adds d to the credit, which delays every tick by d in monotonic time.
func (l *Loop) stalled(d int64) {
	l.stalls.Add(1)
	l.credited.Add(d)
	l.credit += d

	l.wakes.mu.Lock()
	for i := range l.requested {
		if s := &l.lists[i]; s.next == s {
			l.requested[i] = 0 // its next use requests a wake at the new time
		} else {
			l.wakes.requestLocked(i, l.dueAt(l.requested[i]))
		}
	}
	l.wakes.mu.Unlock()
	l.w.kick()
}

// dueAt returns the monotonic time at which tick k begins.
func (l *Loop) dueAt(k int64) int64 { return k*l.tick + l.credit }

// Stalls returns the number of stalls that Now has credited and their total. Safe
// for concurrent use.
func (l *Loop) Stalls() (n uint64, total time.Duration) {
	return l.stalls.Load(), time.Duration(l.credited.Load())
}

// Len returns the number of armed timers.
func (l *Loop) Len() int { return l.n }

// Arm starts or restarts t: its last activity is now (loop clock), and it is due
// timeout later. The timeout is rounded up to milliseconds and clamped to 0 … 49
// days; 0 is due at once.
func (l *Loop) Arm(t *Timer, now int64, timeout time.Duration) {
	t.last = now
	t.timeout = timeoutMillis(timeout)
	l.raiseFloor(l.prev - l.credit)
	if t.Armed() {
		l.relinkEarlier(t)
		return
	}
	l.n++
	l.link(t, l.visitTick(t.Deadline()), false)
	l.setAlarm()
	if !l.pulsed {
		l.setPulsed(true)
		l.w.rouse()
	}
}

// setPulsed has the watchdog wake the loop every tick, or not.
func (l *Loop) setPulsed(on bool) {
	l.pulsed = on
	l.wakes.pulsed.Store(on)
}

// SetTimeout changes the timeout of t and keeps its last activity. It does not arm
// t.
func (l *Loop) SetTimeout(t *Timer, timeout time.Duration) {
	t.timeout = timeoutMillis(timeout)
	l.raiseFloor(l.prev - l.credit)
	if t.Armed() {
		l.relinkEarlier(t)
	}
}

// relinkEarlier relinks t if its slot is visited too late for its deadline. If the
// slot is visited early enough, that visit relinks it.
func (l *Loop) relinkEarlier(t *Timer) {
	if l.isNear(t) {
		l.nearAt = min(l.nearAt, t.Deadline())
	} else if k := l.visitTick(t.Deadline()); k < l.tickOf(t.list) {
		l.unlink(t)
		l.link(t, k, false)
	}
	l.setAlarm()
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
// particular order and never before its deadline. The timer is disarmed before the
// call; due may arm it again, and may arm or cancel any other timer of this loop.
//
// It calls due at most limit times (a limit below 1 means 1), and relinks at most
// 16 times as many timers that were touched meanwhile. It returns true if work is
// left: serve other events, then call it again. A timer that due arms is never due
// in the same call. If many timers are due together some wait for the next wake,
// which comes after 200 µs, or 0.5 µs for each timer due within two ticks if that
// is longer, a tick at most.
func (l *Loop) Advance(now int64, limit int, due func(*Timer)) (more bool) {
	limit = min(max(limit, 1), maxLimit)
	moves := relinksPerDue * limit

	l.raiseFloor(now)
	l.alarmPending = false
	l.sweep(now)
	// Alternate between both ends: every timer is a cache miss, and this way two
	// are in flight. All state is in l, so that due may change it.
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
			l.link(t, l.visitTick(d), back)
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
	l.setAlarm()
	if l.n == 0 && l.pulsed {
		l.setPulsed(false)
	}
	return more
}

// raiseFloor keeps floor after the loop clock, and cur at floor if nothing is armed.
func (l *Loop) raiseFloor(now int64) {
	if next := now/l.tick + 1; next > l.floor {
		l.floor = next
	}
	if l.n == 0 {
		l.cur = l.floor
	}
}

// sweep begins a sweep, if a near timer may be due, the last sweep was long enough
// ago, and none is under way.
func (l *Loop) sweep(now int64) {
	if s := &l.lists[l.sweeping]; now < l.nearAt || now < l.sweepFrom || s.next != s {
		return
	}
	l.near, l.sweeping = l.sweeping, l.near
	l.nearAt = never
	l.sweepFrom = now + min(max(nearPause, int64(l.nearCount)*sweepPause), l.tick)
}

// setAlarm sets the alarm to the next sweep, unless it is set to go off earlier, or
// just has: then the Advance that it causes sets it.
func (l *Loop) setAlarm() {
	if l.nearAt == never {
		return
	}
	at := max(l.nearAt, l.sweepFrom) + l.credit
	if l.alarmAt <= at && (l.alarmPending || l.alarmAt > l.prev) {
		return
	}
	l.alarmAt, l.alarmPending = at, true
	l.alarm.Reset(time.Duration(at - l.w.clock()))
}

// All visits every armed timer, in no particular order:
//
//	for t := range l.All { … }
//
// The body may cancel and arm timers. A cancelled timer is not visited; one that is
// armed or relinked may be visited once, twice or not at all.
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

// visitTick returns the tick at which to visit a timer with that deadline: the last
// one that is a whole tick before it, so that timers touched by then move on and few
// become near; at most the farthest that the ring reaches, where it is linked again.
// A tick before floor means that the timer is near.
func (l *Loop) visitTick(deadline int64) int64 {
	return min(deadline/l.tick-1, l.cur+l.mask)
}

// tickOf returns the tick that slot i is for at present.
func (l *Loop) tickOf(i int32) int64 { return l.cur + (int64(i)-l.cur)&l.mask }

// isNear reports whether t, which is armed, is in no slot.
func (l *Loop) isNear(t *Timer) bool { return int64(t.list) > l.mask }

// link adds t to the slot of tick k, or to the near list if k is before floor, at the
// front or the end, and requests a wake for the slot; setAlarm does so for the near
// list. A timer from the back of a list goes to the front of the next, so that
// neighbours in memory stay neighbours in the lists.
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
		l.nearCount++
		l.nearAt = min(l.nearAt, t.Deadline())
	} else if l.requested[i] != k {
		l.requested[i] = k
		if l.wakes.request(int(i), l.dueAt(k)) {
			l.w.kick()
		}
	}
}

// unlink removes t from its list. The wake requested for its slot and the alarm
// stay, which at worst causes a needless wake.
func (l *Loop) unlink(t *Timer) {
	for it := l.iters; it != nil; it = it.outer {
		if it.next == t {
			it.next = t.next
		}
	}
	if l.isNear(t) {
		l.nearCount--
	}
	t.prev.next = t.next
	t.next.prev = t.prev
	t.next, t.prev = nil, nil
}
