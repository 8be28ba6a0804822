package wheel

import "fmt"

// Check verifies the invariants that hold between calls, and returns the first
// violation: every armed timer is in the list it names, and its slot is visited a
// tick before its deadline, or it is near; the lists agree in both directions and
// with Len; a wake is requested, or has happened, for every occupied slot, and the
// alarm is set for the near timers. It visits every timer: for tests and debugging.
func (l *Loop) Check() error {
	if l.cur > l.floor {
		return fmt.Errorf("wheel: cursor %d is after floor %d", l.cur, l.floor)
	}
	total, near := 0, 0
	for i := range l.lists {
		n, err := l.checkList(int32(i), l.n-total)
		if err != nil {
			return err
		}
		total += n
		if i > int(l.mask) {
			near += n
		} else if n > 0 {
			if err := l.checkRecord(int32(i)); err != nil {
				return err
			}
		}
	}
	switch {
	case total != l.n:
		return fmt.Errorf("wheel: %d timers are linked, Len is %d", total, l.n)
	case near != l.nearCount:
		return fmt.Errorf("wheel: %d timers are near, nearCount is %d", near, l.nearCount)
	case l.nearAt != never && l.alarmAt > max(l.nearAt, l.sweepFrom)+l.credit:
		return fmt.Errorf("wheel: the alarm is set to %d, the first near timer is due at %d", l.alarmAt, l.nearAt)
	}
	return nil
}

// checkList checks list i and returns its length, which may be at most limit.
func (l *Loop) checkList(i int32, limit int) (n int, err error) {
	s := &l.lists[i]
	prev := s
	for t := s.next; t != s; prev, t = t, t.next {
		if t == nil {
			return n, fmt.Errorf("wheel: list %d: it ends after %d timers", i, n)
		}
		if n++; n > limit {
			return n, fmt.Errorf("wheel: list %d: more timers are linked than Len says", i)
		}
		if t.prev != prev {
			return n, fmt.Errorf("wheel: list %d: timer %d does not point back to its predecessor", i, n)
		}
		if t.list != i {
			return n, fmt.Errorf("wheel: list %d: timer %d says it is in list %d", i, n, t.list)
		}
		if err := l.checkVisit(t); err != nil {
			return n, err
		}
	}
	if s.prev != prev {
		return n, fmt.Errorf("wheel: list %d: the sentinel does not point to the last timer", i)
	}
	return n, nil
}

// checkVisit checks that t, which is linked where it says, is visited in time.
func (l *Loop) checkVisit(t *Timer) error {
	d := t.Deadline()
	switch {
	case !l.isNear(t):
		if k, want := l.tickOf(t.list), l.visitTick(d); k > want {
			return fmt.Errorf("wheel: slot %d: tick %d is too late for a deadline at %d, want tick %d",
				t.list, k, d, want)
		}
	case t.list == l.near && d < l.nearAt:
		return fmt.Errorf("wheel: a near timer is due at %d, before nearAt, %d", d, l.nearAt)
	}
	return nil
}

// checkRecord checks that the loop will be, or has been, woken for slot i.
func (l *Loop) checkRecord(i int32) error {
	k := l.tickOf(i)
	if l.requested[i] != k {
		return fmt.Errorf("wheel: slot %d: the wake requested is for tick %d, the slot for %d", i, l.requested[i], k)
	}
	now, due, failed := l.w.clock(), l.dueAt(k), l.w.failedGen.Load()
	l.wakes.mu.Lock()
	defer l.wakes.mu.Unlock()
	r := l.wakes.records[i]
	switch {
	case r.due == 0 && now >= due:
		return nil // woken
	case r.due != due:
		return fmt.Errorf("wheel: slot %d: to be woken at %d, recorded %d", i, due, r.due)
	case r.target > r.due:
		return fmt.Errorf("wheel: slot %d: the timing wheel fires at %d, due at %d", i, r.target, r.due)
	case r.target == 0 && !l.wakes.isDirty(int(i)) && (failed == 0 || failed != l.wakes.gen):
		return fmt.Errorf("wheel: slot %d: no wheel timer is outstanding", i)
	}
	return nil
}
