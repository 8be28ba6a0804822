//go:build !linux

package loadtest

import (
	"errors"
	"runtime"
)

// startLoops says what is missing here.
func startLoops(*job, chan<- report) ([]chan order, <-chan struct{}, error) {
	return nil, nil, errors.New("the load test needs Linux: its event loops are built on epoll, and " + runtime.GOOS + " has none; run it on a Linux machine against the same target")
}
