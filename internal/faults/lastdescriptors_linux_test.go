package faults

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLastDescriptors leaves the real command a few descriptors. Taking a
// connection in needs more than one for a moment, so the last ones are enough to
// accept it and not to serve it. New connections then wait, and are not reset.
func TestLastDescriptors(t *testing.T) {
	t.Parallel()
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	there := dial(t, s.addr)
	there.echo()
	var slowest time.Duration
	for _, free := range []int{0, 1, 2, 3} {
		s.metrics() // its connection is there from now on
		old := leave(t, s.pid(), free)
		before := s.metrics().value("heartwheel_accept_errors_total")
		pending := make([]*conn, 20)
		for i := range pending {
			pending[i] = dial(t, s.addr)
		}
		s.await(fmt.Sprintf("no connection can be taken, with %d descriptors left", free), func(m metrics) bool {
			return m.value("heartwheel_accept_errors_total") >= before+16
		})
		there.echo()
		slowest = max(slowest, servedAgain(t, s, fmt.Sprintf("%d descriptors left: the last that "+
			"waited was", free), func() {
			limitFiles(t, s.pid(), old)
			for i, c := range pending {
				if err := c.echoErr(); err != nil {
					t.Errorf("%d descriptors left: connection %d that waited: %v", free, i, err)
				}
			}
		}))
		for _, c := range pending {
			c.reset()
		}
		s.await("they have left", func(m metrics) bool { return m.value("heartwheel_connections") == 1 })
	}
	s.check()
	if m := s.metrics(); m.sum("heartwheel_refused_total") != 0 {
		t.Errorf("the server refused %v", m.by("heartwheel_refused_total"))
	}
	before := s.metrics().value("heartwheel_accept_errors_total")
	leave(t, s.pid(), 1)
	dial(t, s.addr)
	s.await("one more waits", func(m metrics) bool { return m.value("heartwheel_accept_errors_total") > before })
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM, while a connection waited, it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 1, "0 to 3 descriptors left, 20 dials each: none reset, served at most %s after there was room",
		slowest.Round(100*time.Microsecond))
}

// leave lowers a process's limit so that it may open free files more, and returns
// what the limit was. Descriptors are given out from the lowest on.
func leave(t *testing.T, pid, free int) (old unix.Rlimit) {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	var open []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, fd)
	}
	limit := 0
	for ; free > 0 || slices.Contains(open, limit); limit++ {
		if !slices.Contains(open, limit) {
			free--
		}
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	limitFiles(t, pid, unix.Rlimit{Cur: uint64(limit), Max: old.Max})
	return old
}

func limitFiles(t *testing.T, pid int, limit unix.Rlimit) {
	t.Helper()
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}
