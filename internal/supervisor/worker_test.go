package supervisor

import (
	"testing"
	"time"
)

func TestShareProcessors(t *testing.T) {
	for _, c := range []struct{ workers, processors, loops, maxProcs int }{
		{1, 2, 2, 2}, {2, 2, 1, 2}, {56, 2, 1, 2}, {4, 64, 16, 16}, {5, 64, 12, 12}, {1, 1, 1, 2},
	} {
		if loops, maxProcs := shareProcessors(c.workers, c.processors); loops != c.loops || maxProcs != c.maxProcs {
			t.Errorf("%d workers on %d processors have %d loops and GOMAXPROCS %d, want %+v",
				c.workers, c.processors, loops, maxProcs, c)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}
	for i, w := range want {
		if got := b.next(59 * time.Second); got != w*time.Millisecond {
			t.Errorf("after failure %d: %s, want %s", i+1, got, w*time.Millisecond)
		}
	}
	if got := b.next(time.Minute); got != restartMin {
		t.Errorf("after a minute of service: %s, want %s", got, restartMin)
	}
	if got := b.next(0); got != 2*restartMin {
		t.Errorf("and then: %s", got)
	}
}
