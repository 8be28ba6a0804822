package server

import (
	"time"

	"heartwheel/codec"
)

// A Protocol gives the messages of connections their meaning: what is a message,
// what this side sends as a beat, how a connection ends. The session that calls
// it keeps the deadlines, incomplete messages and what a slow peer has not taken.
//
// One value serves all connections of a listener on a loop; what it keeps for
// each is their State. Every method is Loop only and does no I/O. A panic costs
// the connection that it was called for, which is closed as internal_error.
type Protocol interface {
	// Start is called when the connection has reached its loop, before any
	// input. Beat and Timeout are those of the Config.
	Start(s Session)

	// Input acts on the whole messages that p begins with, and returns how many
	// bytes they took. At least one whole message is a sign of life. What is
	// left is kept and begins p of the next call, where need tells the session
	// how many bytes p must have for that call to do anything; 0: not known.
	// It stops behind a message that closed or paused the connection: see
	// Session.Receiving.
	//
	// end says that p ends a message of the framing; a stream has none. An empty
	// message is an empty p with end.
	//
	// An error closes the connection with the code of a *codec.Error, 3501 for
	// any other. Input must return one for a message that is too large as soon
	// as that can be known. p is valid until Input returns.
	Input(s Session, p []byte, end bool) (used, need int, err error)

	// AppendBeat appends the message that asks a silent peer for a sign of life,
	// on connections where this side beats. It overtakes waiting data.
	AppendBeat(dst []byte, s Session) []byte

	// AppendNotice appends the message that says n, if the protocol has one.
	AppendNotice(dst []byte, s Session, n Notice) []byte

	// End is called once for each Start, when the connection has ended. It must
	// not send.
	End(s Session, why Reason)
}

// A Notice tells a peer of the end of its connection.
type Notice struct {
	Final  bool // the last message; otherwise the connection stays open a while
	Reason Reason
	Code   codec.Code
	Text   string
	After  time.Duration // how long the peer should wait before it connects again, at most

	cause error // what the peer did, if Code alone does not tell that to the framing
}

// A Session is a Conn as its Protocol sees it. Loop only.
type Session struct{ *Conn }

// Receiving reports whether the connection takes messages.
func (s Session) Receiving() bool { return s.receiving() }

// SendMessage sends one message, which is copied. An urgent one overtakes
// waiting data. If the outbox is full, the connection is closed as slow_consumer
// and ErrSlowConsumer returned.
func (s Session) SendMessage(message []byte, urgent bool) error {
	if s.closing() {
		return ErrClosed
	}
	start := s.loop.begin()
	s.loop.out = append(s.loop.out, message...)
	return s.loop.sent(s.Conn, start, urgent)
}

// SetBeat sets the beat interval, the idle timeout and which side beats.
func (s Session) SetBeat(beat, timeout time.Duration, b Beats) {
	s.flags &^= flagServerBeats
	if b == ServerBeats {
		s.flags |= flagServerBeats
	}
	s.loop.setBeat(s.Conn, beat, timeout)
}

// Finish sends the notice, which becomes a final one, after everything that was
// sent before, and closes the connection.
func (s Session) Finish(n Notice) { s.loop.end(s.Conn, n) }

// ExpectHandshake starts the 10 s in which Established must be called. Until
// then there is no idle timeout, and until the first message the connection is
// closed if too many others wait for theirs.
func (s Session) ExpectHandshake() {
	if !s.has(flagHandshake | flagBegan) {
		s.loop.expect(s.Conn)
	} else {
		s.loop.strangers.met(s.Conn)
	}
	s.flags |= flagHandshake
	if s.partialAt == 0 {
		s.partialAt = s.loop.nowMS()
	}
	s.loop.recheck(s.Conn)
}

// Established ends the handshake.
func (s Session) Established() {
	s.flags &^= flagHandshake
	s.loop.strangers.met(s.Conn)
}

// State returns what SetState stored.
func (s Session) State() any {
	if s.ext == nil {
		return nil
	}
	return s.ext.state
}

// SetState stores something of the protocol's with the connection.
func (s Session) SetState(v any) { s.ensureExt().state = v }
