package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/edge/websocket"
	"heartwheel/internal/epoll"
)

// edgeLoads is a load of one connection for each kind of frames, by name.
func edgeLoads(mode string) map[string]*Load {
	loads := map[string]*Load{}
	add := func(name string) *Load {
		l := beatLoad(1, time.Second, time.Minute)
		l.Mode, l.Payload, l.Inflight = mode, 64, 1
		loads[name] = l
		return l
	}
	add("tcp")
	ws := add("ws")
	ws.Scheme, ws.Frame = SchemeWS, FramePing
	for _, f := range []Framing{
		{Kind: FramingLength, Width: 4, Strip: -1, Beat: "hb", Answer: "hb"},
		{Kind: FramingLength, Offset: 1, Width: 2, Little: true, Adjust: -3, Strip: -1},
		{Kind: FramingVarint, Beat: "ping", Answer: "ping"},
		{Kind: FramingLines, Beat: "PING", Answer: "PING"},
		{Kind: FramingDelimiter, Delimiter: "END", Beat: "x", Answer: "x"},
	} {
		l := add(fmt.Sprintf("%s %d", f.Kind, f.Offset))
		l.Framing = f
	}
	return loads
}

// A decoded is all that an edge made of a stream.
type decoded struct {
	frames string
	err    error
}

// decode gives the edge the stream in pieces, of which next says the sizes.
func decode(e *edge, stream []byte, next func() int) (d decoded) {
	k := newLink()
	var kept []byte
	for len(stream) > 0 {
		n := min(next(), len(stream))
		kept = append(kept, stream[:n]...)
		stream = stream[n:]
		for len(kept) > 0 {
			f, n, whole, err := e.next(&k, kept)
			if err != nil {
				d.err = err
				return d
			}
			if n == 0 {
				break
			}
			if whole {
				d.frames += fmt.Sprintf("%s %x\n", f.Op, f.Payload)
			}
			kept = kept[n:]
		}
	}
	return d
}

// serverStream is what a server that echoes sends on the edge: a beat, DATA, a beat.
func serverStream(l *Load, e *edge) []byte {
	frames := codec.AppendBeat(codec.AppendData(codec.AppendBeat(nil), bytes.Repeat([]byte("data"), 40)))
	if !l.HasWebSocket() {
		k := newLink()
		return slices.Clone(e.encode(&k, frames))
	}
	f := websocket.NewFraming(0)
	stream := f.Append(f.Append(nil, nil, websocket.KindBinary), []byte("stamp"), websocket.KindPing)
	stream = append(stream, 0x02, 2, byte(codec.OpData), 'd', 0x8a, 0, 0x80, 2, 'a', 't') // a pong between fragments
	stream = f.Append(stream, []byte("text"), websocket.KindText)
	return f.AppendClose(stream, 3001, "draining")
}

// However a stream is cut, an edge makes the same of it.
func TestEdgeTruncated(t *testing.T) {
	want := map[string]string{
		"ws": "beat \nping 7374616d70\npong \ndata 646174\ndata 74657874\nclose 0bb9647261696e696e67\n",
	}
	for name, l := range edgeLoads(ModeEcho) {
		e := newEdge(l)
		if (e == nil) != (name == "tcp") {
			t.Fatalf("%s: edge %v", name, e)
		}
		if e == nil {
			continue
		}
		stream := serverStream(l, e)
		whole := decode(e, stream, func() int { return len(stream) })
		expected := want[name]
		if expected == "" {
			expected = fmt.Sprintf("beat \ndata %x\nbeat \n", bytes.Repeat([]byte("data"), 40))
		}
		if whole.err != nil || whole.frames != expected {
			t.Errorf("%s: %q, %v", name, whole.frames, whole.err)
		}
		for cut := 1; cut < len(stream); cut++ {
			size := cut
			got := decode(e, stream, func() (n int) { n, size = size, len(stream); return n })
			if got != whole {
				t.Fatalf("%s, cut at %d: %q, %v", name, cut, got.frames, got.err)
			}
		}
	}
}

