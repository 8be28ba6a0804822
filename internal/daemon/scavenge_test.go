package daemon

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestScavengerDue(t *testing.T) {
	const kb, mb = 1 << 10, 1 << 20
	y := newScavenger()
	for i, c := range []struct {
		allocated, live uint64
		want            bool
	}{
		{3 * mb, mb, false},                  // what starting took: more may come
		{3*mb + kb, mb, true},                // it did not
		{3*mb + 2*kb, mb, false},             // once
		{20 * mb, 2 * mb, false},             // many connect
		{40 * mb, 8 * mb, false},             // and more
		{40*mb + quietBytes, 10 * mb, false}, // the last ones
		{40*mb + quietBytes, 10 * mb, true},  // all are there
		{40*mb + 300*kb, 16 * mb, false},     // not quiet
		{40*mb + 320*kb, 16 * mb, false},     // too little for so much that lives
		{40*mb + 380*kb, 16 * mb, false},
		{41*mb + 64*kb, 16 * mb, false}, // enough, but not quiet
		{41*mb + 64*kb, 16 * mb, true},
		{41*mb + 64*kb + 255*kb, mb, false}, // not quiet
		{41*mb + 64*kb + 255*kb, mb, false}, // too little in any case
		{41*mb + 64*kb + 256*kb, mb, true},
		{41*mb + 64*kb + 256*kb, mb, false}, // nothing new
	} {
		if got := y.due(c.allocated, c.live); got != c.want {
			t.Errorf("look %d: %v, want %v", i+1, got, c.want)
		}
	}
}

var keptByTest []byte

// TestScavengerChecks: garbage is gone once it is quiet.
func TestScavengerChecks(t *testing.T) {
	forced := func() uint32 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.NumForcedGC
	}
	y := newScavenger()
	before := forced()
	y.check()
	y.check()
	if forced() != before {
		t.Fatal("memory is given back though somebody else says how much garbage may be")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	for end := time.Now().Add(time.Minute); forced() == before; {
		if time.Now().After(end) {
			t.Fatal("no memory is given back")
		}
		for range 1000 {
			keptByTest = make([]byte, 1<<10)
		}
		y.check()
		if forced() != before {
			t.Fatal("memory is given back while much is allocated")
		}
		y.check()
	}
}
