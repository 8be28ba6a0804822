package server

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

const netty = "HELLO, WORLD"

// fleets are framings as their own documentation has them, and a stream of each. The
// first seven are the examples worked out for Netty's LengthFieldBasedFrameDecoder.
var fleets = []struct {
	name     string
	f        Framing
	in       string
	messages []string
	out      string // the same messages sent; empty: as they came
}{
	{"Netty 1", Framing{Kind: FramingLengthField, Width: 2, Strip: KeepHeader},
		"\x00\x0C" + netty, []string{"\x00\x0C" + netty}, ""},
	{"Netty 2", Framing{Kind: FramingLengthField, Width: 2, Strip: 2}, "\x00\x0C" + netty, []string{netty}, ""},
	{"Netty 3", Framing{Kind: FramingLengthField, Width: 2, Adjust: -2, Strip: KeepHeader},
		"\x00\x0E" + netty, []string{"\x00\x0E" + netty}, ""},
	{"Netty 4", Framing{Kind: FramingLengthField, Offset: 2, Width: 3, Strip: KeepHeader},
		"\xCA\xFE\x00\x00\x0C" + netty, []string{"\xCA\xFE\x00\x00\x0C" + netty}, ""},
	{"Netty 5", Framing{Kind: FramingLengthField, Width: 3, Adjust: 2, Strip: KeepHeader},
		"\x00\x00\x0C\xCA\xFE" + netty, []string{"\x00\x00\x0C\xCA\xFE" + netty}, ""},
	{"Netty 6", Framing{Kind: FramingLengthField, Offset: 1, Width: 2, Adjust: 1, Strip: 3},
		"\xCA\x00\x0C\xFE" + netty, []string{"\xFE" + netty}, "\x00\x00\x0C\xFE" + netty},
	{"Netty 7", Framing{Kind: FramingLengthField, Offset: 1, Width: 2, Adjust: -3, Strip: 3},
		"\xCA\x00\x10\xFE" + netty, []string{"\xFE" + netty}, "\x00\x00\x10\xFE" + netty},

	{"Erlang {packet,1}", Framing{Kind: FramingLengthField, Width: 1}, "\x01a\x00\x02bc", []string{"a", "", "bc"}, ""},
	{"Erlang {packet,2}", Framing{Kind: FramingLengthField, Width: 2}, "\x00\x01a\x00\x00", []string{"a", ""}, ""},
	{"Erlang {packet,4}", Framing{Kind: FramingLengthField},
		"\x00\x00\x00\x01a\x00\x00\x00\x00", []string{"a", ""}, ""},
	{"Erlang {packet,line}", Framing{Kind: FramingLines}, "a\nbc\r\n\n", []string{"a", "bc", ""}, "a\nbc\n\n"},

	// package_length_type N and n: package_length_offset 0, package_body_offset 4 and 2.
	{"Swoole N", Framing{Kind: FramingLengthField, Strip: KeepHeader}, "\x00\x00\x00\x01a",
		[]string{"\x00\x00\x00\x01a"}, ""},
	{"Swoole n", Framing{Kind: FramingLengthField, Width: 2, Strip: KeepHeader},
		"\x00\x01a", []string{"\x00\x01a"}, ""},
	// package_length_offset 8, package_body_offset 16: a header of 16 bytes.
	{"Swoole N in a header", Framing{Kind: FramingLengthField, Offset: 8, Width: 4, Adjust: 4, Strip: KeepHeader},
		"headhead\x00\x00\x00\x01tailb", []string{"headhead\x00\x00\x00\x01tailb"}, ""},
	// package_body_offset 0: the length counts the whole.
	{"Swoole V, of the whole", Framing{Kind: FramingLengthField, Width: 4, Little: true, Adjust: -4, Strip: KeepHeader},
		"\x05\x00\x00\x00a", []string{"\x05\x00\x00\x00a"}, ""},
	{"Swoole v", Framing{Kind: FramingLengthField, Width: 2, Little: true, Strip: KeepHeader}, "\x01\x00a",
		[]string{"\x01\x00a"}, ""},
	{"Swoole C", Framing{Kind: FramingLengthField, Width: 1, Strip: KeepHeader}, "\x01a", []string{"\x01a"}, ""},
	{"Swoole package_eof", Framing{Kind: FramingDelimiter, Delimiter: "\r\n\r\n"}, "a\r\nb\r\n\r\n\r\n\r\n",
		[]string{"a\r\nb", ""}, ""},

	{"3 bytes", Framing{Kind: FramingLengthField, Width: 3}, "\x00\x00\x01a", []string{"a"}, ""},
	{"8 bytes, little", Framing{Kind: FramingLengthField, Width: 8, Little: true}, "\x01\x00\x00\x00\x00\x00\x00\x00a",
		[]string{"a"}, ""},
	{"protobuf", Framing{Kind: FramingVarint}, "\x01a\x00\x80\x01" + strings.Repeat("b", 128),
		[]string{"a", "", strings.Repeat("b", 128)}, ""},
	{"zero bytes", Framing{Kind: FramingDelimiter, Delimiter: "\x00"}, "a\x00\x00b\x00", []string{"a", "", "b"}, ""},
}

