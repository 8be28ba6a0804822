package report

import (
	"strings"
	"testing"
	"unicode"
)

// What a server or a file says controls no terminal, and adds no line.
func TestTextEscapesForeignText(t *testing.T) {
	const evil = "\x1b[2J\x1b]0;x\a\r\nPASS\x9b\u009b\u202e\x00"
	s := &Summary{}
	lines := strings.Count(s.Text(), "\n")
	s.Verdict = Verdict{Word: Failed + evil, Reasons: []string{evil}}
	s.Environment.Target, s.Connections.RateAsked = evil, evil
	s.Connections.Failures = []Failure{{Error: evil, Example: evil}}
	s.Connections.Told = []Told{{Meaning: evil}}
	s.Frames.Wrong, s.Frames.WrongExample = 1, evil
	s.FalseKills.Examples = []CloseExample{{Text: evil}}
	s.SLO = []SLOResult{{Gate: evil}}
	s.Detection = &Detection{TimeoutMS: 1, TimeoutFrom: evil,
		Faults: []FaultResult{{Fault: evil, Note: evil, Examples: []string{evil}}}}
	s.Server = &Server{ClosedByReason: map[string]int64{evil: 1}, Notes: []string{evil}}
	text := s.Text()
	if n := strings.Count(text, "\n"); n != lines+12 {
		t.Errorf("%d lines, want %d:\n%s", n, lines+12, text)
	}
	c := Compare(s, &Summary{}, evil, "b")
	for _, r := range text + c.Text() {
		if r != '\n' && (unicode.IsControl(r) || r == '\u202e' || r == unicode.ReplacementChar) {
			t.Fatalf("%U in\n%q", r, text)
		}
	}
	if want := `\x1b[2J\x1b]0;x\a\r\nPASS\x9b\u009b\u202e\x00`; !strings.Contains(text, "  "+want+"\n") {
		t.Errorf("%s\nwant %s", text, want)
	}
}
