package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestParseControl: texts that are accepted.
func TestParseControl(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		op            Op
		want          any
	}{
		{"empty object", "{}", OpHello, Hello{V: 1}},
		{"all members", `{"v":2,"token":"t","device":"d","beat_ms":1,"beats":"server","resume":"r"}`, OpHello,
			Hello{2, "t", "d", 1, "server", "r"}},
		{"any order, white space", " \t\r\n{ \"device\" : \"d\" ,\n\"v\" : 3 }\n ", OpHello, Hello{V: 3, Device: "d"}},
		{"version 0 is 1", `{"v":0}`, OpHello, Hello{V: 1}},
		{"null is absent", `{"v":null,"token":null,"beat_ms":null,"beats":null}`, OpHello, Hello{V: 1}},
		{"empty strings", `{"token":"","beats":""}`, OpHello, Hello{V: 1}},
		{"unknown members",
			`{"x":{"token":"no","y":[1,{"v":9},"]}"]},"z":[],"e":{},"n":-1.5e3,"t":true,"token":"yes"}`, OpHello,
			Hello{V: 1, Token: "yes"}},
		{"other case is unknown", `{"Token":"no","BEAT_MS":"no"}`, OpHello, Hello{V: 1}},
		{"names with escapes", `{"\u0074oken":"yes"}`, OpHello, Hello{V: 1, Token: "yes"}},
		{"values with escapes", `{"token":"\"\\\/\n\u4e16\ud83d\udc4b,}","device":"d"}`, OpHello,
			Hello{V: 1, Token: "\"\\/\n世👋,}", Device: "d"}},
		{"lone surrogate", `{"token":"\ud83d"}`, OpHello, Hello{V: 1, Token: "\uFFFD"}},
		{"last of two wins", `{"token":"a","token":"b"}`, OpHello, Hello{V: 1, Token: "b"}},
		{"last is null", `{"beat_ms":5,"beat_ms":null}`, OpHello, Hello{V: 1}},
		{"largest values", `{"v":2147483647,"beat_ms":315360000000}`, OpHello,
			Hello{V: 1<<31 - 1, BeatMS: 315360000000}},
		{"minus zero", `{"beat_ms":-0}`, OpHello, Hello{V: 1}},
		{"largest payload", `{"token":"` + strings.Repeat("a", 4084) + `"}`, OpHello,
			Hello{V: 1, Token: strings.Repeat("a", 4084)}},
		{"welcome without anything", "{}", OpWelcome, Welcome{V: 1}},
		{"welcome, largest frame", `{"max_frame":16777215}`, OpWelcome, Welcome{V: 1, MaxFrame: MaxFrameLimit}},
		{"longest session", `{"session":"` + strings.Repeat("s", MaxSession) + `"}`, OpWelcome,
			Welcome{V: 1, Session: strings.Repeat("s", MaxSession)}},
		{"longest resume", `{"resume":"` + strings.Repeat(`\u0041`, MaxSession) + `"}`, OpHello,
			Hello{V: 1, Resume: strings.Repeat("A", MaxSession)}},
		{"config, one member", `{"timeout_ms":7}`, OpConfig, Config{TimeoutMS: 7}},
		{"goaway, code only", `{"code":65535}`, OpGoaway, Goaway{Code: 65535}},
	} {
		got, err := parse(Frame{tt.op, []byte(tt.payload)})
		if err != nil || got != tt.want {
			t.Errorf("%s: parsed as %#v, %v; want %#v", tt.name, got, err, tt.want)
		}
	}
	// The largest value is one that a time.Duration can hold.
	if d := time.Duration(maxMS) * time.Millisecond; d != 87600*time.Hour {
		t.Errorf("the largest time is %v", d)
	}
}

