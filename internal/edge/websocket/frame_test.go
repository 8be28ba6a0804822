package websocket

import (
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"heartwheel/codec"
)

// mask is the key of every frame that tests send.
var mask = [4]byte{0x37, 0xFA, 0x21, 0x3D}

// frame returns a frame of a client. first is its first byte.
func frame(first byte, content string) []byte {
	b := []byte{first}
	switch n := len(content); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, content...)
	subtle.XORBytes(b[at:], b[at:], bytes.Repeat(mask[:], len(content)/4+1))
	return b
}

// reading is all that a Framing made of a stream: one string a frame.
type reading struct {
	frames []string
	used   int
	err    error
}

func (r reading) String() string { return fmt.Sprintf("%.300q, %d bytes, %v", r.frames, r.used, r.err) }

func (r reading) equal(o reading) bool {
	return slices.Equal(r.frames, o.frames) && r.used == o.used && r.err == o.err
}

var kindNames = [...]string{"after", "text", "binary", "ping", "pong", "close"}

// read gives f the stream in pieces, which next returns the sizes of, as a session
// does: what is left of a piece is kept as Next changed it.
func read(f *Framing, stream []byte, next func() int) (r reading) {
	var kept []byte
	for len(stream) > 0 {
		n := min(next(), len(stream))
		kept = append(kept, stream[:n]...)
		stream = stream[n:]
		for len(kept) > 0 {
			p, k, end, used, err := f.Next(kept)
			if err != nil && k != KindClose {
				if used != 0 || p != nil {
					panic("an error with a frame")
				}
				r.err = err
				return r
			}
			if used == 0 {
				if need := f.Need(kept); need <= len(kept) {
					panic(fmt.Sprintf("Need = %d of %d bytes that are no frame", need, len(kept)))
				}
				break
			}
			r.used += used
			if k != KindNone {
				s := kindNames[k] + " " + string(p)
				if !end {
					s += "…"
				}
				r.frames = append(r.frames, s)
			}
			if err != nil {
				r.err = err
				return r
			}
			kept = slices.Clone(kept[used:])
		}
	}
	return r
}

func whole() int { return 1 << 30 }

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

const (
	text = 0x01
	fin  = 0x80
)

