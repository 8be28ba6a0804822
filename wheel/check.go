package wheel

import "fmt"

// Check re-derives what must hold at any time between two calls and returns the
// first thing that does not: every armed timer is in exactly the slot it says,
// that slot comes no later than its deadline asks for, the lists agree in both
// directions and with Len, and every occupied slot will be woken for or has
// been. It visits every timer: for tests and for debugging.
func (l *Loop) Check() error {
	if l.cur > l.floor {
		return fmt.Errorf("wheel: cursor %d is after floor %d", l.cur, l.floor)
	}
	total := 0
	for i := range l.slots {
		n, err := l.checkSlot(int32(i), l.n-total)
		if err != nil {
			return err
		}
		total += n
		if n > 0 {
			if err := l.checkRecord(int32(i)); err != nil {
				return err
			}
		}
	}
	if total != l.n {
		return fmt.Errorf("wheel: %d timers are linked, Len is %d", total, l.n)
	}
	return nil
}

// checkSlot returns the number of timers in slot i, which may be at most limit.
func (l *Loop) checkSlot(i int32, limit int) (n int, err error) {
	s := &l.slots[i]
	prev := s
	for t := s.next; t != s; prev, t = t, t.next {
		if t == nil {
			return n, fmt.Errorf("wheel: slot %d: the list ends after %d timers", i, n)
		}
		if n++; n > limit {
			return n, fmt.Errorf("wheel: slot %d: more timers are linked than Len says", i)
		}
		if t.prev != prev {
			return n, fmt.Errorf("wheel: slot %d: timer %d does not point back to the one before", i, n)
		}
		if t.slot != i {
			return n, fmt.Errorf("wheel: slot %d: timer %d says it is in slot %d", i, n, t.slot)
		}
		if k, want := l.tickOf(i), l.place(t.Deadline()); k > want {
			return n, fmt.Errorf("wheel: slot %d: tick %d is too late for a deadline in tick %d", i, k, want)
		}
	}
	if s.prev != prev {
		return n, fmt.Errorf("wheel: slot %d: the list does not end where it says", i)
	}
	return n, nil
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
