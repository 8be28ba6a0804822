package engine

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/epoll"
)

// maxReads is how often one connection is read before others have their turn.
const maxReads = 8

// read reads what has arrived. gone means that the peer has closed. It returns false
// if the connection is gone.
func (l *loop) read(i int32, c *conn, gone bool, at, slack int64) bool {
	for reads := 0; ; reads++ {
		if reads == maxReads {
			_ = l.poller.Modify(int(c.fd), watched, c.key(i)) // the rest becomes another event
			return true
		}
		n, err := epoll.Read(int(c.fd), l.buf)
		switch {
		case n > 0:
			if !l.handleInput(i, c, l.buf[:n], at, slack) {
				return false
			}
			if n < len(l.buf) && !gone {
				return true // edge-triggered: what arrives now is another event
			}
			at = epoll.Monotonic() // what arrives now may answer what was sent since
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return true
		case err == nil:
			l.closedByPeer(i, c, "end of stream", at, slack)
			return false
		case err == unix.ECONNRESET:
			l.closedByPeer(i, c, "reset", at, slack)
			return false
		default:
			l.closedByPeer(i, c, err.Error(), at, slack)
			return false
		}
	}
}

// endText says how a connection ended that is not read.
func endText(events uint32, fd int32) string {
	if events&unix.EPOLLERR != 0 {
		if err := epoll.ConnectError(int(fd)); err != nil && err != unix.ECONNRESET {
			return err.Error()
		}
		return "reset"
	}
	return "end of stream"
}

// handleInput handles inbound bytes, which it does not keep: of a connection with TLS,
// records. It returns false if the connection is gone.
func (l *loop) handleInput(i int32, c *conn, b []byte, at, slack int64) bool {
	if l.links == nil || l.links[i].tls == nil {
		return l.handleBytes(i, c, b, at)
	}
	mine := c.flags&flagRecord != 0 // b is not the loop's buffer
	if mine {
		b = append(l.records[i], b...)
		delete(l.records, i)
		c.flags &^= flagRecord
	}
	plain, used, err := l.edge.open(&l.links[i], b)
	if len(plain) > 0 && !l.handleBytes(i, c, plain, at) {
		return false
	}
	if l.links[i].tls.Pending() {
		l.writeBytes(i, c, l.edge.seal(&l.links[i], nil), c.lastFrame) // not a frame
	}
	switch {
	case err == tlsedge.ErrClosed:
		l.closedByPeer(i, c, "end of stream", at, slack)
		return false
	case err != nil:
		l.wrongAnswer(i, at, err.Error())
		l.closeConn(i)
		return false
	case used < len(b):
		if b = b[used:]; !mine {
			b = slices.Clone(b)
		}
		l.records[i] = b
		c.flags |= flagRecord
	}
	return true
}

// handleBytes handles inbound bytes, which it does not keep. It returns false if the
// connection is gone.
func (l *loop) handleBytes(i int32, c *conn, b []byte, at int64) bool {
	mine := c.flags&flagPartial != 0 // b is not the loop's buffer
	if mine {
		b = append(l.partial[i], b...)
		delete(l.partial, i)
		c.flags &^= flagPartial
	}
	room := 0 // echo frames that may be sent
	if c.state == stateUpgrade {
		n, ok := l.handleResponse(i, c, b, at)
		if !ok {
			return false
		}
		if n == 0 {
			l.keepPartial(i, c, b, mine)
			return true
		}
		b = b[n:]
	}
	for len(b) > 0 {
		var f codec.Frame
		var n int
		var err error
		if l.edge == nil {
			f, n, err = codec.Decode(b, codec.MaxFrameLimit)
		} else {
			var whole bool
			if f, n, whole, err = l.edge.next(l.link(i), b); n > 0 && !whole {
				b = b[n:]
				continue
			}
		}
		if err != nil {
			l.wrongAnswer(i, at, fmt.Sprintf("bytes that are not a frame: % x: %s", b[:min(len(b), 16)], err))
			l.closeConn(i)
			return false
		}
		if n == 0 {
			l.keepPartial(i, c, b, mine)
			break
		}
		b = b[n:]
		answered, ok := l.handleFrame(i, c, f, at)
		if !ok {
			return false
		}
		room += answered
	}
	if room > 0 && l.load.Mode == ModeEcho && l.inHold(at) {
		l.sendEcho(i, room, at)
	}
	return true
}

// keepPartial keeps what is not a whole frame yet; without mine it copies b.
func (l *loop) keepPartial(i int32, c *conn, b []byte, mine bool) {
	if !mine {
		b = slices.Clone(b)
	}
	l.partial[i] = b
	c.flags |= flagPartial
}

// link is that of a connection with an edge.
func (l *loop) link(i int32) *link {
	if l.links == nil {
		return &l.edge.none
	}
	return &l.links[i]
}

// control says whether f may come at any time: pings and pongs of WebSocket.
func (l *loop) control(f codec.Frame) bool {
	return l.edge != nil && l.edge.ws && (f.Op == codec.OpPing || f.Op == codec.OpPong)
}

