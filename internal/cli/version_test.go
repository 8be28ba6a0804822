package cli

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestVersion builds the command, as a test binary has no module versions.
func TestVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "heartwheel")
	if out, err := exec.Command("go", "build", "-o", path, "../..").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	out, err := exec.Command(path, "--version").CombinedOutput()
	want := regexp.MustCompile(`^heartwheel \S.*, go\S* \w+/\w+, gnet v2\.\d+\.\d+\n$`)
	if err != nil || !want.Match(out) {
		t.Errorf("--version: %v, %q, want %s", err, out, want)
	}
}
