package codec

import (
	"encoding/hex"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sample is one frame: its bytes, how this package writes it (nil for a form
// that is only read) and what it reads in it.
type sample struct {
	name   string
	op     Op
	wire   string // hex; spaces are ignored
	write  func(dst []byte) []byte
	parsed any
}

// The contents of binary frames, as the parsers return them.
type (
	coded       struct{ code, text any }
	req         struct{ id, subject, body any }
	res         struct{ id, status, body any }
	membership  struct{ id, channel any }
	publication struct{ channel, body any }
)

func u32(n uint32) any { return n }

// samples has at least one frame of every op. SPEC.md shows every one of them,
// by these names.
var samples = []sample{
	{"beat", OpBeat, "00000000", AppendBeat, ""},
	{"ping", OpPing, "00000005 01 deadbeef",
		func(d []byte) []byte { return AppendPing(d, []byte("\xde\xad\xbe\xef")) }, "\xde\xad\xbe\xef"},
	{"ping-empty", OpPing, "00000001 01",
		func(d []byte) []byte { return AppendPing(d, nil) }, ""},
	{"pong", OpPong, "00000005 02 deadbeef",
		func(d []byte) []byte { return AppendPong(d, []byte("\xde\xad\xbe\xef")) }, "\xde\xad\xbe\xef"},
	{"data", OpData, "00000006 03 68656c6c6f",
		func(d []byte) []byte { return AppendData(d, []byte("hello")) }, "hello"},
	{"hello", OpHello, "00000037 04" + text(`{"v":1,"token":"t0k","beat_ms":15000,"beats":"client"}`),
		func(d []byte) []byte {
			return AppendHello(d, Hello{V: 1, Token: "t0k", BeatMS: 15000, Beats: "client"})
		},
		Hello{V: 1, Token: "t0k", BeatMS: 15000, Beats: "client"}},
	{"hello-empty", OpHello, "00000001 04", nil, Hello{V: 1}},
	{"welcome", OpWelcome,
		"0000009f 05" + text(`{"v":1,"session":"s1","beat_ms":15000,"timeout_ms":37500,"beats":"client",`+
			`"max_frame":65536,"min_beat_ms":1000,"spread_ms":5000,"time":"2025-01-02T03:04:05Z"}`),
		func(d []byte) []byte { return AppendWelcome(d, sampleWelcome) }, sampleWelcome},
	{"config", OpConfig, "00000025 06" + text(`{"beat_ms":15000,"timeout_ms":37500}`),
		func(d []byte) []byte { return AppendConfig(d, sampleConfig) }, sampleConfig},
	{"config-token", OpConfig, "00000010 06" + text(`{"token":"t0k"}`),
		func(d []byte) []byte { return AppendConfig(d, Config{Token: "t0k"}) }, Config{Token: "t0k"}},
	{"config-empty", OpConfig, "00000001 06", nil, Config{}},
	{"goaway", OpGoaway, "00000045 07" + text(`{"code":3001,"reason":"drain","after_ms":500,"addr":"10.0.0.2:7000"}`),
		func(d []byte) []byte { return AppendGoaway(d, sampleGoaway) }, sampleGoaway},
	{"close", OpClose, "00000006 08 0bb9 627965",
		func(d []byte) []byte { return AppendClose(d, CodeDraining, "bye") }, coded{CodeDraining, "bye"}},
	{"close-empty", OpClose, "00000001 08", nil, coded{CodePeerClosed, ""}},
	{"error", OpError, "0000000d 09 0fa1" + text("no gateway"),
		func(d []byte) []byte { return AppendError(d, CodeNoGateway, "no gateway") }, coded{CodeNoGateway,
			"no gateway"}},
	{"req", OpReq, "0000000b 0a 00000007 04 74696d65 3f",
		func(d []byte) []byte { return AppendReq(d, 7, "time", []byte("?")) }, req{u32(7), "time", "?"}},
	{"req-empty", OpReq, "00000006 0a ffffffff 00",
		func(d []byte) []byte { return AppendReq(d, 1<<32-1, "", nil) }, req{u32(1<<32 - 1), "", ""}},
	{"res", OpRes, "0000000a 0b 00000007 00 6e6f6f6e",
		func(d []byte) []byte { return AppendRes(d, 7, 0, []byte("noon")) }, res{u32(7), uint8(0), "noon"}},
	{"subscribe", OpSubscribe, "00000009 0c 00000008 726f6f6d",
		func(d []byte) []byte { return AppendSubscribe(d, 8, "room") }, membership{u32(8), "room"}},
	{"unsubscribe", OpUnsubscribe, "00000009 0d 00000009 726f6f6d",
		func(d []byte) []byte { return AppendUnsubscribe(d, 9, "room") }, membership{u32(9), "room"}},
	{"publish", OpPublish, "00000008 0e 04 726f6f6d 6869",
		func(d []byte) []byte { return AppendPublish(d, "room", []byte("hi")) }, publication{"room", "hi"}},
	{"ext", 0x40, "00000003 40 0102",
		func(d []byte) []byte { return AppendFrame(d, 0x40, []byte{1, 2}) }, "\x01\x02"},
}

var (
	sampleWelcome = Welcome{
		V: 1, Session: "s1", BeatMS: 15000, TimeoutMS: 37500, Beats: "client",
		MaxFrame: 65536, MinBeatMS: 1000, SpreadMS: 5000, Time: "2025-01-02T03:04:05Z",
	}
	sampleGoaway = Goaway{Code: CodeDraining, Reason: "drain", AfterMS: 500, Addr: "10.0.0.2:7000"}
	sampleConfig = Config{BeatMS: 15000, TimeoutMS: 37500}
)

// text is s in hex.
func text(s string) string { return hex.EncodeToString([]byte(s)) }

// unhex is the bytes that s shows in hex; spaces are ignored.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("hex %q: %v", s, err)
	}
	return b
}

