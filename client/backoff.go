package client

import "time"

// How reconnecting is paced: full jitter over a window that doubles. For the
// jitter, see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
const (
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
	// stable is how long a connection has to last for the window to start anew.
	stable = 30 * time.Second
	// maxWait bounds what a server can make a client wait.
	maxWait = time.Hour
)

// A backoff draws the delays before connecting again. Not safe for concurrent
// use.
type backoff struct {
	failures int // since a connection was last stable
	rand     func() float64
}

// window is the range of the next delay.
func (b *backoff) window() time.Duration {
	return min(backoffMin<<min(b.failures, 10), backoffMax)
}

// failed returns the delay after an attempt that came to nothing.
func (b *backoff) failed() time.Duration {
	w := b.window()
	b.failures++
	return b.draw(w)
}

// lost returns the delay after the loss of a connection that lasted for so
// long. spread is the server's, 0 if it named none.
func (b *backoff) lost(lasted, spread time.Duration) time.Duration {
	if lasted >= stable {
		b.failures = 0
	}
	w := b.window()
	if spread > 0 && (b.failures == 0 || spread > w) {
		w = spread
	}
	b.failures++
	return b.draw(w)
}

func (b *backoff) draw(window time.Duration) time.Duration {
	return time.Duration(b.rand() * float64(window))
}
