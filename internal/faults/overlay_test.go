package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// wheelModule is the timing wheel under package wheel.
const wheelModule = "github.com/RussellLuo/timingwheel"

// A change is text that a source file of somebody else has once, and what
// stands there instead in a build that can be made to fail.
type change struct{ file, old, new string }

// toolchainChanges are relative to the toolchain's src. They let the wall clock
// step, while the monotonic one is as it always is (startNano is its value at
// the process's start), and accept fail.
var toolchainChanges = []change{
	{"time/time.go",
		"\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n",
		"\nfunc Now() Time {\n\tsec, nsec, mono := runtimeNow()\n\tsec += stepSeconds(mono - startNano)\n"},
	{"internal/poll/fd_unix.go", ":= accept(fd.Sysfd)\n", ":= acceptOrFail(fd.Sysfd)\n"},
}

// wheelChanges are relative to wheelModule. They let its goroutine stall and
// its AfterFunc hang or panic.
var wheelChanges = []change{
	{"timingwheel.go", "\t\t\t\tb := elem.(*bucket)\n", "\t\t\t\ttw.flushes()\n\t\t\t\tb := elem.(*bucket)\n"},
	{"timingwheel.go", "\nfunc (tw *TimingWheel) Start() {\n", "\nfunc (tw *TimingWheel) Start() {\n\ttw.started()\n"},
	{"timingwheel.go", "f func()) *Timer {\n\tt := &Timer{\n", "f func()) *Timer {\n\ttw.takes()\n\tt := &Timer{\n"},
}

// errNoOverlay says that this machine cannot build what can be made to fail.
var errNoOverlay = errors.New("cannot be built here")

// faultyFlags are the flags of a go build whose result fails when its
// environment asks for it: see the files below testdata/. Without that it is
// like any other.
var faultyFlags = sync.OnceValues(func() ([]string, error) {
	env, err := goTool("env", "GOROOT", "GOMODCACHE", "GOVERSION")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(env, "\n")
	goroot, cache, version := lines[0], lines[1], lines[2]
	if strings.HasPrefix(goroot, filepath.Clean(cache)+string(filepath.Separator)) {
		return nil, fmt.Errorf("%w: the toolchain lies in the module cache (%s), where the go command allows no overlay; install %s itself",
			errNoOverlay, goroot, version)
	}
	src := filepath.Join(goroot, "src")
	changed := filepath.Join(scratch, "toolchain")
	replace := map[string]string{}
	for _, c := range toolchainChanges {
		if err := c.apply(src, changed); err != nil {
			return nil, fmt.Errorf("%w; this is %s", err, version)
		}
		replace[filepath.Join(src, c.file)] = filepath.Join(changed, c.file)
	}
	for to, from := range map[string]string{
		"time/heartwheel_step.go":            "testdata/clock/step.go",
		"internal/poll/heartwheel_accept.go": "testdata/accept/accept.go",
	} {
		if replace[filepath.Join(src, to)], err = filepath.Abs(from); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	overlay := filepath.Join(scratch, "overlay.json")
	if err := os.WriteFile(overlay, text, 0o644); err != nil {
		return nil, err
	}
	mod, err := faultyModules()
	return []string{"-overlay", overlay, "-modfile", mod}, err
})

// faultyModules writes a go.mod that takes a changed copy of the timing wheel,
// and returns its path. The go command allows no overlay in its module cache.
func faultyModules() (string, error) {
	dir, err := goTool("list", "-m", "-f", "{{.Dir}}", wheelModule)
	if err != nil {
		return "", err
	}
	wheel := filepath.Join(scratch, "timingwheel")
	if err := os.CopyFS(wheel, os.DirFS(dir)); err != nil {
		return "", err
	}
	for _, c := range wheelChanges {
		if err := c.apply(wheel, wheel); err != nil {
			return "", err
		}
	}
	mod := filepath.Join(scratch, "faulty.mod")
	for _, f := range []struct{ from, to, more string }{
		{"testdata/timingwheel/fault.go", filepath.Join(wheel, "fault.go"), ""},
		{"../../go.mod", mod, "\nreplace " + wheelModule + " => " + wheel + "\n"},
		{"../../go.sum", filepath.Join(scratch, "faulty.sum"), ""},
	} {
		text, err := os.ReadFile(f.from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(f.to, append(text, f.more...), 0o644); err != nil {
			return "", err
		}
	}
	return mod, nil
}

// apply writes the file of one directory, changed, into another.
func (c change) apply(from, to string) error {
	path := filepath.Join(from, c.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), c.old); n != 1 {
		return fmt.Errorf("%s has the text %q %d times, not once: find what does this now, and write it into overlay_test.go", path, c.old, n)
	}
	out := filepath.Join(to, c.file)
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	// What is copied from the module cache cannot be written to.
	if err := os.Remove(out); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(out, []byte(strings.Replace(string(source), c.old, c.new, 1)), 0o644)
}

// faultyCommand is the built command that can be made to fail.
var faultyCommand = sync.OnceValues(func() (string, error) { return buildFaulty("faulty", ".") })

func faultyBinary(t *testing.T) string {
	t.Helper()
	return built(t, faultyCommand)
}

// buildFaulty builds a package of the module so that it can be made to fail.
func buildFaulty(name, pkg string) (string, error) {
	flags, err := faultyFlags()
	if err != nil {
		return "", err
	}
	path := filepath.Join(scratch, name)
	_, err = goTool(append(append([]string{"build"}, flags...), "-o", path, pkg)...)
	return path, err
}

// built returns the path of a program. It skips the test where that cannot be
// built.
func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if errors.Is(err, errNoOverlay) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// stepAt is the environment of a process whose wall clock steps by so many
// seconds when it is that old.
func stepAt(age string, seconds int) []string {
	return []string{fmt.Sprintf("%s=%s,%+ds", stepEnv, age, seconds)}
}
