package client

import "time"

// answerTimeout is how long the server may stay silent after a beat was handed
// to the kernel.
const answerTimeout = 10 * time.Second

// askAfter is, in beat intervals, how long a server that beats itself may be
// silent before it is asked with a PING. It is silent too while this side talks.
const askAfter = 1.5

// A question is what a pulse wants to be sent.
type question uint8

const (
	nothing question = iota
	beat             // the empty frame
	ping             // PING, where the empty frame would be an answer
	dead             // nothing: the server is dead
)

// A pulse decides when to beat and when the server is dead. It knows no I/O and
// no clock: times are given to it, as time since the connection began. Not safe
// for concurrent use.
type pulse struct {
	interval time.Duration // H
	jitter   func() float64

	gap   time.Duration // this side's silence until the next beat: H with jitter
	sent  time.Duration // when the last own bytes were handed to the kernel
	heard time.Duration // when the last byte came

	asked time.Duration // when the oldest question without an answer was handed over

	server bool // the server beats, this side answers
	asking bool // a beat or question is on its way to the kernel
	open   bool // there is a question without an answer
	held   bool // nothing can be heard: the application does not take what has come
}

// start begins with the server's values. now is when its WELCOME came.
func (p *pulse) start(interval time.Duration, server bool, jitter func() float64, now time.Duration) {
	*p = pulse{interval: interval, server: server, jitter: jitter, sent: now, heard: now}
	p.gap = time.Duration(float64(interval) * (0.5 + jitter()/2))
}

// set takes a new beat interval over.
func (p *pulse) set(interval time.Duration) {
	if interval != p.interval {
		p.interval = interval
		p.draw()
	}
}

// draw draws the next gap: H ± 10 %.
func (p *pulse) draw() { p.gap = time.Duration(float64(p.interval) * (0.9 + p.jitter()/5)) }

// wrote notes that bytes were handed to the kernel, from began to now. It
// reports whether a question among them is answered already: the answer is read
// by another goroutine, so it may be noted before the question.
func (p *pulse) wrote(began, now time.Duration) (answered bool) {
	p.sent = now
	if !p.asking {
		return false
	}
	p.asking = false
	if p.open || p.held {
		return false
	}
	if p.heard >= began {
		return true
	}
	p.open, p.asked = true, now
	return false
}

// listened notes that bytes came.
func (p *pulse) listened(now time.Duration) {
	p.heard = now
	p.open = false
}

// hold notes that from now on nothing can be heard, for reasons on this side.
func (p *pulse) hold() { p.held = true }

// release ends a hold. The time of it is not the server's.
func (p *pulse) release(now time.Duration) {
	p.held = false
	p.heard = now
	p.asked = now
}

// beatAt returns when the next beat or question is due.
func (p *pulse) beatAt() time.Duration {
	speak, ask := p.sent+p.gap, p.heard+p.gap
	if p.server {
		ask = p.heard + time.Duration(askAfter*float64(p.interval))
	}
	switch quiet := p.open || p.held; {
	case p.server && p.held:
		return speak // its beats cannot be read, so they are answered unheard
	case p.server && quiet:
		return never
	case p.server:
		return ask
	case quiet:
		return speak
	}
	return min(speak, ask)
}

// never is later than every time.
const never = time.Duration(1<<63 - 1)

// due returns when poll wants to be called next.
func (p *pulse) due() time.Duration {
	at := never
	if !p.asking { // what cannot be written is the business of the one who writes
		at = p.beatAt()
	}
	if p.open && !p.held {
		at = min(at, p.asked+answerTimeout)
	}
	return at
}

// poll returns what is to be done at a time. A question that it returns counts
// as on its way; wrote tells when it was handed over.
func (p *pulse) poll(now time.Duration) question {
	if p.open && !p.held && now >= p.asked+answerTimeout {
		return dead
	}
	if p.asking || now < p.beatAt() {
		return nothing
	}
	p.draw()
	p.asking = true
	if p.server && !p.held {
		return ping
	}
	return beat
}

// forgive takes a time in which this process did not run off the server's
// account.
func (p *pulse) forgive(stall time.Duration) { p.asked += stall }
