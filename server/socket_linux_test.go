package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// breakPoller makes the loop's next epoll_wait fail, by putting /dev/null in
// the place of its epoll descriptor.
func breakPoller(t *testing.T, e *engine) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil {
		t.Fatal(err)
	}
	watches := fmt.Sprintf("tfd: %8d ", e.control.Fd())
	for _, name := range infos {
		info, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(info), watches) {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no epoll descriptor watches %d", e.control.Fd())
}

// wantPlainTCP fails if the socket is a multipath one.
func wantPlainTCP(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if err := control(c, plainTCP); err != nil {
		t.Error(err)
	}
}

// The kernel's clock for unacknowledged data is left off, as it ends peers that
// read slowly, but where the kernel would by itself give up before the idle
// timeout.
func TestUserTimeout(t *testing.T) {
	for _, test := range []struct{ timeout, want time.Duration }{
		{150 * time.Millisecond, 0}, {7500 * time.Millisecond, 0}, {150 * time.Second, 0},
		{10*time.Minute - 1, 0}, {10 * time.Minute, 15 * time.Minute}, {MaxTimeout, MaxTimeout * 3 / 2},
	} {
		if got := userTimeout(test.timeout); got != test.want {
			t.Errorf("for an idle timeout of %s it is %s, want %s", test.timeout, got, test.want)
		}
	}
}

// What a peer does not read waits in the outbox, which has a limit, and not in
// the kernel, which would take megabytes.
func TestUnreadStaysOutOfTheKernel(t *testing.T) {
	const frames, size = 512, 16 << 10
	s := start(t, Config{Outbox: 64 << 20, WriteStall: time.Minute}, Echo{})
	c := dial(t, s)
	if err := c.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(slices.Repeat(codec.AppendData(nil, make([]byte, size)), frames)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all but a megabyte waits in the outbox",
		func() bool { return s.Stats().OutboxBytes > frames*size-1<<20 })
}
