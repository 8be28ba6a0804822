package engine

import (
	"math"
	"slices"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/epoll"
)

// beatsDue sends the beats that are due and returns when the next one is.
func (l *loop) beatsDue(now int64) (next int64) {
	if l.beats == nil || l.load.Mode == ModeEcho && l.inHold(now) {
		return now + idleWait
	}
	for range maxSends {
		k := l.beatRound*int64(l.load.Connections) + int64(l.number(int32(l.beatNext)))
		due := l.start + int64(l.beats.due(k))
		if due > now {
			return due
		}
		i := int32(l.beatNext)
		if l.beatNext++; l.beatNext == len(l.conns) {
			l.beatNext = 0
			l.beatRound++
		}
		c := &l.conns[i]
		if c.injection >= 0 {
			continue
		}
		scheduled := l.load.Mode == ModeBeat && l.inHold(due) && (l.end == 0 || due < l.end) && c.flags&flagReset == 0
		if scheduled {
			l.result.Scheduled++
		}
		if c.state == stateUp && c.stateSince <= due {
			l.sendBeat(i, c, due)
			if scheduled {
				l.result.SentOnSchedule++
			}
		}
	}
	return now // there may be more
}

// sendBeat sends the beat that was due at due.
func (l *loop) sendBeat(i int32, c *conn, due int64) {
	now := epoll.Monotonic()
	if l.inHold(due) {
		l.result.Lag.Record(now - due)
	}
	l.tickLag.Record(now - due)
	if l.load.Frame == FramePing {
		l.frame = codec.AppendPing(l.frame[:0], appendStamp(l.stamp[:0], l.nextStamp(c, now, due)))
		l.write(i, c, l.frame, now)
		return
	}
	if c.unansweredBeats == 0 {
		c.oldestDue, c.oldestSent = due, now
	}
	c.newestSent = now
	c.unansweredBeats++
	l.tallies.Sent++
	l.write(i, c, l.beat, now)
}

func (l *loop) nextStamp(c *conn, now, due int64) stamp {
	if c.sendSeq == c.answerSeq {
		c.waitingSince = now
	}
	s := stamp{sent: now, lag: uint32(min(max(0, now-due)/1000, math.MaxUint32)), seq: c.sendSeq}
	c.sendSeq++
	l.tallies.Sent++
	return s
}

// sendEcho sends n DATA frames, which could be sent since due.
func (l *loop) sendEcho(i int32, n int, due int64) {
	c := &l.conns[i]
	if c.injection >= 0 || c.state != stateUp {
		return
	}
	now := epoll.Monotonic()
	l.frame = l.frame[:0]
	for range n {
		if l.inHold(due) {
			l.result.Lag.Record(now - due)
		}
		l.tickLag.Record(now - due)
		at := len(l.frame)
		// Written in place: AppendData would copy the payload once more.
		l.frame = append(l.frame, 0, 0, 0, 0, byte(codec.OpData))
		l.frame = append(appendStamp(l.frame, l.nextStamp(c, now, due)), l.filler...)
		size := len(l.frame) - at - codec.HeaderSize
		l.frame[at+1], l.frame[at+2], l.frame[at+3] = byte(size>>16), byte(size>>8), byte(size)
	}
	l.write(i, c, l.frame, now)
}

// write sends whole frames; now is the time before the call. What the socket does
// not take is unsent until it does: at most the frames in flight and a few beats.
func (l *loop) write(i int32, c *conn, b []byte, now int64) {
	if l.edge != nil {
		b = l.edge.encode(l.link(i), b)
	}
	l.writeBytes(i, c, b, now)
}

// writeBytes is write for what an edge has made of frames.
func (l *loop) writeBytes(i int32, c *conn, b []byte, now int64) {
	if c.flags&flagUnsent != 0 {
		l.unsent[i] = append(l.unsent[i], b...)
		return
	}
	n, err := epoll.Write(int(c.fd), b)
	switch {
	case n == len(b):
		c.lastFrame = now
	case err == nil || err == unix.EAGAIN:
		l.unsent[i] = slices.Clone(b[max(0, n):])
		c.flags |= flagUnsent
	}
	// Any other error means that the connection is closed: its event follows.
}

// flush sends what is unsent.
func (l *loop) flush(i int32, c *conn) {
	now := epoll.Monotonic()
	b := l.unsent[i]
	n, err := epoll.Write(int(c.fd), b)
	switch {
	case n == len(b):
		delete(l.unsent, i)
		c.flags &^= flagUnsent
		c.lastFrame = now
	case err == nil || err == unix.EAGAIN:
		l.unsent[i] = b[max(0, n):]
	}
}
