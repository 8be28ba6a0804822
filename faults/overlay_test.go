package faults

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The place in the toolchain's time.go where the wall clock is read, and what
// stands there instead. startNano is the monotonic time of the process's start.
const (
	readsClock = "\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	stepsClock = readsClock + "\tsec += stepSeconds(mono - startNano)\n"
)

// clockOverlay writes what go build -overlay needs for a command whose wall
// clock can step and whose monotonic clock is as it always is, and returns the
// path of the overlay. See testdata/clock/step.go.
func clockOverlay(t *testing.T) string {
	t.Helper()
	env, err := goTool("env", "GOROOT", "GOMODCACHE", "GOVERSION")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(env, "\n")
	goroot, cache, version := lines[0], lines[1], lines[2]
	if strings.HasPrefix(goroot, filepath.Clean(cache)+string(filepath.Separator)) {
		t.Skipf("the toolchain lies in the module cache (%s), where the go command allows no overlay; install %s itself", goroot, version)
	}
	path := filepath.Join(goroot, "src", "time", "time.go")
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), readsClock); n != 1 {
		t.Fatalf("%s of %s has the text %q %d times, not once: find how its Now reads the clock, and write that into %s",
			path, version, readsClock, n, "overlay_test.go")
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, "time.go")
	step, err := filepath.Abs(filepath.Join("testdata", "clock", "step.go"))
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{
		path: changed,
		filepath.Join(filepath.Dir(path), "heartwheel_step.go"): step,
	}})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "overlay.json")
	for file, content := range map[string]string{
		changed: strings.Replace(string(source), readsClock, stepsClock, 1),
		name:    string(overlay),
	} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

// buildStepping builds a package of the module whose wall clock can step.
func buildStepping(t *testing.T, overlay, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stepping")
	if _, err := goTool("build", "-overlay", overlay, "-o", path, pkg); err != nil {
		t.Fatal(err)
	}
	return path
}

// stepAt is the environment of a process whose wall clock steps by so many
// seconds when it is that old.
func stepAt(age string, seconds int) []string {
	return []string{fmt.Sprintf("%s=%s,%+ds", stepEnv, age, seconds)}
}
