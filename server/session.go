package server

import (
	"errors"
	"math"
	"time"

	"heartwheel/codec"
	"heartwheel/wheel"
)

// incompleteLimit is how long part of a frame, or a required HELLO, may be
// outstanding (codec/SPEC.md, heartbeat rules).
const incompleteLimit = 10 * time.Second

// strikesAllowed is how many beats in a row may come too early.
const strikesAllowed = 3

// input acts on the frames in what has arrived. They are decoded where they lie;
// what is left of b is kept for the next call. A panic in the handler dooms the
// connection and nothing else.
func (l *loop) input(c *Conn, b []byte) {
	if c.state != stateOpen {
		return // closing: nothing that arrives matters any more
	}
	defer l.enter(c).leave()
	heard := false
	if c.ext != nil && len(c.ext.partial) > 0 {
		b, heard = l.complete(c, b)
	}
	if len(b) > 0 && c.state == stateOpen {
		used, _ := l.frames(c, b)
		heard = heard || used > 0
		b = b[used:]
	}
	if c.state != stateOpen {
		l.dropPartial(c)
		return
	}
	if len(b) > 0 {
		l.keepPartial(c, b)
	}
	if heard {
		l.heard(c)
	} else {
		l.heardPart(c)
	}
}

// complete adds as much of b to the partial frame as completes it, acts on that,
// and returns what of b comes after it.
func (l *loop) complete(c *Conn, b []byte) (after []byte, heard bool) {
	x := c.ext
	for {
		used, need := l.frames(c, x.partial)
		switch {
		case c.state != stateOpen:
			return nil, false
		case used > 0:
			l.begin() // copies the frames that go back as they came
			l.dropPartial(c)
			return b, true
		case len(b) == 0:
			return nil, false
		}
		n := min(max(need-len(x.partial), 1), len(b))
		l.keepPartial(c, b[:n])
		b = b[n:]
	}
}

// keepPartial keeps b, the next bytes of a frame that is incomplete. They take
// memory as they arrive, whatever length the header promises.
func (l *loop) keepPartial(c *Conn, b []byte) {
	x := c.more()
	had := cap(x.partial)
	x.partial = append(x.partial, b...)
	l.stats.inputBytes += int64(cap(x.partial) - had)
}

// dropPartial gives the memory of a partial frame back.
func (l *loop) dropPartial(c *Conn) {
	if c.ext != nil && c.ext.partial != nil {
		l.stats.inputBytes -= int64(cap(c.ext.partial))
		c.ext.partial = nil
	}
}

// frames decodes and answers the whole frames in b and returns where they end.
// need is how many bytes the frame that begins there must have before more can
// be done with it.
func (l *loop) frames(c *Conn, b []byte) (used, need int) {
	for used < len(b) && c.state == stateOpen {
		f, n, err := codec.Decode(b[used:], l.cfg.MaxFrame)
		if err != nil {
			l.refuse(c, err)
			break
		}
		if n == 0 {
			need, _ = codec.FrameSize(b[used:], l.cfg.MaxFrame)
			return used, max(need, codec.HeaderSize)
		}
		l.reading = b[used : used+n]
		used += n
		c.timer.Touch(l.now)
		l.stats.received(f.Op, n)
		l.frame(c, f)
	}
	return used, 0
}

// heard takes note of at least one complete frame. Part of another may follow.
func (l *loop) heard(c *Conn) {
	if c.polls == 0 && c.partialAt == 0 && !c.has(flagAverted) && c.ext == nil {
		return // a beat, as nearly always: its deadline was moved by Touch
	}
	c.polls = 0
	c.flags &^= flagAverted
	c.partialAt = 0
	if c.ext != nil {
		if len(c.ext.partial) > 0 {
			c.partialAt = l.nowMS()
		} else {
			c.dropExt()
		}
	}
	l.recheck(c)
}

// heardPart takes note of bytes that complete no frame.
func (l *loop) heardPart(c *Conn) {
	if c.partialAt == 0 {
		c.partialAt = l.nowMS()
		l.recheck(c)
	}
	if c.has(flagAverted) && l.io.unread(c) == 0 {
		l.look(c) // what was unread at the deadline has been read and was no frame
	}
}

