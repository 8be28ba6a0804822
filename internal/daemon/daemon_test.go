package daemon

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// limit is how long a test waits for something that has to happen.
const limit = time.Minute

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

func testSettings(t *testing.T, more map[string]string) *settings.Resolved {
	t.Helper()
	values := map[string]string{"listen": "tcp://127.0.0.1:0", "ops": "127.0.0.1:0"}
	for k, v := range more {
		values[k] = v
	}
	r, err := settings.Resolve(settings.FlagLayer(values))
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
		logger := slog.New(slog.NewTextHandler(log, nil))
		ended <- Run(testSettings(t, nil), logger, &handover.Inheritance{}, Process{Signals: signals})
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

// A signal to end does not wait for a JWK set that a reload fetches.
func TestSignalDuringReload(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	asked, released := make(chan struct{}, 1), make(chan struct{})
	keys := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-released
	}))
	defer keys.Close()
	release := sync.OnceFunc(func() { close(released) })
	defer release()
	log := make(lines, 1000)
	signals, reloads, ended := make(chan os.Signal, 1), make(chan os.Signal, 1), make(chan error, 1)
	next := testSettings(t, map[string]string{"auth": "jwt", "jwks": keys.URL})
	go func() {
		logger := slog.New(slog.NewTextHandler(log, nil))
		ended <- Run(testSettings(t, nil), logger, &handover.Inheritance{}, Process{
			Signals: signals, Reloads: reloads,
			Read:    func() *settings.File { return nil },
			Resolve: func(*settings.File) (*settings.Resolved, error) { return next, nil },
			SetLog:  func(*settings.Resolved) {},
		})
	}()
	log.wait(t, "msg=listening")
	reloads <- syscall.SIGHUP
	<-asked
	signals <- syscall.SIGTERM
	for end := time.After(limit); ; {
		select {
		case line := <-log:
			if strings.Contains(line, "reload") {
				t.Fatalf("the signal waited for the reload: %s", line)
			}
			continue
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-end:
			t.Error("it has not ended")
		}
		break
	}
	release()
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

	r := testSettings(t, map[string]string{"listen": "tcp://" + taken.Addr().String(), "ops": ops})
	err = Run(r, slog.New(slog.DiscardHandler), &handover.Inheritance{}, Process{})
	var failed *settings.Failure
	if !errors.As(err, &failed) || failed.Logged {
		t.Fatalf("%v", err)
	}
	if c, err := net.DialTimeout("tcp", ops, limit); err == nil {
		c.Close()
		t.Error("ops still listens")
	}
}