// TestParseControlRefuses: texts that are not, and what the error says.
func TestParseControlRefuses(t *testing.T) {
	const ms = ", wanted an integer from 0 to 315360000000"
	for _, tt := range []struct {
		payload string
		op      Op
		want    string
	}{
		{"", OpWelcome, "payload is not one JSON object"},
		{"", OpGoaway, "payload is not one JSON object"},
		{" ", OpHello, "payload is not one JSON object"},
		{"{", OpHello, "payload is not one JSON object"},
		{`{"v":1`, OpHello, "payload is not one JSON object"},
		{`{"v":1,}`, OpHello, "payload is not one JSON object"},
		{`{"v" 1}`, OpHello, "payload is not one JSON object"},
		{`{v:1}`, OpHello, "payload is not one JSON object"},
		{"{} {}", OpHello, "payload is not one JSON object"},
		{"{}x", OpConfig, "payload is not one JSON object"},
		{"{}\x00", OpConfig, "payload is not one JSON object"},
		{"\xef\xbb\xbf{}", OpHello, "payload is not one JSON object"},
		{"null", OpHello, "payload is null, not a JSON object"},
		{"[]", OpConfig, "payload is an array, not a JSON object"},
		{"7", OpConfig, "payload is 7, not a JSON object"},
		{` "{}"`, OpConfig, `payload is "{}", not a JSON object`},
		{"{\"token\":\"\xff\"}", OpHello, "payload is not UTF-8"},
		{"{\"x\":\"\xc3\"}", OpHello, "payload is not UTF-8"},
		{`{"token":"` + strings.Repeat("a", 4085) + `"}`, OpHello, "payload is 4097 bytes, at most 4096 are allowed"},
		{`{"beat_ms":-1}`, OpHello, "beat_ms is -1" + ms},
		{`{"beat_ms":315360000001}`, OpHello, "beat_ms is 315360000001" + ms},
		{`{"beat_ms":9223372036854775808}`, OpHello, "beat_ms is 9223372036854775808" + ms},
		{`{"beat_ms":1.5}`, OpHello, "beat_ms is 1.5" + ms},
		{`{"beat_ms":1e3}`, OpHello, "beat_ms is 1e3" + ms},
		{`{"beat_ms":"15\u001b000"}`, OpHello, `beat_ms is "15\x1b000"` + ms},
		{`{"beat_ms":true}`, OpHello, "beat_ms is true" + ms},
		{`{"beat_ms":[1]}`, OpHello, "beat_ms is an array" + ms},
		{`{"beat_ms":{}}`, OpHello, "beat_ms is an object" + ms},
		{`{"beat_ms":1` + strings.Repeat("0", 99) + `}`, OpHello, "beat_ms is 1" + strings.Repeat("0", 31) + ms},
		{`{"beat_ms":-1,"beat_ms":1}`, OpHello, "beat_ms is -1" + ms},
		{`{"v":-1}`, OpHello, "v is -1, wanted an integer from 0 to 2147483647"},
		{`{"v":2147483648}`, OpHello, "v is 2147483648, wanted an integer from 0 to 2147483647"},
		{`{"v":"1"}`, OpHello, `v is "1", wanted an integer from 0 to 2147483647`},
		{`{"token":5}`, OpHello, "token is not a string"},
		{`{"device":["a"]}`, OpHello, "device is not a string"},
		{`{"resume":false}`, OpHello, "resume is not a string"},
		{`{"resume":"` + strings.Repeat("r", MaxSession+1) + `"}`, OpHello,
			"resume is 129 bytes, at most 128 are allowed"},
		{`{"session":"` + strings.Repeat("\u00fc", MaxSession/2) + `s"}`, OpWelcome,
			"session is 129 bytes, at most 128 are allowed"},
		{`{"beats":1}`, OpHello, "beats is not a string"},
		{`{"beats":"both"}`, OpHello, `beats is "both", wanted "client" or "server"`},
		{`{"v":1.0}`, OpWelcome, "v is 1.0, wanted an integer from 0 to 2147483647"},
		{`{"session":1}`, OpWelcome, "session is not a string"},
		{`{"beat_ms":-1}`, OpWelcome, "beat_ms is -1" + ms},
		{`{"timeout_ms":-1}`, OpWelcome, "timeout_ms is -1" + ms},
		{`{"beats":"Client"}`, OpWelcome, `beats is "Client", wanted "client" or "server"`},
		{`{"max_frame":16777216}`, OpWelcome, "max_frame is 16777216, wanted an integer from 0 to 16777215"},
		{`{"min_beat_ms":-1}`, OpWelcome, "min_beat_ms is -1" + ms},
		{`{"spread_ms":-1}`, OpWelcome, "spread_ms is -1" + ms},
		{`{"time":0}`, OpWelcome, "time is not a string"},
		{`{"beat_ms":-1}`, OpConfig, "beat_ms is -1" + ms},
		{`{"timeout_ms":-1}`, OpConfig, "timeout_ms is -1" + ms},
		{`{"token":"t","beat_ms":-1}`, OpHello, "beat_ms is -1" + ms},
		{`{"session":"s","beat_ms":-1}`, OpWelcome, "beat_ms is -1" + ms},
		{`{"timeout_ms":1,"beat_ms":-1}`, OpConfig, "beat_ms is -1" + ms},
		{`{}`, OpGoaway, "code is absent or 0"},
		{`{"code":0}`, OpGoaway, "code is absent or 0"},
		{`{"code":65536}`, OpGoaway, "code is 65536, wanted an integer from 0 to 65535"},
		{`{"code":1,"reason":1}`, OpGoaway, "reason is not a string"},
		{`{"code":1,"after_ms":-1}`, OpGoaway, "after_ms is -1" + ms},
		{`{"code":1,"addr":1}`, OpGoaway, "addr is not a string"},
	} {
		got, err := parse(Frame{tt.op, []byte(tt.payload)})
		if !errors.Is(err, ErrBody) || err.Error() != "codec: "+tt.op.String()+": "+tt.want {
			t.Errorf("%v %.60q: error %v, want %q", tt.op, tt.payload, err, tt.want)
		}
		switch got {
		case Hello{}, Welcome{}, Config{}, Goaway{}:
		default:
			t.Errorf("%v %.60q: %#v beside the error, want the zero value", tt.op, tt.payload, got)
		}
	}
}

