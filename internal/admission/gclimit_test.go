package admission

import (
	"io"
	"math"
	"runtime/debug"
	"testing"
)

func TestGoShare(t *testing.T) {
	const mib = 1 << 20
	for _, test := range []struct {
		name       string
		use, limit int64
		go_        goMemory
		want       int64
	}{
		{"alone", 20, 100, goMemory{total: 20, least: 5}, 80},
		{"the kernel has its part", 50, 100, goMemory{total: 20, least: 5}, 50},
		{"more garbage changes nothing", 70, 100, goMemory{total: 40, least: 5}, 50},
		{"Go's own count is ahead", 10, 100, goMemory{total: 20, least: 5}, 80},
		{"the live heap is too large", 90, 100, goMemory{total: 60, least: 55}, 55},
		{"the others have everything", 120, 100, goMemory{total: 20, least: 15}, 15},
	} {
		got := goShare(test.use*mib*100, test.limit*mib*100,
			goMemory{total: test.go_.total * mib * 100, least: test.go_.least * mib * 100})
		if got != test.want*mib*100 {
			t.Errorf("%s: %d, want %d", test.name, got/mib/100, test.want)
		}
	}
}

// TestGoLimit: the runtime's limit follows while it is ours, and is put back.
func TestGoLimit(t *testing.T) {
	if was := debug.SetMemoryLimit(-1); was != math.MaxInt64 {
		t.Skipf("GOMEMLIMIT is set to %d", was)
	}
	current := func() int64 { return debug.SetMemoryLimit(-1) }
	meter := newFakeMeter(0, 64*gib)
	m := fakeMemory(io.Discard, nothing, meter)
	first := current()
	if first != 64*gib/100*goLimitShare {
		t.Errorf("the limit is %d, want 80 %% of 64 GiB", first)
	}
	meter.use.Store(gib / 2) // what this test itself holds is in there
	m.sample()
	if current() != first {
		t.Errorf("half a GiB more moved the limit from %d to %d", first, current())
	}
	meter.use.Store(40 * gib)
	m.sample()
	if moved := current(); moved < first-40*gib || moved > first-38*gib {
		t.Errorf("40 GiB more moved the limit from %d to %d", first, moved)
	}
	meter.use.Store(80 * gib)
	m.sample()
	if least := current(); least < 1<<20 || least > 2*gib {
		t.Errorf("with nothing left the limit is %d", least)
	}
	// A second one leaves it alone.
	other := fakeMemory(io.Discard, nothing, newFakeMeter(0, gib))
	before := current()
	other.sample()
	other.goLimit.restore()
	if current() != before {
		t.Error("a second server took the limit over")
	}
	go m.run()
	m.close()
	if current() != math.MaxInt64 {
		t.Errorf("the limit stays at %d", current())
	}
	if meter.closes.Load() != 1 {
		t.Errorf("the meter was closed %d times", meter.closes.Load())
	}

	debug.SetMemoryLimit(7 * gib)
	defer debug.SetMemoryLimit(math.MaxInt64)
	m = fakeMemory(io.Discard, nothing, newFakeMeter(0, gib))
	m.sample()
	m.goLimit.restore()
	if current() != 7*gib {
		t.Errorf("another's limit became %d", current())
	}
}
