package centrifugo

import (
	"errors"

	"github.com/centrifugal/protocol"
)

// Limits bounds what a client can make a server keep. 0 means the default.
type Limits struct {
	FrameSize     int // bytes of a frame; default 65,536
	Commands      int // commands of a frame; default 4,096
	Calls         int // commands that wait for the hub, at most 64; default 16
	Channels      int // subscriptions of a session; default 128
	ChannelLength int // bytes of a channel's name; default 255
	TokenLength   int // bytes of a token; default 16,384
	TextLength    int // bytes of names, versions, methods and epochs; default 255
	Depth         int // nested arrays and objects of a JSON command; default 128

	// ExpiredDelay is for how many seconds a client may still refresh what has
	// expired; default 25.
	ExpiredDelay int64
}

const maxCalls = 64

func (l Limits) withDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.FrameSize, 65536)
	set(&l.Commands, 4096)
	set(&l.Calls, 16)
	l.Calls = min(l.Calls, maxCalls)
	set(&l.Channels, 128)
	set(&l.ChannelLength, 255)
	set(&l.TokenLength, 16384)
	set(&l.TextLength, 255)
	set(&l.Depth, 128)
	if l.ExpiredDelay <= 0 {
		l.ExpiredDelay = 25
	}
	return l
}

// A Protocol is what the sessions of one loop share. Loop only.
type Protocol struct {
	limits  Limits
	hub     Hub
	scratch []byte // one message

	published *protocol.Reply // the answer to publish, but for its id
}

// New returns the protocol for the sessions of one loop.
func New(l Limits, h Hub) *Protocol {
	return &Protocol{
		limits:    l.withDefaults(),
		hub:       h,
		published: &protocol.Reply{Publish: &protocol.PublishResult{}},
	}
}

// Start returns the session of a new connection.
func (p *Protocol) Start(f Format, out Output) *Session { return &Session{p: p, out: out, format: f} }

type phase uint8

const (
	phaseNew        phase = iota // waits for connect
	phaseConnecting              // the hub has it
	phaseConnected
	phaseRefused // connect was answered with an error: input is ignored
	phaseClosed
)

// A Session is one connection. It does no I/O and keeps no time: now is in
// seconds since 1970. Loop only.
type Session struct {
	// State is the hub's own.
	State any

	p        *Protocol
	out      Output
	client   string
	channels channels
	calls    uint64 // a bit for each slot of a Call that has no answer
	expireAt int64  // of the connection, 0: never
	format   Format
	phase    phase
	refresh  bool // the client refreshes the connection
	pinged   bool // a ping has no answer yet
	stopped  bool // Input stopped early
	inside   bool // Input is running
}

// Client returns the id of the client, empty before it is connected.
func (s *Session) Client() string { return s.client }

// Format returns the encoding of the connection.
func (s *Session) Format() Format { return s.format }

// Connected reports whether the client has connected and not ended.
func (s *Session) Connected() bool { return s.phase == phaseConnected }

// Input acts on the commands of a frame and returns how many bytes it took. It
// stops early behind a connect, before an unsubscribe whose subscribe has no
// answer yet, and where too many commands wait for the hub: the caller keeps the
// rest and calls again with it after Output.Resume. The limits of a frame hold
// for what one call gets. frame is the caller's again when Input returns.
func (s *Session) Input(now int64, frame []byte) (used int) {
	l := &s.p.limits
	if s.phase == phaseClosed || s.phase == phaseRefused {
		return len(frame)
	}
	if len(frame) == 0 || len(frame) > l.FrameSize {
		s.Close(DisconnectBadRequest)
		return len(frame)
	}
	s.inside = true
	defer func() { s.inside = false }()
	for n := 0; used < len(frame); n++ {
		if s.stopped = !s.receiving(); s.stopped {
			return used
		}
		if n == l.Commands {
			s.Close(DisconnectBadRequest)
			return len(frame)
		}
		cmd, size, err := decode(s.format, frame[used:], l.Depth)
		switch id := uint32(0); {
		case err == nil && s.waits(cmd):
			s.stopped = true
			return used
		case err == nil:
			s.command(now, cmd)
		default:
			if s.format == JSON && s.phase == phaseConnected {
				id = commandID(frame[used : used+size])
			}
			if id == 0 {
				s.Close(DisconnectBadRequest)
				return len(frame)
			}
			s.fail(id, ErrBadRequest)
		}
		if s.phase == phaseClosed || s.phase == phaseRefused {
			return len(frame)
		}
		used += size
	}
	return used
}

// receiving reports whether the next command may be looked at.
func (s *Session) receiving() bool {
	pending := 0
	for c := s.calls; c != 0; c &= c - 1 {
		pending++
	}
	return s.phase != phaseConnecting && pending < s.p.limits.Calls
}

// waits reports whether a command must wait for the answer of an earlier one.
func (s *Session) waits(cmd *protocol.Command) bool {
	if cmd.Unsubscribe == nil || s.phase != phaseConnected {
		return false
	}
	sub := s.channels.find(cmd.Unsubscribe.Channel)
	return sub != nil && sub.pending
}

// resume tells the owner to go on with what it kept.
func (s *Session) resume() {
	if s.stopped && !s.inside && s.phase != phaseClosed && s.receiving() {
		s.stopped = false
		s.out.Resume()
	}
}

// Ping appends the message that asks the client for a sign of life, which it may
// answer once.
func (s *Session) Ping(dst []byte) []byte {
	s.pinged = true
	return AppendPing(dst, s.format)
}

// Close ends the connection, and tells the client why unless it has gone
// (DisconnectClosed).
func (s *Session) Close(d Disconnect) {
	if s.phase == phaseClosed {
		return
	}
	met := s.phase == phaseConnected || s.phase == phaseConnecting
	s.phase = phaseClosed
	if d != DisconnectClosed {
		s.out.Close(d)
	}
	if met {
		s.p.hub.Closed(s, d)
	}
	s.channels = channels{}
}

// closeFor ends the connection for an error of the hub.
func (s *Session) closeFor(err error) {
	var d Disconnect
	if !errors.As(err, &d) {
		d = DisconnectServerError
	}
	s.Close(d)
}

// reply sends one message to a client that is there.
func (s *Session) reply(r *protocol.Reply) {
	if s.phase == phaseClosed {
		return
	}
	b, err := AppendReply(s.p.scratch[:0], s.format, r)
	if err != nil {
		s.Close(DisconnectInappropriateProtocol)
		return
	}
	s.out.Send(b)
	if cap(b) <= maxScratch {
		s.p.scratch = b
	}
}

// maxScratch bounds what a loop keeps between messages.
const maxScratch = 64 << 10

func (s *Session) fail(id uint32, err *Error) { s.reply(&protocol.Reply{Id: id, Error: err.proto()}) }

func (s *Session) push(channel string, p *protocol.Push) {
	p.Channel = channel
	s.reply(&protocol.Reply{Push: p})
}
