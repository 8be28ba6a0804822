package client

import (
	"fmt"
	"time"
)

// State says what a Client is doing.
type State uint8

const (
	Connecting State = iota // an attempt is under way
	Connected               // WELCOME has come
	Waiting                 // for the time of the next attempt
	Ended                   // for good: by Close, or because trying again would not help
)

// String returns the state's word.
func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Waiting:
		return "waiting"
	case Ended:
		return "ended"
	}
	return "unknown"
}

// An Event is a change of state.
type Event struct {
	State State
	Addr  string        // host:port that is, or will be, connected to
	Err   error         // Waiting and Ended: why
	In    time.Duration // Waiting: until the next attempt
	// Connected: what the server decided.
	Session           string
	Interval, Timeout time.Duration // H and T
}

// String says the event in words.
func (e Event) String() string {
	switch e.State {
	case Connecting:
		return "connecting to " + e.Addr
	case Connected:
		return fmt.Sprintf("connected to %s: session %s, beat %s, dead after %s", e.Addr, e.Session, e.Interval, e.Timeout)
	case Waiting:
		return fmt.Sprintf("%s; connecting again in %s", explain(e.Err), e.In.Round(time.Millisecond))
	}
	if e.Err == nil || e.Err == ErrClosed {
		return "closed"
	}
	return "ended for good: " + explain(e.Err)
}
