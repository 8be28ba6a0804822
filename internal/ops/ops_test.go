package ops

import (
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
