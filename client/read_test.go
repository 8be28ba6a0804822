package client

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// A script is a net.Conn that returns one piece per read, as far as it has room, and
// then io.EOF.
type script struct {
	net.Conn
	pieces [][]byte
	asked  []int // how much each read had room for
	wrote  []byte
}

func (s *script) Read(b []byte) (int, error) {
	s.asked = append(s.asked, len(b))
	if len(b) == 0 {
		return 0, errors.New("a read without room")
	}
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(b, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

func (s *script) Write(b []byte) (int, error)      { s.wrote = append(s.wrote, b...); return len(b), nil }
func (s *script) Close() error                     { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// readAll has a connection read rest and then pieces, in this goroutine, and returns the
// error that ended it.
func readAll(cfg Config, rest []byte, pieces ...[]byte) (*script, error) {
	s := &script{pieces: slices.DeleteFunc(pieces, func(p []byte) bool { return len(p) == 0 })}
	cfg = cfg.withDefaults()
	w := welcomed
	c := newConn(s, &cfg, &w)
	c.wait, c.in = &waiter{}, &inbox{limit: cfg.ReceiveBuffer}
	c.read(rest)
	<-c.Done()
	return s, c.Err()
}

// pieces cuts b at random, into pieces of very different sizes.
func pieces(r *rand.Rand, b []byte) (out [][]byte) {
	for len(b) > 0 {
		n := min(len(b), 1+r.IntN(1<<r.IntN(18)))
		out = append(out, b[:n])
		b = b[n:]
	}
	return out
}

// Frames of all sizes, cut anywhere, arrive intact and in order; connections that read
// at the same time do not share buffers.
func TestReadAllSizes(t *testing.T) {
	sizes := []int{500, 507, 508, 511, 512, 513, 4096, 65534, 65535}
	for n := range 140 {
		sizes = append(sizes, n, largeBuffer-70+n)
	}
	var wg sync.WaitGroup
	for seed := range uint64(8) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, 1))
			mine := slices.Clone(sizes)
			r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			var in []byte
			for i, n := range mine {
				in = codec.AppendData(in, bytes.Repeat([]byte{byte(i) ^ byte(seed)}, n))
			}
			next := 0
			cfg := Config{OnData: func(b []byte) {
				if next >= len(mine) || len(b) != mine[next] ||
					bytes.Count(b, []byte{byte(next) ^ byte(seed)}) != len(b) {
					t.Errorf("seed %d: frame %d has %d bytes, or not its own", seed, next, len(b))
				}
				next++
			}}
			rest := r.IntN(1000)
			_, err := readAll(cfg, in[:rest], pieces(r, in[rest:])...)
			if !errors.Is(err, io.EOF) || next != len(mine) {
				t.Errorf("seed %d: %d of %d frames, %v", seed, next, len(mine), err)
			}
		})
	}
	wg.Wait()
}

