package faults

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A serverProcess is a running heartwheel serve, and after a hand-over those
// that have taken over from it: they share its addresses and its log.
type serverProcess struct {
	// Static after start.
	t         testing.TB
	cmd       *exec.Cmd
	addr, ops string            // addr is the first that it listens on
	addrs     map[string]string // all of them, by scheme
	http      *http.Client      // reaches ops
	started   time.Time         // just before the process was
	listening time.Time         // when its first line was read

	mu  sync.Mutex
	log []logLine // guarded by mu

	ended  chan struct{} // closed when the process that was started has ended
	exited chan struct{} // closed when its successors have too and the log is read
}

// A logLine is one line of its log, and when it was read here.
type logLine struct {
	text string
	msg  string
	addr string
	time time.Time // by the server's clock; zero if the line is not JSON
	read time.Time // by ours

	pid              int // of the writer, where several write; else 0
	successor        int
	took             string
	accepted, closed uint64
}

// warns reports whether a line is an unexpected warning or error. A server that
// may have been held up for late may have replaced its timing wheel for that.
func (l logLine) warns(late time.Duration) bool {
	if l.msg == "wheel: timing wheel replaced" && late >= lateTicks*tick {
		return false
	}
	return l.msg == "" || strings.Contains(l.text, `"level":"ERROR"`) || strings.Contains(l.text, `"level":"WARN"`)
}

// ordinaryEnv is our environment without what would change a server.
func ordinaryEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "HEARTWHEEL_") || strings.HasPrefix(kv, "FAULTS_")
	})
}

// serverArgs are the arguments of a server that takes free ports, if none is named.
func serverArgs(args ...string) []string {
	if !slices.Contains(args, "--listen") {
		args = append([]string{"--listen", "tcp://127.0.0.1:0"}, args...)
	}
	return append([]string{"serve", "--ops", "127.0.0.1:0", "--log-format", "json"}, args...)
}

// startServer starts the built command as a server on free ports.
func startServer(t testing.TB, binary string, args ...string) *serverProcess {
	t.Helper()
	return startCommand(t, exec.Command(binary, serverArgs(args...)...))
}

// startCommand starts a command that becomes a server, and returns when that
// listens. The test's end kills it.
func startCommand(t testing.TB, cmd *exec.Cmd) *serverProcess {
	t.Helper()
	transport := &http.Transport{} // of its own, as other tests close their idle connections
	t.Cleanup(transport.CloseIdleConnections)
	s := &serverProcess{t: t, cmd: cmd, addrs: map[string]string{},
		http:  &http.Client{Timeout: limit, Transport: transport},
		ended: make(chan struct{}), exited: make(chan struct{})}
	cmd.Env = append(ordinaryEnv(), cmd.Env...)
	stderr, w, err := os.Pipe() // not StderrPipe, which ends with the first process
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	ready := make(chan struct{})
	s.started = time.Now()
	err = cmd.Start()
	w.Close()
	if err != nil {
		stderr.Close()
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the state says what came of it
		close(s.ended)
	}()
	go s.follow(stderr, ready)
	t.Cleanup(func() {
		if group := cmd.SysProcAttr; group != nil && group.Setpgid {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		_ = cmd.Process.Kill()
		<-s.exited
		if t.Failed() {
			t.Logf("log of %s:\n%s", strings.Join(cmd.Args, " "), s.logText())
		}
	})
	select {
	case <-ready:
	case <-s.exited:
		t.Fatalf("the server ended at once: %s", cmd.ProcessState)
	case <-time.After(limit):
		t.Fatal("the server does not listen")
	}
	return s
}

// follow reads the log until every process has ended, and closes ready once
// both addresses are known.
func (s *serverProcess) follow(stderr io.ReadCloser, ready chan struct{}) {
	defer close(s.exited)
	defer stderr.Close()
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	known, listens, wanted := false, 0, 0
	for _, arg := range s.cmd.Args {
		if arg == "--listen" {
			wanted++
		}
	}
	wanted = max(wanted, 1)
	for lines.Scan() {
		line := logLine{text: lines.Text(), read: time.Now()}
		var fields struct {
			Time             time.Time
			Msg, Addr, Took  string
			Scheme           string
			PID, Successor   int
			Accepted, Closed uint64
		}
		if json.Unmarshal(lines.Bytes(), &fields) == nil {
			line.time, line.msg, line.addr, line.took = fields.Time, fields.Msg, fields.Addr, fields.Took
			line.pid, line.successor, line.accepted, line.closed = fields.PID, fields.Successor,
				fields.Accepted, fields.Closed
		}
		s.mu.Lock()
		s.log = append(s.log, line)
		s.mu.Unlock()
		if known {
			continue
		}
		if s.listening.IsZero() {
			s.listening = line.read
		}
		switch line.msg {
		case "listening":
			s.addr = cmp.Or(s.addr, line.addr)
			s.addrs[fields.Scheme] = line.addr
			listens++
		case "ops listening":
			s.ops = line.addr
		}
		if known = listens >= wanted && s.ops != ""; known {
			close(ready)
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // after a line that is too long
	<-s.ended
}

func (s *serverProcess) logLines() []logLine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// awaitLine returns the first line after the first skip ones that is as wanted.
func (s *serverProcess) awaitLine(what string, skip int, wanted func(logLine) bool) logLine {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		all := s.logLines()
		if i := slices.IndexFunc(all[skip:], wanted); i >= 0 {
			return all[skip+i]
		}
		if time.Now().After(end) {
			s.t.Fatalf("the log does not say within %s: %s", limit, what)
		}
	}
}

// logText is the end of the log.
func (s *serverProcess) logText() string {
	lines := s.logLines()
	var b strings.Builder
	for _, line := range lines[max(0, len(lines)-50):] {
		fmt.Fprintln(&b, line.text)
	}
	return b.String()
}

func (s *serverProcess) pid() int { return s.cmd.Process.Pid }

// stop sends a signal and returns the exit code, -1 if a signal ended it.
func (s *serverProcess) stop(sig syscall.Signal) int {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(limit):
		s.t.Fatalf("the server has not ended %s after %s", limit, sig)
	}
	return s.cmd.ProcessState.ExitCode()
}

// get asks the ops address. The body is read whole.
func (s *serverProcess) get(path string) (status int, body string, err error) {
	resp, err := s.http.Get("http://" + s.ops + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// metrics reads /metrics.
func (s *serverProcess) metrics() metrics {
	s.t.Helper()
	status, body, err := s.get("/metrics")
	if err == nil && status != http.StatusOK {
		err = errors.New(http.StatusText(status))
	}
	var m metrics
	if err == nil {
		m, err = parseMetrics(body)
	}
	if err != nil {
		s.t.Fatalf("/metrics: %v", err)
	}
	return m
}

// await reads /metrics until ok. It fails the test when that does not come.
func (s *serverProcess) await(what string, ok func(m metrics) bool) metrics {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		m := s.metrics()
		if ok(m) {
			return m
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within %s; the server says\n%s", what, limit, m.ours())
		}
	}
}

// check has the server re-derive its invariants.
func (s *serverProcess) check() {
	s.t.Helper()
	status, body, err := s.get("/debug/check")
	if err != nil || status != http.StatusOK {
		s.t.Errorf("/debug/check: %d %v %s", status, err, body)
	}
}
