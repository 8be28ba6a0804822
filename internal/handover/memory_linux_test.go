package handover

import (
	"bytes"
	"os"
	"testing"

	"heartwheel/internal/admission"
)

// TestMemoryIsSealed checks that a process cannot cut off what others map.
func TestMemoryIsSealed(t *testing.T) {
	f, _, err := NewCount(4)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int64{0, 4*admission.SlotBytes - 1, 5 * admission.SlotBytes} {
		if err := f.Truncate(size); !os.IsPermission(err) {
			t.Errorf("to %d bytes: %v, want a refusal", size, err)
		}
	}
	if info, err := f.Stat(); err != nil || info.Size() != 4*admission.SlotBytes {
		t.Errorf("it has %d bytes (%v)", info.Size(), err)
	}
}

func TestSettingsInMemory(t *testing.T) {
	want := []byte("log-level: debug\n")
	f, err := newSettings(want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for range 2 { // a duplicate shares the offset
		if got, err := readSettings(f); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q, %v", got, err)
		}
	}
}
