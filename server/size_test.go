package server

import (
	"math/bits"
	"testing"
	"unsafe"

	"heartwheel/internal/edge/websocket"
)

// What an idle connection keeps over each kind of listener, beside its socket. Every
// WebSocket and every TLS connection has an ext and an edgeState.
func TestSizes(t *testing.T) {
	if bits.UintSize != 64 {
		t.Skip("for 64 bits")
	}
	for _, x := range []struct {
		name      string
		size, max uintptr
	}{
		{"Conn", unsafe.Sizeof(Conn{}), 96}, {"ext", unsafe.Sizeof(ext{}), 128},
		{"edgeState", unsafe.Sizeof(edgeState{}), 96}, {"websocket.Framing", unsafe.Sizeof(websocket.Framing{}), 32},
	} {
		if x.size > x.max {
			t.Errorf("%s takes %d bytes, want at most %d, a size class of the allocator", x.name, x.size, x.max)
		}
	}
}