// foreignRig returns a bare rig whose connections speak f, by way of a Config.
func foreignRig(t testing.TB, cfg Config, h Handler) *rig {
	t.Helper()
	cfg.Listen = []string{"tcp://127.0.0.1:1"}
	r := newBareRig(t, cfg, h)
	r.edge = r.loop.setEdges(newInForce(r.cfg, nil))[0]
	return r
}

// However the stream is cut, the handler gets the same messages, and what it sends is
// framed as what comes.
func TestForeignFramings(t *testing.T) {
	for _, fleet := range fleets {
		t.Run(fleet.name, func(t *testing.T) {
			r := foreignRig(t, Config{Edge: Edge{Framing: fleet.f}}, nil)
			r.rec.onFrame = func(c *Conn, f codec.Frame) error { return c.Send(f.Op, f.Payload) }
			out := fleet.out
			if out == "" {
				out = fleet.in
			}
			see := func(how string, in string, parts ...string) {
				t.Helper()
				r.rec.got = nil
				c := r.open()
				for _, p := range parts {
					r.input(c, []byte(p))
				}
				var got []string
				for _, g := range r.rec.got {
					if got = append(got, g.payload); g.op != codec.OpData {
						t.Errorf("%s: the handler got %s", how, g.op)
					}
				}
				sent := string(r.sock(c).out)
				if len(got) > len(fleet.messages) || !slices.Equal(got, fleet.messages[:len(got)]) ||
					!strings.HasPrefix(out, sent) || in == fleet.in && (sent != out || len(got) < len(fleet.messages)) {
					t.Errorf("%s: the handler got %q, and %q was sent", how, got, sent)
				}
				r.alive(c, how)
				r.check()
			}
			see("whole", fleet.in, fleet.in)
			see("byte by byte", fleet.in, strings.Split(fleet.in, "")...)
			for n := range len(fleet.in) {
				see(fmt.Sprint("truncated after ", n), fleet.in[:n], fleet.in[:n])
				see(fmt.Sprint("cut after ", n), fleet.in, fleet.in[:n], fleet.in[n:])
			}
		})
	}
}

