package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// A chain is a server that is replaced by hand-overs, and its successors.
type chain struct {
	*serverProcess
	path string // of its binary, which tests replace
	pids []int  // in the order in which they served
}

// startChain starts a copy of the binary. What it leaves behind becomes a
// child of this process, so that its exit code can be had.
func startChain(t *testing.T, args ...string) *chain {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	c := &chain{path: filepath.Join(t.TempDir(), "heartwheel")}
	c.install(t, binary(t))
	cmd := exec.Command(c.path, serverArgs(args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.serverProcess = startCommand(t, cmd)
	c.pids = []int{c.pid()}
	return c
}

// install puts a copy of a file in the place of the server's binary.
func (c *chain) install(t *testing.T, from string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		c.installText(t, string(content))
	} else {
		t.Fatal(err)
	}
}

func (c *chain) installText(t *testing.T, content string) {
	t.Helper()
	// A process that another test starts would hold the file open for writing until
	// it is executed, and nothing could start it meanwhile (ETXTBSY).
	syscall.ForkLock.RLock()
	err := os.WriteFile(c.path+".new", []byte(content), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.path+".new", c.path); err != nil {
		t.Fatal(err)
	}
}

// current is the process that serves now.
func (c *chain) current() int { return c.pids[len(c.pids)-1] }

func (c *chain) signal(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("%s for %d: %v", sig, pid, err)
	}
}

// handOver has the current one replaced, and returns how long that took by
// the server's account.
func (c *chain) handOver(t *testing.T) time.Duration {
	t.Helper()
	skip := len(c.logLines())
	c.signal(t, c.current(), syscall.SIGUSR2)
	return c.awaitHandedOver(t, skip)
}

func (c *chain) awaitHandedOver(t *testing.T, skip int) time.Duration {
	t.Helper()
	line := c.awaitLine("handed over", skip, func(l logLine) bool {
		return l.msg == "handed over" || strings.Contains(l.msg, "failed")
	})
	took, err := time.ParseDuration(line.took)
	if line.successor == 0 || err != nil {
		t.Fatalf("it was not handed over: %s", line.text)
	}
	c.pids = append(c.pids, line.successor)
	return took
}

// awaitDrained returns the last line of one of them.
func (c *chain) awaitDrained(pid int) logLine {
	c.t.Helper()
	return c.awaitLine(fmt.Sprintf("%d has drained", pid), 0, func(l logLine) bool {
		return l.msg == "drained" && (l.pid == pid || l.pid == 0 && pid == c.pid())
	})
}

// terminated reports whether a line says that SIGTERM has come.
func terminated(l logLine) bool { return strings.Contains(l.text, `"signal":"terminated"`) }

// stopAll ends the current process, unless it has had its signal, waits for the
// end of all and wants exit code 0 of each.
func (c *chain) stopAll(t *testing.T) {
	t.Helper()
	if !slices.ContainsFunc(c.logLines(), terminated) {
		c.signal(t, c.current(), syscall.SIGTERM)
	}
	select {
	case <-c.exited:
	case <-time.After(limit):
		t.Fatalf("not all have ended %s after SIGTERM", limit)
	}
	for _, line := range c.logLines() {
		if strings.Contains(line.text, "accepting has not ended") {
			t.Errorf("the log says: %s", line.text)
		}
	}
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the first ended with %s", c.cmd.ProcessState)
	}
	for _, pid := range c.pids[1:] {
		var status syscall.WaitStatus
		// The one before it has reaped it, and says so, if it has outlived it.
		if _, err := syscall.Wait4(pid, &status, 0, nil); err == syscall.ECHILD {
			c.awaitLine("the end of a successor", 0, func(l logLine) bool {
				return l.successor == pid && strings.Contains(l.text, `"state":"exit status 0"`)
			})
		} else if err != nil || !status.Exited() || status.ExitStatus() != 0 {
			t.Errorf("a successor ended with status %#x, %v", status, err)
		}
	}
}

