package client

import (
	"fmt"
	"time"
)

// State is what a Client is doing.
type State uint8

const (
	Connecting State = iota // an attempt is under way
	Connected               // WELCOME was received
	Waiting                 // for the next attempt
	Ended                   // for good: by Close or a final error
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
	Addr  string        // host:port of this connection or the next; with unix:// the path
	Err   error         // Waiting and Ended: why
	In    time.Duration // Waiting: until the next attempt
	// Connected: the server's decisions.
	Session           string
	Interval, Timeout time.Duration // H and T
}

// String describes the event in a sentence, for people.
func (e Event) String() string {
	switch e.State {
	case Connecting:
		return "connecting to " + e.Addr
	case Connected:
		return fmt.Sprintf("connected to %s: session %s, beat %s, dead after %s", e.Addr, e.Session, e.Interval,
			e.Timeout)
	case Waiting:
		return fmt.Sprintf("%s; connecting again in %s", explain(e.Err), e.In.Round(time.Millisecond))
	}
	if e.Err == nil || e.Err == ErrClosed {
		return "closed"
	}
	return "ended for good: " + explain(e.Err)
}
