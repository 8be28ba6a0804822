package lengthfield

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// framing is what a session needs of these.
type framing interface {
	Next(in []byte) (p []byte, end bool, used int, err error)
	Need(in []byte) int
	Append(dst, message []byte) []byte
	Encode(dst, p []byte) (frame []byte, ok bool)
}

type reading struct {
	frames []string
	used   int
	err    error
}

// read gives f the stream in pieces.
func read(f framing, stream []byte, next func() int) (r reading) {
	var kept []byte
	for len(stream) > 0 {
		n := min(next(), len(stream))
		kept = append(kept, stream[:n]...)
		stream = stream[n:]
		for len(kept) > 0 {
			p, end, used, err := f.Next(kept)
			if r.err = err; err != nil {
				return r
			}
			if used == 0 {
				if need := f.Need(kept); need != 0 && need <= len(kept) {
					panic("needs what is there, and returns no frame")
				}
				break
			}
			if !end || cap(p) != len(p) {
				panic("not the end of a message, or with capacity beyond it")
			}
			r.frames, r.used = append(r.frames, string(p)), r.used+used
			kept = kept[used:]
		}
	}
	return r
}

func (r reading) equal(o reading) bool {
	return slices.Equal(r.frames, o.frames) && r.used == o.used && r.err == o.err
}

const hello = "HELLO, WORLD"

// vectors begins with the seven examples that the documentation of Netty's
// LengthFieldBasedFrameDecoder works out.
var vectors = []struct {
	name string
	f    func() framing
	in   string
	want []string
	err  error
}{
	{"Netty 1: 2 bytes at offset 0", field(Field{Width: 2}), "\x00\x0C" + hello, []string{"\x00\x0C" + hello}, nil},
	{"Netty 2: header stripped", field(Field{Width: 2, Strip: 2}), "\x00\x0C" + hello, []string{hello}, nil},
	{"Netty 3: length of the whole", field(Field{Width: 2, Adjust: -2}), "\x00\x0E" + hello,
		[]string{"\x00\x0E" + hello}, nil},
	{"Netty 4: 3 bytes after a header", field(Field{Offset: 2, Width: 3}), "\xCA\xFE\x00\x00\x0C" + hello,
		[]string{"\xCA\xFE\x00\x00\x0C" + hello}, nil},
	{"Netty 5: 3 bytes before a header", field(Field{Width: 3, Adjust: 2}), "\x00\x00\x0C\xCA\xFE" + hello,
		[]string{"\x00\x00\x0C\xCA\xFE" + hello}, nil},
	{"Netty 6: inside a header, stripped", field(Field{Offset: 1, Width: 2, Adjust: 1, Strip: 3}),
		"\xCA\x00\x0C\xFE" + hello, []string{"\xFE" + hello}, nil},
	{"Netty 7: inside a header, of the whole", field(Field{Offset: 1, Width: 2, Adjust: -3, Strip: 3}),
		"\xCA\x00\x10\xFE" + hello, []string{"\xFE" + hello}, nil},

	{"Erlang {packet,1}", field(Field{Width: 1, Strip: 1}), "\x01a\x00", []string{"a", ""}, nil},
	{"Erlang {packet,2}", field(Field{Width: 2, Strip: 2}), "\x00\x01a\x00\x00", []string{"a", ""}, nil},
	{"Erlang {packet,4}", field(Field{Width: 4, Strip: 4}), "\x00\x00\x00\x01a", []string{"a"}, nil},
	// package_length_type N, package_length_offset 0, package_body_offset 4.
	{"Swoole, N", field(Field{Width: 4}), "\x00\x00\x00\x01a", []string{"\x00\x00\x00\x01a"}, nil},
	// package_length_type v, package_length_offset 2, package_body_offset 0.
	{"Swoole, v, of the whole", field(Field{Offset: 2, Width: 2, Little: true, Adjust: -4}), "ab\x05\x00c",
		[]string{"ab\x05\x00c"}, nil},
	{"8 bytes", field(Field{Width: 8, Strip: 8}), "\x00\x00\x00\x00\x00\x00\x00\x01a", []string{"a"}, nil},
	{"8 bytes, little", field(Field{Width: 8, Little: true, Strip: 8}), "\x01\x00\x00\x00\x00\x00\x00\x00a",
		[]string{"a"}, nil},
	{"8 bytes, of which any is too many", field(Field{Width: 8}), "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", nil, ErrTooLarge},
	{"the longest", field(Field{Width: 1, Strip: 1, Max: 4}), "\x03abc", []string{"abc"}, nil},
	{"too long, known at the length", field(Field{Width: 1, Max: 4}), "\x00\x04", []string{"\x00"}, ErrTooLarge},
	{"shorter than the header", field(Field{Width: 2, Adjust: -2}), "\x00\x01", nil, ErrLength},
	{"shorter than what is stripped", field(Field{Width: 1, Strip: 3}), "\x01a", nil, ErrLength},

	{"varint", func() framing { return &Varint{300} }, "\x00\x01a\xAC\x02" + strings.Repeat("b", 300),
		[]string{"", "a", strings.Repeat("b", 300)}, nil},
	{"varint, longer than it need be", func() framing { return &Varint{300} }, "\x81\x00a", []string{"a"}, nil},
	{"varint, too large", func() framing { return &Varint{300} }, "\xAD\x02", nil, ErrTooLarge},
	{"varint of 6 bytes", func() framing { return &Varint{300} }, "\x81\x80\x80\x80\x80", nil, ErrVarint},
	{"varint of 33 bits", func() framing { return &Varint{300} }, "\xFF\xFF\xFF\xFF\x1F", nil, ErrVarint},

	{"lines", func() framing { return Lines(4) }, "a\n\r\nbcd\r\nbcde\n\n", []string{"a", "", "bcd", "bcde", ""}, nil},
	{"line too long", func() framing { return Lines(4) }, "abcde\n", nil, ErrTooLarge},
	{"delimiter", func() framing { return Delimiter("||", 5) }, "a|b|||||c||", []string{"a|b", "", "|c"}, nil},
	{"no delimiter", func() framing { return Delimiter("||", 2) }, "ab|c", nil, ErrTooLarge},
	{"zero bytes", func() framing { return Delimiter("\x00", 5) }, "a\x00\x00", []string{"a", ""}, nil},
}

