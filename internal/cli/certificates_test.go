package cli

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"heartwheel/internal/testcert"
)

// A served is a heartwheel with TLS that writes its log here.
type served struct {
	t       *testing.T
	cmd     *exec.Cmd
	ca      *testcert.Authority
	tls     string // addresses
	wss     string
	logDone chan struct{}

	mu  sync.Mutex
	log []string // guarded by mu
}

// await returns the groups of the n-th line of the log that matches.
func (s *served) await(n int, re string) []string {
	s.t.Helper()
	line := regexp.MustCompile(re)
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		s.mu.Lock()
		var found [][]string
		for _, text := range s.log {
			if m := line.FindStringSubmatch(text); m != nil {
				found = append(found, m)
			}
		}
		all := strings.Join(s.log, "\n")
		s.mu.Unlock()
		if len(found) >= n {
			return found[n-1]
		}
		if time.Now().After(end) {
			s.t.Fatalf("the log has no %d lines like %s:\n%s", n, re, all)
		}
	}
}

func (s *served) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *served) dialTLS() (c *tls.Conn, end time.Time) {
	s.t.Helper()
	d := &net.Dialer{Timeout: limit}
	c, err := tls.DialWithDialer(d, "tcp", s.tls, &tls.Config{RootCAs: s.ca.Pool, ServerName: "localhost"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	return c, c.ConnectionState().PeerCertificates[0].NotAfter
}

func (s *served) dialWSS() *websocket.Conn {
	s.t.Helper()
	d := websocket.Dialer{HandshakeTimeout: limit,
		TLSClientConfig: &tls.Config{RootCAs: s.ca.Pool, ServerName: "localhost"}}
	c, resp, err := d.Dial("wss://"+s.wss+"/live", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	s.t.Cleanup(func() { c.Close() })
	return c
}

// echo wants back what it sends. A draining server may send GOAWAY first.
func echo(t *testing.T, c *websocket.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	if err := c.WriteMessage(websocket.BinaryMessage, []byte("\x03hello")); err != nil {
		t.Fatal(err)
	}
	for {
		_, b, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if string(b) == "\x03hello" {
			return
		}
	}
}

// TestCertificatesOfTheCommand: replaced files are in force after SIGHUP, for new
// handshakes, and no connection is lost; wrong ones are one line and change nothing;
// SIGUSR2 keeps the connections that are there. The same with workers.
func TestCertificatesOfTheCommand(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{"alone": nil, "workers": {"--workers", "2"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := testcert.New(t)
			first := time.Now().Add(100 * 24 * time.Hour).Truncate(time.Second)
			second := first.Add(24 * time.Hour)
			cert, key := ca.IssueUntil(t, first, "site", "localhost")
			s := serveTLS(t, ca, cert, key, args)
			plain, end := s.dialTLS()
			old := s.dialWSS()
			if !end.Equal(first) {
				t.Errorf("the certificate ends at %s, want %s", end, first)
			}

			ca.IssueUntil(t, second, "site", "localhost")
			s.signal(syscall.SIGHUP)
			s.await(1, `msg="settings reloaded"`)
			if _, end := s.dialTLS(); !end.Equal(second) {
				t.Errorf("after a reload the certificate ends at %s, want %s", end, second)
			}
			beat(t, plain)
			echo(t, old)

			good, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(key, []byte("nothing"), 0o600); err != nil {
				t.Fatal(err)
			}
			s.signal(syscall.SIGHUP)
			s.await(1, `level=ERROR .*msg="reload failed: nothing has changed" .*error=.*tls-key.*is not in PEM`)
			if _, end := s.dialTLS(); !end.Equal(second) {
				t.Errorf("after a failed reload the certificate ends at %s", end)
			}
			beat(t, plain)
			echo(t, old)
			if err := os.WriteFile(key, good, 0o600); err != nil {
				t.Fatal(err)
			}

			s.signal(syscall.SIGUSR2)
			if args == nil {
				s.await(1, `msg="handed over"`)
			} else {
				s.await(1, `msg="worker replaced"`)
			}
			s.dialTLS()
			next := s.dialWSS()
			echo(t, next)
			echo(t, old)
			old.Close()
			plain.Close()
			echo(t, next)
			s.mu.Lock()
			defer s.mu.Unlock()
			failures := 0
			for _, line := range s.log {
				if strings.Contains(line, "level=ERROR") {
					failures++
				}
			}
			if failures != 1 {
				t.Errorf("%d lines of errors:\n%s", failures, strings.Join(s.log, "\n"))
			}
		})
	}
}

func serveTLS(t *testing.T, ca *testcert.Authority, cert, key string, args []string) *served {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f.yaml")
	text := fmt.Sprintf("ops: off\ndrain: 10m\ntls-cert: %s\ntls-key: %s\nlisteners:\n"+
		"- listen: tls://127.0.0.1:0\n- listen: wss://127.0.0.1:0/live\n  origin: '*'\n", cert, key)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	binary, err := exec.LookPath("heartwheel")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, ca: ca, logDone: make(chan struct{})}
	s.cmd = exec.Command(binary, append([]string{"serve", "--config", file}, args...)...)
	s.cmd.Env = []string{}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // for its successors too
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		defer close(s.logDone)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			s.mu.Lock()
			s.log = append(s.log, lines.Text())
			s.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
		_ = s.cmd.Wait()
		<-s.logDone
		r.Close()
	})
	s.tls = s.await(1, `msg=listening addr=(\S+)`)[1]
	s.wss = s.await(2, `msg=listening addr=(\S+)`)[1]
	return s
}
