package cli

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A lockedBuffer collects what a process writes. Safe for concurrent use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// await waits until the text holds each of the parts in one line.
func (l *lockedBuffer) await(t *testing.T, parts ...string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		text := l.b.String()
		l.mu.Unlock()
		for line := range strings.Lines(text) {
			all := true
			for _, part := range parts {
				all = all && strings.Contains(line, part)
			}
			if all {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("no line has %q:\n%s", parts, text)
		}
	}
}

// TestProcess1 checks that process 1 of a container refuses to hand over, and goes
// on.
func TestProcess1(t *testing.T) {
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	cmd := exec.Command(binary, "serve", "--listen", "tcp://127.0.0.1:0", "--ops", "off")
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); errors.Is(err, syscall.EPERM) {
		t.Skip("no PID namespace for this user:", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	log.await(t, "msg=listening")
	if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	log.await(t, "level=ERROR", `msg="SIGUSR2 refused: this is process 1`, "start a new container instead")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	log.await(t, "msg=drained")
}
