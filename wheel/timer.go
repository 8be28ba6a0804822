package wheel

import "time"

// Timer is one idle deadline. It is embedded by value in what it watches, takes
// 32 bytes on a 64-bit machine and its zero value is ready for use: not armed.
// It must not be copied while it is armed.
//
// Loop only: every method, and Arm, SetTimeout and Cancel of the Loop it is
// armed in. A Timer is armed in one Loop at a time.
type Timer struct {
	_ noCopy

	// Links of a circular list of its Loop; nil while not armed.
	next, prev *Timer

	last    int64  // loop clock of the last sign of life, ns
	timeout uint32 // ms
	list    int32  // index of the list it is linked in; means nothing while not armed
}

// Touch notes a sign of life at now (loop clock, ns): the deadline becomes now
// plus the timeout. It stores one number and nothing else; the Loop finds out
// when it next comes across the timer. now must not be before Last.
func (t *Timer) Touch(now int64) { t.last = now }

// Last returns the loop clock, in ns, of the last Arm or Touch.
func (t *Timer) Last() int64 { return t.last }

// Timeout returns the idle timeout, which is a whole number of milliseconds.
func (t *Timer) Timeout() time.Duration { return time.Duration(t.timeout) * time.Millisecond }

// Deadline returns the loop clock, in ns, from which on the timer is due. It
// means something only while the timer is armed.
func (t *Timer) Deadline() int64 { return t.last + int64(t.timeout)*int64(time.Millisecond) }

// Armed reports whether the timer is armed.
func (t *Timer) Armed() bool { return t.next != nil }

// timeoutMillis rounds up, so that nothing is due early, and clamps to what
// fits: 0 to 49 days.
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
