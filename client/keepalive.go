package client

import "time"

// answerTimeout is how long the server may stay silent after a beat was handed
// to the kernel.
const answerTimeout = 10 * time.Second

// askAfter is the silence, in beat intervals, after which a server that beats is
// asked with a PING: it should have sent something after 1.
const askAfter = 1.5

// An action is what a keepalive wants done.
type action uint8

const (
	doNothing action = iota
	sendBeat         // the empty frame
	sendPing         // where the server beats: an empty frame would be an answer
	giveUp           // the server is dead
)

// A keepalive decides when to beat and when the server is dead. It does no I/O
// and reads no clock: all times are passed in, as time since the connection
// began. Not safe for concurrent use.
type keepalive struct {
	interval time.Duration // H
	jitter   func() float64

	gap          time.Duration // own silence until the next beat: H with jitter
	lastSent     time.Duration // when own bytes were last handed to the kernel
	lastReceived time.Duration // when the last byte arrived
	askedAt      time.Duration // when the oldest unanswered beat or PING was handed to the kernel

	serverBeats bool // the server beats, this side answers
	inFlight    bool // a beat or PING is on its way to the kernel
	unanswered  bool // a beat or PING has no answer yet
	paused      bool // nothing is read, because the application does not take what arrived
}

// start begins with the server's values. now is when its WELCOME arrived.
func (k *keepalive) start(interval time.Duration, serverBeats bool, jitter func() float64, now time.Duration) {
	*k = keepalive{interval: interval, serverBeats: serverBeats, jitter: jitter, lastSent: now, lastReceived: now}
	k.gap = time.Duration(float64(interval) * (0.5 + jitter()/2))
}

// setInterval changes the beat interval.
func (k *keepalive) setInterval(interval time.Duration) {
	if interval != k.interval {
		k.interval = interval
		k.draw()
	}
}

// draw draws the next gap: H ± 10 %.
func (k *keepalive) draw() { k.gap = time.Duration(float64(k.interval) * (0.9 + k.jitter()/5)) }

// wrote notes that bytes were handed to the kernel between began and now. It
// reports whether a beat or PING among them is answered already: another
// goroutine reads, so the answer may be noted first.
func (k *keepalive) wrote(began, now time.Duration) (answered bool) {
	k.lastSent = now
	if !k.inFlight {
		return false
	}
	k.inFlight = false
	if k.unanswered || k.paused {
		return false
	}
	if k.lastReceived >= began {
		return true
	}
	k.unanswered, k.askedAt = true, now
	return false
}

// received notes that bytes arrived.
func (k *keepalive) received(now time.Duration) {
	k.lastReceived = now
	k.unanswered = false
}

// pause notes that this side reads nothing until resume.
func (k *keepalive) pause() { k.paused = true }

// resume ends a pause, whose time does not count against the server.
func (k *keepalive) resume(now time.Duration) {
	k.paused = false
	k.lastReceived = now
	k.askedAt = now
}

// beatAt returns when the next beat or PING is due.
func (k *keepalive) beatAt() time.Duration {
	speak, ask := k.lastSent+k.gap, k.lastReceived+k.gap
	if k.serverBeats {
		ask = k.lastReceived + time.Duration(askAfter*float64(k.interval))
	}
	switch waiting := k.unanswered || k.paused; {
	case k.serverBeats && k.paused:
		return speak // its beats are not read, so they are answered unseen
	case k.serverBeats && waiting:
		return never
	case k.serverBeats:
		return ask
	case waiting:
		return speak
	}
	return min(speak, ask)
}

// never is later than every time.
const never = time.Duration(1<<63 - 1)

// due returns when to call poll next.
func (k *keepalive) due() time.Duration {
	at := never
	if !k.inFlight { // a write that blocks has a timeout of its own, see progressConn
		at = k.beatAt()
	}
	if k.unanswered && !k.paused {
		at = min(at, k.askedAt+answerTimeout)
	}
	return at
}

// poll returns what to do now. A beat or PING that it returns counts as in
// flight until wrote is called.
func (k *keepalive) poll(now time.Duration) action {
	if k.unanswered && !k.paused && now >= k.askedAt+answerTimeout {
		return giveUp
	}
	if k.inFlight || now < k.beatAt() {
		return doNothing
	}
	k.draw()
	k.inFlight = true
	if k.serverBeats && !k.paused {
		return sendPing
	}
	return sendBeat
}

// credit moves the server's deadline by a time in which this process did not run.
func (k *keepalive) credit(stall time.Duration) { k.askedAt += stall }
