package handover

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"heartwheel/internal/settings"
	"heartwheel/server"
)

// limit is how long a test waits for something that has to happen.
const limit = time.Minute

// shell is a program that runs a script of the shell in the place of a new
// version: descriptor 3 is where it says that it is ready, 4 its lasting
// standard error, 5 the socket.
func shell(t *testing.T, script string) (p *Program, stderr *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &Program{
		Path:    "/bin/sh",
		Args:    []string{"-c", script},
		Environ: []string{"PATH=" + os.Getenv("PATH")},
		Stderr:  w,
		Log:     w,
	}, r
}

func handOverTo(t *testing.T, p *Program) *Handover {
	return &Handover{Program: p, Sockets: []server.Socket{{Address: "tcp://127.0.0.1:0", Listener: listenHere(t)}},
		Timeout: limit, Drain: limit, Log: slog.New(slog.DiscardHandler)}
}

func TestHandoverFails(t *testing.T) {
	for _, c := range []struct {
		name, script string
		limit, drain time.Duration
		err, said    string
	}{
		{"ends", "echo no >&2; echo way >&2; exit 3", limit, limit,
			"did not say that it is ready; it ended with exit status 3", "no\nway"},
		{"closes the pipe first", "exec 3>&-; echo no >&2; exit 3", limit, limit,
			"it ended with exit status 3", "no"},
		{"says something else", "echo really >&3; exit 0", limit, limit,
			"did not say that it is ready; it ended with exit status 0", ""},
		{"is killed", "kill -9 $$", limit, limit, "it ended with signal: killed", ""},
		{"hangs", "exec sleep 1000", 50 * time.Millisecond, limit,
			"was not ready within 50ms; it ended with signal: terminated", ""},
		{"hangs and does not go", "trap '' TERM; echo stuck >&2; while :; do sleep 0.01; done",
			time.Second, 50 * time.Millisecond,
			"was not ready within 1s; it ended with signal: killed", "stuck"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			p, _ := shell(t, c.script)
			h := handOverTo(t, p)
			h.Timeout, h.Drain = c.limit, c.drain
			_, err := h.Run(context.Background())
			var failed *Error
			if !errors.As(err, &failed) || !strings.Contains(err.Error(), c.err) || failed.Stderr != c.said {
				t.Errorf("%v, said %q; want %s, said %q", err, failed.Stderr, c.err, c.said)
			}
			wantNonBlocking(t, h.Sockets[0].Listener)
		})
	}
	p, _ := shell(t, "")
	p.Path = filepath.Join(t.TempDir(), "missing")
	if _, err := handOverTo(t, p).Run(context.Background()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// wantNonBlocking: a socket that blocks would hang the goroutine that accepts
// on it, and whoever closes it.
func wantNonBlocking(t *testing.T, ln syscall.Conn) {
	t.Helper()
	f, err := duplicate(ln)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the socket has the flags %#x, %v: it blocks", flags, err)
	}
}

// A new process that is ready lives on; what it wrote before goes to the log,
// and its environment and descriptors are what settings.InheritEnv says.
func TestHandoverSucceeds(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p, log := shell(t, `echo "$HEARTWHEEL_INHERIT $A" >&2; test -S /dev/fd/5 || exit 1
exec 2>&4; echo ready >&3; exec 3>&-; echo later >&2; read line; exit 7`)
	p.Environ = append(p.Environ, "A=b", settings.InheritEnv+"=old")
	h := handOverTo(t, p)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := h.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // too late
	want := "ready,stderr,tcp://127.0.0.1:0 b\n"
	got := make([]byte, len(want)+len("later\n"))
	if _, err := io.ReadFull(log, got); err != nil {
		t.Fatal(err)
	}
	if text := string(got); text != want+"later\n" && text != "later\n"+want {
		t.Errorf("the log has %q", text)
	}
	wantNonBlocking(t, h.Sockets[0].Listener)
	s.Terminate(limit)
	if s.State().Success() {
		t.Errorf("it ended with %s", s.State())
	}
}

// A canceled hand-over terminates the new process first.
func TestHandoverCanceled(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p, log := shell(t, `trap 'echo told >&4; exit 5' TERM; echo here >&4; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := handOverTo(t, p).Run(ctx)
		ended <- err
	}()
	line := make([]byte, len("here\n"))
	if _, err := io.ReadFull(log, line); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("%v", err)
	}
	if _, err := io.ReadFull(log, line); err != nil || string(line) != "told\n" {
		t.Errorf("the log has %q, %v", line, err)
	}
}

func TestStartupOutput(t *testing.T) {
	var to strings.Builder
	h := &startupOutput{to: &to}
	big := strings.Repeat("x", maxStartupOutput-2)
	for _, text := range []string{" a", big, "bc"} {
		if n, err := h.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("%d %v", n, err)
		}
	}
	if got := h.text(); got != "a"+big {
		t.Errorf("it kept %d bytes", len(got))
	}
	if to.Len() > 0 {
		t.Errorf("%d bytes were passed on", to.Len())
	}
	h.passOn()
	_, _ = h.Write([]byte("late"))
	if to.String() != " a"+big+"late" || h.text() != "" {
		t.Errorf("%d bytes were passed on", to.Len())
	}
}

// The path that a process was started from keeps its symbolic links, so that
// they can be pointed elsewhere; one that is not this program is not used.
func TestStartedFrom(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "current")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Chdir(dir)
	for arg0, want := range map[string]string{
		link:        link,
		"current":   link,
		"./current": link,
		"missing":   self,
		sh:          self,
		"":          self,
	} {
		if got, err := startedFrom(arg0); err != nil || got != want {
			t.Errorf("%q was started from %s, %v; want %s", arg0, got, err, want)
		}
	}
}

// notifications is a socket in the place of a service manager's.
func notifications(t *testing.T) (environ []string, next func() string) {
	t.Helper()
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
	return []string{"NOTIFY_SOCKET=" + path}, func() string {
		t.Helper()
		b := make([]byte, 4096)
		_ = conn.SetReadDeadline(time.Now().Add(limit))
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotifier(t *testing.T) {
	NewNotifier(nil, nil).Notify("READY=1")
	var log strings.Builder
	for _, path := range []string{"vsock:2:1", "/nowhere/n"} {
		log.Reset()
		n := NewNotifier([]string{"NOTIFY_SOCKET=" + path}, slog.New(slog.NewTextHandler(&log, nil)))
		n.Notify("READY=1")
		n.Close(limit)
		if !strings.Contains(log.String(), "cannot notify the service manager") {
			t.Errorf("%s: the log has %q", path, log.String())
		}
	}
	environ, next := notifications(t)
	n := NewNotifier(environ, slog.New(slog.DiscardHandler))
	n.Notify("MAINPID=7", "READY=1")
	n.Notify(Reloading()...)
	n.Close(limit)
	if got := next(); got != "MAINPID=7\nREADY=1" {
		t.Errorf("got %q", got)
	}
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") || strings.HasSuffix(got, "=0") {
		t.Errorf("got %q", got)
	}
}

// TestNotifierNeverBlocks: a manager that does not read holds nothing up.
func TestNotifierNeverBlocks(t *testing.T) {
	var log strings.Builder
	n := &Notifier{
		log:   slog.New(slog.NewTextHandler(&log, nil)),
		queue: make(chan []string, 1),
		done:  make(chan struct{}),
	}
	n.Notify("1")
	n.Notify("2") // would block
	if !strings.Contains(log.String(), "one was dropped") {
		t.Errorf("the log has %q", log.String())
	}
	n.Close(0)
}
