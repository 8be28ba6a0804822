package faults

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestAcceptFails has accept fail in the whole process of the real command
// (testdata/accept), as when the machine has no file, buffer or memory left:
// open connections are unaffected, new ones are served soon after, and
// the ops address is served after it as before.
func TestAcceptFails(t *testing.T) {
	if size == smoke {
		t.Skip("builds the standard library anew, which -form short does")
	}
	server := built(t, faultyCommand)
	for _, f := range []struct {
		name  string
		errno syscall.Errno
	}{{"ENFILE", syscall.ENFILE}, {"EMFILE", syscall.EMFILE}, {"ENOBUFS", syscall.ENOBUFS},
		{"ENOMEM", syscall.ENOMEM}} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			acceptFails(t, server, f.errno)
		})
	}
}

func acceptFails(t *testing.T, server string, errno syscall.Errno) {
	t.Helper()
	faultFor, waiting := sized(0, 2*time.Second, 10*time.Second), sized(0, 20, 200)
	dir := t.TempDir()
	file := filepath.Join(dir, "errno")
	cmd := exec.Command(server, serverArgs("--timeout", "10m", "--drain", "1s")...)
	cmd.Env = []string{"FAULTS_ACCEPT=" + file}
	s := startCommand(t, cmd)
	good := startNeighbours(t, s.addr, 8)

	// Written beside and moved there, so that it is never read half written.
	number := file + ".new"
	if err := os.WriteFile(number, fmt.Append(nil, int(errno)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(number, file); err != nil {
		t.Fatal(err)
	}
	// The acceptors that wait in the kernel are called by these first dials, and
	// all further accepts fail: ops too, so that its client needs a new one.
	var pending []*conn
	for range waiting {
		pending = append(pending, dial(t, s.addr))
	}
	ops, err := net.DialTimeout("tcp", s.ops, limit)
	if err != nil {
		t.Fatal(err)
	}
	defer ops.Close()
	time.Sleep(faultFor) // its length is what is asked for, nothing waits for it
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	again := servedAgain(t, s, fmt.Sprintf("the last of %d that waited was", waiting), func() {
		for _, c := range pending {
			c.echo()
		}
	})
	m := s.metrics()
	failed := m.value("heartwheel_accept_errors_total")
	if failed == 0 {
		t.Error("no accept has failed")
	}
	if got := m.value("heartwheel_connections"); got != float64(len(good.conns)+waiting) {
		t.Errorf("%v connections are open, not %d", got, len(good.conns)+waiting)
	}
	if err := good.stop(); err != nil {
		t.Errorf("a connection that was there was affected: %v", err)
	}
	for _, c := range good.conns {
		c.echo()
	}
	opsClient.CloseIdleConnections()
	s.check()
	if n := s.metrics().sum("heartwheel_closed_total"); n != 0 {
		t.Errorf("%v connections were closed", n)
	}
	for _, line := range s.logLines() {
		if strings.Contains(line.text, "not served any more") {
			t.Errorf("the log says: %s", line.text)
		}
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 1, "%s for %s: 0 established lost, %v accepts failed, %d that waited served %s after there was room",
		errno.Error(), faultFor, failed, waiting, again.Round(100*time.Microsecond))
}