// refuse closes a connection for bytes that are not the protocol.
func (l *loop) refuse(c *Conn, err error) {
	code, why := codec.CodeProtocolError, ProtocolError
	var e *codec.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	if code == codec.CodeFrameTooLarge {
		why = FrameTooLarge
	}
	l.beginClose(c, why, code, err.Error())
}

// frame acts on one frame of an open connection.
func (l *loop) frame(c *Conn, f codec.Frame) {
	first := !c.has(flagBegan)
	c.flags |= flagBegan
	if c.has(flagAwaitHello) && f.Op != codec.OpHello {
		l.beginClose(c, ProtocolError, codec.CodeProtocolError, "the first frame must be HELLO, not "+f.Op.String())
		return
	}
	switch f.Op {
	case codec.OpBeat:
		// Where this side beats, an empty frame is the answer to its own.
		if !c.has(flagServerBeats) && l.mayBeat(c) {
			_ = l.send(c, codec.OpBeat, nil)
		}
	case codec.OpPing:
		if l.mayBeat(c) {
			_ = l.send(c, codec.OpPong, f.Payload)
		}
	case codec.OpPong:
	case codec.OpHello:
		if !first {
			l.beginClose(c, ProtocolError, codec.CodeProtocolError, "HELLO must be the first frame")
			return
		}
		l.onHello(c, f.Payload)
	case codec.OpConfig:
		l.onConfig(c, f.Payload)
	case codec.OpClose:
		if _, _, err := codec.ParseClose(f.Payload); err != nil {
			l.refuse(c, err)
			return
		}
		c.state, c.reason = stateFlushing, PeerClosed
	case codec.OpWelcome, codec.OpGoaway, codec.OpError:
		l.beginClose(c, ProtocolError, codec.CodeProtocolError, f.Op.String()+" is for servers to send")
	default:
		l.handle(c, f)
	}
}

// handle gives a frame to the handler and acts on its error.
func (l *loop) handle(c *Conn, f codec.Frame) {
	err := l.h.Frame(c, f)
	if err == nil || c.state != stateOpen {
		return
	}
	var e *codec.Error
	if errors.As(err, &e) && e.Code >= 4000 && e.Code < 4500 {
		l.tell(c, func(b []byte) []byte { return codec.AppendError(b, e.Code, e.Text) })
		return
	}
	l.log.Error("handler failed; its connection is closed", "conn", c.ID(), "op", f.Op.String(), "error", err)
	l.beginClose(c, Internal, codec.CodeInternalError, "internal error")
}

// mayBeat counts beats that come too early in a row, and closes at the third.
//
// lastBeat is not when the last beat came, but the time up to which beats are
// spent, one floor each (the generic cell rate algorithm, ITU-T I.371). So what
// a stall of the network or of this process has held up may come at once. It is
// read on the monotonic clock, as the loop's stands still in a stall, and lags
// by no more than the idle timeout.
func (l *loop) mayBeat(c *Conn) bool {
	if l.cfg.BeatFloor == 0 {
		return true
	}
	floor, now := uint32(l.cfg.BeatFloor.Milliseconds()), uint32(l.mono()/1e6)|1
	if behind := now - c.lastBeat; c.lastBeat == 0 || behind >= floor {
		slack := uint32(0)
		if c.lastBeat != 0 {
			slack = min(behind-floor, c.timeout)
		}
		c.strikes, c.lastBeat = 0, (now-slack)|1
		return true
	}
	c.lastBeat = now
	if c.strikes++; c.strikes < strikesAllowed {
		return true
	}
	l.endWith(c, BeatTooOften, func(b []byte) []byte {
		return codec.AppendGoaway(b, codec.Goaway{Code: codec.CodeBeatTooOften, Reason: "beating too often", AfterMS: l.cfg.Spread.Milliseconds()})
	})
	return false
}

