package wheel

import (
	"slices"
	"testing"
	"time"
)

const (
	ms   = int64(time.Millisecond)
	tick = 100 * ms
)

// A manual is a loop of a wheel that is not running: time is a number, and nothing
// wakes it.
type manual struct {
	*Loop
	w    *Wheel
	mono int64
	sets silentAlarm
}

func newManual(cfg Config) *manual {
	m := &manual{w: newWheel(cfg, nil)}
	m.w.clock = func() int64 { return m.mono }
	m.w.newAlarm = func(func()) alarm { return &m.sets }
	m.Loop = m.w.NewLoop(func() {})
	return m
}

// A silentAlarm never goes off. It counts how often it is set.
type silentAlarm int

func (a *silentAlarm) Reset(time.Duration) bool { *a++; return true }

// at sets the monotonic clock, reads the loop clock and advances. It returns the due
// timers, in order.
func (m *manual) at(t *testing.T, mono int64) (due []*Timer) {
	t.Helper()
	m.mono = mono
	now := m.Now()
	for m.Advance(now, 3, func(tm *Timer) {
		if tm.Armed() {
			t.Error("due while armed")
		}
		due = append(due, tm)
	}) {
	}
	m.check(t)
	return due
}

func (m *manual) check(t *testing.T) {
	t.Helper()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
}

// to advances tick by tick, like the pulses.
func (m *manual) to(t *testing.T, mono int64) (due []*Timer) {
	t.Helper()
	for m.mono < mono {
		due = append(due, m.at(t, min(m.mono+tick, mono))...)
	}
	return due
}

func TestDueAtTheDeadline(t *testing.T) {
	for _, timeout := range []time.Duration{
		0, 1, 99 * time.Millisecond, 100 * time.Millisecond, 101 * time.Millisecond, 155 * time.Millisecond,
		199 * time.Millisecond, 200 * time.Millisecond, 201 * time.Millisecond, 301 * time.Millisecond,
		7500 * time.Millisecond, 51 * time.Second, 51200 * time.Millisecond, 51300 * time.Millisecond,
		150 * time.Second, 1000 * time.Second,
	} {
		m := newManual(Config{})
		m.to(t, 12345*ms)
		var tm Timer
		m.Arm(&tm, m.Now(), timeout)
		m.check(t)
		if due := m.to(t, tm.Deadline()-1); len(due) != 0 {
			t.Errorf("%v: due before its deadline", timeout)
		}
		if at := m.alarmAt; at != tm.Deadline() {
			t.Errorf("%v: the alarm is set to %d, the deadline is %d", timeout, at, tm.Deadline())
		}
		if due := m.at(t, tm.Deadline()); len(due) != 1 {
			t.Errorf("%v: not due at its deadline", timeout)
		}
		if tm.Armed() || m.Len() != 0 {
			t.Errorf("%v: still armed", timeout)
		}
	}
}

// Close deadlines are met even if the latest Advance was long ago.
func TestArmLongAfterAdvance(t *testing.T) {
	for name, arm := range map[string]func(m *manual, tm *Timer){
		"Arm": func(m *manual, tm *Timer) {
			m.Cancel(tm)
			m.Arm(tm, m.Now(), 5*time.Millisecond)
		},
		"SetTimeout": func(m *manual, tm *Timer) {
			now := m.Now()
			tm.Touch(now)
			m.SetTimeout(tm, 5*time.Millisecond)
		},
	} {
		m := newManual(Config{})
		m.at(t, 1000*ms)
		var far, tm Timer
		m.Arm(&far, m.Now(), time.Second)
		m.Arm(&tm, m.Now(), time.Second)
		m.mono = 1230 * ms
		arm(m, &tm)
		if m.alarmAt != tm.Deadline() {
			t.Errorf("%s: the alarm is set to %d, the deadline is %d", name, m.alarmAt, tm.Deadline())
		}
		m.check(t)
	}
}

