package engine

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/epoll"
	"heartwheel/internal/wording"
)

// A faultRun is how far a fault of the plan is on a loop.
type faultRun struct {
	begun bool
	list  []int32 // the connections that it takes
	next  int     // the first of them that it has not taken yet
}

// maxInjects is how many connections fail between looking for events.
const maxInjects = 64

// dripEvery is how often a connection that drips sends a byte.
const dripEvery = int64(1e9)

// What faulty peers send. Half is 11 of the 21 bytes of a PING. Drop by drop
// the beginning of a DATA frame of 65,000 bytes is sent. Large is the header of
// the longest frame that there can be.
var (
	half    = codec.AppendPing(nil, make([]byte, 16))[:11]
	dripped = []byte{0x00, 0x00, 0xfd, 0xe8, byte(codec.OpData)}
	garbage = []byte{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef}
	large   = []byte{0x00, 0xff, 0xff, 0xff}
)

// fault makes connections fail whose time has come, and returns when the next
// one's does.
func (l *loop) fault(now int64) (next int64) {
	next = never64
	for fi := range l.plan.Faults {
		f, run := &l.plan.Faults[fi], &l.faults[fi]
		if f.Kind == StallServer || run.begun && run.next == len(run.list) {
			continue
		}
		at := l.hold + int64(f.At)
		if now < at {
			next = min(next, at)
			continue
		}
		if !run.begun {
			run.begun = true
			run.list = l.choose(f)
		}
		for range maxInjects {
			if run.next == len(run.list) {
				break
			}
			due := at + int64(float64(f.Over)*float64(run.next)/float64(len(run.list)))
			if due > now {
				next = min(next, due)
				break
			}
			l.inject(run.list[run.next], uint8(fi))
			run.next++
			next = min(next, max(now, due))
		}
	}
	return min(next, l.drip(now))
}

const never64 = int64(math.MaxInt64)

// choose picks the connections that the fault takes: at random, but the same
// ones for the same seed, among those that are up and without a fault.
func (l *loop) choose(f *Fault) []int32 {
	var able []int32
	for i := range l.conns {
		if c := &l.conns[i]; c.state == stateUp && c.victim < 0 && c.flags&(flagPending|flagTold) == 0 {
			able = append(able, int32(i))
		}
	}
	n := f.Count
	if f.Share != 0 {
		n = int(math.Round(f.Share * float64(l.plan.Connections)))
	}
	n = min(n*(l.index+1)/l.of-n*l.index/l.of, len(able)) // this loop's part of them
	for i := range n {                                    // the first n steps of Fisher and Yates' shuffle
		j := i + l.rand.IntN(len(able)-i)
		able[i], able[j] = able[j], able[i]
	}
	return able[:n]
}

// inject makes one connection fail. What it sends is sent at once: with nothing
// waiting the socket has room for it.
func (l *loop) inject(i int32, fault uint8) {
	c, f, t := &l.conns[i], &l.plan.Faults[fault], &l.result.Faults[fault]
	if c.state != stateUp || c.victim >= 0 {
		return // it has gone since it was chosen
	}
	now := epoll.Monotonic()
	if t.Start == 0 {
		t.Start = now
	}
	t.End = max(t.End, now)
	kind, _ := FaultKindByName(f.Kind)
	if kind.Expect == ExpectNothing { // a herd
		l.closeConn(i)
		l.dialAgain(i, fault)
		return
	}
	t.Injected++
	l.tallies.Injected++
	if kind.Unobservable { // reset: nothing more is to be seen
		l.closeConn(i)
		if f.Reconnect {
			l.dialAgain(i, fault)
		}
		return
	}
	c.victim = int32(len(l.victims))
	v := victim{conn: i, fault: fault, start: now, expect: kind.Expect.after(now, c.lastFrame, l.timeout, int64(l.plan.PartialTimeout))}
	fd := int(c.fd)
	// An error is that of a connection which the server has just closed: the
	// event for it comes.
	switch f.Kind {
	case "freeze":
		c.flags |= flagFrozen
	case "partial":
		_, _ = unix.Write(fd, half)
	case "drip":
		_, _ = unix.Write(fd, dripped[:1])
		v.drip, v.dripped = now+dripEvery, 1
		l.drips = append(l.drips, c.victim)
	case "halfclose":
		_ = unix.Shutdown(fd, unix.SHUT_WR)
	case "garbage":
		_, _ = unix.Write(fd, garbage)
	case "oversize":
		_, _ = unix.Write(fd, large)
	}
	l.victims = append(l.victims, v)
}

// drip sends the bytes that are due, and returns when the next one is.
func (l *loop) drip(now int64) (next int64) {
	next = never64
	kept := l.drips[:0]
	for _, d := range l.drips {
		v := &l.victims[d]
		if v.over {
			continue
		}
		if now >= v.drip {
			b := []byte{0}
			if v.dripped < len(dripped) {
				b = dripped[v.dripped : v.dripped+1]
			}
			_, _ = unix.Write(int(l.conns[v.conn].fd), b)
			v.dripped++
			v.drip += dripEvery
		}
		next = min(next, v.drip)
		kept = append(kept, d)
	}
	l.drips = kept
	return next
}

// dialAgain connects once more, on behalf of a fault.
func (l *loop) dialAgain(i int32, fault uint8) {
	c := &l.conns[i]
	c.flags, c.again = flagAgain, fault
	l.result.Faults[fault].Asked++
	l.dial(i, 0)
}

// detected counts that the server has noticed a fault.
func (l *loop) detected(c *conn, cl *closing, example CloseExample) {
	v := &l.victims[c.victim]
	t := &l.result.Faults[v.fault]
	l.tallies.Detected++
	t.Detected++
	t.End = max(t.End, cl.at)
	t.Errors = append(t.Errors, int32(max(math.MinInt32, min(math.MaxInt32, cl.errorNS()/1000))))
	switch {
	case cl.early():
		t.Early++
		l.note(t, fmt.Sprintf("noticed %s too early: %s", wording.Milliseconds(-ms64(cl.errorNS())), example.Text))
	case cl.late():
		t.Late++
		l.note(t, fmt.Sprintf("noticed %s late: %s", wording.Milliseconds(ms64(cl.errorNS())), example.Text))
	}
}

// stalled is how long of the time between the two the server was stopped by the
// plan.
func (l *loop) stalled(from, to int64) (ns int64) {
	for i := range l.plan.Faults {
		if f := &l.plan.Faults[i]; f.Kind == StallServer && l.hold != 0 {
			begin := l.hold + int64(f.At)
			ns += max(0, min(to, begin+int64(f.For))-max(from, begin))
		}
	}
	return ns
}

// note keeps the first few examples of a fault.
func (l *loop) note(t *FaultTally, text string) {
	if len(t.Examples) < MaxExamples {
		t.Examples = append(t.Examples, text)
	}
}
