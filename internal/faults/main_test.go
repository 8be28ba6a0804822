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

// With -long each case has the size that the table of the suite states;
// without, one that a small machine does in seconds.
var long = flag.Bool("long", false, "run the long form of each case")

// scratch holds what is built; TestMain makes and removes it.
var scratch string

// fleetMain is what the test binary does as a client process. It is nil where
// there are no fleets.
var fleetMain func(spec string) (exitCode int)

// floodMain is likewise what it does as a process that floods a server.
var floodMain func(spec string) (exitCode int)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if spec := os.Getenv(fleetEnv); spec != "" && fleetMain != nil {
		return fleetMain(spec)
	}
	if spec := os.Getenv(floodEnv); spec != "" && floodMain != nil {
		return floodMain(spec)
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
