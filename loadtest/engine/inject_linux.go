package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/edge/websocket"
	"heartwheel/internal/epoll"
	"heartwheel/internal/wording"
)

// faultProgress is how far a loop is with a fault.
type faultProgress struct {
	begun bool
	conns []int32 // that the fault takes
	next  int     // index of the next one
}

// maxInjects is how many connections fail before the loop looks for events again.
const maxInjects = 64

// dripEvery is the interval between the bytes of a drip, in ns.
const dripEvery = int64(1e9)

// faultyBytes is what faulty peers send, before TLS.
type faultyBytes struct {
	half     []byte // of a frame of 16 bytes
	drip     []byte // drop by drop, the start of a frame that is long
	fill     byte   // and all that follows
	garbage  []byte // no frame
	oversize []byte // the header of the largest frame that can be written
}

func newFaultyBytes(l *Load) faultyBytes {
	const long = 65000
	f := faultyBytes{garbage: []byte{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef}}
	switch foreign := newForeign(l); {
	case l.HasWebSocket():
		mask := newMask()
		f.half = websocket.AppendMasked(nil, make([]byte, 16), websocket.KindBinary, mask)[:11]
		f.drip = append(binary.BigEndian.AppendUint16([]byte{0x82, 0x80 | 126}, long), mask[:]...)
		f.oversize = append(binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, codec.MaxFrameLimit), mask[:]...)
	case foreign != nil:
		f.fill = '0' // no delimiter is of these alone
		content := bytes.Repeat([]byte{f.fill}, min(long, l.Framing.longest()))
		f.drip = foreign.framing.Append(nil, content)
		f.drip = f.drip[:len(f.drip)-len(content)-len(l.Framing.end())]
		f.half = foreign.framing.Append(nil, content[:min(len(content), max(16, l.Framing.Adjust))])
		f.half = f.half[:len(f.half)/2]
	default:
		f.half = codec.AppendPing(nil, make([]byte, 16))[:11]
		f.drip = append(binary.BigEndian.AppendUint32(nil, long), byte(codec.OpData))
		f.oversize = []byte{0x00, 0xff, 0xff, 0xff}
	}
	return f
}

// writeFault sends bytes that are no whole frame. The socket has room for them; an
// error means that the server has just closed the connection, and its event follows.
func (l *loop) writeFault(i int32, b []byte) {
	if l.edge != nil {
		b = l.edge.seal(l.link(i), b)
	}
	if len(b) > 0 {
		_, _ = unix.Write(int(l.conns[i].fd), b)
	}
}

// faultsDue injects the faults that are due and returns when the next one is.
func (l *loop) faultsDue(now int64) (next int64) {
	next = noDeadline
	for fi := range l.load.Faults {
		f, run := &l.load.Faults[fi], &l.progress[fi]
		if f.Kind == StallServer || run.begun && run.next == len(run.conns) {
			continue
		}
		at := l.hold + int64(f.At)
		if now < at {
			next = min(next, at)
			continue
		}
		if !run.begun {
			run.begun = true
			run.conns = l.chooseConns(f)
		}
		for range maxInjects {
			if run.next == len(run.conns) {
				break
			}
			due := at + int64(float64(f.Over)*float64(run.next)/float64(len(run.conns)))
			if due > now {
				next = min(next, due)
				break
			}
			l.inject(run.conns[run.next], uint8(fi))
			run.next++
			next = min(next, max(now, due))
		}
	}
	return min(next, l.dripsDue(now))
}

const noDeadline = int64(math.MaxInt64)

// chooseConns picks the connections of a fault among those that are up and have
// none: at random, but the same ones for the same seed.
func (l *loop) chooseConns(f *Fault) []int32 {
	var able []int32
	for i := range l.conns {
		if c := &l.conns[i]; c.state == stateUp && c.injection < 0 && c.flags&(flagUnsent|flagCloseNotice) == 0 {
			able = append(able, int32(i))
		}
	}
	n := f.Count
	if f.Share != 0 {
		n = int(math.Round(f.Share * float64(l.load.Connections)))
	}
	n = min(n*(l.index+1)/l.of-n*l.index/l.of, len(able)) // the share of this loop
	for i := range n {                                    // Fisher–Yates shuffle
		j := i + l.rand.IntN(len(able)-i)
		able[i], able[j] = able[j], able[i]
	}
	return able[:n]
}

