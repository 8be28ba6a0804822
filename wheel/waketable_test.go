package wheel

import "testing"

func TestWakeTable(t *testing.T) {
	wt := newWakeTable(100, nil, 1)
	if !wt.request(70, 1000) || !wt.request(3, 50) {
		t.Fatal("nothing to do after request")
	}
	if i, target := wt.claim(2, 0, 500); i != -1 {
		t.Errorf("another generation claims slot %d, %d", i, target)
	}
	if i, target := wt.claim(1, 0, 500); i != 3 || target != 50 {
		t.Errorf("claimed slot %d, %d", i, target)
	}
	if i, target := wt.claim(1, 0, 500); i != 70 || target != 500 {
		t.Errorf("claimed slot %d, %d: part of the way", i, target)
	}
	if i, _ := wt.claim(1, 0, 500); i != -1 {
		t.Errorf("claimed slot %d twice", i)
	}
	if wt.request(70, 2000) {
		t.Error("something to do though a wheel timer is outstanding")
	}
	if n, dirty := wt.inspect(60, 10); n != 0 || dirty {
		t.Errorf("%d overdue, dirty %v", n, dirty)
	}
	if n, _ := wt.inspect(61, 10); n != 1 {
		t.Errorf("%d overdue", n)
	}

	for _, c := range []struct {
		gen    uint64
		i      int
		target int64
		now    int64
		want   firing
	}{
		{2, 3, 50, 50, firedStale},
		{1, 4, 50, 50, firedStale},
		{1, 3, 49, 50, firedStale},
		{1, 3, 50, 50, firedDue},
		{1, 3, 50, 50, firedStale},
		{1, 70, 500, 500, firedPartWay},
	} {
		if got := wt.fired(c.gen, c.i, c.target, c.now, 40); got != c.want {
			t.Errorf("fired %+v: %d", c, got)
		}
	}
	if wt.records[3].due != 0 || wt.records[70].due == 0 {
		t.Error("after firing: idle is wrong")
	}
	if i, target := wt.claim(1, 500, 1000); i != 70 || target != 1500 {
		t.Errorf("part of the way: claimed slot %d, %d", i, target)
	}
	if got := wt.fired(1, 70, 1500, 1460, 40); got != firedEarly {
		t.Errorf("fired a little early: %d", got)
	}
	if _, dirty := wt.inspect(1460, 10); !dirty {
		t.Error("nothing to do after an early firing")
	}
	wt.claim(1, 1460, 10000)
	if got := wt.fired(1, 70, 2000, 1959, 40); got != firedFarEarly {
		t.Errorf("fired wildly early: %d", got)
	}
	if i, _ := wt.claim(1, 1960, 1000); i != -1 {
		t.Error("armed again on a wheel that fires at once")
	}
	wt.adopt(2)
	if i, target := wt.claim(2, 1960, 1000); i != 70 || target != 2000 {
		t.Errorf("the next generation claimed slot %d, %d", i, target)
	}
	if got := wt.fired(1, 70, 2000, 2000, 40); got != firedStale {
		t.Errorf("the old generation fired: %d", got)
	}
	if got := wt.fired(2, 70, 2000, 2000, 40); got != firedDue {
		t.Errorf("the new generation fired: %d", got)
	}
}