func field(f Field) func() framing {
	if f.Max == 0 {
		f.Max = 1000
	}
	return func() framing { return &f }
}

// TestNext checks each vector, whole and cut at every byte.
func TestNext(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			if f, is := v.f().(*Field); is {
				if err := f.Validate(); err != nil {
					t.Fatal(err)
				}
			}
			whole := read(v.f(), []byte(v.in), func() int { return len(v.in) })
			if !slices.Equal(whole.frames, v.want) || whole.err != v.err {
				t.Fatalf("got %q, %v", whole.frames, whole.err)
			}
			if v.err == nil && whole.used != len(v.in) {
				t.Errorf("used %d of %d bytes", whole.used, len(v.in))
			}
			if got := read(v.f(), []byte(v.in), func() int { return 1 }); !got.equal(whole) {
				t.Errorf("byte by byte: %v, want %v", got, whole)
			}
			for n := range len(v.in) { // a beginning gives no other frames
				got := read(v.f(), []byte(v.in[:n]), func() int { return n })
				if !slices.Equal(got.frames, whole.frames[:len(got.frames)]) || got.err != nil && got.err != whole.err {
					t.Errorf("%d bytes: %v", n, got)
				}
			}
		})
	}
}

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		f             framing
		message, want string
	}{
		{&Field{Width: 2, Max: 99}, hello, "\x00\x0C" + hello},
		{&Field{Offset: 1, Width: 3, Little: true, Max: 99}, "a", "\x00\x01\x00\x00a"},
		{&Field{Width: 4, Adjust: -4, Max: 99}, "a", "\x00\x00\x00\x05a"},
		{&Field{Width: 3, Adjust: 2, Max: 99}, "\xCA\xFEab", "\x00\x00\x02\xCA\xFEab"},
		{&Varint{999}, strings.Repeat("b", 300), "\xAC\x02" + strings.Repeat("b", 300)},
		{Lines(9), "a", "a\n"},
		{Delimiter("||", 9), "a", "a||"},
	} {
		got := c.f.Append(nil, []byte(c.message))
		if string(got) != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
		if _, _, used, err := c.f.Next(got); used != len(got) || err != nil {
			t.Errorf("%+v: read back: %d, %v", c.f, used, err)
		}
	}
	for _, f := range []Field{{Width: 1, Max: 999}, {Width: 2, Max: 99}, {Width: 2, Adjust: 301, Max: 999}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%+v: no panic", f)
				}
			}()
			f.Append(nil, make([]byte, 300))
		}()
	}
}

