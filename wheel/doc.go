// Package wheel keeps the idle deadlines of a million sessions that live on a
// few event loops. A heartbeat stores one number. Who has been silent for the
// whole of its timeout is reported once, on its loop, never early, and as a rule
// within a millisecond of the deadline.
//
// # Use
//
//	w := wheel.New(wheel.Config{Logger: log})
//	defer w.Close()
//
//	// for each event loop; post runs a function on it and never blocks
//	l := w.NewLoop(func() { post(onWake) })
//
//	// everything below runs on that loop
//	onOpen:  now := l.Now(); l.Arm(&s.idle, now, 37500*time.Millisecond)
//	onFrame: now := l.Now(); s.idle.Touch(now)
//	onClose: l.Now(); l.Cancel(&s.idle)
//	onWake:  now := l.Now(); if l.Advance(now, 256, expired) { post(onWake) }
//
// A Timer is embedded by value. expired gets a *Timer; if the timer is the
// first field of the session, (*session)(unsafe.Pointer(t)) is the session.
//
// # How it works
//
//	session ── Touch: last = now
//	   │ Arm
//	   ▼
//	Loop (one goroutine, no locks)
//	   slots   [k] [k+1] [k+2] …        a circular list of timers per tick
//	   near    who was not touched by a tick before the deadline
//	   │ first timer in a slot                     ▲
//	   ▼                                           │ Now, Advance
//	ledger     when slot i wants a wake            │
//	   │ dirty slots                               │ wake
//	   ▼                                           │
//	armer ── AfterFunc ──► timingwheel ── firing ──┤
//	                                               │
//	alarm ─── first deadline of those near ────────┤
//	                                               │ pulse, every tick
//	watchdog ──────────────────────────────────────┘
//	   └─ overdue or wildly early: new timingwheel, new armer
//
// A timer is linked in the slot of a tick that is one to two ticks before its
// deadline. Touch leaves it there. When the tick comes, Advance visits the slot:
// timers that were touched meanwhile move to the slot of their present deadline.
// So a session costs one visit per timeout, however many heartbeats it sends.
// Deadlines that the ring does not reach (512 ticks are 51 s) go to its farthest
// slot and hop from there.
//
// The others are near: as a rule the dead, and few. They are kept in a list
// without order. An alarm, one time.AfterFunc for each loop, goes off at the
// first deadline in it, and the list is swept through: who is due is reported,
// who was touched after all goes back to a slot. Sweeps rest 200 µs, or 0.5 µs
// for each timer near if that is more, and a tick at most: 10,000 who die within
// two ticks are reported in steps of 5 ms, and sweeping takes 5 % of the loop.
//
// timingwheel holds one timer per occupied slot and loop, never one per
// session. What it fires is only a wake: it makes the loop look at its own
// clock, which decides. A wake too many does no harm, and one that is missing
// is made up for by the next pulse, which is still before the deadlines of that
// slot, so nothing depends on timingwheel being right.
//
// # What timingwheel does, and what is done about it
//
//   - It locks up when a bucket holds two rounds of timers, and then hangs the
//     callers of AfterFunc too (issue 53). One goroutine, the armer, is its only
//     caller, no delay is longer than half its span, and farther slots hop
//     there: it is asked for part of the way and then again. A loop never calls
//     it, so a loop cannot hang in it.
//   - It goes by the wall clock. The watchdog goes by the monotonic clock: a
//     firing more than two fine ticks early, or one that is more than two ticks
//     late, and it is replaced and everything outstanding is armed again. If
//     the watchdog itself was late, the process was stopped and the timing
//     wheel is given time to catch up first. Replacements come at growing
//     distances, up to ten minutes, if they do not help; meanwhile pulses visit
//     the slots.
//   - It fires up to a tick early. It runs at a fifth of the tick and is always
//     asked for one of its ticks and a millisecond more.
//   - Its clock stands still while nothing expires, after which it would take a
//     short delay for one beyond its span. A timer of our own at a quarter of
//     the span keeps it going.
//   - Timer.Stop and Stop race with AfterFunc (issue 31), and Stop can hang. The
//     first is never called, the second once, after the armer has ended, on a
//     goroutine that nobody waits for without bound.
//   - It starts a goroutine for each firing: there are some thirty a second for
//     a loop, and a panic in one is logged and ends there. So does the alarm,
//     as often as somebody dies, up to 5,000 times a second.
//
// # Stalls of our own
//
// When the process was stopped or a handler blocked, the loop could not read,
// and a peer that was not heard need not have been silent. Now therefore counts
// at most one tick of any gap over three ticks, and deadlines move by the rest.
// To tell a stall from an idle loop, every loop is woken once a tick.
//
// # Cost
//
// 32 bytes a session; 31 kB a loop; 0.1 MB and two goroutines of its own, and
// two of timingwheel's, a process. Nothing is allocated on a loop after NewLoop.
package wheel
