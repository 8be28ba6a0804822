package client

import "sync"

// A latch is closed once and stays closed. Its channel is made by the first wait:
// most are never waited for, and a channel takes 96 bytes. The zero value is
// open. Safe for concurrent use.
type latch struct {
	mu     sync.Mutex
	closed bool          // guarded by mu
	ch     chan struct{} // guarded by mu; nil: no wait yet
}

// wait returns a channel that is closed when the latch is.
func (l *latch) wait() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ch == nil {
		l.ch = make(chan struct{})
		if l.closed {
			close(l.ch)
		}
	}
	return l.ch
}

// close may be called once.
func (l *latch) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.ch != nil {
		close(l.ch)
	}
}