func closing(code uint16, reason string) []byte {
	return frame(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// behaviours are those that the families 1 to 7, 9 and 10 of the Autobahn test
// suite check, restated for frames that a server reads.
func behaviours() []behaviour {
	euro, clef := "κόσμε", "\U0001D11E"
	all := []behaviour{
		{"1.1.1 empty text", frame(0x81, ""), []string{"text "}, nil},
		{"1.2.1 empty binary", frame(0x82, ""), []string{"binary "}, nil},
		{"2.1 empty ping", frame(0x89, ""), []string{"ping "}, nil},
		{"2.3 binary ping", frame(0x89, "\x00\xff\xfe"), []string{"ping \x00\xff\xfe"}, nil},
		{"2.4 ping of 125", frame(0x89, strings.Repeat("a", 125)), []string{"ping " + strings.Repeat("a", 125)}, nil},
		{"2.5 ping of 126", frame(0x89, strings.Repeat("a", 126)), nil, ErrControl},
		{"2.7 unasked pong", frame(0x8A, ""), []string{"pong "}, nil},
		{"2.8 unasked pong with content", frame(0x8A, "x"), []string{"pong x"}, nil},
		{"2.9 pong, then ping", join(frame(0x8A, "x"), frame(0x89, "y")), []string{"pong x", "ping y"}, nil},
		{"2.10 ten pings", bytes.Repeat(frame(0x89, "p"), 10), slices.Repeat([]string{"ping p"}, 10), nil},
		{"3.1 RSV3", frame(0x91, "x"), nil, ErrReserved},
		{"3.2 RSV2 after a message", join(frame(0x81, "x"), frame(0xA1, "y")), []string{"text x"}, ErrReserved},
		{"3.4 RSV1", frame(0xC1, "x"), nil, ErrReserved},
		{"3.6 RSV of a ping", frame(0xF9, "x"), nil, ErrReserved},
		{"3.7 RSV of a close", frame(0xF8, ""), nil, ErrReserved},
		{"5.1 ping in fragments", join(frame(0x09, "a"), frame(0x80, "b")), nil, ErrSplitControl},
		{"5.2 pong in fragments", join(frame(0x0A, "a"), frame(0x80, "b")), nil, ErrSplitControl},
		{"5.3 text in fragments", join(frame(0x01, "a"), frame(0x80, "b")), []string{"text a…", "text b"}, nil},
		{"5.6 ping inside a message", join(frame(0x01, "a"), frame(0x89, "p"), frame(0x80, "b")),
			[]string{"text a…", "ping p", "text b"}, nil},
		{"5.9 continuation of nothing", frame(0x80, "a"), nil, ErrContinuation},
		{"5.12 continuation of nothing, not the last", frame(0x00, "a"), nil, ErrContinuation},
		{"5.15 continuation after the end", join(frame(0x01, "a"), frame(0x80, "b"), frame(0x00, "c")),
			[]string{"text a…", "text b"}, ErrContinuation},
		{"5.18 message inside another", join(frame(0x01, "a"), frame(0x81, "b")), []string{"text a…"}, ErrInterleaved},
		{"5.19 many fragments and pings", join(frame(0x01, "1"), frame(0x00, "2"), frame(0x89, "p"), frame(0x00, "3"),
			frame(0x89, "q"), frame(0x80, "4")),
			[]string{"text 1…", "text 2…", "ping p", "text 3…", "ping q", "text 4"}, nil},
		{"6.1.2 empty fragments", join(frame(0x01, ""), frame(0x00, ""), frame(0x80, "")),
			[]string{"text …", "text …", "text "}, nil},
		{"6.2.1 UTF-8", frame(0x81, "Hello-µ@ßöäüàá-UTF-8!!"), []string{"text Hello-µ@ßöäüàá-UTF-8!!"}, nil},
		{"6.2.4 UTF-8, a fragment a byte", fragments("κόσμε"), nil, nil},
		{"6.3.1 invalid", frame(0x81, euro+"\xed\xa0\x80edited"), nil, ErrUTF8},
		{"6.4.1 invalid in the second of three", join(frame(0x01, euro), frame(0x00, "\xf4\x90\x80\x80"),
			frame(0x80, "edited")), []string{"text " + euro + "…"}, ErrUTF8},
		{"6.4.3 invalid, known at its second byte", frame(0x81, euro+"\xf4\x90\x80\x80")[:6+len(euro)+2], nil, ErrUTF8},
		{"6.6.2 a character cut at the end", frame(0x81, "\xce"), nil, ErrUTF8},
		{"6.6 cut between fragments", join(frame(0x01, clef[:1]), frame(0x00, clef[1:3]), frame(0x80, clef[3:])),
			[]string{"text " + clef[:1] + "…", "text " + clef[1:3] + "…", "text " + clef[3:]}, nil},
		{"6.6 cut at the end of fragments", join(frame(0x01, clef[:1]), frame(0x80, clef[1:3])),
			[]string{"text " + clef[:1] + "…"}, ErrUTF8},
		{"6.8 five bytes", frame(0x81, "\xf8\x88\x80\x80\x80"), nil, ErrUTF8},
		{"6.12 overlong", frame(0x81, "\xc0\xaf"), nil, ErrUTF8},
		{"6.20 surrogates", frame(0x81, "\xed\xa0\x80\xed\xb0\x80"), nil, ErrUTF8},
		{"6.22 not characters, but valid", frame(0x81, "\ufffe\U0010FFFF"), []string{"text \ufffe\U0010FFFF"}, nil},
		{"6 binary is not checked", frame(0x82, "\xff\xc0"), []string{"binary \xff\xc0"}, nil},
		{"7.1.1 message, then close", join(frame(0x81, "x"), closing(1000, "")),
			[]string{"text x", "close \x03\xe8"}, nil},
		{"7.1.2 two closes", join(closing(1000, ""), closing(1001, "")), []string{"close \x03\xe8"}, nil},
		{"7.1.3 ping after close", join(closing(1000, ""), frame(0x89, "")), []string{"close \x03\xe8"}, nil},
		{"7.1.5 close inside a message", join(frame(0x01, "a"), closing(1000, ""), frame(0x80, "b")),
			[]string{"text a…", "close \x03\xe8"}, nil},
		{"7.3.1 empty close", frame(0x88, ""), []string{"close "}, nil},
		{"7.3.2 close of a byte", frame(0x88, "a"), []string{"close a"}, ErrClose},
		{"7.3.5 the longest reason", closing(1000, strings.Repeat("*", 123)),
			[]string{"close \x03\xe8" + strings.Repeat("*", 123)}, nil},
		{"7.3.6 too long a reason", closing(1000, strings.Repeat("*", 124)), nil, ErrControl},
		{"7.5.1 invalid reason", closing(1000, "\xce\xba\xed\xa0\x80"),
			[]string{"close \x03\xe8\xce\xba\xed\xa0\x80"}, ErrUTF8},
		{"close in fragments", join(frame(0x08, "\x03\xe8"), frame(0x80, "")), nil, ErrSplitControl},
		{"not masked", []byte{0x81, 1, 'x'}, nil, ErrUnmasked},
		{"not masked, known at 2 bytes", []byte{0x82, 126}, nil, ErrUnmasked},
		{"length 125 in 2 bytes", []byte{0x82, 0xFE, 0, 125}, nil, ErrLength},
		{"length 65,535 in 8 bytes", []byte{0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, nil, ErrLength},
		{"length of 2⁶³", []byte{0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0}, nil, ErrLength},
		{"too large, known at the length", []byte{0x82, 0xFF, 0, 0, 0, 0, 1, 0, 0, 1}, nil, ErrTooLarge},
		{"too large in fragments", join(frame(0x02, "a"), frame(0x00, "b"),
			[]byte{0x80, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF}), []string{"binary a…", "binary b…"}, ErrTooLarge},
	}
	for _, n := range []int{125, 126, 127, 128, 65535, 65536} { // 1.1.2 to 1.2.7
		s := strings.Repeat("*", n)
		all = append(all,
			behaviour{fmt.Sprintf("1.1 text of %d", n), frame(0x81, s), []string{"text " + s}, nil},
			behaviour{fmt.Sprintf("1.2 binary of %d", n), frame(0x82, s), []string{"binary " + s}, nil})
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} { // 4
		all = append(all, behaviour{fmt.Sprintf("4 opcode %d", op), frame(0x80|op, "x"), nil, ErrOpcode})
	}
	for _, code := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} { // 7.7
		all = append(all, behaviour{fmt.Sprintf("7.7 code %d", code), closing(code, "x"),
			[]string{"close " + string(binary.BigEndian.AppendUint16(nil, code)) + "x"}, nil})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} { // 7.9, 7.13
		all = append(all, behaviour{fmt.Sprintf("7.9 code %d", code), closing(code, ""),
			[]string{"close " + string(binary.BigEndian.AppendUint16(nil, code))}, ErrClose})
	}
	return all
}

type behaviour struct {
	name string
	wire []byte
	want []string // nil: not compared, if there is no error
	err  error
}

// fragments sends a text with a fragment for each byte.
func fragments(s string) (all []byte) {
	for i := range len(s) {
		var first byte
		if i == 0 {
			first = text
		}
		if i == len(s)-1 {
			first |= fin
		}
		all = append(all, frame(first, s[i:i+1])...)
	}
	return all
}

// testLimit holds for all behaviours.
const testLimit = 1 << 24

// TestBehaviours checks what becomes of each stream, whole, byte by byte and cut
// anywhere.
func TestBehaviours(t *testing.T) {
	for _, b := range behaviours() {
		t.Run(b.name, func(t *testing.T) {
			want := read(NewFraming(testLimit), b.wire, whole)
			if want.err != b.err || (b.want != nil || b.err != nil) && !slices.Equal(want.frames, b.want) {
				t.Fatalf("got %v, want %.100q, %v", want, b.want, b.err)
			}
			if len(b.wire) < 1000 {
				if got := read(NewFraming(testLimit), b.wire, func() int { return 1 }); !got.equal(want) {
					t.Errorf("byte by byte: %v, want %v", got, want)
				}
			}
			cuts := len(b.wire)
			if cuts > 1000 {
				cuts = 20
			}
			for cut := range cuts {
				pieces := []int{cut, whole()}
				next := func() int { n := pieces[0]; pieces = pieces[1:]; return n }
				if got := read(NewFraming(testLimit), b.wire, next); !got.equal(want) {
					t.Fatalf("cut at %d: %v, want %v", cut, got, want)
				}
			}
		})
	}
}

// TestSizes is Autobahn's family 9: messages of up to 16 MiB, whole, in fragments,
// and in pieces of a segment; and 10, a message in fragments of 1,300 bytes.
func TestSizes(t *testing.T) {
	content := strings.Repeat("0123456789abcdé", testLimit/16)
	for _, size := range []int{64 << 10, testLimit} {
		s := content[:size]
		for _, piece := range []int{1300, size} {
			var wire []byte
			for i := 0; i < size; i += piece {
				var first byte
				if i == 0 {
					first = text
				}
				end := min(i+piece, size)
				if end == size {
					first |= fin
				}
				wire = append(wire, frame(first, s[i:end])...)
			}
			f, got, done := NewFraming(testLimit), make([]byte, 0, size), false
			for len(wire) > 0 {
				p, k, end, used, err := f.Next(wire)
				if used == 0 || err != nil || k != KindText {
					t.Fatalf("%d in pieces of %d: Next = %d, %v, %v", size, piece, used, k, err)
				}
				got, done, wire = append(got, p...), end, wire[used:]
			}
			if !done || string(got) != s {
				t.Errorf("%d in pieces of %d: came through changed", size, piece)
			}
		}
	}
	if _, _, _, _, err := NewFraming(testLimit - 1).Next(frame(0x82, content[:testLimit])[:14]); err != ErrTooLarge {
		t.Errorf("a byte over the limit: %v", err)
	}
}

// TestIncremental: what has arrived of a frame is unmasked once, whatever the cuts.
func TestIncremental(t *testing.T) {
	s := strings.Repeat("content ", 1000)
	wire := frame(0x82, s)
	f := NewFraming(testLimit)
	for n := range len(wire) - 1 {
		if _, _, _, used, err := f.Next(wire[:n]); used != 0 || err != nil {
			t.Fatalf("%d bytes: Next = %d, %v", n, used, err)
		}
		if n > 8 && string(wire[8:n]) != s[:n-8] {
			t.Fatalf("after %d bytes the content is not unmasked", n)
		}
	}
	if p, _, _, _, _ := f.Next(wire); string(p) != s || cap(p) != len(p) {
		t.Errorf("content came through changed, or with %d bytes of capacity beyond it", cap(p)-len(p))
	}
}

func TestAppend(t *testing.T) {
	f := NewFraming(0)
	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		s := strings.Repeat("x", n)
		wire := f.Append([]byte("before"), []byte(s), KindBinary)[6:]
		masked := frame(0x82, s) // the same but for bit and key
		size := len(masked) - 4 - n
		masked[1] &^= 0x80
		if !bytes.Equal(wire[:size], masked[:size]) || string(wire[size:]) != s {
			t.Errorf("%d bytes: header %x, want %x", n, wire[:size], masked[:size])
		}
	}
	for k, first := range []byte{KindText: 0x81, KindBinary: 0x82, KindPing: 0x89, KindPong: 0x8A, KindClose: 0x88} {
		k := Kind(k)
		if k == KindNone {
			continue
		}
		if got := f.Append(nil, nil, k); !bytes.Equal(got, []byte{first, 0}) {
			t.Errorf("kind %d: %x", k, got)
		}
	}
	for _, k := range []Kind{KindNone, KindPing, KindClose} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("kind %d with 126 bytes did not panic", k)
				}
			}()
			f.Append(nil, make([]byte, 126), k)
		}()
	}
}

