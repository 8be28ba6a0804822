package loadtest

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"heartwheel/loadtest/report"
)

func someView(t testing.TB) (*view, *bytes.Buffer) {
	b := &bytes.Buffer{}
	return &view{w: b, target: "tcp://127.0.0.1:9000", plan: testPlan(t, "fault", "silent:10%@1s"), width: 200}, b
}

func someSamples() []report.Sample {
	us := func(v float64) *report.Distribution {
		return &report.Distribution{Count: 1, P50: v, P99: 2 * v, Max: 3 * v}
	}
	return []report.Sample{
		{T: 1, Phase: "connect", Connections: 700, Connecting: 12, Connects: 712},
		{T: 2, Phase: "hold", Connections: 15000, Failed: 3, Sent: 3000, Answered: 2999, ResponseUS: us(41),
			ServiceUS: us(38), LagUS: us(9), CPUPercent: 17.6,
			Server: &report.ServerSample{Connections: 15000, CPUPercent: 21.2, RSSBytes: 33e6}},
		{T: 63, Phase: "hold", Connections: 13500, Sent: 2700, Answered: 2700, ResponseUS: us(4100),
			ServiceUS: us(3800),
			LagUS:     us(9), Injected: 1500, Detected: 1320,
			FalseKills: 1, Unexplained: 2, Wrong: 4, CPUPercent: 17.6, Server: &report.ServerSample{Connections: -1,
				CPUPercent: 21.2, RSSBytes: 33e6}},
	}
}

func TestViewLines(t *testing.T) {
	v, b := someView(t)
	for _, s := range someSamples() {
		v.show(&s, 90*time.Second)
	}
	b.WriteByte('\n')
	for _, s := range someSamples() {
		for _, l := range v.lines(&s) {
			b.WriteString(l + "\n")
		}
		b.WriteByte('\n')
	}
	golden(t, "golden/view.txt", b.Bytes())
}

// The terminal shows the last view, each line in its place.
func TestViewIsRedrawnInPlace(t *testing.T) {
	for _, color := range []bool{false, true} {
		for _, width := range []int{20, 200} {
			v, b := someView(t)
			v.terminal, v.color, v.width = true, color, width
			for _, s := range someSamples() {
				v.show(&s, 90*time.Second)
			}
			screen := replay(t, b.String())
			s := someSamples()[2]
			var want []string
			for _, l := range v.lines(&s) {
				want = append(want, truncate(l, width))
			}
			if got := strings.Join(screen, "\n"); got != strings.Join(want, "\n") {
				t.Errorf("colours %v, width %d: the screen shows\n%s\nwant\n%s", color, width, got,
					strings.Join(want, "\n"))
			}
			for _, l := range screen {
				if utf8.RuneCountInString(l) >= width {
					t.Errorf("%q is wider than %d", l, width-1)
				}
			}
			if has := strings.Contains(b.String(), "\x1b[1m") && strings.Contains(b.String(),
				"\x1b[31m"); has != color {
				t.Errorf("colours: %v, want %v", has, color)
			}
		}
	}
}

// replay is what a terminal shows after text. It knows only the sequences of the view.
func replay(t *testing.T, text string) []string {
	t.Helper()
	var lines []string
	at := 0
	for len(text) > 0 {
		switch {
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AKm")
			switch text[end] {
			case 'A':
				for _, d := range text[2:end] {
					at -= int(d - '0') // less than ten lines
				}
			case 'K':
				lines[at] = strings.TrimSuffix(lines[at], "\x00")
			}
			text = text[end+1:]
			continue
		case text[0] == '\r':
			if at == len(lines) {
				lines = append(lines, "")
			}
			lines[at] = ""
			text = text[1:]
			continue
		case text[0] == '\n':
			at++
			text = text[1:]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		lines[at] += string(r)
		text = text[n:]
	}
	return lines
}

func TestSparkline(t *testing.T) {
	for want, values := range map[string][]float64{
		"": nil, "▁▁": {0, 0}, "▁▂▃▄▅▆▇█": {0, 1, 2, 3, 4, 5, 6, 7}, "█": {1e9},
	} {
		if got := sparkline(values); got != want {
			t.Errorf("%v is %q, want %q", values, got, want)
		}
	}
}
