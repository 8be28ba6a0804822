package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A cgroup is one of version 1, made for a test and gone after it.
type cgroup struct {
	t   testing.TB
	dir string
}

const cgroupPrefix = "heartwheel-test-"

var cgroups atomic.Int32

// newCgroup makes a cgroup of a controller, or skips the test. Make it before
// what is to run in it, so that it is removed after that has ended.
func newCgroup(t testing.TB, controller string) *cgroup {
	t.Helper()
	root := filepath.Join("/sys/fs/cgroup", controller)
	if _, err := os.Stat(filepath.Join(root, "tasks")); err != nil {
		t.Skipf("this machine has no %s controller of cgroup version 1: %v", controller, err)
	}
	removeLeftCgroups(root)
	c := &cgroup{t, filepath.Join(root, fmt.Sprint(cgroupPrefix, os.Getpid(), "-", cgroups.Add(1)))}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Skipf("this machine lets us make no cgroup: %v", err)
	}
	t.Cleanup(func() {
		var err error
		for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if err = syscall.Rmdir(c.dir); !errors.Is(err, syscall.EBUSY) {
				break // an ended process may keep it for a moment
			}
		}
		if err != nil {
			t.Errorf("%s cannot be removed: %v", c.dir, err)
		}
	})
	return c
}

// removeLeftCgroups removes those of test runs that were killed.
func removeLeftCgroups(root string) {
	left, _ := filepath.Glob(filepath.Join(root, cgroupPrefix+"*-*"))
	for _, dir := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), cgroupPrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && errors.Is(syscall.Kill(n, 0), syscall.ESRCH) {
			_ = syscall.Rmdir(dir) // fails while a process is in it
		}
	}
}

// command is a command that starts within the cgroups.
func command(groups []*cgroup, name string, args ...string) *exec.Cmd {
	script := ""
	for _, c := range groups {
		script += fmt.Sprintf("echo $$ > '%s' && ", filepath.Join(c.dir, "cgroup.procs"))
	}
	return exec.Command("sh", append([]string{"-c", script + `exec "$0" "$@"`, name}, args...)...)
}

func (c *cgroup) set(file string, value int64) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(strconv.FormatInt(value, 10)), 0); err != nil {
		c.t.Skipf("this machine does not take %s = %d: %v", file, value, err)
	}
}

// value is a file's only number, or the one on the line that begins with key.
func (c *cgroup) value(file, key string) int64 {
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		c.t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if key == "" && len(fields) == 1 || len(fields) == 2 && fields[0] == key {
			v, err := strconv.ParseInt(fields[len(fields)-1], 10, 64)
			if err != nil {
				c.t.Error(err)
			}
			return v
		}
	}
	c.t.Errorf("%s has no %q", file, key)
	return 0
}
