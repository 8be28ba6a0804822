package cli

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestHelpWidth: no line of any help is longer than helpWidth.
func TestHelpWidth(t *testing.T) {
	commands := 0
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		commands++
		cmd.InitDefaultHelpFlag()
		var b bytes.Buffer
		cmd.SetOut(&b)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > helpWidth {
				t.Errorf("%s --help: %d characters: %s", cmd.CommandPath(), n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" { // cobra's own texts
				check(sub)
			}
		}
	}
	check(newRoot(nil))
	if commands < 12 {
		t.Errorf("only %d commands were checked", commands)
	}
}

// TestHelpGroups: the flags of serve stand under their headings.
func TestHelpGroups(t *testing.T) {
	var b bytes.Buffer
	if code := Run([]string{"serve", "--help"}, nil, &b, &b); code != exitOK {
		t.Fatal(code, b.String())
	}
	at := 0
	for _, want := range []string{"\nListening:\n      --listen list ", "\nHeartbeat:\n      --profile word ",
		"\nLimits:\n      --max-connections number ",
		"\nMemory:\n      --max-frame size ", "\nShutdown:\n      --drain ", "\nWorkers:\n", "\nLog:\n",
		"\nOther:\n      --config path ", "  -h, --help "} {
		i := strings.Index(b.String()[at:], want)
		if i < 0 {
			t.Fatalf("%q is missing, or not in its place, in\n%s", want, b.String())
		}
		at += i
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "one": "one", "one two": "one two", "one two three": "one two|three", "2.5 × beat": "2.5 × beat",
		"a longwordlonger b": "a|longwordlonger|b",
	} {
		if got := strings.Join(wrap(text, 10), "|"); got != want {
			t.Errorf("%q is wrapped as %q, want %q", text, got, want)
		}
	}
}
