package codec

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestParseBodiesRefuse(t *testing.T) {
	for _, tt := range []struct {
		op      Op
		payload string
		want    string
	}{
		{OpReq, "", "req: id is 0 of 4 bytes"},
		{OpReq, "\x00\x00\x00", "req: id is 3 of 4 bytes"},
		{OpReq, "\x00\x00\x00\x07", "req: length of the name is missing"},
		{OpReq, "\x00\x00\x00\x07\x01", "req: name is 0 of its 1 bytes"},
		{OpReq, "\x00\x00\x00\x07\xffabc", "req: name is 3 of its 255 bytes"},
		{OpRes, "", "res: id and status are 0 of 5 bytes"},
		{OpRes, "\x00\x00\x00\x07", "res: id and status are 4 of 5 bytes"},
		{OpSubscribe, "\x00\x00\x00", "subscribe: id is 3 of 4 bytes"},
		{OpUnsubscribe, "", "subscribe: id is 0 of 4 bytes"},
		{OpSubscribe, "\x00\x00\x00\x07" + strings.Repeat("a", 256),
			"subscribe: channel name is 256 bytes, at most 255 are allowed"},
		{OpPublish, "", "publish: length of the name is missing"},
		{OpPublish, "\x02a", "publish: name is 1 of its 2 bytes"},
	} {
		_, err := parse(Frame{tt.op, []byte(tt.payload)})
		if !errors.Is(err, ErrBody) || err.Error() != "codec: "+tt.want {
			t.Errorf("%v %x: error %v, want %q", tt.op, tt.payload, err, tt.want)
		}
	}
}

// TestParseBodyLimits: the longest names, and the emptiest frames.
func TestParseBodyLimits(t *testing.T) {
	long := strings.Repeat("n", MaxSubject)
	for _, tt := range []struct {
		wire []byte
		want any
	}{
		{AppendReq(nil, 1, long, []byte("x")), req{u32(1), long, "x"}},
		{AppendReq(nil, 1, long, nil), req{u32(1), long, ""}},
		{AppendRes(nil, 1, 255, nil), res{u32(1), uint8(255), ""}},
		{AppendSubscribe(nil, 1, long), membership{u32(1), long}},
		{AppendUnsubscribe(nil, 1, ""), membership{u32(1), ""}},
		{AppendPublish(nil, long, []byte("x")), publication{long, "x"}},
		{AppendPublish(nil, "", nil), publication{"", ""}},
	} {
		f, n, err := Decode(tt.wire, DefaultMaxFrame)
		if n != len(tt.wire) || err != nil {
			t.Fatalf("Decode = %d, %v", n, err)
		}
		if got, err := parse(f); got != tt.want || err != nil {
			t.Errorf("%v: parsed as %v, %v; want %v", f.Op, got, err, tt.want)
		}
	}
}

// TestParseBodiesAlias: what the parsers return is a part of the payload, and
// appending to one part does not reach the next.
func TestParseBodiesAlias(t *testing.T) {
	payload := []byte("\x00\x00\x00\x07\x02nnbody")
	payload = payload[:len(payload):len(payload)]
	backing := append(payload, "behind"...)
	payload = backing[:len(payload)]

	_, subject, body, err := ParseReq(payload)
	if err != nil {
		t.Fatal(err)
	}
	_, _, rest, err := ParseRes(payload)
	if err != nil {
		t.Fatal(err)
	}
	_, name, err := ParseSubscribe(payload)
	if err != nil {
		t.Fatal(err)
	}
	first, all, err := ParsePublish(payload[4:])
	if err != nil {
		t.Fatal(err)
	}
	if &subject[0] != &backing[5] || &body[0] != &backing[7] || &rest[0] != &backing[5] ||
		&name[0] != &backing[4] || &first[0] != &backing[5] || &all[0] != &backing[7] {
		t.Error("a part is a copy")
	}
	for _, part := range [][]byte{subject, body, rest, name, first, all} {
		_ = append(part, "XXXXXX"...)
	}
	if want := "\x00\x00\x00\x07\x02nnbodybehind"; string(backing) != want {
		t.Errorf("after appending to the parts the input is %q, want %q", backing, want)
	}
}

// FuzzBodies: the parsers of binary bodies never panic; what they accept is
// written as the same bytes; and any id, name and payload come back.
func FuzzBodies(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x07\x04time?"), uint32(7), "time", uint8(0))
	f.Add([]byte("\x04roomhi"), uint32(1<<32-1), "room", uint8(1))
	f.Add([]byte("\x00\x00\x00\x08room"), uint32(0), "", uint8(255))
	f.Add([]byte("\x00\x00\x00\x07\xff"), uint32(1), strings.Repeat("n", 255), uint8(3))
	f.Add([]byte{}, uint32(2), "\xff\x00", uint8(4))
	f.Fuzz(func(t *testing.T, b []byte, id uint32, name string, status uint8) {
		same := func(op Op, err error, again func() []byte) {
			t.Helper()
			if err != nil {
				if !errors.Is(err, ErrBody) {
					t.Errorf("%v: %v is not an ErrBody", op, err)
				}
			} else if want, got := AppendFrame(nil, op, b), again(); !bytes.Equal(got, want) {
				t.Errorf("%v: %x read and written again is %x", op, want, got)
			}
		}
		rid, subject, body, err := ParseReq(b)
		same(OpReq, err, func() []byte { return AppendReq(nil, rid, string(subject), body) })
		rid, st, body, err := ParseRes(b)
		same(OpRes, err, func() []byte { return AppendRes(nil, rid, st, body) })
		rid, name1, err := ParseSubscribe(b)
		same(OpSubscribe, err, func() []byte { return AppendSubscribe(nil, rid, string(name1)) })
		same(OpUnsubscribe, err, func() []byte { return AppendUnsubscribe(nil, rid, string(name1)) })
		name2, body, err := ParsePublish(b)
		same(OpPublish, err, func() []byte { return AppendPublish(nil, string(name2), body) })

		name = name[:min(len(name), MaxSubject)]
		for _, tt := range []struct {
			wire []byte
			want any
		}{
			{AppendReq(nil, id, name, b), req{id, name, string(b)}},
			{AppendRes(nil, id, status, b), res{id, status, string(b)}},
			{AppendSubscribe(nil, id, name), membership{id, name}},
			{AppendUnsubscribe(nil, id, name), membership{id, name}},
			{AppendPublish(nil, name, b), publication{name, string(b)}},
		} {
			frame, n, err := Decode(tt.wire, MaxFrameLimit)
			if n != len(tt.wire) || err != nil {
				t.Fatalf("Decode = %d, %v; want %d", n, err, len(tt.wire))
			}
			if got, err := parse(frame); got != tt.want || err != nil {
				t.Errorf("%v: parsed as %v, %v; want %v", frame.Op, got, err, tt.want)
			}
		}
	})
}
