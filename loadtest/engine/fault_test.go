package engine

import (
	"testing"
	"time"
)

// When the faults are due, for T = 7.5 s and 10 s for part of a frame.
func TestFaultsAreDue(t *testing.T) {
	const s = int64(time.Second)
	for kind, want := range map[string]int64{
		"silent": 102*s + 7500*s/1000, "freeze": 102*s + 7500*s/1000, "partial": 102*s + 7500*s/1000,
		"drip":  102*s + 7500*s/1000,
		"reset": 104 * s, "halfclose": 104 * s, "garbage": 104 * s, "oversize": 104 * s,
	} {
		k, ok := FaultKindByName(kind)
		if got := k.Expect.after(104*s, 102*s, 7500*s/1000, 10*s); !ok || got != want {
			t.Errorf("%s is due at %d, want %d", kind, got, want)
		}
	}
	// With a long T, part of a frame is due earlier.
	k, _ := FaultKindByName("partial")
	if got := k.Expect.after(104*s, 102*s, 60*s, 10*s); got != 114*s {
		t.Errorf("partial is due at %d, want %d", got, 114*s)
	}
}
