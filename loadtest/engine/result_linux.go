package engine

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/epoll"
	"heartwheel/internal/wording"
)

// collect takes the last measurements and resets every connection.
func (l *loop) collect() {
	now := epoll.Monotonic()
	r := &l.result
	if l.inHold(now) && l.holdCPU.wall != 0 {
		used := readUsage(now)
		if wall := float64(now - l.holdCPU.wall); wall > 0 {
			r.LoopCPU = wording.Thousandths(100 * float64(used.thread-l.holdCPU.thread) / wall)
			r.ProcCPU = wording.Thousandths(100 * float64(used.process-l.holdCPU.process) / wall)
		}
		r.HoldEnd = now
	}
	r.Scheduled += l.restOfSchedule(now)
	l.judgeOpen(now)
	r.Tallies = l.tallies // with what is open now
	runtime.GC()
	r.Heap, r.RSS = liveHeap(), maxRSS()
	l.closeAll()
	r.Closed = epoll.Monotonic()
}

// restOfSchedule is how many frames were still due when the hold phase ended early.
func (l *loop) restOfSchedule(now int64) (n int64) {
	if l.beats == nil || l.load.Mode != ModeBeat || l.hold == 0 || now >= l.end {
		return 0
	}
	for i := range l.conns {
		if c := &l.conns[i]; c.injection < 0 && c.flags&flagReset == 0 {
			n++
		}
	}
	return int64(float64(n) * float64(l.end-max(now, l.hold)) / float64(l.load.Interval))
}

// judgeOpen counts undetected faults and unanswered frames at the end.
func (l *loop) judgeOpen(now int64) {
	r := &l.result
	for k := range l.injections {
		v := &l.injections[k]
		if v.ended || l.handledUntil <= v.expect+int64(l.load.Bound) {
			continue // detected, or not due yet by the last event that this loop has looked at
		}
		t := &r.Faults[v.fault]
		t.Undetected++
		t.End = max(t.End, now)
		text := fmt.Sprintf("connection %d was still open %s after it should have been closed", l.number(v.conn),
			wording.Milliseconds(milliseconds(now-v.expect)))
		if len(t.Examples) < MaxExamples {
			l.event(now, EventUndetected, l.load.Faults[v.fault].Text, 1, text)
		}
		l.addExample(t, now-v.expect, text)
	}
	for i := range l.conns {
		c := &l.conns[i]
		if c.state != stateUp || c.injection >= 0 {
			continue
		}
		if n := l.closeNotices[int32(i)]; n.code == int(codec.CodeDraining) && !l.load.ExpectDrain {
			cl := l.peerClose(int32(i), c, now, 0)
			l.countUnexplained(now, cl.example(l.start, l.number(int32(i)), "asked to go, and still open", n.reason))
		}
		if c.unansweredBeats > 0 {
			r.Unanswered += int64(c.unansweredBeats)
			r.OldestUnanswered = max(r.OldestUnanswered, now-c.oldestSent)
		}
		if c.sendSeq != c.answerSeq {
			r.Unanswered += int64(c.sendSeq - c.answerSeq)
			r.OldestUnanswered = max(r.OldestUnanswered, now-c.waitingSince)
		}
	}
}

// closeAll resets every connection.
func (l *loop) closeAll() {
	for i := range l.conns {
		if c := &l.conns[i]; c.state != stateClosed {
			l.closeConn(int32(i))
		}
	}
}

// maxRSS is the peak resident size of the process in bytes.
func maxRSS() int64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return int64(u.Maxrss) * 1024
}