// A loop that was made long ago and is armed before its first Advance.
func TestArmInAnOldLoop(t *testing.T) {
	m := newManual(Config{})
	m.mono = 60_000 * ms // more than the ring
	tms := make([]Timer, 100)
	for i := range tms {
		m.Arm(&tms[i], m.Now(), 37500*time.Millisecond)
	}
	if m.nearCount != 0 {
		t.Errorf("%d are near, 37.5 s before their deadline", m.nearCount)
	}
	m.check(t)
}

// An alarm that has gone off is not set again before the loop has advanced.
func TestAlarmIsSetOnce(t *testing.T) {
	m := newManual(Config{})
	var dead, live Timer
	m.Arm(&dead, m.Now(), 50*time.Millisecond)
	m.Arm(&live, m.Now(), 10*time.Second)
	m.mono = 50 * ms
	for range 100 { // the loop serves others first
		m.mono++
		live.Touch(m.Now())
		m.SetTimeout(&live, 10*time.Second)
	}
	if m.sets != 1 {
		t.Errorf("set %d times for one deadline", m.sets)
	}
	if due := m.at(t, m.mono); len(due) != 1 {
		t.Errorf("%d are due", len(due))
	}
}

// A timer touched a whole tick before its deadline is never near.
func TestTouchedInTimeIsNotNear(t *testing.T) {
	m := newManual(Config{})
	var tm Timer
	m.Arm(&tm, m.Now(), 10*time.Second)
	for range 500 {
		m.to(t, m.mono+tick)
		if m.nearCount != 0 {
			t.Fatalf("near with %v left", time.Duration(tm.Deadline()-m.mono))
		}
		if tm.Deadline()-m.mono <= 2*tick {
			tm.Touch(m.Now())
		}
	}
}

// Many near timers are not swept for each one that is due; a few do not wait.
func TestSweepsRest(t *testing.T) {
	for nearCount, want := range map[int]int64{1: nearPause, 100: nearPause, 1000: 1000 * sweepPause, 300_000: tick} {
		m := newManual(Config{})
		tms := make([]Timer, nearCount)
		for i := range tms {
			m.Arm(&tms[i], 0, 10_050*time.Millisecond)
		}
		m.to(t, 9_920*ms)
		if m.nearCount != nearCount {
			t.Fatalf("%d of %d are near", m.nearCount, nearCount)
		}
		var first, second Timer
		m.Arm(&first, m.Now(), time.Millisecond)
		if due := m.at(t, m.mono+ms); len(due) != 1 || due[0] != &first {
			t.Fatalf("nearCount %d: %d are due, want the first", nearCount, len(due))
		}
		swept := m.mono
		m.Arm(&second, m.Now(), 0)
		if due := m.at(t, swept+want-1); len(due) != 0 {
			t.Errorf("nearCount %d: swept again within %v", nearCount, time.Duration(want))
		}
		if m.alarmAt < swept+want || m.alarmAt > swept+want+sweepPause {
			t.Errorf("nearCount %d: the alarm is set to %v after the sweep, want %v",
				nearCount, time.Duration(m.alarmAt-swept),
				time.Duration(want))
		}
		if due := m.at(t, m.alarmAt); len(due) != 1 || due[0] != &second {
			t.Errorf("nearCount %d: %d are due after the rest, want the second", nearCount, len(due))
		}
	}
}

func TestTouchPostponesAndRelinks(t *testing.T) {
	m := newManual(Config{})
	var a, b Timer
	m.Arm(&a, 0, time.Second)
	m.Arm(&b, 0, time.Second)
	m.to(t, 900*ms)
	a.Touch(m.Now())
	if due := m.to(t, 1000*ms); len(due) != 1 || due[0] != &b {
		t.Fatalf("due at 1 s: %d", len(due))
	}
	if due := m.to(t, 1899*ms); len(due) != 0 {
		t.Fatal("due before its new deadline")
	}
	if due := m.to(t, 1900*ms); len(due) != 1 || due[0] != &a {
		t.Fatal("not due at its new deadline")
	}
}

