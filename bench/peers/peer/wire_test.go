package peer

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func frame(n int) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(n)), bytes.Repeat([]byte{3}, n)...)
}

func TestWholeCutAtEveryByte(t *testing.T) {
	var b []byte
	ends := map[int]bool{0: true}
	for _, n := range []int{0, 1, 4, 0, 300} {
		b = append(b, frame(n)...)
		ends[len(b)] = true
	}
	want := 0
	for cut := 0; cut <= len(b); cut++ {
		if ends[cut] {
			want = cut
		}
		if n, ok := Whole(b[:cut]); n != want || !ok {
			t.Fatalf("of %d bytes: %d, %t, want %d, true", cut, n, ok, want)
		}
	}
}

func TestWholeRefusesWhatIsTooLong(t *testing.T) {
	if n, ok := Whole(frame(MaxFrame)); n != Header+MaxFrame || !ok {
		t.Errorf("the longest frame: %d, %t", n, ok)
	}
	for _, head := range []uint32{MaxFrame + 1, 1 << 31, 1<<32 - 1} {
		b := binary.BigEndian.AppendUint32(frame(2), head)
		if n, ok := Whole(b); n != len(frame(2)) || ok {
			t.Errorf("length %d: %d, %t", head, n, ok)
		}
	}
}
