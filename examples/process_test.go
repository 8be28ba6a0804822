package examples

import (
	"bufio"
	"encoding/json"
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

// A process is a running command, with what it has written so far.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	exited chan struct{} // closed when it has ended and all of it is read

	mu       sync.Mutex
	out, err []string      // guarded by mu: lines of stdout and stderr
	more     chan struct{} // guarded by mu: closed and replaced at each line
}

// start starts a command. The test's end kills it.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return startCmd(t, exec.Command(name, args...))
}

func startCmd(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, exited: make(chan struct{}), more: make(chan struct{})}
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HEARTWHEEL_") })
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var readers sync.WaitGroup
	readers.Go(func() { p.follow(stdout, &p.out) })
	readers.Go(func() { p.follow(stderr, &p.err) })
	go func() {
		readers.Wait()
		_ = p.cmd.Wait() // the state says what came of it
		close(p.exited)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("%s wrote\n%s", strings.Join(p.cmd.Args, " "), strings.Join(p.err[max(0, len(p.err)-30):], "\n"))
		}
	})
	return p
}

func (p *process) follow(r io.Reader, lines *[]string) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		p.mu.Lock()
		*lines = append(*lines, scanner.Text())
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, r)
}

// await waits for n lines with text in them and returns the last of these.
func (p *process) await(lines *[]string, text string, n int) string {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		p.mu.Lock()
		found := slices.DeleteFunc(slices.Clone(*lines), func(line string) bool {
			return !strings.Contains(line,
				text)
		})
		more := p.more
		p.mu.Unlock()
		if len(found) >= n {
			return found[n-1]
		}
		select {
		case <-more:
			continue
		case <-p.exited:
			p.mu.Lock()
			late := len(slices.DeleteFunc(slices.Clone(*lines),
				func(line string) bool { return !strings.Contains(line, text) }))
			p.mu.Unlock()
			if late >= n {
				continue
			}
			p.t.Fatalf("it ended (%s) with %q %d times, not %d", p.cmd.ProcessState, text, late, n)
		case <-timeout:
			p.t.Fatalf("%q came %d times within %s, not %d", text, len(found), limit, n)
		}
	}
}

// awaitAny waits for a line on stdout or stderr that has one of texts in it.
func (p *process) awaitAny(texts ...string) string {
	p.t.Helper()
	timeout := time.After(limit)
	for exited := false; ; {
		p.mu.Lock()
		lines, more := slices.Concat(p.out, p.err), p.more
		p.mu.Unlock()
		for _, line := range lines {
			for _, text := range texts {
				if strings.Contains(line, text) {
					return line
				}
			}
		}
		if exited {
			p.t.Fatalf("it ended (%s) without %q", p.cmd.ProcessState, texts)
		}
		select {
		case <-more:
		case <-p.exited:
			exited = true
		case <-timeout:
			p.t.Fatalf("none of %q within %s", texts, limit)
		}
	}
}

// write writes a line to its stdin.
func (p *process) write(line string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.stdin, line); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// wait returns the exit code, -1 if a signal ended it.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(limit):
		p.t.Fatalf("it has not ended within %s", limit)
	}
	return p.cmd.ProcessState.ExitCode()
}

// startClient starts an example client. hello may be empty.
func startClient(t testing.TB, l language, addr, hello string) *process {
	t.Helper()
	interpreter, _, err := l.find()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{l.file, addr}
	if hello != "" {
		args = append(args, hello)
	}
	return start(t, interpreter, args...)
}

// A serverProcess is a running heartwheel serve.
type serverProcess struct {
	*process
	addr, ops string
}

// startServer starts the built server on addr and returns when it listens.
func startServer(t testing.TB, addr string, args ...string) *serverProcess {
	t.Helper()
	binary, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(addr, "://") {
		addr = "tcp://" + addr
	}
	args = append([]string{"serve", "--listen", addr, "--ops", "127.0.0.1:0", "--log-format", "json"},
		args...)
	s := &serverProcess{process: start(t, binary, args...)}
	for msg, to := range map[string]*string{`"msg":"listening"`: &s.addr, `"msg":"ops listening"`: &s.ops} {
		var fields struct{ Addr string }
		if err := json.Unmarshal([]byte(s.await(&s.err, msg, 1)), &fields); err != nil {
			t.Fatal(err)
		}
		*to = fields.Addr
	}
	return s
}

// metrics reads /metrics: values by name with labels, as they are written there.
func (s *serverProcess) metrics() map[string]float64 {
	s.t.Helper()
	body, err := get("http://" + s.ops + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	m := map[string]float64{}
	for line := range strings.Lines(body) {
		var name string
		var v float64
		if n, _ := fmt.Sscan(line, &name, &v); n == 2 && name != "#" {
			m[name] = v
		}
	}
	return m
}

// awaitMetric reads /metrics until a value is at least v.
func (s *serverProcess) awaitMetric(name string, v float64) map[string]float64 {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		m := s.metrics()
		if m[name] >= v {
			return m
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s is %v after %s, not %v", name, m[name], limit, v)
		}
	}
}

func get(url string) (string, error) {
	resp, err := (&http.Client{Timeout: limit}).Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(b), err
}