// handleFrame returns how many echo frames f answers, and false if the connection is
// gone.
func (l *loop) handleFrame(i int32, c *conn, f codec.Frame, at int64) (echoed int, ok bool) {
	if c.state == stateHello && f.Op != codec.OpWelcome && f.Op != codec.OpClose && f.Op != codec.OpGoaway &&
		!l.control(f) {
		l.wrongAnswer(i, at, fmt.Sprintf("%s in place of WELCOME", f.Op))
		l.failConn(i, at, "HELLO was not answered with WELCOME")
		return 0, false
	}
	switch f.Op {
	case codec.OpBeat:
		return 0, l.handleBeat(i, c, at)
	case codec.OpPing, codec.OpPong, codec.OpData:
		echoed = l.handleStamped(i, c, f, at)
		return echoed, c.state != stateClosed
	case codec.OpWelcome:
		l.handleWelcome(i, c, f, at)
		return 0, c.state != stateClosed
	case codec.OpGoaway:
		if g, err := codec.ParseGoaway(f.Payload); err == nil {
			l.noteClose(i, c, int(g.Code), g.Reason)
		} else {
			l.wrongAnswer(i, at, err.Error())
		}
	case codec.OpClose:
		if code, reason, err := codec.ParseClose(f.Payload); err == nil {
			l.noteClose(i, c, int(code), reason)
		} else {
			l.wrongAnswer(i, at, err.Error())
		}
		if l.edge != nil && l.edge.ws && c.injection < 0 {
			l.writeBytes(i, c, l.edge.seal(&l.links[i], appendCloseAnswer(l.frame[:0], f.Payload)), c.lastFrame)
		}
	case codec.OpError:
		code, text, _ := codec.ParseError(f.Payload)
		l.wrongAnswer(i, at, fmt.Sprintf("ERROR %d %q", code, text))
	case codec.OpConfig: // nothing here depends on it
	default:
		if !f.Op.Extension() {
			l.wrongAnswer(i, at, fmt.Sprintf("unexpected %s", f.Op))
		}
	}
	return 0, true
}

// handleBeat handles an empty frame: the answer to the oldest beat, or the server's
// own. It returns false if the connection is gone.
func (l *loop) handleBeat(i int32, c *conn, at int64) bool {
	if c.unansweredBeats == 0 {
		if !l.load.serverBeats() {
			l.wrongAnswer(i, at, "unexpected empty frame")
		} else if c.injection < 0 {
			c.flags |= flagAnswered
			l.tallies.ServerBeats++
			l.write(i, c, l.beat, epoll.Monotonic())
		}
		return true
	}
	l.countAnswer(c, c.oldestDue, at-c.oldestDue, at-c.oldestSent)
	c.unansweredBeats--
	// With more than two unanswered beats, the ones between count as sent when due:
	// an interval apart.
	c.oldestDue += int64(l.load.Interval)
	c.oldestSent = max(c.oldestDue, c.oldestSent)
	if c.unansweredBeats == 1 {
		c.oldestSent = c.newestSent
	}
	return !l.endChurn(i)
}

// handleStamped handles the answer to a PING or DATA. A server that only echoes
// answers a PING with the same PING.
func (l *loop) handleStamped(i int32, c *conn, f codec.Frame, at int64) (echoed int) {
	var filler []byte
	var mine bool
	if f.Op == codec.OpData {
		filler, mine, echoed = l.filler, l.load.Mode == ModeEcho, 1
	} else {
		mine = l.load.Frame == FramePing // also in mode echo, until the hold phase
	}
	mine = mine && c.sendSeq != c.answerSeq && len(f.Payload) == MinPayload+len(filler)
	var s stamp
	if mine {
		s = parseStamp(f.Payload)
		mine = s.seq == c.answerSeq && s.sent <= at && s.sent >= l.start &&
			bytes.Equal(f.Payload[MinPayload:], filler)
	}
	if !mine {
		if f.Op == codec.OpPing && c.injection >= 0 {
			return 0 // not answered
		}
		if f.Op == codec.OpPing { // the server's own
			l.tallies.ServerBeats++
			l.write(i, c, codec.AppendPong(l.frame[:0], f.Payload), epoll.Monotonic())
			return 0
		}
		if f.Op == codec.OpPong && l.control(f) && c.sendSeq == c.answerSeq {
			return 0 // unsolicited pongs are allowed
		}
		l.wrongAnswer(i, at, fmt.Sprintf("%s with %d bytes (% x) in place of the answer to frame %d", f.Op,
			len(f.Payload), f.Payload[:min(len(f.Payload), MinPayload)], c.answerSeq-firstSeq(l.number(i))))
		if f.Op != codec.OpData || c.sendSeq == c.answerSeq {
			return 0
		}
		c.answerSeq++ // else the connection would stand still
		return 1
	}
	c.answerSeq++
	c.waitingSince = at
	service := at - s.sent
	l.countAnswer(c, s.sent, service+int64(s.lag)*1000, service)
	l.endChurn(i)
	return echoed
}

