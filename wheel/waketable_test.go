package wheel

import "testing"

func TestLedger(t *testing.T) {
	g := newLedger(100, nil, 1)
	if !g.ask(70, 1000) || !g.ask(3, 50) {
		t.Fatal("nothing to do after ask")
	}
	if i, target := g.take(2, 0, 500); i != -1 {
		t.Errorf("another generation takes slot %d, %d", i, target)
	}
	if i, target := g.take(1, 0, 500); i != 3 || target != 50 {
		t.Errorf("took slot %d, %d", i, target)
	}
	if i, target := g.take(1, 0, 500); i != 70 || target != 500 {
		t.Errorf("took slot %d, %d: to hop", i, target)
	}
	if i, _ := g.take(1, 0, 500); i != -1 {
		t.Errorf("took slot %d twice", i)
	}
	if g.ask(70, 2000) {
		t.Error("something to do though a wheel timer is outstanding")
	}
	if n, dirty := g.inspect(60, 10); n != 0 || dirty {
		t.Errorf("%d overdue, dirty %v", n, dirty)
	}
	if n, _ := g.inspect(61, 10); n != 1 {
		t.Errorf("%d overdue", n)
	}

	for _, c := range []struct {
		gen    uint64
		i      int
		target int64
		now    int64
		want   verdict
	}{
		{2, 3, 50, 50, stale},
		{1, 4, 50, 50, stale},
		{1, 3, 49, 50, stale},
		{1, 3, 50, 50, wake},
		{1, 3, 50, 50, stale},
		{1, 70, 500, 500, hop},
	} {
		if got := g.fired(c.gen, c.i, c.target, c.now, 40); got != c.want {
			t.Errorf("fired %+v: %d", c, got)
		}
	}
	if !g.idle(3) || g.idle(70) {
		t.Error("after firing: idle is wrong")
	}
	if i, target := g.take(1, 500, 1000); i != 70 || target != 1500 {
		t.Errorf("hop: took slot %d, %d", i, target)
	}
	if got := g.fired(1, 70, 1500, 1460, 40); got != early {
		t.Errorf("fired a little early: %d", got)
	}
	if _, dirty := g.inspect(1460, 10); !dirty {
		t.Error("nothing to do after an early firing")
	}
	g.take(1, 1460, 10000)
	if got := g.fired(1, 70, 2000, 1959, 40); got != wild {
		t.Errorf("fired wildly early: %d", got)
	}
	if i, _ := g.take(1, 1960, 1000); i != -1 {
		t.Error("armed again on a wheel that fires at once")
	}
	g.adopt(2)
	if i, target := g.take(2, 1960, 1000); i != 70 || target != 2000 {
		t.Errorf("the next generation took slot %d, %d", i, target)
	}
	if got := g.fired(1, 70, 2000, 2000, 40); got != stale {
		t.Errorf("the old generation fired: %d", got)
	}
	if got := g.fired(2, 70, 2000, 2000, 40); got != wake {
		t.Errorf("the new generation fired: %d", got)
	}
}
