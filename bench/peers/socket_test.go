//go:build linux

package peers

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSockets looks at the servers' sockets themselves: what the kernel does for
// them has to be the same for all.
func TestSockets(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	backlog, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, b subject) {
		s := start(t, b, time.Minute)
		c := dial(t, s)
		echoed(t, c, frame(0), all) // an answer proves that it was accepted
		accepted, listening := 0, 0
		err := sockets(s.cmd.Process.Pid, func(fd int) {
			if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); err !=
				nil || on != unix.IPPROTO_TCP {
				return
			}
			if on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); on == 1 {
				listening++
				info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil {
					t.Error(err)
				} else if int(info.Sacked) != backlog { // which is what that is of a listener
					t.Errorf("the backlog is %d, want %d", info.Sacked, backlog)
				}
				return
			}
			accepted++
			if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on != 1 {
				t.Errorf("TCP_NODELAY is %d, want 1 (%v)", on, err)
			}
		})
		if err != nil {
			t.Skip(err)
		}
		// heartwheel's acceptor may still hold its copy.
		if accepted < 1 || listening < 1 {
			t.Errorf("found %d listeners and %d connections", listening, accepted)
		}
	})
}

// sockets calls look with a copy of each socket of a process.
func sockets(pid int, look func(fd int)) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(process)
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		fd, err := unix.PidfdGetfd(process, n, 0)
		if err == unix.EBADF { // closed meanwhile
			continue
		}
		if err != nil {
			return fmt.Errorf("pidfd_getfd: %w", err)
		}
		look(fd)
		_ = unix.Close(fd)
	}
	return nil
}
