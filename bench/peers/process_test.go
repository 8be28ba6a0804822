//go:build linux

package peers

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heartwheel/bench/peers/peer"
)

// A subject is a server that is tested.
type subject struct {
	name     string
	dir      string   // main package; empty: it is peers/NAME
	flags    []string // beside those of the contract
	deadline bool     // it notices silent peers
	early    bool     // up to a tick before the timeout
	drops    bool     // empty messages do not reach its handler
	real     bool     // heartwheel: no contract, and it closes slow consumers
}

var subjects = []subject{
	{name: "heartwheel", dir: "../..", deadline: true, real: true},
	{name: "epoll"},
	{name: "gnet"},
	{name: "evio"},
	{name: "gnet-timingwheel", deadline: true, early: true},
	{name: "gnet-timer", deadline: true},
	{name: "nbio", deadline: true},
	{name: "netpoll", deadline: true},
	{name: "goroutine", deadline: true},
	{name: "goroutine-512", dir: "goroutine", flags: []string{"-buffer", "512"}, deadline: true},
	{name: "netty", deadline: true},
}

// scratch holds the binaries; TestMain makes, fills and removes it.
var scratch string

// absent has the subjects that cannot run here, and why.
var absent = map[string]string{}

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "peers"); err == nil {
		defer os.RemoveAll(scratch)
		err = build()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// sources looks at every source, as go test would not know else that a result
// which it has kept is out of date. It sees only what is looked at in a test.
var sources = sync.OnceValue(func() error {
	return filepath.WalkDir("../..", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && slices.Contains([]string{".go", ".java", ".mod"}, filepath.Ext(name)) {
			_, err = os.Stat(name)
		}
		return err
	})
})

func build() error {
	for _, s := range slices.Concat(subjects, webSockets, secure) {
		dir := s.dir
		if dir == "" {
			dir = s.name
		}
		if out, err := exec.Command("go", "build", "-C", dir, "-o", s.binary(), ".").CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", dir, err, out)
		}
		if s.name == "netty" {
			if out, err := exec.Command(s.binary(), "-check").CombinedOutput(); err != nil {
				absent[s.name] = strings.TrimSpace(string(out))
			}
		}
	}
	return nil
}

func (s subject) binary() string { return filepath.Join(scratch, s.name) }

// each runs a test with every server.
func each(t *testing.T, f func(t *testing.T, s subject)) {
	for _, s := range subjects {
		t.Run(s.name, func(t *testing.T) {
			if why := absent[s.name]; why != "" {
				t.Skip(why)
			}
			t.Parallel()
			f(t, s)
		})
	}
}

// A server is a process.
type server struct {
	cmd    *exec.Cmd
	addr   string
	lines  chan string // what it writes; closed when it has ended
	stderr bytes.Buffer
}

// start starts a server that the end of the test stops, which has to exit 0.
func start(t *testing.T, s subject, timeout time.Duration) *server {
	t.Helper()
	if err := sources(); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-addr", "127.0.0.1:0", "-timeout", timeout.String()}, s.flags...)
	if s.real {
		args = []string{"serve", "--listen", "tcp://127.0.0.1:0", "--ops", "off",
			"--log-format", "json", "--drain", "100ms",
			"--beat", (timeout * 2 / 5).String(), "--timeout", timeout.String()}
	}
	p := &server{cmd: exec.Command(s.binary(), args...), lines: make(chan string, 100)}
	var out io.Reader
	var err error
	if s.real {
		out, err = p.cmd.StderrPipe()
	} else {
		p.cmd.Stderr = &p.stderr
		out, err = p.cmd.StdoutPipe()
	}
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.lines <- scan.Text()
		}
	}()
	t.Cleanup(func() { p.stop(t) })
	for p.addr == "" {
		p.hear(p.line(t))
	}
	return p
}

// hear takes the address from a line that has it.
func (p *server) hear(line string) {
	if addr, ok := strings.CutPrefix(line, "listening "); ok {
		p.addr = addr
	}
	var log struct{ Msg, Addr string } // heartwheel's
	if json.Unmarshal([]byte(line), &log) == nil && log.Msg == "listening" {
		p.addr = log.Addr
	}
}

// line waits for the next line.
func (p *server) line(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			t.Fatal("the server has ended")
		}
		return line
	case <-time.After(limit):
		t.Fatalf("not a word for %s", limit)
	}
	return ""
}

func (p *server) figures(t *testing.T) (f peer.Figures) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	line := p.line(t)
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return f
}

func (p *server) stop(t *testing.T) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	kill := time.AfterFunc(limit, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	for range p.lines {
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("ended with %v: %s", err, p.stderr.String())
	}
}
