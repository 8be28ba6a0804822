package engine

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/epoll"
)

// A loop drives its share of the connections: one thread, one epoll. Loop only,
// all of it, but for the channels. Times are in ns of clock.
type loop struct {
	// static after construction
	load     *Load
	index    int // of this loop among all
	of       int // loops there are, over all processes
	dialer   *epoll.Dialer
	timeout  int64 // T; 0: unknown
	in       <-chan Order
	out      chan<- Message
	connects ramp  // paces the connects of all loops
	beats    pacer // paces the beats of all loops; nil: no beats
	rand     *rand.Rand
	beat     []byte // the empty frame
	filler   []byte // what follows the stamp in an echoed frame
	hello    []byte // the HELLO frame if it is the same for all; nil: none, or with a device

	poller       *epoll.Poller
	buf          []byte // what was read
	frame        []byte // what is written
	stamp        [MinPayload]byte
	conns        []conn
	free         []int32 // churn: conns without a socket
	partial      map[int32][]byte
	unsent       map[int32][]byte
	closeNotices map[int32]closeNotice
	connecting   connectQueue // connecting, by the time when they have failed
	injections   []injection
	drips        []int32 // victims that drip
	progress     []faultProgress

	start, hold, end int64 // of the phases; 0: not yet
	mayEnd           bool  // the hold phase may end
	holdCPU          usage // when hold began
	dialed           int64 // connects that were begun
	beatRound        int64 // the next beat is of conn beatNext in this round
	beatNext         int
	ticks            int
	connectedSent    bool  // has been said
	handledUntil     int64 // every event that had happened by then was handled
	done             bool

	tallies                   Tallies
	result                    Result
	tickResponse, tickService Histogram
	tickLag                   Histogram
}

// maxEvents is how many events are taken at a time, and how many frames are
// sent between looking for events: few, so that a frame that has come waits
// little for others.
const (
	maxEvents   = 128
	maxSends    = 128
	maxConnects = 32
)

// The longest that a loop sleeps: idle is how soon it sees an order, watchful
// bounds what it does not know of the time of a close (see closing.slack).
const (
	idleWait      = int64(20 * time.Millisecond)
	injectionWait = int64(4 * time.Millisecond)
)

// overtime is how long after the end a loop sends what was due before it. One
// that never keeps up would have no end.
const endGrace = int64(time.Second)

type closeNotice struct {
	code   int
	reason string
}

// newLoop makes loop index of of. The loop ends in a report on out with Result
// or Error.
func newLoop(p *Load, index, of int, dialer *epoll.Dialer, timeout time.Duration, in <-chan Order, out chan<- Message) *loop {
	l := &loop{
		load: p, index: index, of: of, dialer: dialer, timeout: int64(timeout), in: in, out: out,
		connects: p.connects(), rand: rand.New(rand.NewPCG(p.Seed, uint64(index))), beat: make([]byte, 4),
		buf: make([]byte, 64<<10), partial: map[int32][]byte{}, unsent: map[int32][]byte{}, closeNotices: map[int32]closeNotice{},
		progress:     make([]faultProgress, len(p.Faults)),
		tickResponse: NewHistogram(tickDigits), tickService: NewHistogram(tickDigits), tickLag: NewHistogram(tickDigits),
	}
	l.conns = make([]conn, (p.Connections-index+of-1)/of)
	for i := range l.conns {
		l.conns[i].injection = -1
	}
	if p.Mode == ModeChurn {
		for i := len(l.conns) - 1; i >= 0; i-- {
			l.free = append(l.free, int32(i))
		}
	} else if !p.serverBeats() {
		l.beats = p.beats()
	}
	if p.Mode == ModeEcho {
		l.filler = make([]byte, p.Payload-MinPayload)
		for i := range l.filler {
			l.filler[i] = byte(i)
		}
	}
	if p.Hello && p.HelloDevice == "" {
		l.hello = p.AppendHello(nil, 0)
	}
	l.result = Result{
		Loop:     index,
		Response: NewHistogram(RunDigits), Service: NewHistogram(RunDigits), Lag: NewHistogram(RunDigits),
		Connect: NewHistogram(RunDigits), ConnectLag: NewHistogram(RunDigits),
		Failures: map[string]*Failure{}, Told: map[int]int{}, Faults: make([]FaultTally, len(p.Faults)),
	}
	return l
}

// number is the connection's number in the plan.
func (l *loop) number(i int32) int { return int(i)*l.of + l.index }

// run is the loop. It returns when the phases are over or it was stopped, with
// every socket closed.
func (l *loop) run() {
	runtime.LockOSThread() // its own thread, whose processor time is measured; it ends with the goroutine
	// The kernel may round sleeps up by so many ns; 50,000 is usual.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	var err error
	if l.poller, err = epoll.New(maxEvents); err != nil {
		l.out <- Message{Loop: l.index, Error: fmt.Sprintf("event loop %d: epoll: %s", l.index, err)}
		return
	}
	defer l.poller.Close()
	l.poller.HoldP()
	l.handledUntil = epoll.Monotonic()
	for !l.done {
		l.receiveOrders()
		next := l.runDue()
		if err := l.poll(next); err != nil {
			l.closeAll()
			l.out <- Message{Loop: l.index, Error: fmt.Sprintf("event loop %d: epoll: %s", l.index, err)}
			return
		}
	}
	l.collect()
	l.out <- Message{Loop: l.index, Result: &l.result}
}

