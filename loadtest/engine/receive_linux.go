package engine

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/epoll"
)

// maxReads is how often one connection is read before others are looked at.
const maxReads = 8

// receive reads what has come. gone: the other side has closed. It returns
// false if the connection is gone.
func (l *loop) receive(i int32, c *conn, gone bool, at, slack int64) bool {
	for reads := 0; ; reads++ {
		if reads == maxReads {
			_ = l.poller.Modify(int(c.fd), watched, c.key(i)) // makes another event of what is left
			return true
		}
		n, err := epoll.Read(int(c.fd), l.buf)
		switch {
		case n > 0:
			if !l.received(i, c, l.buf[:n], at) {
				return false
			}
			if n < len(l.buf) && !gone {
				return true // edge-triggered: what comes now is another event
			}
			at = epoll.Monotonic() // what comes now may answer what was sent since
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return true
		case err == nil:
			l.ended(i, c, "end of stream", at, slack)
			return false
		case err == unix.ECONNRESET:
			l.ended(i, c, "reset", at, slack)
			return false
		default:
			l.ended(i, c, err.Error(), at, slack)
			return false
		}
	}
}

// endText is how a connection ended that is not read.
func endText(events uint32, fd int32) string {
	if events&unix.EPOLLERR != 0 {
		if err := epoll.ConnectError(int(fd)); err != nil && err != unix.ECONNRESET {
			return err.Error()
		}
		return "reset"
	}
	return "end of stream"
}

// received handles bytes. b is valid during the call only. It returns false if
// the connection is gone.
func (l *loop) received(i int32, c *conn, b []byte, at int64) bool {
	mine := c.flags&flagRest != 0 // b is not the loop's buffer
	if mine {
		b = append(l.rest[i], b...)
		delete(l.rest, i)
		c.flags &^= flagRest
	}
	room := 0 // for echo frames
	for len(b) > 0 {
		f, n, err := codec.Decode(b, codec.MaxFrameLimit)
		if err != nil {
			l.wrong(i, at, fmt.Sprintf("bytes that are not a frame: % x: %s", b[:min(len(b), 16)], err))
			l.closeConn(i)
			return false
		}
		if n == 0 {
			if !mine {
				b = slices.Clone(b)
			}
			l.rest[i] = b
			c.flags |= flagRest
			break
		}
		b = b[n:]
		answered, ok := l.take(i, c, f, at)
		if !ok {
			return false
		}
		room += answered
	}
	if room > 0 && l.plan.Mode == ModeEcho && l.inHold(at) {
		l.sendEcho(i, room, at)
	}
	return true
}

// take handles one frame. It returns how many echo frames that answers, and
// false if the connection is gone.
func (l *loop) take(i int32, c *conn, f codec.Frame, at int64) (echoed int, ok bool) {
	if c.state == stateHello && f.Op != codec.OpWelcome && f.Op != codec.OpClose && f.Op != codec.OpGoaway {
		l.wrong(i, at, fmt.Sprintf("%s came where WELCOME should answer HELLO", f.Op))
		l.fail(i, at, "HELLO was not answered with WELCOME")
		return 0, false
	}
	switch f.Op {
	case codec.OpBeat:
		return 0, l.takeBeat(i, c, at)
	case codec.OpPing, codec.OpPong, codec.OpData:
		echoed = l.takeStamped(i, c, f, at)
		return echoed, c.state != stateClosed
	case codec.OpWelcome:
		l.takeWelcome(i, c, f, at)
		return 0, c.state != stateClosed
	case codec.OpGoaway:
		if g, err := codec.ParseGoaway(f.Payload); err == nil {
			l.toldThat(i, c, int(g.Code), g.Reason)
		} else {
			l.wrong(i, at, err.Error())
		}
	case codec.OpClose:
		if code, reason, err := codec.ParseClose(f.Payload); err == nil {
			l.toldThat(i, c, int(code), reason)
		} else {
			l.wrong(i, at, err.Error())
		}
	case codec.OpError:
		code, text, _ := codec.ParseError(f.Payload)
		l.wrong(i, at, fmt.Sprintf("ERROR %d %q", code, text))
	case codec.OpConfig: // what the server wishes may be ignored here
	default:
		if !f.Op.Extension() {
			l.wrong(i, at, fmt.Sprintf("%s came, which nobody asked for", f.Op))
		}
	}
	return 0, true
}

// takeBeat handles an empty frame: the answer to the oldest beat, or a beat of
// the server. It returns false if the connection is gone.
func (l *loop) takeBeat(i int32, c *conn, at int64) bool {
	if c.beatsOut == 0 {
		if !l.plan.serverBeats() {
			l.wrong(i, at, "an empty frame came, which answers nothing")
		} else if c.victim < 0 {
			c.flags |= flagAnswered
			l.tallies.ServerBeats++
			l.write(i, c, l.beat, epoll.Monotonic())
		}
		return true
	}
	l.answered(c, c.oldestDue, at-c.oldestDue, at-c.oldestSent)
	c.beatsOut--
	// The beats of a connection are an interval apart. When more than two wait,
	// those between are taken to have been sent when due.
	c.oldestDue += int64(l.plan.Interval)
	c.oldestSent = max(c.oldestDue, c.oldestSent)
	if c.beatsOut == 1 {
		c.oldestSent = c.newestSent
	}
	return !l.churned(i)
}

