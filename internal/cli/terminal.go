package cli

import (
	"cmp"
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

// A terminal prints replies and messages. On a real terminal its last row is a
// status line: the rows above are made the scrolling region, so that output and
// echoed input never touch it. Safe for concurrent use.
type terminal struct {
	out, log io.Writer // replies; messages. On a terminal both go to out
	isTTY    bool
	dumb     bool // a terminal without escape sequences, and so without a status line

	mu         sync.Mutex
	rows, cols int // guarded by mu: size of the terminal; 0: no status line
	status     string
}

// minRows and minCols are the smallest terminal that gets a status line.
const minRows, minCols = 4, 20

// maxShown is the most bytes of a reply that a terminal shows.
const maxShown = 4096

// newTerminal returns a terminal that prints to out, and messages to log if out is
// not a terminal.
func newTerminal(out, log io.Writer, dumb bool) *terminal {
	rows, _ := terminalSize(out)
	return &terminal{out: out, log: log, isTTY: rows > 0, dumb: dumb}
}

// terminalSize returns the size of w in characters, zeros if it is not a terminal.
func terminalSize(w io.Writer) (rows, cols int) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return cmp.Or(int(size.Row), 24), cmp.Or(int(size.Col), 80) // some terminals report 0
}

// noColor reports whether the environment variable kv asks for no colours:
// https://no-color.org.
func noColor(kv string) bool {
	value, ok := strings.CutPrefix(kv, "NO_COLOR=")
	return ok && value != ""
}

// reply prints data from the server.
func (t *terminal) reply(payload []byte) {
	if !t.isTTY {
		t.println(t.out, visible(payload))
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
	t.println(t.out, text)
}

// message prints a message about the connection.
func (t *terminal) message(format string, args ...any) {
	text := visible(fmt.Appendf(nil, format, args...))
	if t.isTTY {
		t.println(t.out, "* "+text)
	} else {
		t.println(t.log, text)
	}
}

func (t *terminal) println(w io.Writer, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isTTY && !t.dumb {
		text = "\r\x1b[K" + text // replaces a half typed line, which the terminal keeps
	}
	// A broken pipe on standard output ends the process: see SIGPIPE in os/signal.
	_, _ = io.WriteString(w, text+"\n")
}

// openStatus makes the status line, or remakes it after the terminal's size has
// changed. It does not clear the old one: terminals differ in where that is now.
func (t *terminal) openStatus() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows, t.status = 0, ""
	rows, cols := terminalSize(t.out)
	if !t.isTTY || t.dumb || rows < minRows || cols < minCols {
		return
	}
	t.rows, t.cols = rows, cols
	// The new line makes room if the cursor is in the last row. Setting the region
	// moves the cursor: it is saved (ESC 7) and restored (ESC 8).
	fmt.Fprintf(t.out, "\n\x1b7\x1b[1;%dr\x1b8\x1b[1A", rows-1)
}

// setStatus changes the status line, if there is one.
func (t *terminal) setStatus(status string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows == 0 || status == t.status {
		return
	}
	t.status = status
	if runes := []rune(status); len(runes) > t.cols {
		status = string(runes[:t.cols-1]) + "…"
	}
	fmt.Fprintf(t.out, "\x1b7\x1b[%d;1H\x1b[7m%s\x1b[K\x1b[m\x1b8", t.rows, status)
}

// closeStatus removes the status line and restores the scrolling region.
func (t *terminal) closeStatus() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows > 0 {
		fmt.Fprintf(t.out, "\x1b7\x1b[r\x1b[%d;1H\x1b[K\x1b8", t.rows)
		t.rows, t.status = 0, ""
	}
}

// visible returns b as text that stays on one line, and can neither control a
// terminal nor change the direction of writing: control and format characters and
// invalid UTF-8 are escaped as in Go. Tabs are kept, and the joiners that some
// scripts and emoji need.
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
