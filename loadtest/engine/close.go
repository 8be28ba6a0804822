package engine

import (
	"fmt"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/wording"
)

// A closing is what is known when the server has closed a connection. Times
// are in ns of one clock.
type peerClose struct {
	at          int64 // when it was seen
	slack       int64 // it may have happened so much earlier, while the loop was busy, or the server was stopped so long
	lastFrame   int64 // before the last byte of the last whole frame was sent; of the connect if none was
	established int64 // when the connection was established; 0: not yet
	answered    bool  // the server has answered something
	timeout     int64 // T; 0: unknown
	bound       int64
	code        int // of a CLOSE or GOAWAY that came before; 0: none

	fault  bool  // a fault was injected
	expect int64 // when that had to be noticed, at the earliest
}

// A class is what a close by the server was.
type closeClass uint8

const (
	classImmediate   closeClass = iota // closed before it was of any use
	classRefused                       // told 3020
	classTold                          // told why, with a code that a server may use on a live peer
	classDetected                      // the fault was noticed
	classFalseKill                     // a live peer, which had kept its beats
	classLapse                         // the generator itself missed T
	classUnexplained                   // T is unknown
)

// atOnce is how soon after connecting a close without any answer means that
// the target does not want connections.
const immediateClose = int64(time.Second)

// toldCodes are the codes after which a close is explained. The others accuse
// the peer of being dead or of sending what it did not send, or own up to an
// error of the server.
var explainedCodes = []codec.Code{
	codec.CodeDraining, codec.CodeTokenExpired, codec.CodeRateLimited, codec.CodeOverloaded, codec.CodeBeatTooOften,
	codec.CodeBadToken, codec.CodeIncomplete, codec.CodeKicked, codec.CodeIdentityLimit, codec.CodeReplaced,
	codec.CodeBadVersion, codec.CodeBanned,
}

// judge says what the close was. Pure.
func (c *peerClose) classify() closeClass {
	told := slices.Contains(explainedCodes, codec.Code(c.code))
	switch {
	case c.code == int(codec.CodeOverloaded):
		return classRefused
	case c.fault && !(told && c.code != int(codec.CodeIncomplete)):
		return classDetected
	case told:
		return classTold
	case c.established == 0, !c.answered && c.at-c.established < immediateClose:
		return classImmediate
	case c.timeout == 0:
		return classUnexplained
	case c.at-c.lastFrame < c.timeout:
		return classFalseKill
	}
	return classLapse
}

// errorNS is how late the fault was noticed; below 0 it was too early.
func (c *peerClose) errorNS() int64 { return c.at - c.expect }

// early and late say whether a detection was outside of 0 to the bound. What
// may be the doing of the generator is not held against the server.
func (c *peerClose) early() bool { return c.errorNS() < 0 }
func (c *peerClose) late() bool  { return c.errorNS()-c.slack > c.bound }

// describe is the close as an example.
func (c *peerClose) example(start int64, number int, how, reason string) CloseExample {
	e := CloseExample{
		AtS: Since(start, c.at), Connection: number, SilentMS: wording.Thousandths(float64(c.at-c.lastFrame) / 1e6),
		How: how, Code: c.code, Reason: reason,
	}
	e.Text = fmt.Sprintf("at %.3f s connection %d, %s after its last whole frame: %s", e.AtS, number, wording.Milliseconds(e.SilentMS), how)
	switch {
	case c.code != 0 && reason != "":
		e.Text += fmt.Sprintf(", told %d %q", c.code, reason)
	case c.code != 0:
		e.Text += fmt.Sprintf(", told %d (%s)", c.code, codec.Code(c.code))
	}
	return e
}

// A closeExample is one close by the server.
type CloseExample struct {
	AtS        float64 `json:"at_s"`       // since the start
	Connection int     `json:"connection"` // its number in the load, from 0
	SilentMS   float64 `json:"silent_ms"`  // since the last byte that was sent on it
	How        string  `json:"how"`        // "end of stream", "reset" or an error
	Code       int     `json:"code"`       // of a CLOSE or GOAWAY that came before; 0: none
	Reason     string  `json:"reason"`     // that came with the code
	Text       string  `json:"text"`       // all of it as a sentence
}
