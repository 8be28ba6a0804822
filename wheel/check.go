package wheel

import "fmt"

// Check re-derives what must hold at any time between two calls and returns the
// first thing that does not: every armed timer is in exactly the list it says,
// its slot is visited a tick before its deadline or it is near, the lists agree
// in both directions and with Len, every occupied slot will be woken for or has
// been, and so will what is near. It visits every timer: for tests and for
// debugging.
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
	case near != l.crowd:
		return fmt.Errorf("wheel: %d timers are near, %d are counted", near, l.crowd)
	case l.nearAt != never && l.wakeAt > max(l.nearAt, l.restTo)+l.credit:
		return fmt.Errorf("wheel: the alarm goes off at %d, the first that is near is due at %d", l.wakeAt, l.nearAt)
	}
	return nil
}

// checkList returns the number of timers in list i, which may be at most limit.
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
			return n, fmt.Errorf("wheel: list %d: timer %d does not point back to the one before", i, n)
		}
		if t.list != i {
			return n, fmt.Errorf("wheel: list %d: timer %d says it is in list %d", i, n, t.list)
		}
		if err := l.checkPlace(t); err != nil {
			return n, err
		}
	}
	if s.prev != prev {
		return n, fmt.Errorf("wheel: list %d: it does not end where it says", i)
	}
	return n, nil
}

// checkPlace looks whether t, which is linked where it says, is visited in time.
func (l *Loop) checkPlace(t *Timer) error {
	d := t.Deadline()
	switch {
	case !l.isNear(t):
		if k, want := l.tickOf(t.list), l.place(d); k > want {
			return fmt.Errorf("wheel: slot %d: tick %d is too late for a deadline at %d, which needs tick %d", t.list, k, d, want)
		}
	case t.list == l.near && d < l.nearAt:
		return fmt.Errorf("wheel: one that is near is due at %d, the first at %d", d, l.nearAt)
	}
	return nil
}

// checkRecord looks whether the loop is, or has been, woken for slot i.
func (l *Loop) checkRecord(i int32) error {
	k := l.tickOf(i)
	if l.asked[i] != k {
		return fmt.Errorf("wheel: slot %d: asked to be woken for tick %d, stands for %d", i, l.asked[i], k)
	}
	now, due, failed := l.w.clock(), l.dueAt(k), l.w.failedGen.Load()
	l.rec.mu.Lock()
	defer l.rec.mu.Unlock()
	r := l.rec.recs[i]
	switch {
	case r.due == 0 && now >= due:
		return nil // woken
	case r.due != due:
		return fmt.Errorf("wheel: slot %d: to be woken at %d, recorded %d", i, due, r.due)
	case r.target > r.due:
		return fmt.Errorf("wheel: slot %d: the timing wheel fires at %d, due at %d", i, r.target, r.due)
	case r.target == 0 && !l.rec.isDirty(int(i)) && (failed == 0 || failed != l.rec.gen):
		return fmt.Errorf("wheel: slot %d: no wheel timer is outstanding", i)
	}
	return nil
}