// TestEncode: what Next returns can be sent, and comes back. Of the vectors the
// frame is the same but for bytes that were stripped.
func TestEncode(t *testing.T) {
	for _, v := range vectors {
		f := v.f()
		for _, p := range v.want {
			frame, ok := f.Encode([]byte("before"), []byte(p))
			if v.err != nil && !ok {
				continue // a frame at the limit before one beyond it
			}
			got, _, used, err := f.Next(frame[len("before"):])
			if !ok || string(got) != p || used != len(frame)-len("before") || err != nil {
				t.Errorf("%s: %q comes back as %q, %v", v.name, p, got, err)
			}
		}
	}
	for _, c := range []struct {
		f       framing
		p, want string
	}{
		{&Field{Offset: 2, Width: 2, Max: 99}, "\xCA\xFE\x99\x99abc", "\xCA\xFE\x00\x03abc"},
		{&Field{Offset: 2, Width: 2, Max: 99, Strip: 1}, "\xFE\x99\x99abc", "\x00\xFE\x00\x03abc"},
		{&Field{Offset: 1, Width: 2, Adjust: 1, Strip: 4, Max: 99, Little: true}, "abc", "\x00\x03\x00\x00abc"},
		{Lines(9), "a\r", "a\r\n"},
	} {
		if got, ok := c.f.Encode(nil, []byte(c.p)); !ok || string(got) != c.want {
			t.Errorf("%+v: %q, want %q", c.f, got, c.want)
		}
	}
	for _, c := range []struct {
		f framing
		p string
	}{
		{&Field{Width: 2, Max: 99}, "a"}, // no place for the length
		{&Field{Width: 2, Strip: 2, Max: 9}, "12345678"},
		{&Field{Width: 1, Strip: 1, Max: 999}, strings.Repeat("a", 256)},
		{&Field{Width: 2, Strip: 2, Adjust: 2, Max: 99}, "a"}, // a length below zero
		{&Varint{3}, "abcd"},
		{Lines(3), "abcd"},
		{Lines(9), "a\nb"},
		{Delimiter("||", 9), "a|"},
		{Delimiter("||", 9), "a||b"},
	} {
		if got, ok := c.f.Encode([]byte("before"), []byte(c.p)); ok || string(got) != "before" {
			t.Errorf("%+v: %q was encoded: %q", c.f, c.p, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for n, f := range map[int]Field{
		0: {Width: 2, Max: 100},
		5: {Width: 5, Offset: -1, Strip: -1, Adjust: -1 << 30, Max: 0},
	} {
		got := 0
		if err := f.Validate(); err != nil {
			got = strings.Count(err.Error(), "\n") + 1
		}
		if got != n {
			t.Errorf("%+v: %v", f, f.Validate())
		}
	}
}

func TestAllocs(t *testing.T) {
	dst, message := make([]byte, 0, 100), []byte(hello)
	for _, f := range []framing{&Field{Width: 2, Strip: 2, Max: 99}, &Varint{99}, Lines(99), Delimiter("||", 99)} {
		if n := testing.AllocsPerRun(100, func() {
			dst, _ = f.Encode(dst[:0], message)
			if _, _, used, err := f.Next(dst); used != len(dst) || err != nil {
				t.Fatal(used, err)
			}
		}); n != 0 {
			t.Errorf("%T: %v allocations", f, n)
		}
	}
}

// FuzzNext: the result does not depend on cuts.
func FuzzNext(f *testing.F) {
	for i, v := range vectors {
		f.Add([]byte(v.in), uint64(i), byte(i), byte(2), int8(0), byte(0))
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, kind, offset byte, adjust int8, strip byte) {
		var create func() framing
		switch kind % 8 {
		case 5:
			create = func() framing { return &Varint{300} }
		case 6:
			create = func() framing { return Lines(50) }
		case 7:
			create = func() framing { return Delimiter("aab", 50) }
		default:
			width := []int{1, 2, 3, 4, 8}[kind%5]
			field := &Field{int(offset), width, kind&8 != 0, int(adjust), int(strip), 1000}
			if err := field.Validate(); err != nil {
				t.Fatal(err)
			}
			create = func() framing { return field }
		}
		rng := rand.New(rand.NewPCG(seed, 0))
		whole := read(create(), bytes.Clone(stream), func() int { return len(stream) })
		pieces := read(create(), stream, func() int { return 1 + rng.IntN(9) })
		if !whole.equal(pieces) {
			t.Errorf("whole %v\npieces %v", whole, pieces)
		}
		for _, p := range whole.frames {
			frame, ok := create().Encode(nil, []byte(p))
			if got, _, _, err := create().Next(frame); !ok || string(got) != p || err != nil {
				t.Errorf("%q comes back as %q, %v", p, got, err)
			}
		}
	})
}
