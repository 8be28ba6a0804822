package faults

import (
	"fmt"
	"testing"
)

// figure logs what one case of the suite measured, as one line that begins
// "case 12: ". go test -v shows it.
func figure(t testing.TB, number int, format string, args ...any) {
	t.Helper()
	t.Logf("case %d: %s", number, fmt.Sprintf(format, args...))
}
