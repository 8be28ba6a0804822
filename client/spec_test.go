package client

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestSpec compares what codec/SPEC.md says about clients with the code.
func TestSpec(t *testing.T) {
	b, err := os.ReadFile("../codec/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(b)), " ") // sentences may be wrapped
	secs := func(d time.Duration) string { return fmt.Sprintf("%g s", d.Seconds()) }
	for _, want := range []string{
		fmt.Sprintf("or for %g × H where the server beats, it asks", askAfter),
		fmt.Sprintf("If not one byte has arrived %s after", secs(answerTimeout)),
		fmt.Sprintf("where W begins at %s and doubles up to %s", secs(backoffMin), secs(backoffMax)),
		fmt.Sprintf("once a connection has lasted %s", secs(stable)),
		fmt.Sprintf("cap what a server can ask for (the Go client: at %g h)", maxWait.Hours()),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("SPEC.md does not say %q", want)
		}
	}
}
