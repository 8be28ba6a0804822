//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package server

import (
	"sync"
	"time"
)

// A writeWaiter reports which of its sockets can be written again.
//
// What Linux has and this lacks: it does not ask the kernel, but lets each
// full socket try again every 10 ms. Nothing is lost, but a peer that reads
// slower than it is sent to costs a system call each time.
type writeWaiter struct {
	mu   sync.Mutex
	fds  map[int]struct{}
	quit chan struct{}
	done chan struct{}
}

// newWriteWaiter starts one. ready is called on a goroutine of the waiter's
// and may keep the slice.
func newWriteWaiter(ready func(fds []int)) (*writeWaiter, error) {
	w := &writeWaiter{fds: map[int]struct{}{}, quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-tick.C:
			}
			if fds := w.drain(); len(fds) > 0 {
				ready(fds)
			}
		}
	}()
	return w, nil
}

func (w *writeWaiter) drain() (fds []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for fd := range w.fds {
		fds = append(fds, fd)
	}
	clear(w.fds)
	return fds
}

// add waits for room in a socket. Safe for concurrent use, as is remove.
func (w *writeWaiter) add(fd int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fds[fd] = struct{}{}
	return nil
}

func (w *writeWaiter) remove(fd int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.fds, fd)
}

// close ends the waiter and its goroutine.
func (w *writeWaiter) close() {
	close(w.quit)
	<-w.done
}