// onHello answers HELLO with WELCOME.
func (l *loop) onHello(c *Conn, body []byte) {
	h, err := codec.ParseHello(body)
	if err != nil {
		l.refuse(c, err)
		return
	}
	if h.V != codec.Version {
		l.beginClose(c, BadVersion, codec.CodeBadVersion, "this server speaks version 1")
		return
	}
	switch h.Beats {
	case "":
	case "client":
		c.flags &^= flagServerBeats
	case "server":
		c.flags |= flagServerBeats
	default:
		l.beginClose(c, ProtocolError, codec.CodeProtocolError, "HELLO: beats must be client or server")
		return
	}
	if l.hello != nil {
		if err := l.hello.Hello(c, h); err != nil {
			code, text := codec.CodeBadToken, "HELLO refused"
			var e *codec.Error
			if errors.As(err, &e) {
				code, text = e.Code, e.Text
			}
			l.beginClose(c, BadToken, code, text)
			return
		}
		if c.state != stateOpen {
			return
		}
	}
	c.flags &^= flagAwaitHello
	l.setBeat(c, time.Duration(h.BeatMS)*time.Millisecond)
	beats := ClientBeats
	if c.has(flagServerBeats) {
		beats = ServerBeats
	}
	w := codec.Welcome{
		V: codec.Version, Session: c.ID(), BeatMS: int64(c.beat), TimeoutMS: int64(c.timeout), Beats: beats.String(),
		MaxFrame: l.cfg.MaxFrame, MinBeatMS: l.cfg.BeatFloor.Milliseconds(), SpreadMS: l.cfg.Spread.Milliseconds(),
		Time: time.Now().UTC().Format(time.RFC3339),
	}
	l.tell(c, func(b []byte) []byte { return codec.AppendWelcome(b, w) })
	if !c.has(flagOpened) && c.state == stateOpen {
		c.flags |= flagOpened
		l.h.Open(c)
	}
}

// onConfig answers a client's wish with what was decided.
func (l *loop) onConfig(c *Conn, body []byte) {
	wish, err := codec.ParseConfig(body)
	if err != nil {
		l.refuse(c, err)
		return
	}
	if wish.BeatMS != 0 { // none: it only asks which values are in force
		l.setBeat(c, time.Duration(wish.BeatMS)*time.Millisecond)
	}
	l.tell(c, func(b []byte) []byte {
		return codec.AppendConfig(b, codec.Config{BeatMS: int64(c.beat), TimeoutMS: int64(c.timeout)})
	})
}

// setBeat gives c the beat interval it wishes, 0 for none, within what the
// settings allow, and the timeout that belongs to it.
func (l *loop) setBeat(c *Conn, wish time.Duration) {
	beat, timeout := l.cfg.decide(wish)
	was := c.timeout
	c.beat, c.timeout = uint32(beat.Milliseconds()), uint32(timeout.Milliseconds())
	if c.timer.Armed() && c.timeout != was {
		l.io.setTimeout(c, timeout)
	}
	l.recheck(c)
}

// decide returns the beat interval H and the idle timeout T for a client's
// wish: H clamped to the range, T = 2.5 × H unless set (codec/SPEC.md).
func (c *Config) decide(wish time.Duration) (beat, timeout time.Duration) {
	beat = c.Beat
	if wish > 0 {
		beat = min(max(wish, c.BeatMin), c.BeatMax)
	}
	if c.Timeout == 0 {
		return beat, beat * 5 / 2
	}
	return min(beat, c.Timeout*2/3), c.Timeout
}

// recheck moves the deadline of c to the next time that it needs a look.
func (l *loop) recheck(c *Conn) {
	if c.timer.Armed() {
		l.wheel.SetTimeout(&c.timer, l.untilCheck(c))
	}
}

const (
	// checkStep is what polls and looks at slow peers are rounded up to, so that
	// those of many peers go together; they need not be exact, as deaths are.
	checkStep = 100 * time.Millisecond

	// lookAgain is how long the loop has to read what has arrived.
	lookAgain = 100 * time.Millisecond
)

