//go:build !linux

package engine

import (
	"errors"
	"runtime"
)

// startLoops always fails.
func startLoops(*Job, chan<- Message) ([]chan Order, <-chan struct{}, error) {
	return nil, nil, errors.New("the load test needs Linux: its event loops are built on epoll, and " + runtime.GOOS +
		" has none; run it on a Linux machine against the same target")
}
