//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownServer stands for a server whose process is this one.
func ownServer(t *testing.T) *server {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return &server{process: &process{cmd: &exec.Cmd{Process: self}}}
}

func sh(t *testing.T, ctx context.Context, onLine lineFunc, script string) *process {
	t.Helper()
	p, err := start(ctx, []int{0}, []string{"GREETING=hello"}, onLine, "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func TestProcess(t *testing.T) {
	var lines []string
	p := sh(t, t.Context(), func(l string) { lines = append(lines, l) },
		"echo $GREETING; echo oops >&2; grep Cpus_allowed_list /proc/self/status; exit 3")
	var exit *exec.ExitError
	if err := p.wait(t.Context()); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("%v", err)
	}
	if got := strings.Join(lines, "|"); got != "hello|oops|Cpus_allowed_list:\t0" {
		t.Errorf("%q", got)
	}
	if got := p.said(2); got != "oops | Cpus_allowed_list:\t0" {
		t.Errorf("%q", got)
	}
	if _, err := start(t.Context(), []int{0}, nil, nil, "/does/not/exist"); err == nil {
		t.Error("a program that does not exist is no error")
	}
	if _, err := start(t.Context(), []int{1000}, nil, nil, "/bin/true"); err == nil {
		t.Error("a processor that does not exist is no error")
	}
}

// TestKill checks that a process is killed with what it has started, when its
// time is up.
func TestKill(t *testing.T) {
	child := make(chan int, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	p := sh(t, ctx, func(l string) {
		if pid, err := strconv.Atoi(l); err == nil {
			child <- pid
		}
	}, "trap '' TERM; sleep 1000 & echo $!; wait")
	pid := <-child
	late := errors.New("too late")
	cancel(late)
	if err := p.wait(ctx); !errors.Is(err, late) {
		t.Errorf("%v", err)
	}
	// It has been killed, but the kernel may still be at it, and init may leave a
	// zombie. A child that lives fails the test by its time limit.
	for {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := start(ctx, nil, nil, nil, "/bin/true"); !errors.Is(err, late) {
		t.Errorf("something is started after the end: %v", err)
	}
}

// TestStop checks that even a process that has been stopped ends when asked to.
func TestStop(t *testing.T) {
	ready := make(chan struct{})
	p := sh(t, t.Context(), func(string) { close(ready) }, "trap 'exit 0' TERM; echo ready; "+
		"while :; do sleep 0.01; done")
	<-ready
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.stopWithin(20 * time.Second)
	if p.err != nil {
		t.Errorf("it had to be killed: %v", p.err)
	}
}

func TestServe(t *testing.T) {
	c := &contender{bin: "/bin/false", pkg: "x"}
	c.Name = "false"
	if _, err := serve(t.Context(), c, []int{0}, serving{}); err == nil ||
		!strings.Contains(err.Error(), "false did not start") {
		t.Errorf("%v", err)
	}
}

func TestForeign(t *testing.T) {
	b := &bench{opts: &options{serverCPUs: []int{0}, loadCPUs: []int{0}}}
	f := b.watchForeign(ownServer(t))
	time.Sleep(20 * time.Millisecond)
	figures := map[string]float64{}
	if err := f.judge(figures); err != nil && !errors.Is(err, errForeign) {
		t.Error(err)
	}
	for _, key := range []string{"foreign_server_cpu", "foreign_load_cpu"} {
		if v, ok := figures[key]; !ok || v < 0 || v > 100 {
			t.Errorf("%s is %v", key, v)
		}
	}
	b.opts.loose = true
	if err := f.judge(figures); err != nil {
		t.Errorf("a loose run is discarded: %s", err)
	}
}
