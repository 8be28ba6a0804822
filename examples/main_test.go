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
	if out, err := exec.Command("go", "build", "-o", path, dir).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", dir, err, out)
	}
	return path, nil
}

// A language is an example client and what runs it.
type language struct {
	name, interpreter, file string
	oldest                  int // major version
}

var languages = []language{
	{"python", "python3", "python/heartbeat.py", 3},
	{"node", "node", "node/heartbeat.mjs", 18},
}

// inEach runs a test for each client, all of them at the same time.
func inEach(t *testing.T, test func(t *testing.T, l language)) {
	t.Parallel()
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			if err := l.missing(); err != nil {
				t.Skip(err)
			}
			test(t, l)
		})
	}
}

// missing says why this machine cannot run the client, if it cannot.
func (l language) missing() error {
	out, err := exec.Command(l.interpreter, "--version").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed", l.interpreter)
	}
	if err != nil {
		return fmt.Errorf("%s --version: %w", l.interpreter, err)
	}
	version := strings.TrimLeft(strings.TrimSpace(string(out)), "Pythonv ")
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < l.oldest {
		return fmt.Errorf("%s is of version %q, the example needs %d", l.interpreter, version, l.oldest)
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
