// Package timerslack starts processes with a larger timer slack.
//
// Go's monitor thread sleeps for 20 µs about sixty times whenever a process becomes
// idle (sysmon in runtime/proc.go). In a process that wakes a few hundred times a
// second that is most of the processor time. The kernel may extend sleeps by the
// thread's timer slack (prctl(2), PR_SET_TIMERSLACK), 50 µs by default, which a new
// process inherits from the thread that starts it.
//
// It imports nothing of this module.
package timerslack

import (
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Busy is the slack for processes that share a machine with many like them. Their
// timers and timeouts may be late by this; reading from sockets is not delayed.
const Busy = time.Millisecond

// Start starts cmd with the slack; 0 means the slack of this process. Safe for
// concurrent use.
func Start(cmd *exec.Cmd, slack time.Duration) error {
	if slack == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0) }()
	}
	return cmd.Start() // without the slack if the kernel refuses it
}
