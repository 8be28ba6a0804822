package cli

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// A manager is the service manager to tell what this process does, as
// sd_notify(3) of systemd: the socket that NOTIFY_SOCKET names. Empty: none.
type manager string

func managerOf(environ []string) manager { return manager(lookup(environ, "NOTIFY_SOCKET")) }

// tell sends one message, a line for each state.
func (m manager) tell(states ...string) error {
	if m == "" {
		return nil
	}
	if m[0] != '/' && m[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET=%s: is neither a path nor an abstract name", m)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: string(m), Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(strings.Join(states, "\n")))
	return err
}

// clockMonotonic is CLOCK_MONOTONIC of Linux, the only system with such a
// manager; not every other has it.
const clockMonotonic = 1

// reloading is what is told when a hand-over begins: the time shows which
// request to reload it answers (Type=notify-reload).
func reloading() []string {
	var now unix.Timespec
	_ = unix.ClockGettime(clockMonotonic, &now) // this clock is always there
	return []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}
}