// A client's beat is answered before what waits and is not for the handler, which gets
// what only begins like it.
func TestForeignBeat(t *testing.T) {
	for _, one := range []struct {
		f                  Framing
		beat, answer, near string // on the wire
	}{
		{Framing{Kind: FramingLines, Beat: []byte("PING"), Answer: []byte("PONG")}, "PING\r\n", "PONG\n", "PING \n"},
		{Framing{Kind: FramingLines, Beat: []byte{}, Answer: []byte{}}, "\n", "\n", " \n"},
		{Framing{Kind: FramingLengthField, Beat: []byte{}, Answer: []byte{}}, "\x00\x00\x00\x00", "\x00\x00\x00\x00",
			"\x00\x00\x00\x01x"},
		{Framing{Kind: FramingLengthField, Width: 2, Strip: KeepHeader, Beat: []byte("\x00\x01p"),
			Answer: []byte("\x00\x01q")}, "\x00\x01p", "\x00\x01q", "\x00\x02pq"},
		{Framing{Kind: FramingVarint, Beat: []byte("\x08\x01")}, "\x02\x08\x01", "", "\x03\x08\x01\x00"},
	} {
		cfg := profile(t, "fast")
		cfg.Edge = Edge{Framing: one.f}
		r := foreignRig(t, cfg, nil)
		c := r.open()
		r.input(c, []byte(one.beat+one.near+one.beat))
		if got := string(r.sock(c).out); got != one.answer+one.answer {
			t.Errorf("%q is answered %q", one.beat, got)
		}
		if len(r.rec.got) != 1 {
			t.Errorf("%q: the handler got %v", one.beat, r.rec.got)
		}
		s := r.stats()
		if s.framesIn[codec.OpBeat] != 2 || s.framesIn[codec.OpData] != 1 ||
			s.framesOut[codec.OpBeat] != uint64(2*min(len(one.answer), 1)) {
			t.Errorf("%q: counted %v in, %v out", one.beat, s.framesIn, s.framesOut)
		}
		if one.answer == "" {
			continue
		}
		r.sock(c).room = 0
		if err := c.Send(codec.OpData, []byte(r.rec.got[0].payload)); err != nil {
			t.Fatal(err)
		}
		r.input(c, []byte(one.beat))
		r.sock(c).out = nil
		r.writable(c, -1)
		if got := string(r.sock(c).out); !strings.HasPrefix(got, one.answer) {
			t.Errorf("%q is answered behind waiting data: %q", one.beat, got)
		}
		r.check()
	}
}

// Where this side beats it sends its own, also an empty one, and does not answer the
// client's; beats below the floor end a connection without a word.
func TestForeignServerBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := profile(t, "fast")
		cfg.Beats, cfg.Listen = ServerBeats, []string{"tcp://127.0.0.1:1"}
		cfg.Framing = Framing{Kind: FramingLengthField, Beat: []byte("p"), Answer: []byte("q"), ServerBeat: []byte{}}
		r := newRig(t, cfg, nil)
		r.do(func() { r.edge = r.loop.setEdges(newInForce(r.cfg, nil))[0] })
		c := r.open()
		for range 5 {
			r.wait(3*time.Second + slack)
			r.feed(c, []byte("\x00\x00\x00\x01p"))
		}
		r.do(func() {
			if got := r.sock(c).out; !bytes.Equal(got, make([]byte, 5*4)) || len(r.rec.got) > 0 {
				t.Errorf("sent % x; the handler got %v", got, r.rec.got)
			}
		})
		from := time.Now()
		r.wait(7500*time.Millisecond + slack)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 7500*time.Millisecond)
	})
	synctest.Test(t, func(t *testing.T) {
		r := foreignRig(t, Config{BeatFloor: time.Second, Edge: Edge{Framing: Framing{Kind: FramingLines,
			Beat: []byte("ping"), Answer: []byte("pong")}}}, nil)
		c := r.open()
		r.input(c, bytes.Repeat([]byte("ping\n"), 9))
		r.wantEnd(c, BeatTooOften, false)
		if got := string(r.sock(c).out); strings.Trim(got, "pong\n") != "" || len(got) > 9*5 {
			t.Errorf("sent %q", got)
		}
	})
}

