//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopTime is how long a child may take to end when asked to.
const stopTime = 5 * time.Second

// A process is a child, pinned to processors, in a group of its own. It is
// killed with everything it started when the harness ends, however that happens.
type process struct {
	cmd   *exec.Cmd
	name  string
	ended chan struct{}
	err   error // valid after ended

	mu   sync.Mutex // guards last
	last []string   // the last lines that it wrote
}

// A lineFunc gets every line that a process writes. It must not block.
type lineFunc func(line string)

// start starts a command on the processors. Lines of its standard output and
// standard error go to onLine, which may be nil.
func start(
	ctx context.Context, cpus []int, env []string, onLine lineFunc, name string, args ...string,
) (*process, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	p := &process{cmd: exec.Command(name, args...), name: name, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	err = startPinned(p.cmd, cpus)
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	read := make(chan struct{})
	go func() { p.read(r, onLine); close(read) }()
	go func() {
		p.err = p.cmd.Wait()
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // whatever it has left behind
		<-read
		close(p.ended)
	}()
	return p, nil
}

// startPinned starts cmd with the affinity. A child inherits it from the thread
// that forks, which has its own back afterwards.
func startPinned(cmd *exec.Cmd, cpus []int) error {
	if len(cpus) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return err
	}
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to processors %v: %w", cpus, err)
	}
	return errors.Join(cmd.Start(), unix.SchedSetaffinity(0, &old))
}

func (p *process) read(r io.ReadCloser, onLine lineFunc) {
	defer r.Close()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		if p.last = append(p.last, line); len(p.last) > 40 {
			p.last = p.last[1:]
		}
		p.mu.Unlock()
		if onLine != nil {
			onLine(line)
		}
	}
	_, _ = io.Copy(io.Discard, r) // after a line that is too long
}

// said is the last few lines that it wrote, in one.
func (p *process) said(n int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.last[max(0, len(p.last)-n):], " | ")
}

// wait waits until the process has ended, and kills it when ctx is done. The
// error is that of the process, or the cause of ctx.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.ended:
		return p.err
	case <-ctx.Done():
		p.kill()
		return context.Cause(ctx)
	}
}

func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
}

// stop ends the process with SIGTERM, or kills it after stopTime.
func (p *process) stop() { p.stopWithin(stopTime) }

func (p *process) stopWithin(most time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(most):
		p.kill()
	}
}

// A resident is the resident memory of a process, in bytes.
type resident struct {
	all  int64
	anon int64 // without code and other pages of files, which are shared and may go
}

func residentOf(pid int) (resident, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return resident{}, err
	}
	return parseStatus(string(text))
}

// parseStatus reads /proc/PID/status: proc(5).
func parseStatus(text string) (r resident, err error) {
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		switch name {
		case "VmRSS":
			r.all, err = strconv.ParseInt(kb, 10, 64)
		case "RssAnon":
			r.anon, err = strconv.ParseInt(kb, 10, 64)
		}
		if err != nil {
			return r, fmt.Errorf("/proc/PID/status: %w", err)
		}
	}
	if r.all == 0 || r.anon == 0 {
		return r, errors.New("/proc/PID/status has no VmRSS or no RssAnon")
	}
	return resident{r.all << 10, r.anon << 10}, nil
}
