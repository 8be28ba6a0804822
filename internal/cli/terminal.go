package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"heartwheel/internal/wording"
)

// A screen shows replies and what else there is to say. On a terminal its last
// row is a status line: the rows above it are made the scrolling region, so that
// what is written and typed there never touches it. Safe for concurrent use.
type screen struct {
	out, log io.Writer // replies; all else. On a terminal all goes to out
	terminal bool
	plain    bool // a terminal that has no status line

	mu         sync.Mutex
	rows, cols int // guarded by mu: of a terminal with a status line; 0: there is none
	status     string
}

// minRows and minCols are the smallest terminal that gets a status line.
const minRows, minCols = 4, 20

// maxShown is how many bytes of a reply a terminal shows.
const maxShown = 4096

// newScreen shows on out and log, which is used where out is no terminal.
// plain: no status line.
func newScreen(out, log io.Writer, plain bool) *screen {
	rows, _ := terminalSize(out)
	return &screen{out: out, log: log, terminal: rows > 0, plain: plain}
}

// terminalSize is that of w, in characters; zeroes if it is no terminal.
func terminalSize(w io.Writer) (rows, cols int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0, 0
	case size.Row == 0 || size.Col == 0: // a terminal that does not say
		return 24, 80
	}
	return int(size.Row), int(size.Col)
}

// reply shows what the server sent.
func (s *screen) reply(payload []byte) {
	if !s.terminal {
		s.line(s.out, visible(payload))
		return
	}
	cut := len(payload)
	if cut > maxShown {
		for cut = maxShown; cut > maxShown-utf8.UTFMax && !utf8.RuneStart(payload[cut]); {
			cut--
		}
	}
	text := "< " + visible(payload[:cut])
	if cut < len(payload) {
		text += fmt.Sprintf(" … (%s bytes)", wording.Grouped(len(payload)))
	}
	s.line(s.out, text)
}

// say shows what happened.
func (s *screen) say(format string, args ...any) {
	text := visible(fmt.Appendf(nil, format, args...))
	if s.terminal {
		s.line(s.out, "* "+text)
	} else {
		s.line(s.log, text)
	}
}

func (s *screen) line(w io.Writer, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal && !s.plain {
		text = "\r\x1b[K" + text // over what is half typed, which stays in the line
	}
	// Output that nobody reads any more ends the process, see SIGPIPE in os/signal.
	_, _ = io.WriteString(w, text+"\n")
}

// open makes the status line, or makes it anew after the terminal's size has
// changed. The old one is not cleared: where it is now depends on the terminal.
func (s *screen) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows, s.status = 0, ""
	rows, cols := terminalSize(s.out)
	if !s.terminal || s.plain || rows < minRows || cols < minCols {
		return
	}
	s.rows, s.cols = rows, cols
	// A new line makes room if the cursor is in the last row; setting the region
	// moves the cursor, so it is saved (ESC 7) and restored (ESC 8).
	fmt.Fprintf(s.out, "\n\x1b7\x1b[1;%dr\x1b8\x1b[1A", rows-1)
}

// show writes the status line, where there is one.
func (s *screen) show(status string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == 0 || status == s.status {
		return
	}
	s.status = status
	if runes := []rune(status); len(runes) > s.cols {
		status = string(runes[:s.cols-1]) + "…"
	}
	fmt.Fprintf(s.out, "\x1b7\x1b[%d;1H\x1b[7m%s\x1b[K\x1b[m\x1b8", s.rows, status)
}

// close gives the terminal back as it was.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows > 0 {
		fmt.Fprintf(s.out, "\x1b7\x1b[r\x1b[%d;1H\x1b[K\x1b8", s.rows)
		s.rows, s.status = 0, ""
	}
}

// visible writes b so that it stays in its line and cannot command a terminal or
// turn the direction of writing: control and format characters and what is not
// UTF-8 are escaped as in Go. Tabs stay, and the joiners that scripts and emoji
// need.
func visible(b []byte) string {
	var text strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&text, `\x%02x`, b[0])
		case r == '\t', r == '\u200c', r == '\u200d', unicode.IsGraphic(r):
			text.WriteRune(r)
		case r == '\n':
			text.WriteString(`\n`)
		case r == '\r':
			text.WriteString(`\r`)
		case r < 0x80:
			fmt.Fprintf(&text, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&text, `\u%04x`, r)
		default:
			fmt.Fprintf(&text, `\U%08x`, r)
		}
		b = b[n:]
	}
	return text.String()
}
