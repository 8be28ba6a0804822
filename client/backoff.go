package client

import "time"

// Reconnects use full jitter over a window that doubles. See "Exponential
// Backoff And Jitter", AWS Architecture Blog, 2015.
const (
	backoffMin = 500 * time.Millisecond
	backoffMax = 30 * time.Second
	// stable is how long a connection must last to reset the window.
	stable = 30 * time.Second
	// maxWait caps the delay that a server can ask for.
	maxWait = time.Hour
)

// A backoff draws reconnect delays. Not safe for concurrent use.
type backoff struct {
	failures int // since the last stable connection
	rand     func() float64
}

// window returns the upper bound of the next delay.
func (b *backoff) window() time.Duration {
	return min(backoffMin<<min(b.failures, 10), backoffMax)
}

// failed returns the delay after a failed attempt.
func (b *backoff) failed() time.Duration {
	w := b.window()
	b.failures++
	return b.draw(w)
}

// lost returns the delay after the loss of a connection that had lasted that
// long. spread is the server's window; 0 if it named none.
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