// inject makes one connection fail. Nothing of it is unsent, so the socket has room
// for what the fault sends.
func (l *loop) inject(i int32, fault uint8) {
	c, f, t := &l.conns[i], &l.load.Faults[fault], &l.result.Faults[fault]
	if c.state != stateUp || c.injection >= 0 {
		return // gone since it was chosen
	}
	now := epoll.Monotonic()
	if t.Start == 0 {
		t.Start = now
	}
	t.End = max(t.End, now)
	kind, _ := FaultKindByName(f.Kind)
	if kind.Expect == ExpectNothing { // herd
		l.closeConn(i)
		l.reconnect(i, fault)
		return
	}
	t.Injected++
	l.tallies.Injected++
	if kind.Unobservable { // reset: the client sees nothing more
		l.closeConn(i)
		c.flags = flagReset
		if f.Reconnect {
			l.reconnect(i, fault)
		}
		return
	}
	c.injection = int32(len(l.injections))
	v := injection{conn: i, fault: fault, start: now, expect: kind.Expect.after(now, c.lastFrame, l.timeout,
		int64(l.load.PartialTimeout))}
	switch f.Kind {
	case "freeze":
		c.flags |= flagFrozen
	case "partial":
		l.writeFault(i, l.faulty.half)
	case "drip":
		v.nextDrip = now + dripEvery
		l.dripOne(&v)
		l.drips = append(l.drips, c.injection)
	case "halfclose":
		if l.edge != nil && l.edge.tls {
			_, _ = unix.Write(int(c.fd), l.links[i].tls.AppendClose(nil))
		}
		_ = unix.Shutdown(int(c.fd), unix.SHUT_WR)
	case "garbage":
		l.writeFault(i, l.faulty.garbage)
	case "oversize":
		l.writeFault(i, l.faulty.oversize)
	}
	l.injections = append(l.injections, v)
}

// dripsDue sends the drips that are due and returns when the next one is.
func (l *loop) dripsDue(now int64) (next int64) {
	next = noDeadline
	kept := l.drips[:0]
	for _, d := range l.drips {
		v := &l.injections[d]
		if v.ended {
			continue
		}
		if now >= v.nextDrip {
			l.dripOne(v)
			v.nextDrip += dripEvery
		}
		next = min(next, v.nextDrip)
		kept = append(kept, d)
	}
	l.drips = kept
	return next
}

// dripOne sends the next byte of a drip.
func (l *loop) dripOne(v *injection) {
	b := []byte{l.faulty.fill}
	if v.sent < len(l.faulty.drip) {
		b[0] = l.faulty.drip[v.sent]
	}
	v.sent++
	l.writeFault(v.conn, b)
}

// reconnect connects again, as part of a fault.
func (l *loop) reconnect(i int32, fault uint8) {
	c := &l.conns[i]
	c.flags, c.reconnectOf = flagReconnect, fault
	l.result.Faults[fault].Reconnects++
	l.dial(i, 0)
}

// countDetection counts a close as the detection of the connection's fault.
func (l *loop) countDetection(c *conn, cl *peerClose, example CloseExample) {
	v := &l.injections[c.injection]
	t := &l.result.Faults[v.fault]
	l.tallies.Detected++
	t.Detected++
	t.End = max(t.End, cl.at)
	t.Errors = append(t.Errors, int32(max(math.MinInt32, min(math.MaxInt32, cl.errorNS()/1000))))
	off := cl.errorNS()
	switch {
	case cl.early():
		t.Early++
		l.addExample(t, off, fmt.Sprintf("detected %s too early: %s", wording.Milliseconds(-milliseconds(off)),
			example.Text))
	case cl.late():
		t.Late++
		l.addExample(t, off, fmt.Sprintf("detected %s late: %s", wording.Milliseconds(milliseconds(off)),
			example.Text))
	}
}

// stalledNS is how long the load had the server stopped between from and to.
func (l *loop) stalledNS(from, to int64) (ns int64) {
	for i := range l.load.Faults {
		if f := &l.load.Faults[i]; f.Kind == StallServer && l.hold != 0 {
			begin := l.hold + int64(f.At)
			ns += max(0, min(to, begin+int64(f.For))-max(from, begin))
		}
	}
	return ns
}

// addExample keeps the worst few examples of a fault: off is in ns.
func (l *loop) addExample(t *FaultTally, off int64, text string) {
	t.Examples = Worst(append(t.Examples, FaultExample{max(off, -off), text}))
}
