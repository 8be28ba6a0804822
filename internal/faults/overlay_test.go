package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// wheelModule is the timing wheel under package wheel.
const wheelModule = "github.com/RussellLuo/timingwheel"

// A change is text that a source file has once, and what replaces it in a build
// that can be made to fail.
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

// wheelChanges are relative to wheelModule. They let its goroutine stall, its
// AfterFunc hang or panic, and its clock step.
var wheelChanges = []change{
	{"timingwheel.go", "\t\t\t\tb := elem.(*bucket)\n", "\t\t\t\ttw.flushes()\n\t\t\t\tb := elem.(*bucket)\n"},
	{"timingwheel.go", "\nfunc (tw *TimingWheel) Start() {\n", "\nfunc (tw *TimingWheel) Start() {\n\ttw.started()\n"},
	{"utils.go", "\treturn t.UnixNano() / int64(time.Millisecond)\n",
		"\treturn t.UnixNano()/int64(time.Millisecond) + stepped()\n"},
	{"timingwheel.go", "f func()) *Timer {\n\tt := &Timer{\n", "f func()) *Timer {\n\ttw.takes()\n\tt := &Timer{\n"},
}

// errNoOverlay says that this toolchain cannot be changed.
var errNoOverlay = errors.New("this toolchain cannot be made to fail")

// toolchainFlags are the flags of a go build whose result has a clock that
// steps and an accept that fails when its environment asks for it: see
// testdata/clock and testdata/accept.
var toolchainFlags = sync.OnceValues(func() ([]string, error) {
	env, err := goTool("env", "GOROOT", "GOMODCACHE", "GOVERSION")
	if err != nil {
		return nil, err
	}
	lines := strings.Split(env, "\n")
	goroot, cache, version := lines[0], lines[1], lines[2]
	if strings.HasPrefix(goroot, filepath.Clean(cache)+string(filepath.Separator)) {
		return nil, fmt.Errorf("%w: it lies in the module cache (%s), where the go command allows no "+
			"overlay; install %s itself",
			errNoOverlay, goroot, version)
	}
	flags, err := overlay(filepath.Join(goroot, "src"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w; it is %s", errNoOverlay, err, version)
	}
	if _, err := goTool(slices.Concat([]string{"build"}, flags, []string{"time", "internal/poll"})...); err != nil {
		return nil, fmt.Errorf("%w: %w; it is %s", errNoOverlay, err, version)
	}
	return flags, nil
})

// overlay applies toolchainChanges to the toolchain whose source is in src, and
// returns the flags of a go build that uses them.
func overlay(src string) ([]string, error) {
	changed := filepath.Join(scratch, "toolchain")
	replace := map[string]string{}
	for _, c := range toolchainChanges {
		if err := c.apply(src, changed); err != nil {
			return nil, err
		}
		replace[filepath.Join(src, c.file)] = filepath.Join(changed, c.file)
	}
	for to, from := range map[string]string{
		"time/heartwheel_step.go":            "testdata/clock/step.go",
		"internal/poll/heartwheel_accept.go": "testdata/accept/accept.go",
	} {
		path, err := filepath.Abs(from)
		if err != nil {
			return nil, err
		}
		replace[filepath.Join(src, to)] = path
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(scratch, "overlay.json")
	return []string{"-overlay", path}, os.WriteFile(path, text, 0o644)
}

// wheelFlags are the flags of a go build whose timing wheel fails when the
// environment asks for it: see testdata/timingwheel. They name a go.mod that
// takes a changed copy, as the go command allows no overlay in its module cache.
var wheelFlags = sync.OnceValues(func() ([]string, error) {
	dir, err := goTool("list", "-m", "-f", "{{.Dir}}", wheelModule)
	if err != nil {
		return nil, err
	}
	wheel := filepath.Join(scratch, "timingwheel")
	if err := os.CopyFS(wheel, os.DirFS(dir)); err != nil {
		return nil, err
	}
	for _, c := range wheelChanges {
		if err := c.apply(wheel, wheel); err != nil {
			return nil, err
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
			return nil, err
		}
		if err := os.WriteFile(f.to, append(text, f.more...), 0o644); err != nil {
			return nil, err
		}
	}
	return []string{"-modfile", mod}, nil
})

// apply writes the file of one directory, changed, into another.
func (c change) apply(from, to string) error {
	path := filepath.Join(from, c.file)
	source, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if n := strings.Count(string(source), c.old); n != 1 {
		return fmt.Errorf("%s has the text %q %d times, not once: overlay_test.go needs what "+
			"does this now", path, c.old, n)
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

// faultyCommand is the command in a toolchain that can be made to fail, and
// faultyWheel the command with such a timing wheel.
var (
	faultyCommand = sync.OnceValues(func() (string, error) { return buildWith(toolchainFlags, "faulty", ".") })
	faultyWheel   = sync.OnceValues(func() (string, error) { return buildWith(wheelFlags, "faultywheel", ".") })
)

// buildWith builds a package of the module with more flags.
func buildWith(flags func() ([]string, error), name, pkg string) (string, error) {
	more, err := flags()
	if err != nil {
		return "", err
	}
	path := filepath.Join(scratch, name)
	_, err = goTool(slices.Concat([]string{"build"}, more, []string{"-o", path, pkg})...)
	return path, err
}

// built returns the path of a program. It skips the test on a toolchain that
// cannot be changed.
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

// TestOtherToolchains holds the overlay against sources that it does not know:
// the reason is said, and what needs it is skipped.
func TestOtherToolchains(t *testing.T) {
	src := t.TempDir()
	if err := os.Mkdir(filepath.Join(src, "time"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "time", "time.go"),
		[]byte("package time\n\nfunc Now() Time { return now() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := overlay(src)
	if err == nil || !strings.Contains(err.Error(), "time.go") || !strings.Contains(err.Error(), "0 times, not once") {
		t.Fatalf("a toolchain with other source: %v", err)
	}
	for _, no := range []error{fmt.Errorf("%w: %w", errNoOverlay, err), nil} {
		skipped := false
		t.Run(fmt.Sprint("overlay fails ", no != nil), func(t *testing.T) {
			defer func() { skipped = t.Skipped() }()
			built(t, func() (string, error) { return "", no })
		})
		if skipped != (no != nil) {
			t.Errorf("skipped %v for %v", skipped, no)
		}
	}
}
