package supervisor

import "time"

// Delays between the end of a worker and the start of the next in its slot.
const (
	restartMin   = 100 * time.Millisecond
	restartMax   = 30 * time.Second
	restartReset = time.Minute // a worker that served this long starts the delays anew
)

// A backoff is the delay before a restart. The zero value has seen no failure.
type backoff struct{ last time.Duration }

// next returns the delay after the end of a worker that served for that long; 0
// if it never became ready.
func (b *backoff) next(served time.Duration) time.Duration {
	if served >= restartReset {
		b.last = 0
	}
	b.last = min(max(2*b.last, restartMin), restartMax)
	return b.last
}
