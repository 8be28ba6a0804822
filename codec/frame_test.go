package codec

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// refused are the beginnings of streams that Decode refuses. at is the number
// of bytes from which on it has to.
var refused = []struct {
	name string
	wire string
	max  int
	at   int
	want *Error
}{
	{"TLS", "16030100", DefaultMaxFrame, 1, ErrTLS},
	{"PROXY v1", "50524f585920", DefaultMaxFrame, 5, ErrProxy},
	{"PROXY v2", "0d0a0d0a000d0a515549540a", DefaultMaxFrame, 5, ErrProxy},
	{"POST", "504f5354", DefaultMaxFrame, 2, ErrHTTP},
	{"PROPFIND", "50524f5046494e44", DefaultMaxFrame, 4, ErrHTTP},
	{"PROXIMITY", "50524f58494d495459", DefaultMaxFrame, 5, ErrHTTP},
	{"CR", "0d0d0d0d0d", DefaultMaxFrame, 2, ErrForeign},
	{"empty lines", "0d0a0d0a0d0a", DefaultMaxFrame, 5, ErrForeign},
	{"a frame behind CR LF", "0d0a00000000", DefaultMaxFrame, 3, ErrForeign},
	{"GET", "474554202f20", DefaultMaxFrame, 1, ErrHTTP},
	{"lower case", "7a7a7a7a7a", DefaultMaxFrame, 1, ErrHTTP},
	{"before A", "40000000", DefaultMaxFrame, 1, ErrForeign},
	{"behind Z", "5b000000", DefaultMaxFrame, 1, ErrForeign},
	{"before a", "60000000", DefaultMaxFrame, 1, ErrForeign},
	{"behind z", "7b000000", DefaultMaxFrame, 1, ErrForeign},
	{"little-endian", "0500000003", DefaultMaxFrame, 1, ErrForeign},
	{"all ones", "ffffffffff", MaxFrameLimit, 1, ErrForeign},
	{"above any limit", "0100000003", math.MaxInt, 1, ErrForeign},
	{"above the default", "0001000103", DefaultMaxFrame, 4, ErrFrameTooLarge},
	{"above a small limit", "0000000603", 5, 4, ErrFrameTooLarge},
	{"limit 0", "0000000103", 0, 4, ErrFrameTooLarge},
	{"limit below 0", "0000000103", -1, 4, ErrFrameTooLarge},
	{"too large before op", "00ffffff80", DefaultMaxFrame, 4, ErrFrameTooLarge},
	{"op 0x00", "0000000100", DefaultMaxFrame, 5, ErrOp},
	{"op 0x0f", "000000020f00", DefaultMaxFrame, 5, ErrOp},
	{"op 0x3f", "000000023f00", DefaultMaxFrame, 5, ErrOp},
	{"op 0x80", "000000028000", DefaultMaxFrame, 5, ErrOp},
	{"op 0xff", "00010000ff00", DefaultMaxFrame, 5, ErrOp},
	{"PING of 126", "0000007f01", DefaultMaxFrame, 5, ErrPing},
	{"PONG of 126", "0000007f02", DefaultMaxFrame, 5, ErrPing},
}

// TestDecodeRefuses: every prefix of a refused stream is incomplete or gives
// the error of the whole, from the earliest possible byte on.
func TestDecodeRefuses(t *testing.T) {
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			wire := unhex(t, tt.wire)
			for k := range len(wire) + 1 {
				f, n, err := Decode(wire[:k], tt.max)
				var want error
				if k >= tt.at {
					want = tt.want
				}
				if err != want || n != 0 || f.Op != 0 || f.Payload != nil {
					t.Errorf("%d bytes: Decode = %v, %d, %v; want the zero Frame, 0, %v", k, f, n, err, want)
				}
				if tt.at == 5 && wire[0] == 0 { // the op: FrameSize does not look that far
					want = nil
				}
				size, err := FrameSize(wire[:k], tt.max)
				if err != want || (size != 0) != (k >= 4 && want == nil) {
					t.Errorf("%d bytes: FrameSize = %d, %v; want error %v", k, size, err, want)
				}
			}
		})
	}
}

// TestDecodePrefixes: every prefix of a frame, of every op, is incomplete.
func TestDecodePrefixes(t *testing.T) {
	for _, s := range samples {
		wire := unhex(t, s.wire)
		for k := range wire {
			if f, n, err := Decode(wire[:k:k], DefaultMaxFrame); n != 0 || err != nil || f.Payload != nil {
				t.Errorf("%s: %d of %d bytes: Decode = %v, %d, %v; want incomplete", s.name, k, len(wire), f, n, err)
			}
			want := len(wire)
			if k < HeaderSize {
				want = 0
			}
			if size, err := FrameSize(wire[:k], DefaultMaxFrame); size != want || err != nil {
				t.Errorf("%s: %d of %d bytes: FrameSize = %d, %v; want %d", s.name, k, len(wire), size, err, want)
			}
		}
	}
}