// TestHandover replaces the server several times in a row while clients come
// at a fixed rate. None of them is refused or reset; those that stay get
// GOAWAY and are closed in the time of the drain; the processes' counts add up.
func TestHandover(t *testing.T) {
	parallelSmoke(t)
	const (
		rate  = 1000 // dials a second
		drain = 2 * time.Second
		stay  = 20 // connections that stay, for each process
	)
	times, pause := sized(2, 3, 20), sized(200*time.Millisecond, 800*time.Millisecond, 3*time.Second)
	c := startChain(t, "--drain", drain.String())
	storm, paused := startStorm(c.addr, rate), meterPauses()
	defer storm.stop()
	var took []string
	var staying [][]*heldConn
	for range times {
		staying = append(staying, holdConns(t, c.addr, stay))
		time.Sleep(pause) // clients come meanwhile
		c.install(t, binary(t))
		took = append(took, c.handOver(t).String())
		for range 20 { // the draining process would say 503
			c.http.CloseIdleConnections()
			if status, body, err := c.get("/readyz"); status != http.StatusOK {
				t.Errorf("/readyz: %d %s %v", status, body, err)
			}
		}
	}
	time.Sleep(pause)
	r := storm.stop()

	for _, wrong := range r.wrong {
		t.Error(wrong)
	}
	lag := max(r.oversleep, r.slowest)
	total := uint64(0)
	for i, pid := range c.pids[:times] {
		line := c.awaitDrained(pid)
		if spent, err := time.ParseDuration(line.took); err != nil || spent > drain+tick+lag {
			t.Errorf("the drain took %s, %v; it may take %s, and %s and what was measured: %s",
				spent, err, drain, tick, lag)
		}
		if line.accepted != line.closed {
			t.Errorf("a drained process accepted %d and closed %d", line.accepted, line.closed)
		}
		total += line.accepted
		for _, res := range staying[i] {
			if err := res.wait(); err != nil {
				t.Error(err)
			}
		}
	}
	m := c.await("all have gone", func(m metrics) bool { return m.value("heartwheel_connections") == 0 })
	total += uint64(m.value("heartwheel_accepted_total"))
	if want := uint64(r.connected + times*stay); total != want {
		t.Errorf("the processes accepted %d connections, of %d that were made", total, want)
	}
	c.check()
	c.stopAll(t)
	for _, line := range c.logLines() {
		if line.warns(max(lag, longestPause(paused()))) {
			t.Errorf("the log says: %s", line.text)
		}
	}
	figure(t, 17, "%d dials (%.0f a second wanted, %.0f made), %d refused, %d reset, %d sent "+
		"GOAWAY before they spoke, "+
		"slowest answer %s; %d hand-overs took %s; %d that stayed got GOAWAY",
		r.dials, float64(rate), float64(r.dials)/r.lasted.Seconds(), r.refused, r.reset, r.excused,
		r.slowest.Round(100*time.Microsecond),
		times, strings.Join(took, ", "), times*stay)
}

// A heldConn is a connection that stays until the server closes it.
type heldConn struct{ ended chan error }

func holdConns(t *testing.T, addr string, n int) (all []*heldConn) {
	t.Helper()
	for range n {
		c, res := dial(t, addr), &heldConn{ended: make(chan error, 1)}
		c.echo()
		all = append(all, res)
		go func() { res.ended <- untilClosed(c) }()
	}
	return all
}

func (res *heldConn) wait() error {
	select {
	case err := <-res.ended:
		return err
	case <-time.After(limit):
		return errors.New("a connection that stayed was not closed")
	}
}

// untilClosed wants GOAWAY, CLOSE and the end, all for the drain.
func untilClosed(c *conn) error {
	f, err := c.frameErr()
	if err != nil || f.Op != codec.OpGoaway {
		return fmt.Errorf("a connection that stayed got %s %v, not goaway", f.Op, err)
	}
	if g, err := codec.ParseGoaway(f.Payload); err != nil || g.Code != codec.CodeDraining {
		return fmt.Errorf("it got goaway %+v %v, not %d", g, err, codec.CodeDraining)
	}
	if f, err = c.frameErr(); err != nil || f.Op != codec.OpClose {
		return fmt.Errorf("after goaway it got %s %v, not close", f.Op, err)
	}
	if _, err = c.frameErr(); err != io.EOF {
		return fmt.Errorf("after close it got %v, not the end", err)
	}
	return nil
}