func TestClose(t *testing.T) {
	f := NewFraming(0)
	b := f.AppendClose(nil, uint16(codec.CodeDraining), strings.Repeat("€", 100)+"\xff")
	if code, reason := ParseClose(b[2:]); code != 3001 || reason != strings.Repeat("€", 41) || int(b[1]) != len(b)-2 {
		t.Errorf("got %d %q", code, reason)
	}
	if code, reason := ParseClose(nil); code != CloseNoCode || reason != "" {
		t.Errorf("an empty close: %d %q", code, reason)
	}
	if got := f.AppendCloseAnswer(nil, []byte("\x03\xe8bye")); string(got) != "\x88\x02\x03\xe8" {
		t.Errorf("answer %x", got)
	}
	if got := f.AppendCloseAnswer(nil, nil); string(got) != "\x88\x00" {
		t.Errorf("answer to an empty close %x", got)
	}
	for code, want := range map[uint16]codec.Code{1000: 3000, 1005: 3000, 2999: 3000, 3001: 3001, 4999: 4999} {
		if got := CodeOf(code); got != want {
			t.Errorf("CodeOf(%d) = %d, want %d", code, got, want)
		}
	}
	for _, c := range []struct {
		err  error
		want uint16
	}{
		{ErrReserved, 1002}, {ErrClose, 1002}, {ErrUTF8, 1007}, {ErrTooLarge, 1009},
		{fmt.Errorf("x: %w", ErrOpcode), 1002},
		{&codec.Error{Code: codec.CodeKicked}, 3503}, {codec.ErrFrameTooLarge, 3511}, {errors.New("other"), 3501},
	} {
		if got := CloseCode(c.err); got != c.want || !validClose(got) {
			t.Errorf("CloseCode(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}

// TestAllocs: no frame costs an allocation, neither read, refused nor written.
func TestAllocs(t *testing.T) {
	all := join(frame(0x81, "κόσμε"), frame(0x02, strings.Repeat("x", 300)), frame(0x89, "ping"), frame(0x80, "y"))
	bad := frame(0x81, "\xff")
	wire := make([]byte, len(all))
	out := make([]byte, 0, 1<<10)
	f := NewFraming(1 << 20)
	if n := testing.AllocsPerRun(100, func() {
		copy(wire, all)
		for in := wire; len(in) > 0; {
			p, k, _, used, err := f.Next(in)
			if used == 0 || err != nil {
				t.Fatal(used, err)
			}
			if in = in[used:]; k == KindPing {
				k = KindPong
			}
			out = f.Append(out[:0], p, k)
		}
		copy(wire, bad)
		if _, _, _, _, err := NewFraming(1 << 20).Next(wire[:len(bad)]); err != ErrUTF8 {
			t.Fatal(err)
		}
		out = f.AppendClose(out[:0], 3001, "draining")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzNext: a stream gives the same frames, error and number of bytes, whether it
// comes whole or in any pieces.
func FuzzNext(f *testing.F) {
	for i, b := range behaviours() {
		if len(b.wire) < 1000 {
			f.Add(b.wire, uint64(i), 1<<16)
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, max int) {
		max = int(uint(max) % (1 << 20))
		want := read(NewFraming(max), stream, whole)
		rng := rand.New(rand.NewPCG(seed, 0))
		if got := read(NewFraming(max), stream, func() int { return 1 + rng.IntN(9) }); !got.equal(want) {
			t.Errorf("in pieces: %v\nwhole: %v", got, want)
		}
	})
}

func BenchmarkNext(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f, wire := NewFraming(1<<20), frame(0x82, strings.Repeat("x", size))
			b.SetBytes(int64(size))
			for b.Loop() {
				f.Next(wire)
			}
		})
	}
}