func TestArmAgain(t *testing.T) {
	m := newManual(Config{})
	var tm Timer
	m.Arm(&tm, 0, 10*time.Second)
	list := tm.list
	m.Arm(&tm, 0, 20*time.Second)
	if tm.list != list {
		t.Error("a later deadline relinks at once")
	}
	m.Arm(&tm, 0, time.Second)
	m.check(t)
	if m.Len() != 1 {
		t.Errorf("Len = %d", m.Len())
	}
	if due := m.to(t, 1000*ms); len(due) != 1 {
		t.Error("a shorter timeout is not met")
	}

	m.Arm(&tm, m.Now(), 10*time.Second)
	tm.Touch(m.Now())
	m.SetTimeout(&tm, 2*time.Second)
	m.check(t)
	if due := m.to(t, 3000*ms); len(due) != 1 {
		t.Error("SetTimeout to a shorter one is not met")
	}
	m.SetTimeout(&tm, time.Second)
	if tm.Armed() {
		t.Error("SetTimeout armed a timer")
	}
}

func TestCancel(t *testing.T) {
	m := newManual(Config{})
	var tm Timer
	m.Cancel(&tm)
	m.Arm(&tm, 0, time.Second)
	m.Cancel(&tm)
	m.Cancel(&tm)
	m.check(t)
	if tm.Armed() || m.Len() != 0 {
		t.Error("still armed")
	}
	if due := m.to(t, 5000*ms); len(due) != 0 {
		t.Error("due after Cancel")
	}
}

func TestCancelAndArmInsideDue(t *testing.T) {
	m := newManual(Config{})
	var tms [5]Timer
	for i := range tms {
		m.Arm(&tms[i], 0, time.Second)
	}
	m.mono = 1000 * ms
	now := m.Now()
	var first *Timer
	var others []*Timer
	n := 0
	due := func(tm *Timer) {
		if n++; n == 1 {
			first = tm
			for i := range tms {
				if &tms[i] != tm {
					others = append(others, &tms[i])
				}
			}
			m.Cancel(others[0])
			m.Cancel(others[3])
			m.Arm(tm, now, 0)                  // itself, at once: not in this Advance
			m.Arm(others[1], now, time.Second) // another one, later
			m.Arm(others[3], 0, -time.Second)  // due long since: not in this Advance
		} else if tm != others[2] {
			t.Error("a cancelled, or postponed, timer is due")
		}
		m.check(t)
	}
	if m.Advance(now, 100, due) || n != 2 {
		t.Fatalf("%d were due in the first Advance, want 2", n)
	}
	if due := m.at(t, 1100*ms); len(due) != 2 || !slices.Contains(due, first) || !slices.Contains(due, others[3]) {
		t.Errorf("%d were due in the second", len(due))
	}
	if due := m.to(t, 2000*ms); len(due) != 1 || due[0] != others[1] {
		t.Errorf("%d were due in the last", len(due))
	}
}

func TestAdvanceEndsWhenEverythingIsArmedAgain(t *testing.T) {
	m := newManual(Config{Slots: 8})
	var tms [50]Timer
	for i := range tms {
		m.Arm(&tms[i], 0, 0)
	}
	// A clock that jumps by more than the ring, and timers that are always due.
	for range 20 {
		m.mono += 3 * tick
		now := m.Now()
		calls, n := 0, 0
		for m.Advance(now, 7, func(tm *Timer) { n++; m.Arm(tm, now, 0) }) {
			if calls++; calls > 100 {
				t.Fatal("Advance does not end")
			}
			m.check(t)
		}
		if n != len(tms) {
			t.Fatalf("%d were due, want %d", n, len(tms))
		}
	}
	// Its Advance is far behind the clock.
	for range 40 {
		m.mono += 3 * tick
		m.Advance(m.Now(), 1, func(tm *Timer) { m.Arm(tm, m.Now(), 0) })
		m.check(t)
	}
	n := 0
	for calls := 0; m.Advance(m.Now(), 50, func(*Timer) { n++ }); calls++ {
		if calls > 100 {
			t.Fatal("Advance does not end")
		}
	}
	if m.at(t, m.mono+tick); m.Len() != 0 {
		t.Errorf("%d were due, %d are left", n, m.Len())
	}
}

