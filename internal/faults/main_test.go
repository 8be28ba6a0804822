package faults

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// tick is the precision of the server's deadlines, and lateTicks how many
	// of them a peer may be declared dead late (codec/SPEC.md, heartbeat rules).
	tick      = 100 * time.Millisecond
	lateTicks = 2

	// limit is how long a test waits for something that has to happen. It is
	// only ever waited for in full when a test fails.
	limit = 90 * time.Second

	fleetEnv = "FAULTS_FLEET" // makes the test binary a client process: see fleetMain
	floodEnv = "FAULTS_FLOOD" // makes it a process that floods, or is flooded: see floodMain
	stepEnv  = "FAULTS_CLOCK_STEP"
)

// A form is the size of the cases.
type form int

const (
	smoke form = iota // seconds for each: the default, part of go test ./...
	short             // four minutes in all: part of .ci/run
	long              // the sizes in docs/reliability.md
)

var formNames = []string{"smoke", "short", "long"}

func (f *form) String() string { return formNames[*f] }

func (f *form) Set(name string) error {
	i := slices.Index(formNames, name)
	if i < 0 {
		return fmt.Errorf("want one of %s", strings.Join(formNames, ", "))
	}
	*f = form(i)
	return nil
}

// size is what -form asks for.
var size form

func init() {
	flag.Var(&size, "form", "size of the cases: smoke, short or long")
	flag.BoolFunc("long", "the same as -form long", func(string) error { return size.Set("long") })
}

// parallelSmoke lets the smoke form of a case run beside others. Its bounds are
// widened by what held up the server or its clients, or are far from what it
// takes. Cases that compare latencies, and those that use all processors, run
// alone.
func parallelSmoke(t *testing.T) {
	if size == smoke {
		t.Parallel()
	}
}

// sized returns the value for the form that runs.
func sized[T any](smoke, short, long T) T { return [...]T{smoke, short, long}[size] }

// scratch holds what is built; TestMain makes and removes it.
var scratch string

// fleetMain is what the test binary does as a client process. It is nil where
// there are no fleets.
var fleetMain func(spec string) (exitCode int)

// floodMain is the same for a process that floods a server.
var floodMain func(spec string) (exitCode int)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if spec := os.Getenv(fleetEnv); spec != "" && fleetMain != nil {
		return fleetMain(spec)
	}
	if spec := os.Getenv(floodEnv); spec != "" && floodMain != nil {
		return floodMain(spec)
	}
	flag.Parse()
	if n := flag.Lookup("test.parallel"); size != long && n.Value.String() == n.DefValue {
		_ = n.Value.Set("4") // cases that run beside others wait for most of their time
	}
	var err error
	if scratch, err = os.MkdirTemp("", "heartwheel-faults-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// goTool runs the go command in the root of the module and returns what it prints.
func goTool(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = "../.."
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// dependOn has go test run these tests again when something below a directory
// has changed: what the go command reads for a build is not seen by its cache of
// test results, what this process looks at is.
func dependOn(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		return err
	})
}

// build builds the command from the module's root, once for all tests.
var build = sync.OnceValues(func() (string, error) {
	root, err := goTool("list", "-m", "-f", "{{.Path}}")
	if err != nil {
		return "", err
	}
	if root != "heartwheel" {
		return "", errors.New("these tests are not in the module heartwheel, but in " + root)
	}
	if err := dependOn("../.."); err != nil {
		return "", err
	}
	path := filepath.Join(scratch, "heartwheel")
	_, err = goTool("build", "-o", path, ".")
	return path, err
})

// binary returns the path of the built command.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// programs are functions that build a program in testdata, by its name.
var programs sync.Map

// program returns the path of a program in testdata, built once for all tests.
func program(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(scratch, name)
	build, _ := programs.LoadOrStore(name, sync.OnceValue(func() error {
		_, err := goTool("build", "-o", path, "./internal/faults/testdata/"+name)
		return err
	}))
	if err := build.(func() error)(); err != nil {
		t.Fatal(err)
	}
	return path
}
