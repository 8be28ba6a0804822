package wheel

import (
	"sort"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A handDriver fires when the test says so.
type handDriver struct {
	clock func() int64
	queue []handTimer
	due   []handTimer // scratch of fire
	fired int
}

type handTimer struct {
	at int64
	f  func()
}

func (d *handDriver) AfterFunc(delay time.Duration, f func()) {
	d.queue = append(d.queue, handTimer{d.clock() + int64(delay), f})
}
func (d *handDriver) Stop() {}

func (d *handDriver) fire() {
	now := d.clock()
	due, rest := d.due[:0], d.queue[:0]
	for _, t := range d.queue {
		if t.at <= now {
			due = append(due, t)
		} else {
			rest = append(rest, t)
		}
	}
	d.due, d.queue = due, rest
	if len(due) == 0 {
		return
	}
	sort.Slice(due, func(i, j int) bool { return due[i].at < due[j].at })
	d.fired += len(due)
	for _, t := range due {
		t.f()
	}
}

// A handAlarm goes off when the test says so.
type handAlarm struct {
	clock func() int64
	set   bool
	at    int64
	f     func()
}

func (a *handAlarm) Reset(d time.Duration) bool {
	a.set, a.at = true, a.clock()+int64(d)
	return true
}

func (a *handAlarm) fire() {
	if a.set && a.at <= a.clock() {
		a.set = false
		a.f()
	}
}

// A hand is a running wheel without goroutines, with one loop.
type hand struct {
	*Loop
	w     *Wheel
	a     *scheduler
	d     *handDriver
	alarm *handAlarm // of the latest loop
	mono  int64
	wakes int
}

func newHand(cfg Config) *hand {
	h := &hand{}
	clock := func() int64 { return h.mono }
	h.d = &handDriver{clock: clock}
	h.w = newWheel(cfg, func(time.Duration) driver { return h.d })
	h.w.clock = clock
	h.w.newAlarm = func(f func()) alarm {
		h.alarm = &handAlarm{clock: clock, f: f}
		return h.alarm
	}
	h.a = newScheduler(h.w, 1)
	h.w.scheduler.Store(h.a)
	h.Loop = h.w.NewLoop(func() { h.wakes++ })
	return h
}

// settle runs the timing wheel and the scheduler until neither has work.
func (h *hand) settle() {
	for {
		h.d.fire()
		h.alarm.fire()
		select {
		case <-h.a.work:
			for _, wt := range *h.w.wakeTables.Load() {
				h.a.arm(wt)
			}
		default:
			return
		}
	}
}

// TestModel plays random operations against a map of deadlines.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			Tick:  time.Duration(rapid.SampledFrom([]int{10, 100, 250}).Draw(t, "tick")) * time.Millisecond,
			Slots: rapid.SampledFrom([]int{8, 64, 512}).Draw(t, "slots"),
		}
		h := newHand(cfg)
		tick := int64(cfg.Tick)
		h.mono = rapid.Int64Range(0, 1000*tick).Draw(t, "start")
		h.Loop = h.w.NewLoop(func() { h.wakes++ })

		sessions := make([]session, 20)
		model := make(map[int]int64) // deadline of each armed session
		now, wall := h.Now(), h.mono // wall: mono at the previous Now

		anySession := rapid.IntRange(0, len(sessions)-1)
		anyTimeout := rapid.Custom(func(t *rapid.T) time.Duration {
			return rapid.OneOf(
				rapid.SampledFrom([]time.Duration{-1, 0, 1, cfg.Tick, cfg.Tick + 1}),
				rapid.Map(rapid.Int64Range(0, 30*tick), func(n int64) time.Duration { return time.Duration(n) }),
				rapid.Map(rapid.Int64Range(0, 2000*tick), func(n int64) time.Duration { return time.Duration(n) }),
			).Draw(t, "timeout")
		})
		linked := make(map[int]int64) // mono when it may last have been linked by us
		arm := func(i int, timeout time.Duration) {
			linked[i] = h.mono
			h.Arm(&sessions[i].Timer, now, timeout)
			model[i] = now + int64(timeoutMillis(timeout))*ms
		}
		woken := 0

		advance := func(t *rapid.T, limit int, whole bool) {
			inside := make(map[int]bool)
			for {
				n := 0
				more := h.Advance(now, limit, func(tm *Timer) {
					id := sessionOf(tm).id
					want, ok := model[id]
					if !ok || tm.Armed() || want != tm.Deadline() || want > now {
						t.Fatalf("session %d is due at %d: model %d %v, timer %+v", id, now, want, ok, tm)
					}
					if inside[id] {
						t.Fatalf("session %d, armed in an Advance, is due in it", id)
					}
					delete(model, id)
					n++
					switch rapid.IntRange(0, 5).Draw(t, "inside") {
					case 0:
						inside[id] = whole
						arm(id, anyTimeout.Draw(t, "timeout"))
					case 1:
						id := anySession.Draw(t, "other")
						if !sessions[id].Armed() {
							inside[id] = whole
						}
						h.Cancel(&sessions[id].Timer)
						delete(model, id)
					}
				})
				if n > max(limit, 1) {
					t.Fatalf("%d were due, the limit is %d", n, limit)
				}
				clear(inside)
				if more {
					for i := range sessions {
						linked[i] = h.mono
					}
				}
				if !whole {
					return
				}
				if !more {
					break
				}
			}
			woken = h.wakes
		}

		for i := range sessions {
			sessions[i].id = i
		}
		t.Repeat(map[string]func(*rapid.T){
			"arm": func(t *rapid.T) { arm(anySession.Draw(t, "session"), anyTimeout.Draw(t, "timeout")) },
			"touch": func(t *rapid.T) {
				i := anySession.Draw(t, "session")
				sessions[i].Touch(now)
				if _, ok := model[i]; ok {
					model[i] = sessions[i].Deadline()
				}
			},
			"timeout": func(t *rapid.T) {
				i := anySession.Draw(t, "session")
				linked[i] = h.mono
				h.SetTimeout(&sessions[i].Timer, anyTimeout.Draw(t, "timeout"))
				if _, ok := model[i]; ok {
					model[i] = sessions[i].Deadline()
				}
			},
			"cancel": func(t *rapid.T) {
				i := anySession.Draw(t, "session")
				h.Cancel(&sessions[i].Timer)
				delete(model, i)
			},
			"time": func(t *rapid.T) {
				h.mono += rapid.OneOf(rapid.Int64Range(0, tick), rapid.Int64Range(0, 3*tick),
					rapid.Int64Range(0, 700*tick)).Draw(t, "by")
				h.settle()
				last := now
				now = h.Now()
				gap := h.mono - wall
				if stall := gap > 3*tick && len(model) > 0; !stall && now != last+gap || stall && now != last+tick {
					t.Fatalf("the loop clock went from %d to %d in %d", last, now, gap)
				}
				wall = h.mono
			},
			"advance": func(t *rapid.T) { advance(t, rapid.IntRange(-1, 4).Draw(t, "limit"), false) },
			"advance all": func(t *rapid.T) {
				sweeping := h.lists[h.sweeping].next != &h.lists[h.sweeping]
				advance(t, rapid.IntRange(1, 4).Draw(t, "limit"), true)
				for i, d := range model {
					// Timers that became near since the last sweep began wait for the next.
					if d <= now && !(h.isNear(&sessions[i].Timer) && (sweeping || h.sweepFrom > now)) {
						t.Fatalf("session %d, deadline %d, was passed over at %d", i, d, now)
					}
				}
			},
			"": func(t *rapid.T) {
				h.settle()
				if err := h.Check(); err != nil {
					t.Fatal(err)
				}
				if h.Len() != len(model) {
					t.Fatalf("Len = %d, want %d", h.Len(), len(model))
				}
				n := 0
				for tm := range h.All {
					n++
					if d, ok := model[sessionOf(tm).id]; !ok || d != tm.Deadline() {
						t.Fatalf("session %d: deadline %d, want %d %v", sessionOf(tm).id, tm.Deadline(), d, ok)
					}
					// Not woken since the last Advance: so until a moment ago no timer
					// was to be visited or had been linked too late.
					late := int64(0)
					if h.isNear(tm) {
						late = h.mono - max(tm.Deadline(), h.sweepFrom) - h.credit
					} else {
						due := max(h.dueAt(h.tickOf(tm.list)), linked[sessionOf(tm).id])
						late = h.mono - due - int64(margin(h.w.fine))
					}
					if h.wakes == woken && late >= 0 {
						t.Fatalf("session %d was to be visited %v ago and the loop was not woken", sessionOf(tm).id,
							time.Duration(late))
					}
				}
				if n != len(model) {
					t.Fatalf("All visits %d, want %d", n, len(model))
				}
			},
		})
	})
}
