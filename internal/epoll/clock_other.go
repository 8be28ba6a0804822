//go:build !linux

package epoll

import "time"

// Monotonic is the time since the start of this process in ns. Safe for
// concurrent use.
func Monotonic() int64 { return int64(time.Since(clockBase)) }

var clockBase = time.Now()
