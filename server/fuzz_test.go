package server

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"heartwheel/codec"
)

// A moody handler echoes, and does every bad thing when asked to.
type moody struct {
	Echo
	calls []string
}

func (h *moody) note(format string, args ...any) {
	h.calls = append(h.calls, fmt.Sprintf(format, args...))
}

func (h *moody) Open(*Conn) { h.note("open") }

func (h *moody) Close(_ *Conn, why Reason) { h.note("close %s", why) }

func (h *moody) Hello(_ *Conn, m codec.Hello) error {
	h.note("hello %+v", m)
	switch m.Token {
	case "bad":
		return &codec.Error{Code: codec.CodeBanned, Text: "banned"}
	case "panic":
		panic("as asked")
	}
	return nil
}

func (h *moody) Frame(c *Conn, f codec.Frame) error {
	h.note("frame %s %x", f.Op, f.Payload)
	if f.Op == codec.OpData {
		switch string(f.Payload) {
		case "panic":
			panic("as asked")
		case "fail":
			return errors.New("as asked")
		case "close":
			c.Close(codec.CodeKicked, "as asked")
		}
	}
	return h.Echo.Frame(c, f)
}

// outcome is everything that a connection's input has led to.
type outcome struct {
	out            string // bytes written, WELCOME's time left out
	rest           string // bytes kept for later, of an open connection
	state          connState
	reason         Reason
	flags          connFlags
	beat, timeout  uint32
	part           bool
	aborted        bool
	calls          string
	framesIn       [opLabels]uint64
	framesOut      [opLabels]uint64
	bytesIn, bytes uint64
	panics         uint64
}

var welcomeTime = regexp.MustCompile(`"time":"[^"]*"`)

// after feeds one new connection the chunks and tells what came of it.
func after(t *testing.T, r *rig, h *moody, chunks [][]byte) outcome {
	t.Helper()
	r.loop.seq, r.loop.stats, h.calls = 0, counters{}, nil
	c := r.open()
	for _, b := range chunks {
		r.input(c, b)
	}
	s := r.sock(c)
	o := outcome{
		out: string(welcomeTime.ReplaceAll(s.out, nil)), state: c.state, reason: c.reason,
		flags: c.flags,
		beat:  c.beat, timeout: c.timeout, part: c.partialAt != 0, aborted: s.aborted,
		calls:    strings.Join(h.calls, "\n"),
		framesIn: r.loop.stats.framesIn, framesOut: r.loop.stats.framesOut,
		bytesIn: r.loop.stats.bytesIn, bytes: r.loop.stats.bytesOut, panics: r.loop.stats.panics,
	}
	if c.state == stateOpen {
		if c.ext != nil {
			o.rest = string(c.ext.partial)
		}
	} else {
		o.part = false
	}
	if err := r.loop.check(); err != nil {
		t.Error(err)
	}
	for b := s.out; len(b) > 0; { // what comes out is whole frames
		_, n, err := codec.Decode(b, codec.MaxFrameLimit)
		if n == 0 || err != nil {
			t.Fatalf("% x was written, which is not a frame: %v", b, err)
		}
		b = b[n:]
	}
	r.loop.lost(c, PeerClosed)
	opens, closes := 0, 0
	for _, call := range h.calls {
		if call == "open" {
			opens++
		} else if strings.HasPrefix(call, "close ") {
			closes++
		}
	}
	if opens > 1 || closes != opens || s.closes != 1 {
		t.Errorf("%d Open, %d Close events, socket closed %d times", opens, closes, s.closes)
	}
	delete(r.io.byConn, c)
	r.gone = 0
	return o
}

// cut cuts b into chunks of up to most bytes.
func cut(b []byte, rng *rand.Rand, most int) (chunks [][]byte) {
	for len(b) > 0 {
		n := min(1+rng.IntN(most), len(b))
		chunks = append(chunks, b[:n])
		b = b[n:]
	}
	return chunks
}