// What a server sends neither panics nor depends on its pieces.
func FuzzEdge(f *testing.F) {
	loads := edgeLoads(ModeEcho)
	names := []string{"ws", FramingLength + " 0", FramingLength + " 1", FramingVarint + " 0", FramingLines + " 0",
		FramingDelimiter + " 0"}
	for i, name := range names {
		f.Add(serverStream(loads[name], newEdge(loads[name])), uint64(i), uint8(i))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, kind uint8) {
		e := newEdge(loads[names[int(kind)%len(names)]])
		rng := rand.New(rand.NewPCG(seed, 0))
		whole := decode(e, stream, func() int { return len(stream) })
		if got := decode(e, stream, func() int { return 1 + rng.IntN(9) }); got != whole {
			t.Errorf("in pieces: %q, %v\nwhole: %q, %v", got.frames, got.err, whole.frames, whole.err)
		}
	})
}

// echoer answers, on the other socket of a pairLoop, each frame with the same.
type echoer struct {
	fd      int
	ws      *websocket.Framing
	in, out []byte
}

func (e *echoer) echo(t *testing.T) {
	n, err := epoll.Read(e.fd, e.in)
	if err != nil {
		t.Fatal(err)
	}
	out := e.in[:n]
	if e.ws != nil {
		p, k, _, used, err := e.ws.Next(out)
		if used != n || err != nil {
			t.Fatal(used, n, err)
		}
		if k == websocket.KindPing {
			k = websocket.KindPong
		}
		e.out = e.ws.Append(e.out[:0], p, k)
		out = e.out
	}
	if n, err := epoll.Write(e.fd, out); n != len(out) {
		t.Fatal(n, err)
	}
}