// A frame of MaxFrame is received; one byte more ends the connection.
func TestReadMaxFrame(t *testing.T) {
	for _, limit := range []int{256, codec.DefaultMaxFrame, 1 << 20, codec.MaxFrameLimit} {
		got := 0
		cfg := Config{MaxFrame: limit, OnData: func(b []byte) { got = len(b) }}
		if _, err := readAll(cfg, nil, codec.AppendData(nil, make([]byte, limit-1))); !errors.Is(err, io.EOF) ||
			got != limit-1 {
			t.Errorf("limit %d: got %d, %v", limit, got, err)
		}
		if limit == codec.MaxFrameLimit {
			continue // there is no such length
		}
		if _, err := readAll(cfg, nil, codec.AppendData(nil, make([]byte, limit))[:4]); !errors.Is(err,
			codec.ErrFrameTooLarge) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// The buffer is small until a read fills it, then large. It grows further only for a
// frame that needs it, never beyond that frame, and never beyond twice what has arrived
// or twice a large buffer. It is small again after the first pause.
func TestReadBuffer(t *testing.T) {
	const limit = 1 << 20
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		var in []byte
		for range 20 {
			in = codec.AppendData(in, make([]byte, r.IntN(1<<r.IntN(20))))
		}
		n := r.IntN(min(len(in), 1000))
		b := newReadBuffer(in[:n], limit)
		for in = in[n:]; ; {
			for {
				_, n, err := codec.Decode(b.bytes(), limit)
				if err != nil {
					t.Fatal(err)
				}
				if n == 0 {
					break
				}
				b.used(n)
			}
			old, full := len(b.buf), b.full
			if err := b.makeRoom(); err != nil {
				t.Fatal(err)
			}
			have, size := len(b.bytes()), len(b.buf)
			need, _ := codec.FrameSize(b.bytes(), limit)
			switch {
			case len(b.free()) == 0 || b.from != 0:
				t.Fatalf("seed %d: no room, or not all of it: %d of %d", seed, b.to, size)
			case size > largeBuffer && (size > need || size > 2*max(have, largeBuffer)):
				t.Fatalf("seed %d: %d bytes, the frame needs %d, %d have come", seed, size, need, have)
			case size > old && !full:
				t.Fatalf("seed %d: grew from %d to %d though nothing more was waiting", seed, old, size)
			case have == 0 && !full && (size != smallBuffer || b.large != nil):
				t.Fatalf("seed %d: %d bytes in a pause", seed, size)
			case size == largeBuffer && (b.large == nil || &b.buf[0] != &b.large[0]):
				t.Fatalf("seed %d: a large buffer that is not of the pool", seed)
			case size != largeBuffer && b.large != nil:
				t.Fatalf("seed %d: a large buffer is kept beside one of %d", seed, size)
			}
			if len(in) == 0 {
				break
			}
			n := copy(b.free(), in[:min(len(in), 1+r.IntN(1<<r.IntN(18)))])
			b.added(n)
			in = in[n:]
		}
		b.giveBack()
	}
}

// A large length alone allocates nothing.
func TestReadBufferLengthAlone(t *testing.T) {
	s, err := readAll(Config{MaxFrame: codec.MaxFrameLimit}, nil,
		codec.AppendData(nil, make([]byte, codec.MaxFrameLimit-1))[:100])
	if !errors.Is(err, io.EOF) || slices.Max(s.asked) > smallBuffer {
		t.Errorf("%v, reads of up to %d bytes", err, slices.Max(s.asked))
	}
}

// Large buffers return to the pool: in a pause, for a larger one, and at the end.
func TestReadBufferReturns(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which empties the pool
	made := 0
	defer func(f func() any) { largeBuffers.New = f }(largeBuffers.New)
	largeBuffers.New = func() any { made++; return new([largeBuffer]byte) }
	const times = 400
	data := func(n int) []byte { return codec.AppendData(nil, make([]byte, n)) }
	cfg := Config{OnData: func([]byte) {}, MaxFrame: 1 << 20}
	for name, in := range map[string][][]byte{
		"pause":  {data(1000), data(1)},
		"larger": {data(100_000), data(1), data(1000)},
		"end":    {data(20_000)[:15_000]},
		"wrong":  {append(data(1000), 'x')},
	} {
		made = 0
		for range times {
			_, _ = readAll(cfg, nil, slices.Clone(in)...)
		}
		if made >= times { // with -race the pool drops one in four
			t.Errorf("%s: %d buffers were made by %d connections, one after the other", name, made, times)
		}
	}
}

func TestWrongFrames(t *testing.T) {
	frame := func(op codec.Op, payload string) []byte { return codec.AppendFrame(nil, op, []byte(payload)) }
	for _, test := range []struct {
		in    []byte
		words string
	}{
		{[]byte{0, 1, 0, 1}, "the server sent an invalid frame: codec: frame is larger than the limit"},
		{[]byte{'H'}, "the server sent an invalid frame: codec: text"},
		{[]byte{0x16}, "the server sent an invalid frame: codec: a TLS handshake"},
		{[]byte{0, 0, 0, 1, 0}, "the server sent an invalid frame: codec: op is not one"},
		{[]byte{0, 0, 0, 1, 0x0f}, "the server sent an invalid frame: codec: op is not one"},
		{[]byte{0, 0, 0, 1, 0x3f}, "the server sent an invalid frame: codec: op is not one"},
		{[]byte{0, 0, 0, 1, 0x80}, "the server sent an invalid frame: codec: op is not one"},
		{frame(codec.OpPing, strings.Repeat("x", 126)), "more than 125 bytes"},
		{frame(codec.OpHello, "{}"), "the server sent hello where it is not allowed"},
		{codec.AppendWelcome(nil, welcomed), "the server sent welcome where it is not allowed"},
		{codec.AppendSubscribe(nil, 1, "g"), "the server sent subscribe where it is not allowed"},
		{codec.AppendUnsubscribe(nil, 1, "g"), "the server sent unsubscribe where it is not allowed"},
		{frame(codec.OpRes, "123"), "res"},
		{frame(codec.OpReq, "1234\x05"), "req"},
		{frame(codec.OpConfig, "no"), "the server's CONFIG: "},
		{codec.AppendConfig(nil, codec.Config{BeatMS: 1, TimeoutMS: 1000}), "the server's CONFIG: beat_ms is 1:"},
		{codec.AppendConfig(nil, codec.Config{BeatMS: 1000, TimeoutMS: 1000}),
			"the server's CONFIG: timeout_ms is 1000"},
		{codec.AppendConfig(nil, codec.Config{TimeoutMS: 1000}), "the server's CONFIG: beat_ms is 0:"},
		{frame(codec.OpGoaway, "{}"), "goaway"},
		{frame(codec.OpError, "1"), "error"},
		{frame(codec.OpClose, "1"), "close"},
		{codec.AppendClose(nil, codec.CodeKicked, "out"), "the server said 3503 kicked: out"},
		{codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeReplaced, Reason: "new"}),
			"the server said 3510 replaced: new"},
	} {
		var got []string
		cfg := Config{OnData: func(b []byte) { got = append(got, string(b)) }}
		in := append(codec.AppendData(nil, []byte("before")), test.in...)
		in = append(in, codec.AppendData(nil, []byte("behind"))...)
		_, err := readAll(cfg, nil, in)
		if err == nil || !strings.Contains(err.Error(), test.words) {
			t.Errorf("% x: %v, want %q", test.in, err, test.words)
		}
		if !slices.Equal(got, []string{"before"}) {
			t.Errorf("% x: delivered %q", test.in, got)
		}
	}
}

