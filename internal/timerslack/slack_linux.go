// Package timerslack starts processes that sleep less exactly.
//
// Go's monitor thread sleeps 20 µs at a time, some sixty times after each moment
// in which a process had nothing to do (runtime, proc.go, sysmon). Of a process
// that is woken a few hundred times a second that is most of the processor time,
// and with many such processes on a machine most of the machine's. The kernel may
// let sleeps last longer by a thread's timer slack (prctl(2), PR_SET_TIMERSLACK),
// 50 µs as it comes, which a new process inherits from the thread that starts it.
package timerslack

import (
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Busy is the slack for processes that share a machine with many of their kind.
// Timers and timeouts of the process may then be so much late; what arrives on a
// socket is not.
const Busy = time.Millisecond

// Start starts cmd with the slack; 0: that of this process. Safe for concurrent
// use.
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
	return cmd.Start() // without the slack if the kernel refuses that
}
