package server

import (
	"sync"
	"sync/atomic"
	"testing"
)

func newShared(t *testing.T, mem []byte, line int) *SharedCount {
	t.Helper()
	c, err := NewSharedCount(mem, line)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestSharedLimit lets three counters come and go at one time: there are never
// more than the limit. Alone each of them reaches it exactly.
func TestSharedLimit(t *testing.T) {
	const limit, processes, rounds = 50, 3, 20_000
	mem := make([]byte, processes*SharedLine)
	var wg sync.WaitGroup
	var inside atomic.Int64
	var all []*admission
	for i := range processes {
		a := &admission{cap: 40, shared: newShared(t, mem, i), limit: limit}
		all = append(all, a)
		for range 8 {
			wg.Go(func() {
				held := 0
				for n := range rounds {
					if n%3 < 2 {
						if a.admit() {
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
		if !all[i%processes].admit() {
			t.Fatalf("number %d of %d is refused", i+1, limit)
		}
	}
	for i, a := range all {
		if a.admit() {
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
// and full says what admit would do.
func TestSharedCountOfTheDead(t *testing.T) {
	mem := make([]byte, 2*SharedLine)
	dead := &admission{cap: 10, shared: newShared(t, mem, 0), limit: 4}
	a := &admission{cap: 10, shared: newShared(t, mem, 1), limit: 4}
	for range 4 {
		if dead.full() || !dead.admit() {
			t.Fatal("one of four is refused")
		}
	}
	if !a.full() || a.admit() || a.refused[refusedOverloaded].Load() != 1 {
		t.Error("a fifth is let in")
	}
	newShared(t, mem, 1).Clear(0)
	if a.full() || !a.admit() {
		t.Error("the dead are still counted")
	}
	if a.live.Load() != 1 || a.shared.Total() != 1 {
		t.Errorf("%d and %d are counted, want 1", a.live.Load(), a.shared.Total())
	}
}

func TestSharedCountBounds(t *testing.T) {
	for _, line := range []int{-1, 2} {
		if _, err := NewSharedCount(make([]byte, 2*SharedLine), line); err == nil {
			t.Errorf("line %d of two was taken", line)
		}
	}
}

// BenchmarkAdmission is what a connection costs the count, of one process alone and
// of 56 that share one.
func BenchmarkAdmission(b *testing.B) {
	for name, a := range map[string]*admission{"alone": {cap: 10}, "shared56": {cap: 10, limit: 10}} {
		if name != "alone" {
			a.shared, _ = NewSharedCount(make([]byte, 112*SharedLine), 3)
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a.admit()
				a.leave()
			}
		})
	}
}
