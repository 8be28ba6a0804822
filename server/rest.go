//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package server

import "time"

// gnet reads all sockets that are ready together. A peer that sends many small frames
// takes 5 ms for what one read brings, and 64 such peers would make others wait for
// all of them. So a connection whose input took restAfter rests: it is not read until
// the loop has looked at its other sockets, and of those that rest, as many are read
// the next time as took restTurn.
const (
	restAfter = time.Millisecond
	restTurn  = 2 * time.Millisecond
	restBytes = 4 << 10 // fewer take less than restAfter, unless the handler is slow
)

// A rest is a connection that rests, and how long its input took.
type rest struct {
	c    *Conn
	took time.Duration
}

// mayRest has c rest if its input, which has been taken since began, took long.
func (e *engine) mayRest(c *Conn, began int64) {
	took := time.Duration(e.loop.mono() - began)
	if took < restAfter || c.sock == nil || c.has(flagUnread|flagRests) {
		return
	}
	c.flags |= flagRests
	e.gate.pause(c.sock.Fd())
	e.resting = append(e.resting, rest{c, took})
	e.loop.mail.wake() // which calls endRests
}

// endRests ends the rest of those that have rested longest.
func (e *engine) endRests() {
	n := 0
	for took := time.Duration(0); n < len(e.resting) && took < restTurn; n++ {
		r := e.resting[n]
		e.resting[n] = rest{}
		r.c.flags &^= flagRests
		if r.c.sock != nil && !r.c.has(flagUnread) { // else it is closed, or paused for another reason
			e.gate.resume(r.c.sock.Fd())
			took += r.took
		}
	}
	if e.resting = e.resting[n:]; len(e.resting) > 0 {
		e.loop.mail.wake()
	} else {
		e.resting = nil
	}
}
