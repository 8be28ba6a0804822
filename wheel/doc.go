// Package wheel keeps the idle deadlines of a million sessions on a few event
// loops. A heartbeat stores one number. A session that has been silent for its
// whole timeout is reported once, on its loop, never early, and as a rule within a
// millisecond of its deadline.
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
// A Timer is embedded by value. expired gets a *Timer; if the timer is the first
// field of the session, (*session)(unsafe.Pointer(t)) is the session.
//
// A Wheel is safe for concurrent use. A Loop and its Timers belong to the goroutine
// of their event loop.
//
// # How it works
//
//	session ── Touch: last = now
//	   │ Arm
//	   ▼
//	Loop (one goroutine, no locks)
//	   slots   [k] [k+1] [k+2] …        a circular list of timers per tick
//	   near    timers not touched by a tick before their deadline
//	   │ first timer in a slot                     ▲
//	   ▼                                           │ Now, Advance
//	wakeTable  when to wake the loop for slot i    │
//	   │ dirty slots                               │ wake
//	   ▼                                           │
//	scheduler ── AfterFunc ──► timingwheel ────────┤
//	                                               │
//	alarm ─── first deadline of a near timer ──────┤
//	                                               │ pulse, every tick with armed timers
//	watchdog ──────────────────────────────────────┘
//	   └─ overdue or far too early: new timingwheel, new scheduler
//
// A timer is linked in the slot of a tick that is one to two ticks before its
// deadline. Touch leaves it there. At that tick Advance visits the slot: timers that
// were touched meanwhile move to the slot of their new deadline. So a session costs
// one visit per timeout, however often it beats. Deadlines beyond the ring (512
// ticks, 51 s) go to its farthest slot and move on from there.
//
// The other timers are near: as a rule the dead ones, and few. They are in a list
// without order. An alarm, a time.AfterFunc for each loop, goes off at the first
// deadline in it, and a sweep visits the whole list: due timers are reported, those
// touched after all go back to a slot. Sweeps are 200 µs apart, or 0.5 µs for each
// near timer if that is longer, a tick at most: 10,000 sessions that die within two
// ticks are reported in steps of 5 ms, and sweeping takes 5 % of the loop.
//
// timingwheel has one timer for each occupied slot and loop, never one for each
// session. Its firings only wake the loop, which decides by its own clock. A
// needless wake does no harm. A missing one is replaced by the next pulse, still
// before the deadlines of that slot, so nothing depends on timingwheel being right.
//
// # Faults of timingwheel, and the remedies
//
//   - It locks up when a bucket holds two rounds of timers, and then hangs the
//     callers of AfterFunc too (issue 53). The scheduler is its only caller, and no
//     delay is longer than half its span: a wake farther away is requested in
//     several parts. A loop never calls it, so a loop cannot hang in it.
//   - It follows the wall clock. The watchdog follows the monotonic clock: after a
//     firing more than two fine ticks early, or more than two ticks late, it replaces
//     the timing wheel and has everything outstanding armed again. If the watchdog
//     itself was late, the process was stopped, and the timing wheel gets time to
//     catch up first. If replacing does not help, the pauses between replacements
//     grow to ten minutes; meanwhile the pulses wake the loops.
//   - It fires up to a tick early. It runs at a fifth of the tick, and a tick of its
//     own and a millisecond are added to every delay.
//   - Its clock stands still while nothing expires, after which it would take a short
//     delay for one beyond its span. A timer at a quarter of the span keeps it moving.
//   - Timer.Stop and Stop race with AfterFunc (issue 31), and Stop can hang. The
//     first is never called, the second once, after the scheduler has ended, on a
//     goroutine that Close waits for with a time limit.
//   - It starts a goroutine for each firing: about thirty a second for a loop. A panic
//     in one is logged. The alarm does so too, for each sweep, up to 5,000 a second.
//
// # Stalls of this process
//
// While the process is stopped or a handler blocks, the loop cannot read, so a peer
// that was not heard may not have been silent. Therefore Now counts at most one tick
// of a gap of more than three, and deadlines move by the rest. To tell a stall from
// an idle loop, every loop with an armed timer is woken once a tick. Without one there
// is nothing to credit and no pulse, and if no loop has any the watchdog rests too.
//
// # Cost
//
// 32 bytes a session; 31 kB a loop; 0.1 MB, two goroutines and two of timingwheel's
// a process. A loop allocates nothing after NewLoop.
package wheel