// A message costs an edge no allocation, sent or received.
func TestEdgeAllocs(t *testing.T) {
	for _, mode := range []string{ModeBeat, ModeEcho} {
		for name, load := range edgeLoads(mode) {
			l, other := pairLoop(t, load)
			if l.links != nil {
				l.links[0] = newLink()
			}
			e := &echoer{fd: other, in: make([]byte, 4096)}
			if load.HasWebSocket() {
				e.ws = websocket.NewFraming(1 << 16)
			}
			l.hold, l.end = l.start, l.start+int64(time.Hour)
			send := func() { l.sendBeat(0, &l.conns[0], epoll.Monotonic()) }
			if mode == ModeEcho { // answers are followed by the next one
				l.sendEcho(0, 1, epoll.Monotonic())
				send = func() {}
			}
			turn := func() {
				send()
				e.echo(t)
				if err := l.poll(int64(time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			if n := testing.AllocsPerRun(100, turn); n != 0 || l.tallies.Answered != 101 || l.tallies.Wrong != 0 {
				t.Errorf("%s, %s: %v allocations, %d answered, %s", mode, name, n, l.tallies.Answered,
					l.result.WrongExample)
			}
		}
	}
}

// The server's pings are answered, its close is too, and both are masked.
func TestWebSocketControl(t *testing.T) {
	load := edgeLoads(ModeBeat)["ws"]
	l, other := pairLoop(t, load)
	l.links[0] = newLink()
	f := websocket.NewFraming(0)
	b := f.AppendClose(f.Append(f.Append(nil, nil, websocket.KindPong), []byte("p"), websocket.KindPing), 3001, "bye")
	if _, err := unix.Write(other, b); err != nil {
		t.Fatal(err)
	}
	if err := l.poll(int64(time.Hour)); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 100)
	n, _ := unix.Read(other, in)
	in = in[:n]
	for _, want := range []string{"\x8ap", "\x88\x0b\xb9"} {
		if len(in) == 0 {
			t.Fatal("no answer")
		}
		got := in[:1:1] // opcode, and below what it carries
		p, _, _, used, err := f.Next(in)
		if got = append(got, p...); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
		in = in[used:]
	}
	if n := l.closeNotices[0]; n.code != 3001 || n.reason != "bye" || l.tallies.Wrong != 0 ||
		l.tallies.ServerBeats != 1 {
		t.Errorf("%+v, %+v", n, l.tallies)
	}
}

// A connection's state beside that of crypto/tls is small.
func TestLinkSize(t *testing.T) {
	if n := unsafe.Sizeof(link{}); n > 72 {
		t.Errorf("a link has %d bytes", n)
	}
	if n := unsafe.Sizeof(conn{}); n > 96 {
		t.Errorf("a conn has %d bytes", n)
	}
}

// Handshakes that are under way when the loop ends leave neither goroutine nor socket.
func TestHandshakesEnd(t *testing.T) {
	before := runtime.NumGoroutine()
	load := edgeLoads(ModeBeat)["tcp"]
	load.Scheme, load.Insecure = SchemeTLS, true
	client, err := load.NewTLS()
	if err != nil {
		t.Fatal(err)
	}
	l, other := pairLoop(t, load)
	l.handshakes.client = client
	c := &l.conns[0]
	c.state = stateConnecting
	if l.tallies.Connecting = 1; !l.connected(0, c, epoll.Monotonic()) || c.state != stateHandshake {
		t.Fatal(c.state)
	}
	hello := make([]byte, 4096)
	for n := 0; n < 1; { // the handshake has begun
		if n, err = unix.Read(other, hello); err != nil && err != unix.EAGAIN {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	fd := int(c.fd)
	l.closeAll()
	l.handshakes.wg.Wait()
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the socket is open: %v", err)
	}
	if n := runtime.NumGoroutine(); n > before || len(l.handshakes.running) != 0 || l.tallies.Connecting != 0 {
		t.Errorf("%d goroutines, %d before; %d handshakes", n, before, len(l.handshakes.running))
	}
}

// What a faulty peer sends is part of a frame, or none, in the framing of its edge.
func TestFaultyBytes(t *testing.T) {
	for name, load := range edgeLoads(ModeEcho) {
		f := newFaultyBytes(load)
		next := func(b []byte) (used int, err error) { // as a server reads it
			switch {
			case load.HasWebSocket():
				_, _, _, used, err = websocket.NewFraming(codec.DefaultMaxFrame).Next(slices.Clone(b))
			case load.Framing.Native():
				_, used, err = codec.Decode(b, codec.DefaultMaxFrame)
			default:
				_, used, err = newForeign(load).next(b)
			}
			return used, err
		}
		drip := append(slices.Clone(f.drip), bytes.Repeat([]byte{f.fill}, 200)...)
		for what, b := range map[string][]byte{"half": f.half, "drip": drip} {
			if used, err := next(b); used != 0 || err != nil || len(b) < 2 {
				t.Errorf("%s, %s % x: %d, %v", name, what, b, used, err)
			}
		}
		if !load.Framing.Native() {
			continue
		}
		for what, b := range map[string][]byte{"garbage": f.garbage, "oversize": f.oversize} {
			if _, err := next(b); err == nil {
				t.Errorf("%s, %s % x: no error", name, what, b)
			}
		}
	}
}

// BenchmarkEdge sends and receives DATA of 16 bytes, 16 at a time, over a pair of
// sockets. The figure is for one message there and back, with the peer's part.
func BenchmarkEdge(b *testing.B) {
	for _, name := range []string{"tcp", "ws", FramingLength + " 0", FramingLines + " 0"} {
		b.Run(name, func(b *testing.B) {
			load := edgeLoads(ModeEcho)[name]
			load.Payload, load.Inflight = 16, 16
			l, other := pairLoop(b, load)
			if l.links != nil {
				l.links[0] = newLink()
			}
			l.hold, l.end = l.start, l.start+int64(time.Hour)
			l.sendEcho(0, load.Inflight, epoll.Monotonic())
			var f *websocket.Framing
			if load.HasWebSocket() {
				f = websocket.NewFraming(1 << 16)
			}
			in, out := make([]byte, 4096), make([]byte, 0, 4096)
			for b.Loop() {
				n, _ := epoll.Read(other, in)
				out = append(out[:0], in[:n]...)
				for rest := in[:n]; f != nil && len(rest) > 0; {
					p, k, _, used, _ := f.Next(rest)
					if len(rest) == n {
						out = out[:0]
					}
					out = f.Append(out, p, k)
					rest = rest[used:]
				}
				_, _ = epoll.Write(other, out)
				if err := l.poll(int64(time.Hour)); err != nil {
					b.Fatal(err)
				}
			}
			if l.tallies.Wrong != 0 {
				b.Fatal(l.result.WrongExample)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(l.tallies.Answered), "ns/message")
		})
	}
}