func TestAdvanceIsBounded(t *testing.T) {
	m := newManual(Config{})
	tms := make([]Timer, 1000)
	for i := range tms {
		m.Arm(&tms[i], 0, time.Second)
	}
	for i := range 500 {
		tms[2*i].Touch(500 * ms)
	}
	m.to(t, 900*ms)
	m.mono = 1000 * ms
	now := m.Now()
	calls := 0
	for more := true; more; calls++ {
		n, before := 0, linked(m.Loop, 1000*ms/tick)
		more = m.Advance(now, 10, func(*Timer) { n++ })
		visited := before - linked(m.Loop, 1000*ms/tick)
		if n > 10 || visited > 10+160 {
			t.Fatalf("one Advance reported %d and visited %d", n, visited)
		}
		m.check(t)
	}
	if calls < 50 || m.Len() != 500 {
		t.Errorf("%d calls, %d left", calls, m.Len())
	}
	if more := m.Advance(1500*ms, -1, func(*Timer) {}); !more || m.Len() != 499 {
		t.Errorf("a limit under 1: more %v, %d left", more, m.Len())
	}

	// Touched ones alone: bounded too.
	m = newManual(Config{})
	for i := range tms {
		m.Arm(&tms[i], 0, time.Second)
		tms[i].Touch(500 * ms)
	}
	m.mono = 200 * ms
	m.Now()
	calls = 1
	for m.Advance(1000*ms, 10, func(*Timer) { t.Error("due early") }) {
		calls++
	}
	if calls != 1000/160+1 {
		t.Errorf("1,000 relinks took %d calls", calls)
	}
}

// linked counts the timers in the slot of tick k.
func linked(l *Loop, k int64) (n int) {
	s := &l.lists[k&l.mask]
	for t := s.next; t != s; t = t.next {
		n++
	}
	return n
}

func TestLongLag(t *testing.T) {
	m := newManual(Config{Slots: 8})
	var tms [100]Timer
	for i := range tms {
		m.Arm(&tms[i], 0, time.Duration(i)*100*time.Millisecond)
	}
	// The clock jumps to tick 90, eleven times round the ring.
	if m.Advance(90*tick, 1000, func(tm *Timer) {
		if tm.Deadline() > 90*tick {
			t.Error("due early")
		}
	}) {
		t.Error("more")
	}
	m.check(t)
	if m.Len() != 9 {
		t.Errorf("%d left, want 9", m.Len())
	}
}

func TestNowCreditsStalls(t *testing.T) {
	m := newManual(Config{})
	m.mono = 10_000 * ms
	if now := m.Now(); now != m.mono {
		t.Fatalf("Now = %d before anything happened", now)
	}
	if n, _ := m.Stalls(); n != 0 {
		t.Error("the time before the first Now counts as a stall")
	}
	var tm, far Timer
	m.Arm(&tm, m.Now(), time.Second)
	m.Arm(&far, m.Now(), 100*time.Second)
	m.to(t, 10_500*ms)

	m.mono += 300 * ms // just not a stall
	if now := m.Now(); now != 10_800*ms {
		t.Errorf("after 3 ticks Now = %d", now)
	}
	m.mono += 300*ms + 1
	if now, want := m.Now(), 10_900*ms; now != want {
		t.Errorf("after a little more Now = %d, want %d", now, want)
	}
	m.check(t)
	m.mono += 20_000 * ms
	if now, want := m.Now(), 11_000*ms; now != want {
		t.Errorf("after a long stall Now = %d, want %d", now, want)
	}
	m.check(t)
	if n, total := m.Stalls(); n != 2 || total != 20_100*time.Millisecond+1 {
		t.Errorf("Stalls = %d, %v", n, total)
	}
	if now := m.Now(); now != 11_000*ms {
		t.Errorf("Now moved to %d", now)
	}
	if got := m.wakes.records[far.list].due; got != m.tickOf(far.list)*tick+20_100*ms+1 {
		t.Errorf("the far slot is woken for at %d", got)
	}
}

