package server

import (
	"slices"
	"testing"

	"heartwheel/codec"
)

// What a loop does for what it has read, without the socket: frames in, answers
// out to a fake that drops them.
func BenchmarkReceived(b *testing.B) {
	for _, bench := range []struct {
		name string
		in   []byte
	}{
		{"beat", beat},
		{"ping", codec.AppendFrame(nil, codec.OpPing, []byte("12345678"))},
		{"echo16B", codec.AppendFrame(nil, codec.OpData, make([]byte, 16))},
		{"echo1KiB", codec.AppendFrame(nil, codec.OpData, make([]byte, 1024))},
		{"echo64x16B", slices.Repeat(codec.AppendFrame(nil, codec.OpData, make([]byte, 16)), 64)},
	} {
		b.Run(bench.name, func(b *testing.B) {
			r, c := quiet(b)
			b.SetBytes(int64(len(bench.in)))
			b.ReportAllocs()
			for b.Loop() {
				r.loop.received(c, bench.in)
			}
			if c.state != stateOpen {
				b.Fatalf("closed as %s", c.reason)
			}
		})
	}
}
