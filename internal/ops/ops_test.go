package ops

import (
	"bytes"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// limit is how long a test waits for something that has to happen.
const limit = time.Minute

func TestOpsLimits(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	defer http.DefaultClient.CloseIdleConnections()
	o, err := Listen("127.0.0.1:0", nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	begun, given := make(chan struct{}), make(chan struct{})
	o.Serve(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
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
	for _, step := range []func(){func() { <-begun }, o.Close, func() { <-given }} {
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
	go func() { ended <- srv.Serve(retryListener{failing}) }()
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

// TestConnectionLimit: with maxConns open, one more waits until one of them
// closes, and does not keep the server from ending.
func TestConnectionLimit(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	o, err := Listen("127.0.0.1:0", nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o.Serve(http.NotFoundHandler())
	dial := func() net.Conn {
		c, err := net.DialTimeout("tcp", o.ln.Addr().String(), limit)
		if err == nil {
			_, err = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	answered := func(c net.Conn, within time.Duration) bool {
		_ = c.SetReadDeadline(time.Now().Add(within))
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	}
	var conns []net.Conn
	for i := range maxConns {
		c := dial()
		defer c.Close()
		if !answered(c, limit) {
			t.Fatalf("connection %d is not answered", i+1)
		}
		conns = append(conns, c)
	}
	more, last := dial(), dial()
	defer more.Close()
	defer last.Close()
	if answered(more, 200*time.Millisecond) {
		t.Errorf("%d connections are served at one time", maxConns+1)
	}
	conns[0].Close()
	if !answered(more, limit) {
		t.Error("the connection that waited is not answered once another has ended")
	}
	o.Close()
	if o.http.IdleTimeout > 15*time.Second {
		t.Errorf("a connection may be idle for %s", o.http.IdleTimeout)
	}
}

// TestOpenWarning: an ops address that other machines reach is warned of.
func TestOpenWarning(t *testing.T) {
	for addr, want := range map[string]bool{"127.0.0.1:0": false, "localhost:0": false, "0.0.0.0:0": true, ":0": true} {
		var log bytes.Buffer
		o, err := Listen(addr, nil, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		o.Serve(http.NotFoundHandler())
		o.Close()
		if got := strings.Contains(log.String(), "level=WARN msg=\"the ops address is open"); got != want {
			t.Errorf("%s: warned is %v, want %v\n%s", addr, got, want, log.String())
		}
	}
}
