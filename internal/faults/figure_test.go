package faults

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
)

// With -figures the lines of figure are also appended to a file, from which
// docs/reliability.md is written.
var figures = flag.String("figures", "", "append what each case measures to this file (absolute "+
	"path), one line of JSON each")

// A figureLine is one line of that file.
type figureLine struct {
	Case   int    `json:"case"`
	Test   string `json:"test"`
	Form   string `json:"form"`
	Figure string `json:"figure"`
}

// figure logs what one case of the suite measured, as one line that begins
// "case 12: ". go test -v shows it.
func figure(t testing.TB, number int, format string, args ...any) {
	t.Helper()
	line := figureLine{number, t.Name(), size.String(), fmt.Sprintf(format, args...)}
	t.Logf("case %d: %s", number, line.Figure)
	if *figures == "" {
		return
	}
	if err := line.append(*figures); err != nil {
		t.Errorf("-figures: %v", err)
	}
}

// append writes the line in one piece, as tests that run at the same time do.
func (l figureLine) append(path string) error {
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
