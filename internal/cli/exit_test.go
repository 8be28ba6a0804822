package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestExitStatuses checks that docs/operating.md has a row for each exit status, and
// that none is that of a crash.
func TestExitStatuses(t *testing.T) {
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	const crash = 2
	// 3, 4 and 130 are the verdicts of package loadtest.
	seen := map[int]bool{crash: true}
	for _, status := range []int{exitFailed, exitUsage, 3, 4, 130} {
		if seen[status] {
			t.Errorf("%d means two things", status)
		}
		seen[status] = true
	}
	seen[exitOK] = true
	for status := range seen {
		if !strings.Contains(string(page), fmt.Sprintf("\n| %d | ", status)) {
			t.Errorf("the page has no row for %d", status)
		}
	}
	if rows := strings.Count(string(page[strings.Index(string(page), "| exit status |"):]), "\n| "); rows < len(seen) {
		t.Errorf("%d rows for %d statuses", rows, len(seen))
	}
}