// countAnswer counts a correct answer to a frame that was due at due.
func (l *loop) countAnswer(c *conn, due, response, service int64) {
	c.flags = c.flags&^flagReconnect | flagAnswered
	l.tallies.Answered++
	l.tickResponse.Record(response)
	l.tickService.Record(service)
	if l.inHold(due) {
		l.result.AnsweredInHold++
		l.result.Response.Record(response)
		l.result.Service.Record(service)
	}
}

// endChurn closes a connection in mode churn, once it was answered.
func (l *loop) endChurn(i int32) bool {
	if l.load.Mode != ModeChurn {
		return false
	}
	l.closeConn(i)
	return true
}

func (l *loop) handleWelcome(i int32, c *conn, f codec.Frame, at int64) {
	w, err := codec.ParseWelcome(f.Payload)
	if err != nil {
		l.wrongAnswer(i, at, err.Error())
		return
	}
	if c.state != stateHello {
		l.wrongAnswer(i, at, "unexpected WELCOME")
		return
	}
	if t := w.TimeoutMS * int64(time.Millisecond); l.timeout != 0 && l.load.Timeout == 0 && t != l.timeout {
		l.wrongAnswer(i, at, fmt.Sprintf("WELCOME says T = %d ms, after %d ms before", w.TimeoutMS, l.timeout/1e6))
	}
	l.established(i, c, at)
}

// noteClose keeps the code with which the server is about to close.
func (l *loop) noteClose(i int32, c *conn, code int, reason string) {
	l.closeNotices[i] = closeNotice{code, cut(reason)}
	c.flags |= flagCloseNotice
}

// wrongAnswer counts a wrong answer.
func (l *loop) wrongAnswer(i int32, at int64, text string) {
	if l.tallies.Wrong++; l.tallies.Wrong == 1 {
		l.result.WrongExample = fmt.Sprintf("at %.3f s connection %d: %s", Since(l.start, at), l.number(i), cut(text))
		l.event(at, EventWrong, "", 1, l.result.WrongExample)
	}
}

// peerClose is what is known of a close by the server that was seen at at.
func (l *loop) peerClose(i int32, c *conn, at, slack int64) peerClose {
	cl := peerClose{
		at: at, slack: slack + l.stalledNS(c.lastFrame, at), lastFrame: c.lastFrame,
		answered: c.flags&flagAnswered != 0, timeout: l.timeout, bound: int64(l.load.Bound),
		code: l.closeNotices[i].code, drains: l.load.ExpectDrain,
	}
	if c.state == stateUp {
		cl.established = c.stateSince
	}
	if c.injection >= 0 {
		cl.fault, cl.expect = true, l.injections[c.injection].expect
	}
	return cl
}

func (l *loop) countUnexplained(at int64, example CloseExample) {
	if example.Code == 0 && len(l.result.Silences) < maxSilences {
		l.result.Silences = append(l.result.Silences, int64(example.SilentMS*1e6))
	}
	l.result.Unexplained = worstClose(l.result.Unexplained, example)
	if l.tallies.Unexplained++; l.tallies.Unexplained <= MaxExamples {
		l.event(at, EventUnexplained, "", 1, example.Text)
	}
}

// closedByPeer handles a close by the server.
func (l *loop) closedByPeer(i int32, c *conn, how string, at, slack int64) {
	cl := l.peerClose(i, c, at, slack)
	reason, wasUp := l.closeNotices[i].reason, c.state == stateUp
	example := cl.example(l.start, l.number(i), how, reason)
	switch cl.classify() {
	case classImmediate:
		text := "closed by the target at once"
		if c.state == stateUpgrade {
			text = "closed by the target without a response to the WebSocket request"
		}
		if cl.code != 0 {
			text = fmt.Sprintf("closed by the target with %d %q", cl.code, reason)
		}
		l.failConn(i, at, text)
		return
	case classRefused:
		l.countRefused(c, at)
	case classTold:
		if !wasUp { // refused in place of WELCOME
			l.failConn(i, at, fmt.Sprintf("closed by the target with %d %q", cl.code, reason))
			return
		}
		if l.result.Told[cl.code]++; l.result.Told[cl.code] == 1 {
			l.event(at, EventTold, "", 1, example.Text)
		}
	case classDetected:
		l.countDetection(c, &cl, example)
	case classFalseKill:
		l.result.FalseKills = worstClose(l.result.FalseKills, example)
		if l.tallies.FalseKills++; l.tallies.FalseKills <= MaxExamples {
			l.event(at, EventFalseKill, "", 1, example.Text)
		}
	case classLapse:
		l.tallies.Lapses++
	case classUnexplained:
		l.countUnexplained(at, example)
	}
	again, fault := false, uint8(0)
	if c.injection >= 0 {
		again = l.load.Faults[l.injections[c.injection].fault].Reconnect
		fault = l.injections[c.injection].fault
		l.injections[c.injection].ended = true
	}
	l.closeConn(i)
	if again {
		l.reconnect(i, fault)
	}
}
