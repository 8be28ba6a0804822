//go:build !linux

package timerslack

import (
	"os/exec"
	"time"
)

// Busy is the slack for processes that share a machine with many of their kind.
const Busy = time.Millisecond

// Start starts cmd; the slack is for Linux.
func Start(cmd *exec.Cmd, _ time.Duration) error { return cmd.Start() }