// TestDecodeEveryOp goes through all 256 op bytes.
func TestDecodeEveryOp(t *testing.T) {
	for i := range 256 {
		op := Op(i)
		f, n, err := Decode([]byte{0, 0, 0, 2, byte(op), 'x'}, DefaultMaxFrame)
		valid := op >= OpPing && op <= OpPublish || op >= 0x40 && op <= 0x7F
		switch {
		case valid && (err != nil || n != 6 || f.Op != op || string(f.Payload) != "x"):
			t.Errorf("op %#02x: Decode = %v, %d, %v; want it whole", i, f, n, err)
		case !valid && err != ErrOp:
			t.Errorf("op %#02x: error %v, want %v", i, err, ErrOp)
		}
	}
}

// TestDecodeLimits: the largest frames that are accepted.
func TestDecodeLimits(t *testing.T) {
	ping := AppendPing(nil, make([]byte, MaxPing))
	large := AppendData(nil, make([]byte, MaxFrameLimit-1))
	for _, tt := range []struct {
		name string
		wire []byte
		max  int
	}{
		{"beat with limit 0", AppendBeat(nil), 0},
		{"exactly the limit", AppendData(nil, make([]byte, 9)), 10},
		{"PING", ping, DefaultMaxFrame},
		{"largest of all", large, MaxFrameLimit},
		{"a limit above the largest", large, math.MaxInt},
	} {
		f, n, err := Decode(tt.wire, tt.max)
		if err != nil || n != len(tt.wire) {
			t.Errorf("%s: Decode = %d, %v; want %d", tt.name, n, err, len(tt.wire))
		}
		if again := AppendFrame(nil, f.Op, f.Payload); !bytes.Equal(again, tt.wire) {
			t.Errorf("%s: not the same when written again", tt.name)
		}
		if size, err := FrameSize(tt.wire, tt.max); err != nil || size != len(tt.wire) {
			t.Errorf("%s: FrameSize = %d, %v; want %d", tt.name, size, err, len(tt.wire))
		}
	}
}

// TestDecodeAliases: a payload is a part of the input, and appending to it does
// not reach the next frame.
func TestDecodeAliases(t *testing.T) {
	buf := AppendData(AppendData(nil, []byte("one")), []byte("two"))
	f, n, err := Decode(buf, DefaultMaxFrame)
	if err != nil || &f.Payload[0] != &buf[5] {
		t.Fatalf("payload is not a part of the input (%v)", err)
	}
	_ = append(f.Payload, "XXXX"...)
	if g, _, err := Decode(buf[n:], DefaultMaxFrame); err != nil || string(g.Payload) != "two" {
		t.Errorf("next frame is %q, %v after appending to the payload before it", g.Payload, err)
	}
	if f, _, _ := Decode(AppendBeat(nil), DefaultMaxFrame); f.Payload != nil {
		t.Errorf("payload of a beat is %v, want nil", f.Payload)
	}
}

// TestAppendAliases: echoing a PING into the buffer it lies in.
func TestAppendAliases(t *testing.T) {
	buf := AppendPing(nil, []byte("opaque"))
	f, _, err := Decode(buf, DefaultMaxFrame)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := AppendPong(buf[:0], f.Payload), AppendPong(nil, []byte("opaque")); !bytes.Equal(got, want) {
		t.Errorf("PONG in place is %x, want %x", got, want)
	}
}

func TestAppendPanics(t *testing.T) {
	long := string(make([]byte, MaxSubject+1))
	huge := make([]byte, MaxFrameLimit)
	for name, fn := range map[string]func(){
		"beat with payload": func() { AppendFrame(nil, OpBeat, []byte{1}) },
		"ping":              func() { AppendPing(nil, make([]byte, MaxPing+1)) },
		"pong":              func() { AppendPong(nil, make([]byte, MaxPing+1)) },
		"data":              func() { AppendData(nil, huge) },
		"frame":             func() { AppendFrame(nil, OpData, huge) },
		"req subject":       func() { AppendReq(nil, 1, long, nil) },
		"req payload":       func() { AppendReq(nil, 1, "", huge[:MaxFrameLimit-5]) },
		"res payload":       func() { AppendRes(nil, 1, 0, huge[:MaxFrameLimit-5]) },
		"subscribe":         func() { AppendSubscribe(nil, 1, long) },
		"unsubscribe":       func() { AppendUnsubscribe(nil, 1, long) },
		"channel name":      func() { AppendPublish(nil, long, nil) },
		"channel payload":   func() { AppendPublish(nil, "", huge[:MaxFrameLimit-1]) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			fn()
		})
	}
}

