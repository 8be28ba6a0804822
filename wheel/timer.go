package wheel

import "time"

// A Timer is one idle deadline, to be embedded by value in a session. It takes 32
// bytes on a 64-bit machine. The zero value is not armed. It must not be copied
// while it is armed.
//
// A Timer is armed in one Loop at a time, and its methods are for that Loop's
// goroutine.
type Timer struct {
	_ noCopy

	// Links of a circular list of its Loop; nil while not armed.
	next, prev *Timer

	last    int64  // loop clock of the last activity, ns
	timeout uint32 // ms
	list    int32  // index of the list it is linked in, if armed
}

// Touch records activity at now (loop clock, ns): the deadline becomes now plus the
// timeout. It only stores now, which must not be before Last; the Loop reads it when
// it next visits the timer.
func (t *Timer) Touch(now int64) { t.last = now }

// Last returns the loop clock, in ns, of the last Arm or Touch.
func (t *Timer) Last() int64 { return t.last }

// Timeout returns the idle timeout, a whole number of milliseconds.
func (t *Timer) Timeout() time.Duration { return time.Duration(t.timeout) * time.Millisecond }

// Deadline returns the loop clock, in ns, at which the timer is due if it is armed.
func (t *Timer) Deadline() int64 { return t.last + int64(t.timeout)*int64(time.Millisecond) }

// Armed reports whether the timer is armed.
func (t *Timer) Armed() bool { return t.next != nil }

// timeoutMillis rounds up, so that no timer is due early, and clamps to 0 … 49 days.
func timeoutMillis(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	ms := (d-1)/time.Millisecond + 1
	if ms > 1<<32-1 {
		return 1<<32 - 1
	}
	return uint32(ms)
}

// noCopy makes go vet report copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}
