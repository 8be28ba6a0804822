package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/internal/settings"
)

// notifications opens a socket as a service manager does.
func notifications(t *testing.T) (path string, next func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw") // short: the length of such a path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return path, func() string {
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

// TestServiceManager checks the messages of two processes to a service manager. Only
// its main process sends any.
func TestServiceManager(t *testing.T) {
	path, next := notifications(t)
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "f.yaml")
	write := func(text string) {
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("drain: 1s")
	cmd := exec.Command(binary, "serve", "--listen", "tcp://127.0.0.1:0", "--ops", "off", "--config", config)
	cmd.Env = []string{"NOTIFY_SOCKET=" + path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	want := func(text string) string {
		t.Helper()
		rest, ok := strings.CutPrefix(next(), text)
		if !ok {
			t.Fatalf("got no %q", text)
		}
		return rest
	}
	send := func(sig syscall.Signal) {
		t.Helper()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		want("RELOADING=1\n")
	}
	want("READY=1")
	write("drain: soon")
	send(syscall.SIGHUP)
	want("READY=1\nSTATUS=the last reload failed")
	send(syscall.SIGUSR2)
	want("READY=1\nSTATUS=the last hand-over failed")
	write("drain: 2s")
	send(syscall.SIGHUP)
	want("READY=1\nSTATUS=")
	write("drain: 1s")
	send(syscall.SIGUSR2)
	pid, _, _ := strings.Cut(want("MAINPID="), "\nREADY=1")
	if _, err := fmt.Sscan(pid, new(int)); err != nil || pid == fmt.Sprint(cmd.Process.Pid) {
		t.Fatalf("the main process is now %q", pid)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil { // only the successor is left
		t.Fatal(err)
	}
	want("STOPPING=1")
}

// A child is a heartwheel that the test starts as a parent process would: with
// inherited sockets and pipes.
type child struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer // before it was ready; valid once it has ended
}

func startChild(t *testing.T, environ []string, names []string, files []*os.File, args ...string) *child {
	t.Helper()
	path, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(path, append([]string{"serve"}, args...)...)}
	c.cmd.Env = append(environ, settings.InheritEnv+"="+strings.Join(names, ","))
	c.cmd.ExtraFiles, c.cmd.Stderr = files, &c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
	})
	return c
}

func TestServeWithInheritedSockets(t *testing.T) {
	tcp, ops := listenHere(t), listenHere(t)
	pipes := [2][2]*os.File{}
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		pipes[i] = [2]*os.File{r, w}
	}
	var files []*os.File
	for _, ln := range []*net.TCPListener{tcp, ops} {
		f, err := ln.File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	files = append(files, pipes[0][1], pipes[1][1])
	c, err := net.Dial("tcp", tcp.Addr().String()) // waits in the backlog
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	child := startChild(t, nil, []string{"tcp://127.0.0.1:0", "ops://127.0.0.1:0", "ready", "stderr"}, files,
		"--listen", "tcp://127.0.0.1:0", "--ops", "127.0.0.1:0")
	for _, f := range files {
		f.Close()
	}
	text, err := io.ReadAll(pipes[0][0])
	if err != nil || string(text) != "ready\n" {
		_ = child.cmd.Wait()
		t.Fatalf("got %q %v; it wrote\n%s", text, err, child.stderr.String())
	}
	tcp.Close() // it has its own
	ops.Close()
	beat(t, c)
	c.Close()
	if err := child.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(pipes[1][0])
	if err != nil {
		t.Fatal(err)
	}
	if err := child.cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"msg=listening pid=", "addr=" + tcp.Addr().String(),
		`msg="ops listening" pid=`, "addr=" + ops.Addr().String(),
	} {
		// The log is written in the background: before the child was ready, or after.
		if !strings.Contains(child.stderr.String()+string(log), want) {
			t.Errorf("%q is not in what it wrote before it was ready:\n%s\nnor in\n%s",
				want, child.stderr.String(), log)
		}
	}
	if !strings.Contains(string(log), "msg=drained") || strings.Contains(child.stderr.String(), "drain") {
		t.Errorf("before it was ready it wrote\n%s\nand then\n%s", child.stderr.String(), log)
	}
}

func TestWrongInheritance(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range []struct {
		names string
		want  string
	}{
		{"ready,stdin", `names "stdin", which this version does not know`},
		{"ready,tcp://127.0.0.1:0", "descriptor 4, tcp://127.0.0.1:0: "},
		{"ready,stderr,stderr", "names stderr twice"},
	} {
		child := startChild(t, nil, strings.Split(c.names, ","), []*os.File{null, null},
			"--listen", "tcp://127.0.0.1:0", "--ops", "off")
		err := child.cmd.Wait()
		text := child.stderr.String()
		oneLine := strings.HasSuffix(text, "unset it\n") && strings.Count(text, "\n") == 1
		if err == nil || child.cmd.ProcessState.ExitCode() != exitFailed ||
			!strings.Contains(text, c.want) || !oneLine {
			t.Errorf("%s: %v, %s", c.names, err, text)
		}
	}
}

func listenHere(t *testing.T) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Go has on, and the server refuses
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// TestSocketActivation: the sockets of a service manager are listened on, and one
// that no address asks for is refused.
func TestSocketActivation(t *testing.T) {
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	tcp, ops := listenHere(t), listenHere(t)
	var files []*os.File
	for _, ln := range []*net.TCPListener{tcp, ops} {
		f, err := ln.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	start := func(args string) *exec.Cmd {
		// LISTEN_PID is the pid of what the shell becomes.
		script := `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=clients:ops exec "$0" serve ` + args
		cmd := exec.Command("/bin/sh", "-c", script, binary)
		cmd.ExtraFiles = files
		return cmd
	}
	cmd := start("--listen TCP://" + tcp.Addr().String() + "/")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", tcp.Addr().String()) // may wait in the backlog
	if err != nil {
		t.Fatal(err)
	}
	beat(t, c)
	resp, err := (&http.Client{Timeout: limit}).Get("http://" + ops.Addr().String() + "/healthz")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %v, %v", resp, err)
	}
	if err == nil {
		resp.Body.Close()
	}
	c.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	bound := tcp.Addr().String()
	for args, want := range map[string]string{
		"--listen tcp://127.0.0.1:1":          "it listens on " + bound + ", which is not an address of listen",
		"--workers 2 --listen tcp://" + bound: "cannot share those of LISTEN_FDS",
	} {
		out, err := start(args).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, %s", args, err, out)
		}
	}
}

// TestUnixSocketActivation: a unix socket of a service manager is listened on, and its
// file stays when this process ends, also as the successor of another.
func TestUnixSocketActivation(t *testing.T) {
	t.Parallel()
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hw") // short: the length of such a path is limited
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --ops off --listen unix://"$1"`,
		binary, path)
	cmd.ExtraFiles = []*os.File{f}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dial := func() {
		c, err := net.Dial("unix", path) // may wait in the backlog
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		beat(t, c)
	}
	dial()
	if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	lines, pid := bufio.NewScanner(log), 0
	for pid == 0 && lines.Scan() {
		if _, text, ok := strings.Cut(lines.Text(), "successor="); ok && strings.Contains(lines.Text(), "handed over") {
			_, _ = fmt.Sscan(text, &pid)
		}
	}
	if pid == 0 {
		t.Fatal("it was not handed over")
	}
	dial()
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // until both have ended
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
