package cli

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// TestHelpWidth checks that the texts in the help of each command have at most 80
// columns.
func TestHelpWidth(t *testing.T) {
	commands := 0
	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		commands++
		for line := range strings.Lines(cmd.Short + "\n" + cmd.Long + "\n" + cmd.Example) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); n > 80 || strings.Contains(line, "\t") {
				t.Errorf("%s: %d columns: %q", cmd.CommandPath(), n, line)
			}
		}
		for _, sub := range cmd.Commands() {
			if sub.Name() != "completion" { // cobra's texts
				check(sub)
			}
		}
	}
	check(newRoot(nil))
	if commands < 10 {
		t.Errorf("only %d commands", commands)
	}
}