// fuzzSeeds has each kind of frame, and what is none.
func fuzzSeeds() [][]byte {
	var seeds [][]byte
	frame := func(op codec.Op, payload string) []byte { return codec.AppendFrame(nil, op, []byte(payload)) }
	for op := codec.OpPing; op <= codec.OpPublish; op++ {
		seeds = append(seeds, frame(op, "x"))
	}
	for _, op := range []codec.Op{codec.OpPublish + 1, 0x3f, 0x40, 0x7f, 0x80, 0xff} {
		seeds = append(seeds, frame(op, "x"))
	}
	seeds = append(seeds, []byte{0, 0, 0, 1, 0}) // op 0
	seeds = append(seeds,
		nil, beat, slices.Repeat(beat, 3),
		frame(codec.OpPing, ""), frame(codec.OpPing, strings.Repeat("p", 125)),
		frame(codec.OpPing, strings.Repeat("p", 126)),
		frame(codec.OpData, ""), frame(codec.OpData, "panic"), frame(codec.OpData, "fail"),
		frame(codec.OpData, "close"),
		codec.AppendHello(nil, codec.Hello{}),
		codec.AppendHello(nil, codec.Hello{Token: "good", Device: "d", BeatMS: 2000, Beats: "server", Resume: "r"}),
		codec.AppendHello(nil, codec.Hello{Token: "bad"}), codec.AppendHello(nil, codec.Hello{Token: "panic"}),
		codec.AppendHello(nil, codec.Hello{V: 2}), codec.AppendHello(nil, codec.Hello{Beats: "nobody"}),
		frame(codec.OpHello, "{"), frame(codec.OpHello, strings.Repeat("[", 4000)),
		codec.AppendConfig(nil, codec.Config{BeatMS: 3000}), codec.AppendConfig(nil, codec.Config{}),
		frame(codec.OpConfig, `{"beat_ms":-1}`),
		codec.AppendClose(nil, codec.CodePeerClosed, "bye"), frame(codec.OpClose, ""),
		frame(codec.OpClose, "\x0b\xb8\xff"),
		codec.AppendReq(nil, 7, "subject", []byte("body")), codec.AppendRes(nil, 7, 0, []byte("body")),
		codec.AppendSubscribe(nil, 8, "group"), codec.AppendPublish(nil, "group", []byte("body")),
		codec.AppendWelcome(nil, codec.Welcome{}), codec.AppendGoaway(nil, codec.Goaway{Code: 3001}),
		codec.AppendError(nil, 4001, "no"),
		[]byte("GET / HTTP/1.1\r\n\r\n"), []byte{0x16, 3, 1, 2, 0}, []byte{0, 0, 2}, []byte{0, 0, 2, 1},
		[]byte{0, 0, 1, 1, 3}, []byte{0, 0xff, 0xff, 0xff},
	)
	all := bytes.Join([][]byte{
		codec.AppendHello(nil, codec.Hello{BeatMS: 1500}), beat, frame(codec.OpPing, "p"),
		frame(codec.OpPong, "p"), frame(codec.OpData, "hi"),
		codec.AppendConfig(nil, codec.Config{BeatMS: 3000}), codec.AppendReq(nil, 1, "s", nil),
		frame(0x40, "ext"), beat, {0, 0, 0, 9, 3, 'p'},
	}, nil)
	return append(seeds, all, append(all[:len(all):len(all)], frame(codec.OpClose, "")...))
}

// FuzzInput: how the bytes were cut into pieces never changes what comes of
// them.
func FuzzInput(f *testing.F) {
	for i, in := range fuzzSeeds() {
		for mode := range byte(4) {
			f.Add(in, uint64(i), mode)
		}
	}
	h := &moody{}
	// A small largest frame, so that random lengths come near it.
	r := newBareRig(f, Config{MaxFrame: 512}, h)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, mode byte) {
		r.cfg.RequireHello, r.cfg.Beats = mode&1 != 0, Beats(mode>>1&1)
		if len(in) == 0 {
			return // an engine never calls without bytes
		}
		whole := after(t, r, h, [][]byte{in})
		rng := rand.New(rand.NewPCG(seed, 0))
		for _, most := range []int{1, 7, len(in)/2 + 1} {
			chunks := cut(in, rng, most)
			if got := after(t, r, h, chunks); got != whole {
				t.Fatalf("cut into %x:\n%+v\nwhole:\n%+v", chunks, got, whole)
			}
		}
	})
}
