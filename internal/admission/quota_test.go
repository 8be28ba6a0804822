package admission

import (
	"sync"
	"sync/atomic"
	"testing"
)

func newShared(t *testing.T, mem []byte, slot int) *SharedCount {
	t.Helper()
	c, err := NewSharedCount(mem, slot)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSharedLimit lets three counters come and go at one time: there are never
// more than the limit. Alone each of them reaches it exactly.
func TestSharedLimit(t *testing.T) {
	const limit, processes, rounds = 50, 3, 20_000
	mem := make([]byte, processes*SlotBytes)
	var wg sync.WaitGroup
	var inside atomic.Int64
	var all []*capacity
	for i := range processes {
		a := newCapacity(40, newShared(t, mem, i).Quota(limit))
		all = append(all, a)
		for range 8 {
			wg.Go(func() {
				held := 0
				for n := range rounds {
					if n%3 < 2 {
						if a.enter() {
							held++
							now := inside.Add(1)
							if now > limit {
								t.Errorf("%d of %d are in", now, limit)
								return
							}
						}
					} else if held > 0 {
						held--
						inside.Add(-1)
						a.leave()
					}
				}
				for range held {
					inside.Add(-1)
					a.leave()
				}
			})
		}
	}
	wg.Wait()
	for i := range limit {
		if !all[i%processes].enter() {
			t.Fatalf("number %d of %d is refused", i+1, limit)
		}
	}
	for i, a := range all {
		if a.enter() {
			t.Errorf("process %d lets in more than %d", i, limit)
		}
	}
	for i := range limit {
		all[i%processes].leave()
	}
	if n := newShared(t, mem, 0).Total(); n != 0 {
		t.Errorf("%d are counted, and none is in", n)
	}
}

// TestSharedCountOfTheDead: what a killed process has left can be taken out,
// and full says what enter would do.
func TestSharedCountOfTheDead(t *testing.T) {
	mem := make([]byte, 2*SlotBytes)
	dead := newCapacity(10, newShared(t, mem, 0).Quota(4))
	a := newCapacity(10, newShared(t, mem, 1).Quota(4))
	for range 4 {
		if dead.full() || !dead.enter() {
			t.Fatal("one of four is refused")
		}
	}
	if !a.full() || a.enter() {
		t.Error("a fifth is let in")
	}
	newShared(t, mem, 1).Clear(0)
	if a.full() || !a.enter() {
		t.Error("the dead are still counted")
	}
	if a.live.Load() != 1 || newShared(t, mem, 1).Total() != 1 {
		t.Errorf("%d and %d are counted, want 1", a.live.Load(), newShared(t, mem, 1).Total())
	}
}

func TestSharedCountBounds(t *testing.T) {
	for _, slot := range []int{-1, 2} {
		if _, err := NewSharedCount(make([]byte, 2*SlotBytes), slot); err == nil {
			t.Errorf("slot %d of two was taken", slot)
		}
	}
}

// BenchmarkCapacity is what a connection costs the count, of one process alone and
// of 56 that share one.
func BenchmarkCapacity(b *testing.B) {
	for name, a := range map[string]*capacity{"alone": newCapacity(10, nil), "shared56": newCapacity(10, nil)} {
		if name != "alone" {
			c, _ := NewSharedCount(make([]byte, 112*SlotBytes), 3)
			a.quota = c.Quota(10)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a.enter()
				a.leave()
			}
		})
	}
}

func newCapacity(limit int64, q Quota) *capacity {
	c := &capacity{quota: q}
	c.max.Store(limit)
	return c
}
