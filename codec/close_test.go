package codec

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestCloseReason: what becomes of a reason on its way, in CLOSE and in ERROR.
func TestCloseReason(t *testing.T) {
	a := func(n int) string { return strings.Repeat("a", n) }
	for _, tt := range []struct{ name, in, out string }{
		{"empty", "", ""},
		{"short", "bye", "bye"},
		{"not ASCII", "à bientôt 👋", "à bientôt 👋"},
		{"the longest", a(123), a(123)},
		{"one more", a(124), a(123)},
		{"character ends at the limit", a(121) + "é" + "tail", a(121) + "é"},
		{"2 bytes across the limit", a(122) + "é", a(122)},
		{"4 bytes across the limit", a(120) + "👋", a(120)},
		{"only wide ones", strings.Repeat("世", 50), strings.Repeat("世", 41)},
		{"not UTF-8", "a\xff\xfeb", "a\uFFFDb"},
		{"not UTF-8 across the limit", a(122) + "\xff", a(122)},
	} {
		for _, op := range []struct {
			write func([]byte, Code, string) []byte
			read  func([]byte) (Code, string, error)
		}{{AppendClose, ParseClose}, {AppendError, ParseError}} {
			f, _, err := Decode(op.write(nil, CodeKicked, tt.in), DefaultMaxFrame)
			if err != nil {
				t.Fatal(err)
			}
			code, got, err := op.read(f.Payload)
			if code != CodeKicked || got != tt.out || err != nil {
				t.Errorf("%v, %s: %q becomes %d %q, %v; want %q", f.Op, tt.name, tt.in, code, got, err, tt.out)
			}
		}
		f, _, _ := Decode(AppendGoaway(nil, Goaway{Code: CodeKicked, Reason: tt.in}), DefaultMaxFrame)
		if g, err := ParseGoaway(f.Payload); g.Reason != tt.out || err != nil {
			t.Errorf("goaway, %s: %q becomes %q, %v; want %q", tt.name, tt.in, g.Reason, err, tt.out)
		}
	}
}

func TestParseCloseRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, payload, text string
		closeToo            bool
	}{
		{"nothing", "", "code is 0 of 2 bytes", false},
		{"half a code", "\x0b", "code is 1 of 2 bytes", true},
		{"too long", "\x0b\xb9" + strings.Repeat("a", 124), "reason is 124 bytes, at most 123 are allowed", true},
		{"not UTF-8", "\x0b\xb9a\xff", `reason "a\xff" is not UTF-8`, true},
		{"half a character", "\x0b\xb9\xc3", `reason "\xc3" is not UTF-8`, true},
	} {
		_, _, err := ParseError([]byte(tt.payload))
		if !errors.Is(err, ErrBody) || err.Error() != "codec: error: "+tt.text {
			t.Errorf("ParseError of %s: %v, want %q", tt.name, err, tt.text)
		}
		_, _, err = ParseClose([]byte(tt.payload))
		if tt.closeToo != errors.Is(err, ErrBody) || tt.closeToo && err.Error() != "codec: close: "+tt.text {
			t.Errorf("ParseClose of %s: %v, want %q: %v", tt.name, err, tt.text, tt.closeToo)
		}
	}
}

// TestParseCloseAnyCode: codes that this version does not know pass through.
func TestParseCloseAnyCode(t *testing.T) {
	for _, want := range []Code{0, 1000, 3999, 4999, 65535} {
		f, _, _ := Decode(AppendClose(nil, want, ""), DefaultMaxFrame)
		if code, reason, err := ParseClose(f.Payload); code != want || reason != "" || err != nil {
			t.Errorf("code %d becomes %d %q, %v", want, code, reason, err)
		}
	}
}

// FuzzClose: the parsers of CLOSE and ERROR never panic, what they accept comes
// back the same, and any reason at all is one that the peer accepts.
func FuzzClose(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("\x0b"))
	f.Add([]byte("\x0b\xb9bye"))
	f.Add([]byte("\x0b\xb9\xff" + strings.Repeat("世", 50)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func([]byte) (Code, string, error){ParseClose, ParseError} {
			code, reason, err := read(b)
			if err != nil {
				if !errors.Is(err, ErrBody) {
					t.Errorf("%v is not an ErrBody", err)
				}
				continue
			}
			frame, _, _ := Decode(AppendClose(nil, code, reason), DefaultMaxFrame)
			if len(b) > 0 && string(frame.Payload) != string(b) {
				t.Errorf("%x read and written again is %x", b, frame.Payload)
			}
		}
		frame, n, err := Decode(AppendError(nil, CodeKicked, string(b)), DefaultMaxFrame)
		if n == 0 || err != nil {
			t.Fatalf("Decode = %d, %v", n, err)
		}
		_, text, err := ParseError(frame.Payload)
		if err != nil || len(text) > MaxReason || utf8.Valid(b) && !strings.HasPrefix(string(b), text) {
			t.Errorf("reason %q becomes %q, %v", b, text, err)
		}
	})
}
