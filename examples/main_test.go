// Package examples tests the examples as a user runs them: the clients against
// the built server, and against servers that behave badly.
package examples

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// limit is how long a test waits for something that has to happen. It is only
// ever waited for in full when a test fails.
const limit = 90 * time.Second

// scratch holds what is built; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "heartwheel-examples-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	// These tests mostly wait, so many can run at once on any machine.
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var (
	buildServer   = sync.OnceValues(func() (string, error) { return build("..", "heartwheel") })
	buildEmbedded = sync.OnceValues(func() (string, error) { return build("./embedded", "embedded") })
)

// build builds the command in dir and returns its path.
func build(dir, name string) (string, error) {
	path := filepath.Join(scratch, name)
	if out, err := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", dir, err, out)
	}
	return path, nil
}

// A language is an example client and what runs it.
type language struct {
	name, file string
	oldest     int                                    // major version
	find       func() (path, major string, err error) // the interpreter
}

var languages = []language{
	{"python", "python/heartbeat.py", 3, find("python3", "-c",
		"import sys; print(sys.executable, sys.version_info[0])")},
	{"node", "node/heartbeat.mjs", 18, find("node", "-p", "process.execPath + ' ' + process.versions.node")},
}

// find returns a function that asks an interpreter for its path and version, once:
// its name may be that of a script that takes a while to find it.
func find(name string, args ...string) func() (path, major string, err error) {
	fields := sync.OnceValues(func() ([]string, error) {
		out, err := exec.Command(name, args...).Output()
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("%s is not installed", name)
		}
		f := strings.Fields(string(out))
		if err == nil && len(f) != 2 {
			err = fmt.Errorf("it printed %q", out)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %q: %w", name, args, err)
		}
		return f, nil
	})
	return func() (path, major string, err error) {
		f, err := fields()
		if err != nil {
			return "", "", err
		}
		major, _, _ = strings.Cut(f[1], ".")
		return f[0], major, nil
	}
}

// inEach runs a test for each client, all of them at the same time.
func inEach(t *testing.T, test func(t *testing.T, l language)) {
	t.Parallel()
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			if err := l.missing(); err != nil {
				if *requireLanguages {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			test(t, l)
		})
	}
}

// missing says why this machine cannot run the client, if it cannot.
func (l language) missing() error {
	_, major, err := l.find()
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(major); err != nil || n < l.oldest {
		return fmt.Errorf("%s is of version %s, the example needs %d", l.name, major, l.oldest)
	}
	return nil
}

// A lagMeter measures by how much this machine is late, at most: the longest
// that a short sleep took too long since it was started.
type lagMeter struct{ most atomic.Int64 }

func measureLag(t *testing.T) *lagMeter {
	m := &lagMeter{}
	quit := make(chan struct{})
	t.Cleanup(func() { close(quit) })
	go func() {
		const nap = 5 * time.Millisecond
		for before := time.Now(); ; before = time.Now() {
			select {
			case <-quit:
				return
			case <-time.After(nap):
				m.most.Store(max(m.most.Load(), int64(time.Since(before)-nap)))
			}
		}
	}()
	return m
}

func (m *lagMeter) lag() time.Duration { return time.Duration(m.most.Load()) }
