package engine

import (
	"time"
)

// A Fault makes connections of the load, or the server, fail.
type Fault struct {
	Text  string  // KIND:SHARE@WHEN[,+OPTION], as written
	Kind  string  // a name of FaultKinds
	Share float64 // of the connections, 0 to 1; 0: Count of them
	Count int
	For   time.Duration // stall-server: how long the server stays stopped
	At    time.Duration // after the hold phase began

	Over      time.Duration // spreads the connections over this time
	Reconnect bool          // connections that the server has detected connect again, without the fault
}

// An Expectation says when the server should detect a fault.
type Expectation uint8

const (
	ExpectTimeout Expectation = iota // T after the last byte of the last whole frame
	ExpectPartial                    // that, or the limit for part of a frame, whichever is first
	ExpectAtOnce
	ExpectNothing // never: no peer is dead
)

// A FaultKind is one way in which a peer can fail.
type FaultKind struct {
	Name         string
	Expect       Expectation
	Unobservable bool   // the client cannot see that the server detected it
	Does         string // a verb phrase, for a person
}

// FaultKinds has every kind of fault. loop.inject carries them out, but for
// StallServer.
var FaultKinds = []FaultKind{
	{Name: "silent", Expect: ExpectTimeout, Does: "stops beating; still reads, and the kernel still acknowledges"},
	{Name: "freeze", Expect: ExpectTimeout, Does: "stops beating and never reads again"},
	{Name: "partial", Expect: ExpectPartial, Does: "sends half a frame, then nothing"},
	{Name: "drip", Expect: ExpectPartial, Does: "sends a frame that never ends, a byte a second"},
	{Name: "reset", Expect: ExpectAtOnce, Unobservable: true, Does: "resets the connection"},
	{Name: "halfclose", Expect: ExpectAtOnce, Does: "shuts down its sending side and goes on reading"},
	{Name: "garbage", Expect: ExpectAtOnce, Does: "sends bytes that are not frames"},
	{Name: "oversize", Expect: ExpectAtOnce, Does: "sends the header of a frame of 16,777,215 bytes"},
	{Name: "herd", Expect: ExpectNothing, Does: "resets and connects again, all at once"},
	{Name: StallServer, Expect: ExpectNothing,
		Does: "stops a local server's process with SIGSTOP for a time, then SIGCONT"},
}

// StallServer is the kind that stops the server's process. It has a duration in
// place of a share of the connections.
const StallServer = "stall-server"

// FaultKindByName finds a kind of FaultKinds.
func FaultKindByName(name string) (FaultKind, bool) {
	for _, k := range FaultKinds {
		if k.Name == name {
			return k, true
		}
	}
	return FaultKind{}, false
}

// String says when the server should detect the fault.
func (e Expectation) String() string {
	return [...]string{
		ExpectTimeout: "T after the last whole frame",
		ExpectPartial: "T after the last whole frame, or the limit for part of a frame",
		ExpectAtOnce:  "at once",
		ExpectNothing: "never: no peer is dead",
	}[e]
}

// after is the earliest time at which the server should detect a fault that began at
// start, in ns of one clock: the zero of a detection's error.
func (e Expectation) after(start, lastFrame, timeout, partial int64) int64 {
	switch e {
	case ExpectTimeout:
		return lastFrame + timeout
	case ExpectPartial:
		return min(lastFrame+timeout, start+partial)
	default:
		return start
	}
}

// Latest is how long after At the last detection of the fault may be.
func (f *Fault) Latest(timeout, partial, bound time.Duration) time.Duration {
	k, _ := FaultKindByName(f.Kind)
	switch k.Expect {
	case ExpectTimeout:
		return f.Over + timeout + bound
	case ExpectPartial:
		return f.Over + min(timeout, partial) + bound
	case ExpectNothing:
		return max(f.Over, f.For)
	}
	return f.Over + bound
}

// NeedsTimeout says whether detections of f can be judged only if T is known.
func (f *Fault) NeedsTimeout() bool {
	k, _ := FaultKindByName(f.Kind)
	return k.Expect == ExpectTimeout || k.Expect == ExpectPartial
}