func (l *loop) receiveOrders() {
	for {
		select {
		case o, ok := <-l.in:
			if !ok || o.Stop {
				l.done = true
				return
			}
			if o.Start != 0 {
				l.start = o.Start
			}
			if o.Hold != 0 {
				l.hold, l.end = o.Hold, o.Hold+int64(l.load.Duration)
			}
			l.mayEnd = l.mayEnd || o.MayEnd
		default:
			return
		}
	}
}

// work does what is due and returns when something is due again.
func (l *loop) runDue() (next int64) {
	now := epoll.Monotonic()
	next = now + idleWait
	if len(l.injections) > 0 {
		next = now + injectionWait
	}
	if l.start == 0 || now < l.start {
		if l.start != 0 {
			next = min(next, l.start)
		}
		return next
	}
	if l.hold != 0 && now >= l.hold {
		if l.holdCPU.wall == 0 {
			l.beginHold(now)
		}
		if now < l.end {
			next = min(next, l.end)
		} else if l.mayEnd {
			// What was due before the end is sent first, however late: it counts,
			// as without an answer.
			last := l.end - 1
			l.done = l.beatsDue(last) > last || now >= l.end+endGrace
			return now
		}
		next = min(next, l.faultsDue(now))
	} else if l.hold != 0 {
		next = min(next, l.hold)
	}
	next = min(next, l.connectsDue(now), l.beatsDue(now), l.expireConnects(now))
	// The loops do not report all at one instant: on few cores that would make
	// each other's frames late.
	stagger := int64(TickSpread) * int64(l.index) / int64(l.of)
	if tick := l.start + int64(l.ticks+1)*int64(time.Second) + stagger; now >= tick {
		l.ticks++
		l.sendTick()
		next = min(next, tick+int64(time.Second))
	} else {
		next = min(next, tick)
	}
	if !l.connectedSent && l.load.Mode != ModeChurn && l.dialed == int64(len(l.conns)) && l.tallies.Connecting == 0 {
		l.connectedSent = true
		counts := l.tallies
		l.out <- Message{Loop: l.index, Connected: &counts}
	}
	return next
}

// beginHold takes the first measures of the phase, and starts the echo.
func (l *loop) beginHold(now int64) {
	l.holdCPU = readUsage(now)
	if l.load.Mode == ModeEcho {
		for i := range l.conns {
			if l.conns[i].state == stateUp {
				l.sendEcho(int32(i), l.load.Inflight, now)
			}
		}
	}
}

// poll waits for events until next, and handles them.
func (l *loop) poll(next int64) error {
	before := epoll.Monotonic()
	events, err := l.poller.Wait(time.Duration(next - before))
	if err != nil {
		return err
	}
	at := epoll.Monotonic()
	slack := at - l.handledUntil
	switch n := len(events); {
	case n == 0:
		l.handledUntil = max(before, min(next, at)) // the kernel looks again when the time is over
	case n < maxEvents:
		l.handledUntil = before // what had happened by then is among these
	}
	for k := range events {
		ev := &events[k]
		key := ev.Key()
		if c := &l.conns[key.ID]; c.state != stateClosed && c.gen == key.Gen {
			l.handleEvent(key.ID, c, ev.Events, at, slack)
		}
	}
	return nil
}

// handle does what events ask for. at is when they were seen.
func (l *loop) handleEvent(i int32, c *conn, events uint32, at, slack int64) {
	if c.state == stateConnecting && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if !l.connected(i, c, at) {
			return
		}
	}
	const gone = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	switch {
	case c.flags&flagFrozen != 0:
		if events&gone != 0 {
			l.closedByPeer(i, c, endText(events, c.fd), at, slack)
		}
		return
	case events&(unix.EPOLLIN|gone) != 0:
		if !l.read(i, c, events&gone != 0, at, slack) {
			return
		}
	}
	if events&unix.EPOLLOUT != 0 && c.flags&flagUnsent != 0 {
		l.flush(i, c)
	}
}

// sendTick reports the second that has ended.
func (l *loop) sendTick() {
	l.out <- Message{Loop: l.index, Tick: &Tick{
		N: l.ticks, Tallies: l.tallies,
		Response: l.tickResponse.Drain(), Service: l.tickService.Drain(), Lag: l.tickLag.Drain(),
		ProcCPU: processCPU(),
	}}
}

// event reports what a person may want to know of.
func (l *loop) event(at int64, kind, fault string, count int, text string) {
	l.out <- Message{Loop: l.index, Event: &Event{T: Since(l.start, at), Kind: kind, Fault: fault, Count: count, Text: text}}
}

// usage is the processor time used until a moment.
type usage struct {
	wall, thread, process int64 // ns
}

func readUsage(now int64) usage {
	var r unix.Rusage
	u := usage{wall: now, process: processCPU()}
	if unix.Getrusage(unix.RUSAGE_THREAD, &r) == nil {
		u.thread = r.Utime.Nano() + r.Stime.Nano()
	}
	return u
}

func processCPU() int64 {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) != nil {
		return 0
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

// liveMemory is the bytes of live heap objects and of stacks.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() + s[1].Value.Uint64())
}