// parse hands the payload to the parser of its op and returns the content.
func parse(f Frame) (any, error) {
	switch f.Op {
	case OpHello:
		return wrap(ParseHello(f.Payload))
	case OpWelcome:
		return wrap(ParseWelcome(f.Payload))
	case OpConfig:
		return wrap(ParseConfig(f.Payload))
	case OpGoaway:
		return wrap(ParseGoaway(f.Payload))
	case OpClose:
		code, reason, err := ParseClose(f.Payload)
		return coded{code, reason}, err
	case OpError:
		code, text, err := ParseError(f.Payload)
		return coded{code, text}, err
	case OpReq:
		id, subject, body, err := ParseReq(f.Payload)
		return req{id, string(subject), string(body)}, err
	case OpRes:
		id, status, body, err := ParseRes(f.Payload)
		return res{id, status, string(body)}, err
	case OpSubscribe, OpUnsubscribe:
		id, name, err := ParseSubscribe(f.Payload)
		return membership{id, string(name)}, err
	case OpPublish:
		name, body, err := ParsePublish(f.Payload)
		return publication{string(name), string(body)}, err
	}
	return string(f.Payload), nil
}

func wrap[T any](v T, err error) (any, error) { return v, err }

// TestSamples is the golden table: the bytes of every op, written and read.
func TestSamples(t *testing.T) {
	seen := map[Op]bool{}
	for _, s := range samples {
		t.Run(s.name, func(t *testing.T) {
			seen[s.op] = true
			wire := unhex(t, s.wire)
			if s.write != nil {
				// Behind something else, to see that it appends.
				if got := s.write([]byte("before")); string(got) != "before"+string(wire) {
					t.Errorf("written as %x, want %x", got[len("before"):], wire)
				}
			}
			f, n, err := Decode(append(wire, "behind"...), DefaultMaxFrame)
			if err != nil || n != len(wire) || f.Op != s.op {
				t.Fatalf("Decode = %v, %d, %v; want %v, %d, nil", f.Op, n, err, s.op, len(wire))
			}
			got, err := parse(f)
			if err != nil || got != s.parsed {
				t.Errorf("parsed as %#v, %v; want %#v", got, err, s.parsed)
			}
		})
	}
	for op := OpBeat; op <= OpPublish; op++ {
		if !seen[op] {
			t.Errorf("no sample of %v", op)
		}
	}
}
