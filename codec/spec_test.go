package codec

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestSpecExamples decodes the examples in SPEC.md. A block that begins with
//
//	```hex NAME
//
// is the sample of that name in golden_test.go; "hex refused NAME" is refused
// with the error of that name. A ';' begins a comment.
func TestSpecExamples(t *testing.T) {
	refusals := map[string]*Error{
		"tls": ErrTLS, "http": ErrHTTP, "foreign": ErrForeign, "proxy": ErrProxy,
		"too-large": ErrFrameTooLarge, "op": ErrOp, "ping": ErrPing,
	}
	shown := map[string]bool{}
	for _, block := range regexp.MustCompile("(?ms)^```hex (.*?)\n(.*?)^```$").FindAllStringSubmatch(spec(t), -1) {
		name, lines := block[1], strings.Split(block[2], "\n")
		for i := range lines {
			lines[i], _, _ = strings.Cut(lines[i], ";")
		}
		wire := unhex(t, strings.Join(lines, " "))
		f, n, err := Decode(wire, DefaultMaxFrame)
		shown[name] = true

		if kind, ok := strings.CutPrefix(name, "refused "); ok {
			if want := refusals[kind]; want == nil || err != want {
				t.Errorf("%s: %x: Decode = %v, want %v", name, wire, err, want)
			}
			continue
		}
		if err != nil || n != len(wire) {
			t.Errorf("%s: Decode = %d, %v; want all %d bytes", name, n, err, len(wire))
			continue
		}
		s := sampleNamed(name)
		if s == nil {
			t.Errorf("%s: no such sample", name)
			continue
		}
		if want := unhex(t, s.wire); !bytes.Equal(wire, want) {
			t.Errorf("%s: %x in SPEC.md, %x in the samples", name, wire, want)
		}
		if got, err := parse(f); f.Op != s.op || got != s.parsed || err != nil {
			t.Errorf("%s: %v %#v, %v; want %v %#v", name, f.Op, got, err, s.op, s.parsed)
		}
	}
	for _, s := range samples {
		if !shown[s.name] {
			t.Errorf("SPEC.md does not show %s", s.name)
		}
	}
	for kind := range refusals {
		if !shown["refused "+kind] {
			t.Errorf("SPEC.md does not show the refusal %s", kind)
		}
	}
}

// TestSpecTables compares the tables of ops and codes with the code.
func TestSpecTables(t *testing.T) {
	text := spec(t)
	for op := OpPing; op <= OpPublish; op++ {
		if row := fmt.Sprintf("\n| 0x%02X | %v | ", uint8(op), op); strings.Count(text, row) != 1 {
			t.Errorf("SPEC.md has %d rows %q, want 1", strings.Count(text, row), row)
		}
	}
	codes := declaredCodes(t)
	for name, code := range codes {
		again := map[bool]string{true: "yes", false: "no"}[code.Reconnect()]
		if row := fmt.Sprintf("\n| %d | `%v` | %s | ", code, code, again); strings.Count(text, row) != 1 {
			t.Errorf("SPEC.md has %d rows %q for %s, want 1", strings.Count(text, row), row, name)
		}
	}
	if rows := regexp.MustCompile("(?m)^\\| [34]\\d{3} \\| `").FindAllString(text, -1); len(rows) != len(codes) {
		t.Errorf("SPEC.md has %d codes, want %d", len(rows), len(codes))
	}
	text = strings.Join(strings.Fields(text), " ") // sentences may be wrapped
	for _, limit := range []string{
		thousands(DefaultMaxFrame) + " unless set otherwise",
		"never above " + thousands(MaxFrameLimit),
		"| PING or PONG with length above " + thousands(1+MaxPing) + " |",
		"opaque | n = 0–" + thousands(MaxPing),
		"JSON | n = 0–" + thousands(MaxControl),
		"reason | n = 0–" + thousands(MaxReason),
		"text | n = 0–" + thousands(MaxReason),
		"channel name | n = 0–" + thousands(MaxSubject),
		"milliseconds are 0 to " + thousands(maxMS),
		"at most " + thousands(MaxControl) + " bytes, with nothing but white space",
		"| `resume` | string of at most " + thousands(MaxSession) + " bytes |",
		"| `session` | string of at most " + thousands(MaxSession) + " bytes |",
		"| `max_frame` | integer, 0 to " + thousands(MaxFrameLimit) + " |",
		"SHOULD assume " + thousands(DefaultMaxFrame) + " without it",
		fmt.Sprintf("LengthFieldBasedFrameDecoder(%d, 0, 4, 0, 4)", HeaderSize+DefaultMaxFrame),
		fmt.Sprintf("# The heartwheel protocol, version %d", Version),
		"| 0x01 | ping | both | 0–" + thousands(MaxPing) + " opaque bytes |",
		fmt.Sprintf("0x0F–0x3F are reserved and 0x80–0xFF invalid: both are refused with %d", CodeProtocolError),
		fmt.Sprintf("0x%02X–0x%02X are extensions", uint8(firstExtension), uint8(lastExtension)),
	} {
		if !strings.Contains(text, limit) {
			t.Errorf("SPEC.md does not say %q", limit)
		}
	}
}

// thousands is n in decimal, with commas.
func thousands(n int64) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func spec(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sampleNamed(name string) *sample {
	for i := range samples {
		if samples[i].name == name {
			return &samples[i]
		}
	}
	return nil
}