// TestHandoverToNothingGood puts bad files in the place of the binary: each
// leaves the server as it was.
func TestHandoverToNothingGood(t *testing.T) {
	parallelSmoke(t)
	c := startChain(t, "--drain", "200ms")
	good := startNeighbours(t, c.addr, 8)
	for content, want := range map[string]string{
		"#!/bin/sh\necho out of order >&2\nexit 1\n": `it ended with exit status 1","stderr":"out of order"`,
		"#!/bin/sh\nkill -SEGV $$\n":                 "it ended with signal: segmentation fault",
		"\x7fELF, but no more of it":                 "exec format error",
	} {
		skip := len(c.logLines())
		c.installText(t, content)
		c.signal(t, c.pid(), syscall.SIGUSR2)
		c.awaitLine(want, skip, func(l logLine) bool { return strings.Contains(l.text, want) })
		dial(t, c.addr).echo()
	}
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	c.signal(t, c.pid(), syscall.SIGUSR2)
	c.awaitLine("no such file", 0, func(l logLine) bool {
		return strings.Contains(l.text,
			"no such file or directory")
	})
	if err := good.stop(); err != nil {
		t.Errorf("a connection was affected: %v", err)
	}
	c.check()
	c.install(t, binary(t))
	c.handOver(t)
	dial(t, c.addr).echo()
	<-c.ended // else it might reap its successor
	c.stopAll(t)
}

// slowly is a program that waits for a file before it becomes the server, which
// is then the one at path.
func slowly(waitFor, path string) string {
	return fmt.Sprintf("#!/bin/sh\nwhile [ ! -e %s ]; do sleep 0.01; done\nexec %s \"$@\"\n", waitFor, path)
}

// TestSignalsInAHandover: a second SIGUSR2 is refused, and SIGTERM ends both.
func TestSignalsInAHandover(t *testing.T) {
	parallelSmoke(t)
	c := startChain(t, "--drain", "5m")
	dir := t.TempDir()
	file, second := filepath.Join(dir, "go"), filepath.Join(dir, "second")
	(&chain{path: second}).install(t, binary(t))
	c.installText(t, slowly(file, second))
	c.signal(t, c.pid(), syscall.SIGUSR2)
	c.awaitLine("handing over", 0, func(l logLine) bool { return l.msg == "handing over" })
	c.signal(t, c.pid(), syscall.SIGUSR2)
	c.awaitLine("under way", 0, func(l logLine) bool { return l.msg == "SIGUSR2 ignored: a hand-over is under way" })
	served := dial(t, c.addr)
	served.echo()
	served.reset()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.awaitHandedOver(t, 0)
	c.path = second // the next one is started from there
	c.installText(t, slowly(filepath.Join(dir, "never"), binary(t)))
	skip := len(c.logLines())
	old := dial(t, c.addr)
	old.echo()
	c.signal(t, c.current(), syscall.SIGUSR2)
	begun := c.awaitLine("handing over", skip, func(l logLine) bool { return l.msg == "handing over" })
	c.signal(t, c.current(), syscall.SIGTERM)
	c.awaitLine("the signal", skip, terminated)
	for end := time.Now().Add(limit); syscall.Kill(begun.successor, 0) == nil; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the process that was not ready does not end")
		}
	}
	if f := old.frame(); f.Op != codec.OpGoaway { // the only connection is the first to get it
		t.Errorf("the draining process sent %s %q, not goaway", f.Op, f.Payload)
	}
	old.echo() // and is served until it is closed
	old.reset()
	c.stopAll(t)
}

// TestSuccessorDies: once it was ready there is no way back, and the log says so.
func TestSuccessorDies(t *testing.T) {
	parallelSmoke(t)
	c := startChain(t, "--drain", "2s")
	old := dial(t, c.addr)
	old.echo()
	c.handOver(t)
	c.signal(t, c.current(), syscall.SIGKILL)
	line := c.awaitLine("the end of the successor", 0, func(l logLine) bool {
		return l.successor == c.current() && strings.Contains(l.msg,
			"connections are refused until a server is started again")
	})
	if !strings.Contains(line.text, `"level":"ERROR"`) || !strings.Contains(line.text, "signal: killed") {
		t.Errorf("the log says: %s", line.text)
	}
	if _, err := net.DialTimeout("tcp", c.addr, limit); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a dial now ends with %v", err)
	}
	if err := untilClosed(old); err != nil {
		t.Error(err)
	}
	<-c.exited
	if code := c.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %s", c.cmd.ProcessState)
	}
}