// Unexpected frames do no harm.
func TestStrayFrames(t *testing.T) {
	in := slices.Concat(
		codec.AppendPublish(nil, "g", []byte("x")),
		codec.AppendFrame(nil, 0x40, []byte("x")),
		codec.AppendFrame(nil, 0x7f, nil),
		codec.AppendRes(nil, 77, 0, []byte("x")),
		codec.AppendPong(nil, []byte("1234")),
		codec.AppendPong(nil, nil),
		codec.AppendBeat(nil),
		codec.AppendError(nil, codec.CodeNoGateway, "x"),
		codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}),
		codec.AppendData(nil, []byte("still here")),
	)
	got := ""
	if _, err := readAll(Config{OnData: func(b []byte) { got += string(b) }}, nil, in); !errors.Is(err, io.EOF) ||
		got != "still here" {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzRead reads any bytes after WELCOME, in any pieces. What is delivered, and the final
// error, do not depend on the pieces.
func FuzzRead(f *testing.F) {
	f.Add([]byte{}, []byte{}, uint16(0))
	f.Add(codec.AppendData(nil, make([]byte, 3000)), []byte{200, 3}, uint16(7))
	f.Add(slices.Concat(codec.AppendPing(nil, []byte("p")), codec.AppendReq(nil, 1, "s", nil), codec.AppendBeat(nil)),
		[]byte{1}, uint16(1))
	f.Add(slices.Concat(codec.AppendConfig(nil, codec.Config{BeatMS: 10, TimeoutMS: 15}),
		codec.AppendError(nil, codec.CodeNoGateway, "x")), []byte{4}, uint16(2))
	f.Add(slices.Concat(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining, AfterMS: 1}),
		codec.AppendClose(nil, codec.CodeKicked, "x")), []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, in, cuts []byte, rest uint16) {
		run := func(rest []byte, pieces ...[]byte) string {
			var log strings.Builder
			cfg := Config{
				MaxFrame: 40_000,
				OnData:   func(b []byte) { fmt.Fprintf(&log, "data %x\n", b) },
				OnError:  func(e *CodeError) { fmt.Fprintln(&log, e) },
			}
			_, err := readAll(cfg, rest, pieces...)
			fmt.Fprintln(&log, err)
			return log.String()
		}
		whole := run(nil, in)
		n := min(int(rest), len(in))
		var parts [][]byte
		for i, left := 0, in[n:]; len(left) > 0; i++ {
			size := len(left)
			if len(cuts) > 0 {
				size = min(size, 1+int(cuts[i%len(cuts)])*int(cuts[i%len(cuts)])/8)
			}
			parts, left = append(parts, left[:size]), left[size:]
		}
		if split := run(in[:n], parts...); split != whole {
			t.Fatalf("whole:\n%s\nin pieces:\n%s", whole, split)
		}
	})
}