// TestControlPrefixes: every prefix of a JSON payload is an error, but for the
// empty ones that stand for {}.
func TestControlPrefixes(t *testing.T) {
	for _, s := range samples {
		switch s.op {
		case OpHello, OpWelcome, OpConfig, OpGoaway:
		default:
			continue
		}
		f, _, err := Decode(unhex(t, s.wire), DefaultMaxFrame)
		if err != nil {
			t.Fatal(err)
		}
		for k := range len(f.Payload) {
			_, err := parse(Frame{f.Op, f.Payload[:k:k]})
			if k == 0 && (f.Op == OpHello || f.Op == OpConfig) {
				if err != nil {
					t.Errorf("%s: empty payload: %v", s.name, err)
				}
			} else if !errors.Is(err, ErrBody) {
				t.Errorf("%s: %q: error %v, want an ErrBody", s.name, f.Payload[:k], err)
			}
		}
	}
}

// TestControlKeepsNothing: what ParseHello returns stays when the buffer that
// the payload lay in is used again.
func TestControlKeepsNothing(t *testing.T) {
	payload := []byte(`{"token":"secret","device":"\u0064","beats":"client"}`)
	h, err := ParseHello(payload)
	clear(payload)
	if want := (Hello{V: 1, Token: "secret", Device: "d", Beats: "client"}); err != nil || h != want {
		t.Errorf("%+v, %v after the payload was overwritten; want %+v", h, err, want)
	}
}

