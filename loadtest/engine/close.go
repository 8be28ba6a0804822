package engine

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/wording"
)

// A peerClose is what is known of a close by the server. Times are in ns of
// epoll.Monotonic.
type peerClose struct {
	at          int64 // when the loop saw it
	slack       int64 // it may have happened this much earlier: the loop was busy, or the server was stopped
	lastFrame   int64 // just before the last byte of the last whole frame was sent; without one, before the connect
	established int64 // when the connection was established; 0: never
	answered    bool  // the server has answered something
	timeout     int64 // T; 0: unknown
	bound       int64
	code        int  // of a CLOSE or GOAWAY that came before; 0: none
	drains      bool // the load expects that the server drains

	fault  bool  // a fault was injected
	expect int64 // the earliest time at which the server should detect it
}

// A closeClass is what a close by the server means.
type closeClass uint8

const (
	classImmediate   closeClass = iota // closed before it was of use
	classRefused                       // by 3020 (overloaded)
	classTold                          // by a code that a server may send to a live peer
	classDetected                      // of a connection with a fault
	classFalseKill                     // of a live peer that kept its beats
	classLapse                         // the generator itself missed T
	classUnexplained                   // T is unknown, or the server drains though the load expects none
)

// immediateClose is the age below which the close of a connection that was never
// answered counts as a failed connect.
const immediateClose = int64(time.Second)

// explainedCodes are the codes that explain a close. The others say that the peer
// is dead or broke the protocol, or that the server failed.
var explainedCodes = []codec.Code{
	codec.CodeDraining, codec.CodeTokenExpired, codec.CodeRateLimited, codec.CodeOverloaded, codec.CodeBeatTooOften,
	codec.CodeBadToken, codec.CodeIncomplete, codec.CodeKicked, codec.CodeIdentityLimit, codec.CodeReplaced,
	codec.CodeBadVersion, codec.CodeBanned,
}

// classify is pure.
func (c *peerClose) classify() closeClass {
	told := slices.Contains(explainedCodes, codec.Code(c.code))
	switch {
	case c.code == int(codec.CodeOverloaded):
		return classRefused
	case c.fault && !(told && c.code != int(codec.CodeIncomplete)):
		return classDetected
	case c.code == int(codec.CodeDraining) && c.established != 0 && !c.drains:
		return classUnexplained
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

// errorNS is the detection's error; below 0 it was too early.
func (c *peerClose) errorNS() int64 { return c.at - c.expect }

// early and late say whether the error is outside 0 to the bound. slack, which may
// be the generator's doing, does not make a detection late.
func (c *peerClose) early() bool { return c.errorNS() < 0 }
func (c *peerClose) late() bool  { return c.errorNS()-c.slack > c.bound }

// example describes the close.
func (c *peerClose) example(start int64, number int, how, reason string) CloseExample {
	e := CloseExample{
		AtS: Since(start, c.at), Connection: number, SilentMS: wording.Thousandths(float64(c.at-c.lastFrame) / 1e6),
		How: how, Code: c.code, Reason: reason,
	}
	e.Text = fmt.Sprintf("at %.3f s connection %d, %s after its last whole frame: %s", e.AtS, number,
		wording.Milliseconds(e.SilentMS), how)
	switch {
	case c.code != 0 && reason != "":
		e.Text += fmt.Sprintf(", code %d %q", c.code, reason)
	case c.code != 0:
		e.Text += fmt.Sprintf(", code %d (%s)", c.code, codec.Code(c.code))
	}
	return e
}

// worstClose adds e to the examples and keeps the least silent few: the more lately a
// peer has sent a frame, the less there is to say for its close.
func worstClose(list []CloseExample, e CloseExample) []CloseExample {
	at, _ := slices.BinarySearchFunc(list, e, func(a, b CloseExample) int {
		return cmp.Compare(a.SilentMS, b.SilentMS)
	})
	if at == MaxExamples {
		return list
	}
	list = slices.Insert(list, at, e)
	return list[:min(len(list), MaxExamples)]
}

// A CloseExample is one close by the server.
type CloseExample struct {
	AtS        float64 `json:"at_s"`       // since the start
	Connection int     `json:"connection"` // its number in the load, from 0
	SilentMS   float64 `json:"silent_ms"`  // since the last whole frame was sent on it
	How        string  `json:"how"`        // "end of stream", "reset" or an error
	Code       int     `json:"code"`       // of a CLOSE or GOAWAY that came before; 0: none
	Reason     string  `json:"reason"`     // that came with the code
	Text       string  `json:"text"`       // all of it as a sentence
}