// What no message can say is not sent, and what no frame can carry is an error.
func TestForeignSend(t *testing.T) {
	delimited := Edge{Framing: Framing{Kind: FramingDelimiter, Delimiter: "||"}}
	r := foreignRig(t, Config{MaxFrame: 256, Edge: delimited}, nil)
	c := r.open()
	for _, op := range []codec.Op{codec.OpPing, codec.OpReq, codec.OpPublish, codec.OpClose, 0x40} {
		if err := c.Send(op, nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", op, err)
		}
	}
	if err := c.Write(data("x")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Write: %v", err)
	}
	for _, bad := range []string{"a||b", "a|", strings.Repeat("x", 257)} {
		if err := c.Send(codec.OpData, []byte(bad)); !errors.Is(err, ErrMessage) {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	for _, good := range []string{"a|b", "", strings.Repeat("x", 256)} {
		if err := c.Send(codec.OpData, []byte(good)); err != nil {
			t.Errorf("%.10q: %v", good, err)
		}
	}
	r.rec.onFrame = func(*Conn, codec.Frame) error { return &codec.Error{Code: 4001, Text: "not so bad"} }
	r.input(c, []byte("x||"))
	r.alive(c, "after an error that the native protocol could say")
	if got, want := string(r.sock(c).out), "a|b||||"+strings.Repeat("x", 256)+"||"; got != want {
		t.Errorf("sent %q", got)
	}
	r.rec.onFrame = func(*Conn, codec.Frame) error { return errors.New("bad") }
	r.input(c, []byte("x||never seen||"))
	r.wantEnd(c, Internal, false)
	if len(r.rec.got) != 2 {
		t.Errorf("the handler got %v", r.rec.got)
	}
	c = r.open()
	r.input(c, bytes.Repeat([]byte("x"), 259))
	r.wantEnd(c, FrameTooLarge, false)
	r = foreignRig(t, Config{MaxFrame: 256, Edge: Edge{Framing: Framing{Kind: FramingLengthField}}}, nil)
	c = r.open()
	r.input(c, []byte("\x00\x00\x00\xFD"))
	r.wantEnd(c, FrameTooLarge, false)
}

// A message in and one out allocate nothing, nor does a beat.
func TestForeignNoAllocations(t *testing.T) {
	for _, f := range []Framing{
		{Kind: FramingLengthField}, {Kind: FramingVarint}, {Kind: FramingLines},
		{Kind: FramingDelimiter, Delimiter: "||"},
	} {
		f.Beat, f.Answer = []byte{}, []byte{}
		r := foreignRig(t, Config{Edge: Edge{Framing: f}}, Echo{})
		r.wheel.Close()
		c := r.open()
		r.sock(c).forget = true
		for _, message := range []string{"sixteen bytes ok", strings.Repeat("x", 1024), ""} {
			cut, _ := f.cutter(codec.DefaultMaxFrame)
			in, _ := cut.Encode(nil, []byte(message))
			if n := testing.AllocsPerRun(1000, func() { r.loop.received(c, in) }); n != 0 {
				t.Errorf("%s, %d bytes: %g allocations, want 0", f.Kind, len(message), n)
			}
		}
		s := r.loop.stats
		if s.framesOut[codec.OpData] < 2000 || s.framesOut[codec.OpBeat] < 1000 || c.state != stateOpen {
			t.Errorf("%s: it was not answered", f.Kind)
		}
	}
}

// FuzzForeign: cuts never change what the handler gets and what is sent.
func FuzzForeign(f *testing.F) {
	framings := []Framing{
		{Kind: FramingVarint, Beat: []byte("b"), Answer: []byte("a")},
		{Kind: FramingLines, Beat: []byte{}, Answer: []byte{}},
		{Kind: FramingDelimiter, Delimiter: "aab", Beat: []byte("b"), Answer: []byte("a")},
	}
	for i, fleet := range fleets {
		framings = append(framings, fleet.f)
		f.Add([]byte(fleet.in), uint64(i), byte(len(framings)-1))
		f.Add([]byte(fleet.in+fleet.in+"rest"), uint64(i), byte(i))
	}
	h := &moody{}
	rigs := make([]*rig, len(framings))
	for i, framing := range framings {
		rigs[i] = foreignRig(f, Config{MaxFrame: 300, Edge: Edge{Framing: framing}}, h)
	}
	type result struct {
		calls, out string
		state      connState
		reason     Reason
		part       bool
		beats      uint64
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, which byte) {
		r := rigs[int(which)%len(rigs)]
		if len(in) == 0 {
			return // an engine never calls without bytes
		}
		see := func(chunks [][]byte) result {
			h.calls, r.loop.stats = nil, counters{}
			c := r.open()
			for _, b := range chunks {
				r.input(c, b)
			}
			got := result{strings.Join(h.calls, "\n"), string(r.sock(c).out), c.state, c.reason,
				c.partialAt != 0 && c.state == stateOpen, r.loop.stats.framesIn[codec.OpBeat]}
			if err := r.loop.check(); err != nil {
				t.Error(err)
			}
			r.loop.lost(c, PeerClosed)
			delete(r.io.byConn, c)
			r.gone = 0
			return got
		}
		whole := see([][]byte{in})
		rng := rand.New(rand.NewPCG(seed, 0))
		for _, most := range []int{1, 7, len(in)/2 + 1} {
			chunks := cut(in, rng, most)
			if got := see(chunks); got != whole {
				t.Fatalf("cut into %x:\n%+v\nwhole:\n%+v", chunks, got, whole)
			}
		}
	})
}

// TestForeignConfig: what is wrong with a Framing is said with the field and what to set.
func TestForeignConfig(t *testing.T) {
	field := Framing{Kind: FramingLengthField}
	with := func(f Framing, change func(*Framing)) Framing { change(&f); return f }
	for _, one := range []struct {
		f    Framing
		want []string // field: part of the text
	}{
		{Framing{Kind: "native"}, nil},
		{field, nil},
		{Framing{Kind: "netty"}, []string{"Kind: length-field, varint"}},
		{Framing{Beat: []byte("x")}, []string{"Beat: set Config.Framing"}},
		{Framing{Width: 2, Delimiter: "x"}, []string{"Width: length-field", "Delimiter: delimiter"}},
		{Framing{Kind: FramingLines, Offset: 1, Adjust: 1, Strip: 1, Little: true},
			[]string{"Offset: leave", "Little: leave", "Adjust: leave", "Strip: leave"}},
		{with(field, func(f *Framing) { f.Width, f.Offset, f.Adjust, f.Strip = 5, -1, 1<<30, -2 }),
			[]string{"Width: 1, 2, 3, 4 or 8", "Offset: between", "Adjust: between", "Strip: between"}},
		{Framing{Kind: FramingDelimiter}, []string{"Kind: needs Config.Framing.Delimiter, the bytes"}},
		{Framing{Kind: FramingDelimiter, Delimiter: strings.Repeat("x", 257)}, []string{"Delimiter: longer"}},
		{Framing{Kind: FramingLines, Beat: []byte("a\nb")}, []string{"Beat: line"}},
		{Framing{Kind: FramingLines, Beat: []byte("a\r")}, []string{"Beat: line"}},
		{Framing{Kind: FramingDelimiter, Delimiter: "||", Beat: []byte("a"), Answer: []byte("a|")},
			[]string{"Answer: delimiter"}},
		{Framing{Kind: FramingVarint, ServerBeat: make([]byte, 70_000)}, []string{"ServerBeat: too long"}},
		{Framing{Kind: FramingVarint, Answer: []byte("a")}, []string{"Answer: Config.Framing.Beat"}},
		{with(field, func(f *Framing) { f.Strip, f.Beat = KeepHeader, []byte("PING") }), []string{"Beat: header"}},
		{with(field, func(f *Framing) { f.Strip, f.Beat = KeepHeader, []byte("\x00\x00\x00\x00") }), nil},
	} {
		cfg := Config{Edge: Edge{Framing: one.f}}
		listener := Config{Listeners: []Listener{{Address: "tls://127.0.0.1:1",
			Edge: Edge{Framing: one.f, Certificates: []Certificate{{"a", "b"}}}}}}
		for prefix, cfg := range map[string]Config{"Framing.": cfg, "Listeners[0].Framing.": listener} {
			errs := parts(cfg.Validate())
			if len(errs) != len(one.want) {
				t.Errorf("%+v: %v, want %q", one.f, errs, one.want)
				continue
			}
			for i, err := range errs {
				var e *FieldError
				name, text, _ := strings.Cut(one.want[i], ": ")
				if !errors.As(err, &e) || e.Field != prefix+name || !strings.Contains(e.Want, text) {
					t.Errorf("%+v: %v, want %q", one.f, err, one.want[i])
				}
			}
		}
	}
	for name, cfg := range map[string]Config{
		"ws and wss": {Listen: []string{"ws://127.0.0.1:1/"}},
		"ServerBeat": {Beats: ServerBeats},
		"HELLO":      {RequireHello: true},
		"token":      {Edge: Edge{Auth: Auth{Mode: "jwt", JWKS: "https://127.0.0.1/"}}},
	} {
		cfg.Framing = field
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mixed := Config{Listen: []string{"ws://127.0.0.1:1/", "tcp://127.0.0.1:2"}, Edge: Edge{Framing: field}}
	if err := mixed.Validate(); err != nil {
		t.Error(err)
	}
}

// A fleetClient is one that knows nothing but its length field of four bytes.
type fleetClient struct {
	t *testing.T
	net.Conn
}

func (c fleetClient) send(message string) {
	c.t.Helper()
	if err := binary.Write(c, binary.BigEndian, uint32(len(message))); err != nil {
		c.t.Fatal(err)
	}
	if _, err := io.WriteString(c, message); err != nil {
		c.t.Fatal(err)
	}
}

func (c fleetClient) want(message string) {
	c.t.Helper()
	var n uint32
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != message {
		c.t.Fatalf("got %.40q, %v, want %.40q", b, err, message)
	}
}

// Over TCP and TLS, beside listeners of the native protocol and WebSocket. No client of
// a fleet is ever sent what its framing has not.
func TestForeignClients(t *testing.T) {
	cfg, tc := secureConfig(t)
	cfg.Listen = []string{"tcp://127.0.0.1:0", "tls://127.0.0.1:0", "ws://127.0.0.1:0/chat"}
	cfg.Framing = Framing{Kind: FramingLengthField, Beat: []byte{}, Answer: []byte{}}
	lines := Edge{Framing: Framing{Kind: FramingLines, Beat: []byte("PING"), Answer: []byte("PONG")}}
	cfg.Listeners = []Listener{{Address: "tcp://127.0.0.1:0"}, {Address: "tcp://127.0.0.1:0", Edge: lines}}
	cfg.AddressMax = 6
	s, stop := startUntil(t, cfg, Echo{})
	open := func(i int) net.Conn {
		c, err := net.Dial("tcp", s.Addrs()[i].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		return c
	}
	secured := tls.Client(open(1), tc)
	fleet := []fleetClient{{t, open(0)}, {t, secured}}
	for _, c := range fleet {
		for _, m := range []string{"hello", "", strings.Repeat("x", 65_532), "\x01\x02"} {
			c.send(m)
			c.want(m) // "" is the beat
		}
	}
	c := open(4)
	_, _ = io.WriteString(c, "hello\r\nPING\r\nend\n")
	expect(t, c, []byte("hello\nPONG\nend\n"))
	native := open(3)
	_, _ = native.Write(data("hello"))
	expect(t, native, data("hello"))
	ws := dialWS(t, "ws://"+s.Addrs()[2].String()+"/chat", nil)
	if err := ws.WriteMessage(2, []byte("\x03hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := ws.ReadMessage(); err != nil || string(got) != "\x03hello" {
		t.Errorf("WebSocket beside a fleet: %q, %v", got, err)
	}
	_ = open(0) // the sixth
	if b, err := io.ReadAll(open(0)); err != nil || len(b) > 0 {
		t.Errorf("one too many is told %q, %v", b, err)
	}
	if n := s.Stats().Refused["address_limit"]; n != 1 {
		t.Errorf("%d refused", n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{fleet[0], secured, c} {
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("the drain is told as %q, %v", b, err)
		}
	}
}

// Reload has no other framing for a listener.
func TestForeignReload(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}}
	cfg.Framing = Framing{Kind: FramingLines, Beat: []byte("PING")}
	s := start(t, cfg, Echo{})
	if err := s.Reload(cfg); err != nil {
		t.Error(err)
	}
	cfg.Framing.Beat = []byte("PONG")
	var e *FieldError
	if err := s.Reload(cfg); !errors.As(err, &e) || e.Field != "Framing" || !strings.Contains(e.Want, "cannot change") {
		t.Errorf("%v", err)
	}
}
