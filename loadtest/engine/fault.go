package engine

import (
	"time"
)

// A fault is a way in which connections of the load, or the server, fail.
type Fault struct {
	Text  string        // as written
	Kind  string        // a name in FaultKinds
	Share float64       // 0 to 1 of the plan's connections; 0: Count
	Count int           // of connections
	For   time.Duration // stall-server: how long the server is stopped
	At    time.Duration // after the hold phase began

	Over      time.Duration // +over=D: the connections fail one after the other within D
	Reconnect bool          // +reconnect: a detected connection connects again, without the fault
}

// An Expectation is when a fault has to be detected.
type Expectation uint8

const (
	ExpectTimeout Expectation = iota // T after the last byte of the last whole frame
	ExpectPartial                    // that, or the limit for a part of a frame, whichever is first
	ExpectAtOnce                     // when it happens
	ExpectNothing                    // never: nobody is dead
)

// A FaultKind is one thing that can go wrong with a peer.
type FaultKind struct {
	Name         string
	Expect       Expectation
	Unobservable bool   // the client cannot see that the server detected it
	Does         string // to a connection, as a verb phrase
}

// FaultKinds has every kind of fault. What each does to a connection is in
// behave_linux.go.
var FaultKinds = []FaultKind{
	{Name: "silent", Expect: ExpectTimeout, Does: "stops beating; still reads, and the kernel still acknowledges"},
	{Name: "freeze", Expect: ExpectTimeout, Does: "stops beating and never reads again"},
	{Name: "partial", Expect: ExpectPartial, Does: "sends half a frame, then nothing"},
	{Name: "drip", Expect: ExpectPartial, Does: "sends a frame a byte a second, which never ends"},
	{Name: "reset", Expect: ExpectAtOnce, Unobservable: true, Does: "resets the connection"},
	{Name: "halfclose", Expect: ExpectAtOnce, Does: "closes its direction and goes on reading"},
	{Name: "garbage", Expect: ExpectAtOnce, Does: "sends bytes that are not frames"},
	{Name: "oversize", Expect: ExpectAtOnce, Does: "sends the header of a frame of 16,777,215 bytes"},
	{Name: "herd", Expect: ExpectNothing, Does: "resets and connects again, all at once"},
	{Name: StallServer, Expect: ExpectNothing, Does: "stops a local server's process with SIGSTOP for a time, then SIGCONT"},
}

// StallServer is the one kind that happens to the server, so it has a duration
// in place of a share.
const StallServer = "stall-server"

func FaultKindByName(name string) (FaultKind, bool) {
	for _, k := range FaultKinds {
		if k.Name == name {
			return k, true
		}
	}
	return FaultKind{}, false
}

// String says when the fault has to be noticed.
func (e Expectation) String() string {
	return [...]string{
		ExpectTimeout: "T after the last whole frame",
		ExpectPartial: "T after the last whole frame, or the limit for part of a frame",
		ExpectAtOnce:  "at once",
		ExpectNothing: "nobody is dead",
	}[e]
}

// after is the time, from start, by which the fault has to be noticed at the
// earliest, all in ns of one clock. It is the zero of a detection's error.
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

// Latest is how long after its start the fault may take to be noticed.
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

// NeedsTimeout says whether T must be known to judge f.
func (f *Fault) NeedsTimeout() bool {
	k, _ := FaultKindByName(f.Kind)
	return k.Expect == ExpectTimeout || k.Expect == ExpectPartial
}