// TestErrorKinds: what errors.Is and errors.As find.
func TestErrorKinds(t *testing.T) {
	_, body := ParseConfig([]byte("[]"))
	for _, tt := range []struct {
		err, kind error
		code      Code
	}{
		{ErrForeign, ErrForeign, CodeProtocolError},
		{ErrTLS, ErrForeign, CodeProtocolError},
		{ErrHTTP, ErrForeign, CodeProtocolError},
		{ErrProxy, ErrForeign, CodeInternalError},
		{ErrFrameTooLarge, ErrFrameTooLarge, CodeFrameTooLarge},
		{ErrOp, ErrOp, CodeProtocolError},
		{ErrPing, ErrBody, CodeProtocolError},
		{ErrBody, ErrBody, CodeProtocolError},
		{body, ErrBody, CodeProtocolError},
	} {
		var e *Error
		if !errors.Is(tt.err, tt.kind) || !errors.As(tt.err, &e) || e.Code != tt.code || e.Error() != "codec: "+e.Text {
			t.Errorf("%v: not an *Error of kind %q with code %d", tt.err, tt.kind, tt.code)
		}
		for _, other := range []error{ErrForeign, ErrFrameTooLarge, ErrOp, ErrBody} {
			if other != tt.kind && errors.Is(tt.err, other) {
				t.Errorf("%v is also %v", tt.err, other)
			}
		}
	}
}

// TestBinaryAllocatesNothing: reading every op, refusing every refused stream
// and writing every binary op into a slice with room.
func TestBinaryAllocatesNothing(t *testing.T) {
	check := func(name string, fn func()) {
		t.Helper()
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations, want 0", name, n)
		}
	}
	var (
		frame Frame
		err   error
		buf   = make([]byte, 0, 512)
	)
	for _, s := range samples {
		wire := unhex(t, s.wire)
		check("Decode of "+s.name, func() { frame, _, err = Decode(wire, DefaultMaxFrame) })
		check("FrameSize of "+s.name, func() { _, err = FrameSize(wire, DefaultMaxFrame) })
		switch s.op {
		case OpHello, OpWelcome, OpConfig, OpGoaway:
			continue
		}
		if s.write != nil {
			check("write of "+s.name, func() { buf = s.write(buf[:0]) })
		}
		switch s.op {
		case OpReq:
			check("ParseReq", func() { _, _, _, err = ParseReq(frame.Payload) })
		case OpRes:
			check("ParseRes", func() { _, _, _, err = ParseRes(frame.Payload) })
		case OpSubscribe, OpUnsubscribe:
			check("ParseSubscribe", func() { _, _, err = ParseSubscribe(frame.Payload) })
		case OpPublish:
			check("ParsePublish", func() { _, _, err = ParsePublish(frame.Payload) })
		}
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
	for _, tt := range refused {
		wire := unhex(t, tt.wire)
		check("refusal of "+tt.name, func() { _, _, err = Decode(wire, tt.max) })
		if err != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// BenchmarkDecode takes one frame after the other off a buffer of 64: the cost
// of a frame in a coalesced read.
func BenchmarkDecode(b *testing.B) {
	for name, one := range map[string][]byte{
		"beat":   AppendBeat(nil),
		"ping8":  AppendPing(nil, make([]byte, 8)),
		"data16": AppendData(nil, make([]byte, 16)),
		"mixed":  AppendData(AppendPing(AppendBeat(nil), make([]byte, 8)), make([]byte, 16)),
	} {
		b.Run(name, func(b *testing.B) {
			buf := bytes.Repeat(one, 64)
			rest := buf
			var sum int
			b.ReportAllocs()
			for b.Loop() {
				f, n, err := Decode(rest, DefaultMaxFrame)
				if err != nil || n == 0 {
					b.Fatal(n, err)
				}
				sum += len(f.Payload)
				if rest = rest[n:]; len(rest) == 0 {
					rest = buf
				}
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	buf := make([]byte, 0, 64)
	opaque, payload := make([]byte, 8), make([]byte, 16)
	for _, bb := range []struct {
		name string
		fn   func([]byte) []byte
	}{
		{"beat", AppendBeat},
		{"ping8", func(d []byte) []byte { return AppendPing(d, opaque) }},
		{"data16", func(d []byte) []byte { return AppendData(d, payload) }},
		{"req", func(d []byte) []byte { return AppendReq(d, 7, "subject", payload) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				buf = bb.fn(buf[:0])
			}
		})
	}
}

// TestRefusalsFit: a CLOSE carries the whole text of each refusal, and none names a
// listener that no server has.
func TestRefusalsFit(t *testing.T) {
	for _, err := range []*Error{ErrForeign, ErrTLS, ErrHTTP, ErrProxy, ErrFrameTooLarge, ErrOp, ErrPing} {
		if n := len(err.Error()); n > MaxReason {
			t.Errorf("%q has %d bytes, a reason has room for %d", err, n, MaxReason)
		}
		if text := err.Error(); strings.Contains(text, "TLS listener") || strings.Contains(text, "WebSocket listener") {
			t.Errorf("%q advises to use what there is not", text)
		}
	}
	if !ErrProxy.Code.Reconnect() {
		t.Error("a client ends for good behind a load balancer that is set up wrong")
	}
}
