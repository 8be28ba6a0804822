package handover

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxNotices is how many messages may wait for a service manager that does not
// read, and noticeTimeout how long one of them is tried.
const (
	maxNotices    = 16
	noticeTimeout = 2 * time.Second
)

// A Notifier tells a service manager what this process does, as in sd_notify(3):
// on the socket that NOTIFY_SOCKET names. The nil Notifier does nothing. Safe for
// concurrent use.
type Notifier struct {
	path  string
	log   *slog.Logger
	queue chan []string // states, in the order in which they are sent
	done  chan struct{} // closed when the goroutine has ended
}

// NewNotifier returns a Notifier for the service manager that environ names, nil
// if it names none. Errors go to log.
func NewNotifier(environ []string, log *slog.Logger) *Notifier {
	path := Lookup(environ, "NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	n := &Notifier{path: path, log: log, queue: make(chan []string, maxNotices), done: make(chan struct{})}
	go n.run()
	return n
}

// Notify sends one message, a line for each state. It does not wait for that: a
// message is dropped, and logged, when too many wait. Not after Close.
func (n *Notifier) Notify(states ...string) {
	if n == nil {
		return
	}
	select {
	case n.queue <- states:
	default:
		n.log.Warn("the service manager does not read its notifications; one was dropped", "states", states)
	}
}

// Close sends what waits, for at most timeout.
func (n *Notifier) Close(timeout time.Duration) {
	if n == nil {
		return
	}
	close(n.queue)
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-n.done:
	case <-late.C:
	}
}

func (n *Notifier) run() {
	defer close(n.done)
	for states := range n.queue {
		if err := n.send(states); err != nil {
			n.log.Warn("cannot notify the service manager", "states", states, "error", err)
		}
	}
}

func (n *Notifier) send(states []string) error {
	if n.path[0] != '/' && n.path[0] != '@' {
		return fmt.Errorf("NOTIFY_SOCKET=%s: is neither a path nor an abstract name", n.path)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(noticeTimeout)); err != nil {
		return err
	}
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