// takeStamped handles the answer to a PING or DATA. A server that only echoes
// answers PING with the same PING.
func (l *loop) takeStamped(i int32, c *conn, f codec.Frame, at int64) (echoed int) {
	mine := f.Op == codec.OpData == (l.plan.Mode == ModeEcho) && c.sendNo != c.takeNo && len(f.Payload) == MinPayload+len(l.filler)
	var s stamp
	if mine {
		s = parseStamp(f.Payload)
		mine = s.number == c.takeNo && s.sent <= at && s.sent >= l.start && bytes.Equal(f.Payload[MinPayload:], l.filler)
	}
	if !mine {
		if f.Op == codec.OpPing && c.victim < 0 { // the server's own
			l.tallies.ServerBeats++
			l.write(i, c, codec.AppendPong(l.frame[:0], f.Payload), epoll.Monotonic())
			return 0
		}
		l.wrong(i, at, fmt.Sprintf("%s with %d bytes (% x) came in place of the answer to frame %d", f.Op, len(f.Payload),
			f.Payload[:min(len(f.Payload), MinPayload)], c.takeNo-firstNumber(l.number(i))))
		if f.Op != codec.OpData || c.sendNo == c.takeNo {
			return 0
		}
		c.takeNo++ // taken as the answer, or the connection would stand still
		return 1
	}
	c.takeNo++
	c.waiting = at
	service := at - s.sent
	l.answered(c, s.sent, service+int64(s.lag)*1000, service)
	l.churned(i)
	return 1
}

// answered counts a right answer to a frame that was due then.
func (l *loop) answered(c *conn, due, response, service int64) {
	c.flags = c.flags&^flagAgain | flagAnswered
	l.tallies.Answered++
	l.tickResponse.Record(response)
	l.tickService.Record(service)
	if l.inHold(due) {
		l.result.AnsweredInHold++
		l.result.Response.Record(response)
		l.result.Service.Record(service)
	}
}

// churned closes a connection of mode churn once it was of use.
func (l *loop) churned(i int32) bool {
	if l.plan.Mode != ModeChurn {
		return false
	}
	l.closeConn(i)
	return true
}

func (l *loop) takeWelcome(i int32, c *conn, f codec.Frame, at int64) {
	w, err := codec.ParseWelcome(f.Payload)
	if err != nil {
		l.wrong(i, at, err.Error())
		return
	}
	if c.state != stateHello {
		l.wrong(i, at, "WELCOME came, which nobody asked for")
		return
	}
	if t := w.TimeoutMS * int64(time.Millisecond); l.timeout != 0 && l.plan.Timeout == 0 && t != l.timeout {
		l.wrong(i, at, fmt.Sprintf("WELCOME says T = %d ms, but it said %d ms before", w.TimeoutMS, l.timeout/1e6))
	}
	l.up(i, c, at)
}

// toldThat remembers why the server is about to close.
func (l *loop) toldThat(i int32, c *conn, code int, reason string) {
	l.told[i] = told{code, reason}
	c.flags |= flagTold
}

// wrong counts a wrong answer.
func (l *loop) wrong(i int32, at int64, text string) {
	if l.tallies.Wrong++; l.tallies.Wrong == 1 {
		l.result.WrongExample = fmt.Sprintf("at %.3f s connection %d: %s", Since(l.start, at), l.number(i), text)
		l.event(at, EventWrong, "", 1, l.result.WrongExample)
	}
}

// ended handles that the server has closed.
func (l *loop) ended(i int32, c *conn, how string, at, slack int64) {
	cl := closing{
		at: at, slack: slack + l.stalled(c.lastFrame, at), lastFrame: c.lastFrame, answered: c.flags&flagAnswered != 0,
		timeout: l.timeout, bound: int64(l.plan.Bound), code: l.told[i].code,
	}
	if c.state == stateUp {
		cl.since = c.began
	}
	if c.victim >= 0 {
		cl.fault, cl.expect = true, l.victims[c.victim].expect
	}
	reason, wasUp, again, fault := l.told[i].reason, c.state == stateUp, c.flags&flagAgain != 0, c.again
	example := cl.describe(l.start, l.number(i), how, reason)
	switch cl.judge() {
	case classAtOnce:
		text := "closed by the target at once"
		if cl.code != 0 {
			text = fmt.Sprintf("closed by the target with %d %q", cl.code, reason)
		}
		l.fail(i, at, text)
		return
	case classRefused:
		if wasUp {
			l.notUp(c)
		}
		if again {
			l.back(fault, at).BackRefused++
		} else {
			l.tallies.Refused++
		}
	case classTold:
		if !wasUp { // told no instead of WELCOME
			l.fail(i, at, fmt.Sprintf("closed by the target with %d %q", cl.code, reason))
			return
		}
		if l.result.Told[cl.code]++; l.result.Told[cl.code] == 1 {
			l.event(at, EventTold, "", 1, example.Text)
		}
	case classDetected:
		l.detected(c, &cl, example)
	case classFalseKill:
		if l.tallies.FalseKills++; l.tallies.FalseKills <= MaxExamples {
			l.result.FalseKills = append(l.result.FalseKills, example)
			l.event(at, EventFalseKill, "", 1, example.Text)
		}
	case classLapse:
		l.tallies.Lapses++
	case classUnexplained:
		if l.tallies.Unexplained++; l.tallies.Unexplained <= MaxExamples {
			l.result.Unexplained = append(l.result.Unexplained, example)
			l.event(at, EventUnexplained, "", 1, example.Text)
		}
	}
	again = false
	if c.victim >= 0 {
		again = l.plan.Faults[l.victims[c.victim].fault].Reconnect
		fault = l.victims[c.victim].fault
		l.victims[c.victim].over = true
	}
	l.closeConn(i)
	if again {
		l.dialAgain(i, fault)
	}
}
