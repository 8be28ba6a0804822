package loadtest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"heartwheel/loadtest/engine"
)

// An ownServer is a server process that the run has started.
type ownServer struct {
	cmd   *exec.Cmd
	addr  string // HOST:PORT for clients
	ops   string // HOST:PORT for metrics; empty: off
	log   *engine.LogTail
	ended chan struct{}
	err   error // valid after ended
}

// serveFlags are the flags of the run's own server after --listen, --ops and
// --log-format.
func (p *Plan) serveFlags() []string {
	if p.Serve != "" {
		return strings.Fields(p.Serve)
	}
	if p.Mode == modeBeat && p.Interval > 5*time.Second { // T of profile fast is 7.5 s
		return []string{"--beat", p.Interval.String()}
	}
	return []string{"--profile", "fast"}
}

// startTime bounds the time until the server listens.
const startTime = 15 * time.Second

// startServer starts a server. command makes the command line of this program from
// arguments.
func startServer(flags []string, command func(args ...string) *exec.Cmd) (*ownServer, error) {
	args := append([]string{"serve", "--listen", "tcp://127.0.0.1:0", "--ops", "127.0.0.1:0", "--log-format", "json"},
		flags...)
	s := &ownServer{cmd: command(args...), log: &engine.LogTail{}, ended: make(chan struct{})}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // signals from the terminal are for the run
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start a server: %w", err)
	}
	listening := make(chan struct{})
	go s.read(stderr, listening)
	select {
	case <-listening:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("the server (heartwheel %s) did not start: %s", strings.Join(args, " "), s.log.Last())
	case <-time.After(startTime):
		s.stop()
		return nil, fmt.Errorf("the server (heartwheel %s) did not listen within %s", strings.Join(args, " "),
			startTime)
	}
}

// read follows the server's log until it ends. It closes listening once the addresses
// are known: ops, which may be off, is logged first.
func (s *ownServer) read(log io.Reader, listening chan<- struct{}) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		var line struct{ Msg, Addr string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && s.addr == "" {
			switch line.Msg {
			case "ops listening":
				s.ops = line.Addr
			case "listening":
				s.addr = line.Addr
				close(listening)
			}
		}
		_, _ = s.log.Write(append(lines.Bytes(), '\n'))
	}
	_, _ = io.Copy(io.Discard, log) // after a line that is too long
	s.err = s.cmd.Wait()
	if s.err == nil {
		s.err = errors.New("exit status 0")
	}
	close(s.ended)
}

// stop ends the server and waits for it.
func (s *ownServer) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.ended
	}
}