// untilCheck returns how long after the last complete frame c needs a look.
func (l *loop) untilCheck(c *Conn) time.Duration {
	last := c.timer.Last()
	if !c.timer.Armed() && last == 0 {
		last = l.now
	}
	at := int64(math.MaxInt64)
	if c.state == stateOpen { // else it has closeAt
		if !c.has(flagAwaitHello) { // else partialAt holds its 10 s
			at = last + int64(c.Timeout())
		}
		if c.has(flagServerBeats) && c.polls < math.MaxUint16 {
			poll := last + int64(c.polls+1)*int64(c.Beat())
			at = min(at, roundUp(poll, min(checkStep, c.Beat()/4)))
		}
		if c.partialAt != 0 {
			at = min(at, l.sinceMS(c.partialAt)+int64(incompleteLimit))
		}
	}
	if c.ext != nil {
		if c.ext.out.len() > 0 {
			at = min(at, roundUp(c.ext.out.pace.lookAt, min(checkStep, l.cfg.WriteStall/stallLooks)))
		}
		if c.ext.closeAt != 0 {
			at = min(at, c.ext.closeAt)
		}
	}
	return time.Duration(at - last)
}

// roundUp returns the first multiple of step that is not before at.
func roundUp(at int64, step time.Duration) int64 {
	n := max(int64(step), 1)
	return (at + n - 1) / n * n
}

// sinceMS returns the loop clock in ns of a stamp made by nowMS.
func (l *loop) sinceMS(stamp uint32) int64 {
	return l.now - int64(int32(uint32(l.now/1e6)-stamp))*1e6
}

// due looks at a connection whose deadline has come.
func (l *loop) due(t *wheel.Timer) {
	c := timerConn(t)
	defer l.enter(c).leave()
	l.look(c)
}

// look does what the time asks for, and arms the deadline of what stays.
func (l *loop) look(c *Conn) {
	t := &c.timer
	switch silence := time.Duration(l.now - t.Last()); {
	case c.ext != nil && c.ext.closeAt != 0 && l.now >= c.ext.closeAt:
		l.doom(c, c.reason, true)
	case c.pending() > 0 && l.now >= c.ext.out.pace.lookAt && l.stuck(c):
		l.doom(c, SlowConsumer, true)
	case c.state != stateOpen: // it has closeAt
	case c.partialAt != 0 && l.now >= l.sinceMS(c.partialAt)+int64(incompleteLimit):
		if !c.has(flagAverted) && l.avert(c) {
			return
		}
		l.expirePartial(c)
	case silence >= c.Timeout() && !c.has(flagAwaitHello):
		if l.avert(c) {
			return
		}
		l.stats.lateness.observe(int64(silence - c.Timeout()))
		l.doom(c, IdleTimeout, true)
	case c.has(flagServerBeats) && c.polls < math.MaxUint16 && silence >= time.Duration(c.polls+1)*c.Beat():
		c.polls++
		_ = l.send(c, codec.OpBeat, nil)
	}
	if c.state == stateOpen || c.state == stateFlushing {
		l.wheel.Arm(t, t.Last(), l.untilCheck(c))
	}
}

// avert gives a connection whose deadline has passed a little more time if its
// socket holds bytes: what has reached this machine counts, read or not.
func (l *loop) avert(c *Conn) bool {
	if l.io.unread(c) == 0 {
		return false
	}
	c.flags |= flagAverted
	l.stats.averted[avertedUnread]++
	l.wheel.Arm(&c.timer, c.timer.Last(), time.Duration(l.now-c.timer.Last())+lookAgain)
	return true
}

// stuck reports whether a peer is too slow. It tries to write before it says so,
// as a socket that is far from empty tells of no room.
func (l *loop) stuck(c *Conn) bool {
	l.drainOutbox(c)
	o := &c.ext.out
	return c.state != stateDoomed && o.len() > 0 && o.pace.look(l.now, l.cfg.WriteStall, l.io.unacked(c), o.len())
}

// expirePartial closes a connection that left a frame or its HELLO incomplete.
func (l *loop) expirePartial(c *Conn) {
	text := "frame not completed within 10 s"
	if c.has(flagAwaitHello) {
		text = "HELLO not received within 10 s"
	}
	l.beginClose(c, Incomplete, codec.CodeIncomplete, text)
}
