package codec

import "testing"

func TestOpString(t *testing.T) {
	labels := map[string]bool{}
	for i := range 256 {
		op := Op(i)
		labels[op.String()] = true
		want := "invalid"
		switch {
		case i <= 0x0E:
			want = []string{"beat", "ping", "pong", "data", "hello", "welcome", "config",
				"goaway", "close", "error", "req", "res", "subscribe", "unsubscribe", "publish"}[i]
		case i >= 0x40 && i <= 0x7F:
			want = "ext"
		}
		if got := op.String(); got != want {
			t.Errorf("Op(%#02x).String() = %q, want %q", i, got, want)
		}
		if got, want := op.Extension(), want == "ext"; got != want {
			t.Errorf("Op(%#02x).Extension() = %v, want %v", i, got, want)
		}
	}
	if len(labels) != 17 {
		t.Errorf("%d labels, want 17", len(labels))
	}
}
