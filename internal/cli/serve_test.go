package cli

import (
	"bytes"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// A lines is a log whose lines can be waited for.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// wait returns the first line with text in it, and drops those before it.
func (l lines) wait(t *testing.T, text string) string {
	t.Helper()
	for end := time.After(limit); ; {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return line
			}
		case <-end:
			t.Fatalf("no line with %q", text)
		}
	}
}

// addr cuts the address out of a line.
func addr(t *testing.T, line string) string {
	t.Helper()
	_, rest, ok := strings.Cut(line, " addr=")
	if !ok {
		t.Fatalf("no addr in %q", line)
	}
	a, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return a
}

func testSettings(t *testing.T, more map[string]any) *resolved {
	t.Helper()
	values := map[string]any{"listen": "tcp://127.0.0.1:0", "ops": "127.0.0.1:0"}
	for k, v := range more {
		values[k] = v
	}
	r, err := resolve(flagLayer(values))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServeLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	log := make(lines, 1000)
	signals := make(chan os.Signal, 1)
	ended := make(chan error, 1)
	go func() {
		v := &serving{signals: signals}
		ended <- serve(testSettings(t, nil), slog.New(slog.NewTextHandler(log, nil)), &inheritance{}, v)
	}()

	ops := addr(t, log.wait(t, `msg="ops listening"`))
	listen := addr(t, log.wait(t, "msg=listening"))
	c, err := net.DialTimeout("tcp", listen, limit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	beat(t, c)

	c.Close()
	signals <- syscall.SIGTERM
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(limit):
		t.Fatal("it has not ended")
	}
	for _, a := range []string{ops, listen} {
		if c, err := net.DialTimeout("tcp", a, limit); err == nil {
			c.Close()
			t.Errorf("%s still listens", a)
		}
	}
}

// beat sends an empty frame and waits for it to come back.
func beat(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	got := []byte("none")
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, make([]byte, 4)) {
		t.Fatalf("got % x, %v", got, err)
	}
}

// TestFailedStartClosesOps: what was opened before the failure is closed.
func TestFailedStartClosesOps(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0") // a port that was free a moment ago
	if err != nil {
		t.Fatal(err)
	}
	ops := free.Addr().String()
	free.Close()

	r := testSettings(t, map[string]any{"listen": "tcp://" + taken.Addr().String(), "ops": ops})
	err = serve(r, slog.New(slog.DiscardHandler), &inheritance{}, &serving{})
	var failed *failure
	if !errors.As(err, &failed) || failed.logged {
		t.Fatalf("%v", err)
	}
	if c, err := net.DialTimeout("tcp", ops, limit); err == nil {
		c.Close()
		t.Error("ops still listens")
	}
}

// TestLogReaderGone: a broken pipe behind the log costs no connection.
func TestLogReaderGone(t *testing.T) {
	path, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", "--listen", "tcp://127.0.0.1:0", "--ops", "off", "--drain", "10m")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the state is read below
		close(ended)
	}()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended
	}()
	if err := r.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	text, buf := "", make([]byte, 4096)
	for !strings.Contains(text, "msg=listening") || !strings.HasSuffix(text, "\n") {
		n, err := r.Read(buf)
		if err != nil {
			t.Fatal(err, text)
		}
		text += string(buf[:n])
	}
	c, err := net.DialTimeout("tcp", addr(t, text), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	beat(t, c)

	// The reader goes; the drain writes a line into the broken pipe. The
	// connection lives until we end it, and so does the process.
	r.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.Close()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Fatal("it has not ended")
	}
	if code := cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("ended with %s", cmd.ProcessState)
	}
}

func TestOpsLimits(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	o, err := listenOps("127.0.0.1:0", nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begun, given := make(chan struct{}), make(chan struct{})
	o.serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(given)
	}))
	if o.http.ReadHeaderTimeout == 0 || o.http.ReadTimeout == 0 || o.http.WriteTimeout == 0 || o.http.IdleTimeout == 0 {
		t.Error("a timeout is missing")
	}
	if o.http.ErrorLog == nil {
		t.Error("errors go to another log")
	}
	resp, err := http.Get("http://" + o.ln.Addr().String() + "/" + strings.Repeat("x", 64<<10))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %s", resp.Status)
	}

	// A request that does not end does not hold up the end.
	c, err := net.DialTimeout("tcp", o.ln.Addr().String(), limit)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for _, step := range []func(){func() { <-begun }, o.close, func() { <-given }} {
		done := make(chan struct{})
		go func() {
			step()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(limit):
			t.Fatal("the request holds up the end")
		}
	}
}

func TestLogger(t *testing.T) {
	for level, want := range map[string]string{"debug": "diwe", "info": "iwe", "warn": "we", "error": "e"} {
		for format, first := range map[string]string{"text": "time=", "json": "{"} {
			var b bytes.Buffer
			log := newLogger(&b, format, level)
			log.Debug("d")
			log.Info("i")
			log.Warn("w")
			log.Error("e")
			if got := strings.Count(b.String(), "\n"); got != len(want) || !strings.HasPrefix(b.String(), first) {
				t.Errorf("level %s as %s wrote %q", level, format, b.String())
			}
		}
	}
}

// A failingListener fails as many accepts as it has errors.
type failingListener struct {
	net.Listener
	errs chan error
}

func (l failingListener) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
	default:
		return l.Listener.Accept()
	}
}

// The listener of the ops address outlives every failure of accept, and ends
// when it is closed.
func TestOpsAcceptFails(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	failing := failingListener{ln, make(chan error, 4)}
	for _, err := range []error{syscall.ENOBUFS, syscall.ENOMEM, syscall.ENFILE, syscall.EPERM} {
		failing.errs <- err
	}
	srv := http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(patientListener{failing}) }()
	client := &http.Client{Timeout: limit, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + ln.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if len(failing.errs) != 0 {
		t.Errorf("%d accepts have not failed yet", len(failing.errs))
	}
	ln.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("ended with %v", err)
	}
}