// TestControlIsCheap: the worst payloads of the largest size cost little memory,
// and none for unknown members.
func TestControlIsCheap(t *testing.T) {
	fill := func(head, unit, tail string) []byte {
		n := (MaxControl - len(head) - len(tail)) / len(unit)
		return []byte(head + strings.Repeat(unit, n) + tail)
	}
	nested := []byte(`{"x":` + strings.Repeat("[", 2045) + strings.Repeat("]", 2045) + "}")
	for _, tt := range []struct {
		name    string
		payload []byte
		ok      bool
		allocs  float64
		bytes   uint64
	}{
		{"nested arrays", nested, true, 32, 128 << 10},
		{"nested objects", fill("", `{"x":`, ""), false, 32, 128 << 10},
		{"nested and left open", fill(`{"x":`, "[", ""), false, 32, 128 << 10},
		{"unknown members", fill(`{"a":1`, `,"b":1`, "}"), true, 1, 1 << 10},
		{"escapes in a name", fill(`{"`, `\u0078`, `":1}`), true, 16, 32 << 10},
		{"a long number", fill(`{"beat_ms":1`, "0", "}"), false, 16, 16 << 10},
	} {
		parse := func() error { _, err := ParseHello(tt.payload); return err }
		if err := parse(); (err == nil) != tt.ok {
			t.Errorf("%s: error %v, want none: %v", tt.name, err, tt.ok)
		}
		if n := testing.AllocsPerRun(100, func() { parse() }); n > tt.allocs {
			t.Errorf("%s: %v allocations, want at most %v", tt.name, n, tt.allocs)
		}
		const runs = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range runs {
			parse()
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > tt.bytes {
			t.Errorf("%s: %d bytes allocated, want at most %d", tt.name, n, tt.bytes)
		}
	}
}

// FuzzControl: the parsers of JSON bodies never panic; what they accept is what
// encoding/json sees in the text, and comes back the same when written.
func FuzzControl(f *testing.F) {
	for _, s := range samples {
		if s.op >= OpHello && s.op <= OpGoaway {
			f.Add(unhex(f, s.wire)[HeaderSize+1:])
		}
	}
	for _, s := range []string{
		`{"v":2,"token":"\u0074","code":3001,"reason":"\ud83d","after_ms":1,"beats":"server"}`,
		`{"v":null,"token":5}`, ` {"x":[{"y":"]"}],"v":7 } `, `{"beat_ms":-0}`, `{"beat_ms":1e3}`,
		`{"token":"a","\u0074oken":"b"}`, `{"x":"\\","v":1}`, "[]", "{} {}", "{\"x\":\"\xff\"}",
		strings.Repeat(`{"x":`, 100),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var object map[string]json.RawMessage
		isObject := utf8.Valid(b) && len(b) <= MaxControl && json.Unmarshal(b, &object) == nil && object != nil

		for _, op := range []Op{OpHello, OpWelcome, OpConfig, OpGoaway} {
			got, err := parse(Frame{op, b})
			if err != nil {
				if !errors.Is(err, ErrBody) {
					t.Errorf("%v: %v is not an ErrBody", op, err)
				}
				continue
			}
			if !isObject && len(b) > 0 {
				t.Errorf("%v: %q accepted, which is not an object", op, b)
			}
			var wire []byte
			switch v := got.(type) {
			case Hello:
				wire = AppendHello(nil, v)
				sees(t, object, "token", v.Token)
				sees(t, object, "resume", v.Resume)
				sees(t, object, "beat_ms", v.BeatMS)
			case Welcome:
				wire = AppendWelcome(nil, v)
				sees(t, object, "time", v.Time)
				sees(t, object, "max_frame", v.MaxFrame)
			case Config:
				wire = AppendConfig(nil, v)
				sees(t, object, "timeout_ms", v.TimeoutMS)
			case Goaway:
				sees(t, object, "reason", v.Reason)
				v.Reason = clip(v.Reason)
				got = v
				wire = AppendGoaway(nil, v)
				sees(t, object, "code", v.Code)
			}
			if len(wire) > HeaderSize+1+MaxControl {
				continue // escapes made it longer than what is accepted
			}
			frame, n, err := Decode(wire, DefaultMaxFrame)
			if n != len(wire) || err != nil {
				t.Fatalf("%v: Decode = %d, %v", op, n, err)
			}
			if again, err := parse(frame); again != got || err != nil {
				t.Errorf("%v: %#v written and read again is %#v, %v", op, got, again, err)
			}
		}
	})
}

// sees checks a member of an accepted object against encoding/json's reading.
func sees[T comparable](t *testing.T, object map[string]json.RawMessage, name string, got T) {
	t.Helper()
	var want T
	if raw, ok := object[name]; ok {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Errorf("%s: %s accepted: %v", name, raw, err)
		}
	}
	if got != want {
		t.Errorf("%s is %v, want %v", name, got, want)
	}
}

func BenchmarkHello(b *testing.B) {
	h := Hello{V: 1, Token: strings.Repeat("t", 40), Device: "phone", BeatMS: 15000, Beats: "client"}
	wire := AppendHello(nil, h)
	payload := wire[HeaderSize+1:]
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			wire = AppendHello(wire[:0], h)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseHello(payload); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// CONFIG, which a client may send again and again, is read and written without
// garbage, whatever its values are.
func TestConfigAllocatesNothing(t *testing.T) {
	for _, c := range []Config{{}, {BeatMS: 1}, {TimeoutMS: 2}, {ExpiresMS: 3},
		{BeatMS: math.MaxInt64, TimeoutMS: math.MinInt64, ExpiresMS: math.MaxInt64}} {
		want, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendConfig(nil, c)[HeaderSize+1:]; !bytes.Equal(got, want) {
			t.Errorf("%+v is written as %s, not %s", c, got, want)
		}
	}
	buf := make([]byte, 0, 64)
	frame := AppendConfig(buf, Config{BeatMS: 15000, TimeoutMS: 37500})
	if n := testing.AllocsPerRun(1000, func() {
		c, err := ParseConfig(frame[HeaderSize+1:])
		if err != nil {
			t.Fatal(err)
		}
		frame = AppendConfig(buf, c)
	}); n != 0 {
		t.Errorf("%g allocations, want 0", n)
	}
}
