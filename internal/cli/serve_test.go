package cli

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/internal/logging"
)

// addr returns the address in a log line.
func addr(t *testing.T, line string) string {
	t.Helper()
	_, rest, ok := strings.Cut(line, " addr=")
	if !ok {
		t.Fatalf("no addr in %q", line)
	}
	a, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return a
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

// TestLogReaderGone checks that a broken pipe of the log closes no connection.
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

	// The drain logs a line into the broken pipe. The connection stays open until
	// the test closes it, and the process runs until then.
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

func TestLogger(t *testing.T) {
	for level, want := range map[string]string{"debug": "diwe", "info": "iwe", "warn": "we", "error": "e"} {
		for format, first := range map[string]string{"text": "time=", "json": "{"} {
			var b bytes.Buffer
			h := logging.NewHandler(&b)
			h.Set(format, level)
			log := slog.New(h)
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
