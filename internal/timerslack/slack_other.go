//go:build !linux

package timerslack

import (
	"os/exec"
	"time"
)

// Busy is the slack for processes that share a machine with many like them.
const Busy = time.Millisecond

// Start starts cmd. Only Linux has a timer slack.
func Start(cmd *exec.Cmd, _ time.Duration) error { return cmd.Start() }
