package epoll

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the machine's monotonic clock (CLOCK_MONOTONIC) in ns. It is the
// same in every process, and reading it costs no system call. Safe for
// concurrent use.
func Monotonic() int64 { return clockOffset + int64(time.Since(clockBase)) }

var clockBase, clockOffset = readClock()

func readClock() (base time.Time, offset int64) {
	var ts unix.Timespec
	base = time.Now()
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // every Linux has it
	return base, ts.Nano()
}
