package handover

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// A Manager is the service manager that wants to know what this process does,
// as in sd_notify(3): the socket that NOTIFY_SOCKET names. Empty: none.
type Manager string

// ManagerOf returns the service manager that environ names.
func ManagerOf(environ []string) Manager { return Manager(Lookup(environ, "NOTIFY_SOCKET")) }

// Notify sends one message, a line for each state.
func (m Manager) Notify(states ...string) error {
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

// clockMonotonic is Linux's CLOCK_MONOTONIC. Only Linux has service managers of
// this kind, and package unix lacks the constant elsewhere.
const clockMonotonic = 1

// Reloading returns the states that announce a reload. The time tells the
// manager which of its requests is answered (Type=notify-reload).
func Reloading() []string {
	var now unix.Timespec
	_ = unix.ClockGettime(clockMonotonic, &now) // never fails for this clock
	return []string{"RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000)}
}
