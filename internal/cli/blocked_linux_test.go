package cli

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A blockedLog is a heartwheel whose standard error is a pipe that stays open, is
// read until it serves, and is full from then on: a log collector that hangs.
type blockedLog struct {
	cmd    *exec.Cmd
	pipe   *os.File // its standard error, for reading
	listen string
	ops    string
	ended  chan struct{}
}

func startBlocked(t *testing.T, environ []string, args ...string) *blockedLog {
	t.Helper()
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b := &blockedLog{pipe: r, ended: make(chan struct{})}
	args = append([]string{"serve", "--listen", "tcp://127.0.0.1:0", "--ops", "127.0.0.1:0"}, args...)
	b.cmd = exec.Command(binary, args...)
	b.cmd.Env, b.cmd.Stderr = environ, w
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(b.ended)
		_ = b.cmd.Wait() // the tests read the state
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		<-b.ended
		r.Close()
		w.Close()
	})
	b.listen = b.addr(t, `msg=listening addr=(\S+)`)
	fill(t, w)
	return b
}

// addr reads the log up to a line that matches, and sets ops on the way.
func (b *blockedLog) addr(t *testing.T, pattern string) string {
	t.Helper()
	if err := b.pipe.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	ops, want := regexp.MustCompile(`msg="ops listening" addr=(\S+)`), regexp.MustCompile(pattern)
	text, buf := "", make([]byte, 4096)
	for {
		n, err := b.pipe.Read(buf)
		if err != nil {
			t.Fatalf("%v; the log so far:\n%s", err, text)
		}
		text += string(buf[:n])
		if m := ops.FindStringSubmatch(text); m != nil {
			b.ops = m[1]
		}
		if m := want.FindStringSubmatch(text); m != nil && b.ops != "" {
			return m[1]
		}
	}
}

// fill fills the pipe, from a descriptor of its own that does not block.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for junk := bytes.Repeat([]byte("x"), 4096); ; {
		_, err := unix.Write(fd, junk)
		switch {
		case err == unix.EAGAIN && len(junk) == 1:
			return
		case err == unix.EAGAIN:
			junk = junk[:1]
		case err != nil:
			t.Fatal(err)
		}
	}
}

// end waits for the process to end.
func (b *blockedLog) end(t *testing.T, what string) {
	t.Helper()
	select {
	case <-b.ended:
	case <-time.After(limit):
		t.Fatalf("%s did not end the process", what)
	}
}

func (b *blockedLog) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := (&http.Client{Timeout: limit}).Get("http://" + b.ops + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestBlockedLog: a log that blocks stops neither accepting nor SIGTERM.
func TestBlockedLog(t *testing.T) {
	t.Parallel()
	b := startBlocked(t, nil, "--log-level", "debug")
	for range 200 {
		c, err := net.DialTimeout("tcp", b.listen, limit)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if got := b.get(t, "/healthz"); got != "ok\n" {
		t.Errorf("/healthz answers %q", got)
	}
	if got := b.get(t, "/metrics"); !strings.Contains(got, "\nheartwheel_log_dropped_total 0\n") {
		t.Error("/metrics does not have heartwheel_log_dropped_total")
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.end(t, "SIGTERM")
	if code := b.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("it ended with %s", b.cmd.ProcessState)
	}
}

// TestBlockedLogWorkers: a supervisor whose log blocks restarts a worker, and
// drains.
func TestBlockedLogWorkers(t *testing.T) {
	t.Parallel()
	b := startBlocked(t, os.Environ(), "--workers", "2")
	pids := regexp.MustCompile(`"pid": (\d+)`).FindAllStringSubmatch(b.get(t, "/debug/check"), -1)
	if len(pids) != 2 {
		t.Fatalf("there are %d workers", len(pids))
	}
	var pid int
	if _, err := fmt.Sscan(pids[0][1], &pid); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		text := b.get(t, "/metrics")
		if strings.Contains(text, "heartwheel_worker_restarts_total 1") &&
			strings.Contains(text, "heartwheel_workers_ready 2") {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the worker was not restarted")
		}
	}
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.end(t, "SIGTERM")
}

// TestBlockedServiceManager: so does a service manager that does not read.
func TestBlockedServiceManager(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "hw") // short: the length of such a path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err = nil; err == nil; {
		err = unix.Sendto(fd, []byte("full"), 0, &unix.SockaddrUnix{Name: path})
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	b := startBlocked(t, []string{"NOTIFY_SOCKET=" + path})
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	b.end(t, "SIGTERM")
}