func TestAll(t *testing.T) {
	m := newManual(Config{})
	ss := make([]session, 100)
	for i := range ss {
		ss[i].id = i
		m.Arm(&ss[i].Timer, 0, time.Duration(i%7)*time.Second)
	}
	seen := make(map[int]int)
	for tm := range m.All {
		seen[sessionOf(tm).id]++
	}
	for i := range ss {
		if seen[i] != 1 {
			t.Errorf("session %d was visited %d times", i, seen[i])
		}
	}
	for range m.All {
		break
	}

	// Each visit cancels itself and the two after it, wherever they are.
	visits := 0
	for tm := range m.All {
		visits++
		m.Cancel(tm)
		for a := range m.All {
			m.Cancel(a)
			break
		}
		for i := range ss {
			if ss[i].Armed() {
				m.Cancel(&ss[i].Timer)
				break
			}
		}
		m.check(t)
	}
	if m.Len() != 0 || visits > 50 || m.iters != nil {
		t.Errorf("%d visits, %d left", visits, m.Len())
	}
}

func TestSlotsClamp(t *testing.T) {
	for in, want := range map[int]int{
		-1: 512, 0: 512, 1: 8, 8: 8, 9: 16, 512: 512, 1 << 16: 1 << 16, 1 << 20: 1 << 16,
	} {
		if got := (Config{Slots: in}).withDefaults().Slots; got != want {
			t.Errorf("Slots %d becomes %d, want %d", in, got, want)
		}
	}
	for in, want := range map[time.Duration]time.Duration{
		-1: defaultTick, 0: defaultTick, 1: minTick, time.Second: time.Second,
	} {
		if got := (Config{Tick: in}).withDefaults().Tick; got != want {
			t.Errorf("Tick %v becomes %v, want %v", in, got, want)
		}
	}
}

func TestCheckFinds(t *testing.T) {
	for name, spoil := range map[string]func(m *manual, a, b *Timer){
		"Len":           func(m *manual, a, b *Timer) { m.n++ },
		"fewer":         func(m *manual, a, b *Timer) { m.n-- },
		"slot":          func(m *manual, a, b *Timer) { a.list++ },
		"back link":     func(m *manual, a, b *Timer) { b.prev = b },
		"broken":        func(m *manual, a, b *Timer) { b.next = nil },
		"tail":          func(m *manual, a, b *Timer) { m.lists[a.list].prev = a },
		"cycle":         func(m *manual, a, b *Timer) { b.next = a },
		"late":          func(m *manual, a, b *Timer) { a.timeout = 100 },
		"not requested": func(m *manual, a, b *Timer) { m.requested[a.list]++ },
		"wrong wake":    func(m *manual, a, b *Timer) { m.wakes.records[a.list].due-- },
		"not armed":     func(m *manual, a, b *Timer) { clear(m.wakes.dirty) },
		"late wake":     func(m *manual, a, b *Timer) { m.wakes.records[a.list].target = 1 << 60 },
		"woken already": func(m *manual, a, b *Timer) { m.wakes.records[a.list].due = 0 },
		"cursor":        func(m *manual, a, b *Timer) { m.cur = m.floor + 1 },
	} {
		m := newManual(Config{})
		var a, b Timer
		m.Arm(&a, 0, time.Second)
		m.Arm(&b, 0, time.Second)
		m.check(t)
		spoil(m, &a, &b)
		if m.Check() == nil {
			t.Errorf("%s: Check finds nothing", name)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	m := newManual(Config{})
	tms := make([]Timer, 100)
	for i := range tms {
		m.Arm(&tms[i], 0, time.Second)
	}
	var x Timer
	for name, f := range map[string]func(){
		"Touch":      func() { x.Touch(m.mono) },
		"Now":        func() { m.Now() },
		"Arm+Cancel": func() { m.Arm(&x, m.mono, 3*time.Second); m.Cancel(&x) },
		"Advance": func() {
			m.mono += tick
			now := m.Now()
			for i := range tms {
				tms[i].Touch(now)
			}
			for m.Advance(now, 16, func(*Timer) {}) {
			}
		},
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
