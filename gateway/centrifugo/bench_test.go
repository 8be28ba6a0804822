package centrifugo

import (
	"strings"
	"testing"

	"github.com/centrifugal/protocol"
)

type nowhere struct{}

func (nowhere) Send([]byte)      {}
func (nowhere) Close(Disconnect) {}
func (nowhere) Resume()          {}

var formats = []Format{JSON, Protobuf}

func publication() *protocol.Publication {
	return &protocol.Publication{Data: []byte(`"` + strings.Repeat("x", 98) + `"`), Offset: 12345}
}

// A publication is encoded into a slice that is large enough without allocating,
// and so is a ping.
func TestEncodeAllocs(t *testing.T) {
	dst := make([]byte, 0, 1024)
	for _, f := range formats {
		pub := publication()
		if n := testing.AllocsPerRun(1000, func() {
			dst = AppendPing(AppendPublication(dst[:0], f, "chat:index", pub), f)
		}); n != 0 {
			t.Errorf("%v: %v allocations", f, n)
		}
	}
}

// What a publish costs from its frame to its answer is bounded: the command, its
// data and its strings.
func TestPublishAllocs(t *testing.T) {
	for f, most := range map[Format]float64{JSON: 4, Protobuf: 4} {
		s := New(Limits{}, &echoHub{}).Start(f, nowhere{})
		s.Input(testNow, frameOf(t, f, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{}}))
		frame := frameOf(t, f, publishCommand(2))
		if n := testing.AllocsPerRun(1000, func() { s.Input(testNow, frame) }); n > most {
			t.Errorf("%v: %v allocations", f, n)
		}
	}
}

func BenchmarkDecodePublish(b *testing.B) {
	for _, f := range formats {
		b.Run(f.String(), func(b *testing.B) {
			frame := frameOf(b, f, publishCommand(2))
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := decode(f, frame, 128); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodePublication(b *testing.B) {
	for _, f := range formats {
		b.Run(f.String(), func(b *testing.B) {
			dst, pub := make([]byte, 0, 1024), publication()
			b.ReportAllocs()
			for b.Loop() {
				dst = AppendPublication(dst[:0], f, "chat:index", pub)
			}
		})
	}
}

// From the frame of a publish to its answer, with a hub that answers at once.
func BenchmarkPublish(b *testing.B) {
	for _, f := range formats {
		b.Run(f.String(), func(b *testing.B) {
			s := New(Limits{}, &echoHub{}).Start(f, nowhere{})
			s.Input(testNow, frameOf(b, f, &protocol.Command{Id: 1, Connect: &protocol.ConnectRequest{}}))
			frame := frameOf(b, f, publishCommand(2))
			b.ReportAllocs()
			for b.Loop() {
				s.Input(testNow, frame)
			}
		})
	}
}
