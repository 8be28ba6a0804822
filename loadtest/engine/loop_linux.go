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

// A loop drives its share of the connections: one thread, one epoll instance. Only
// the channels are shared. Times are in ns of epoll.Monotonic.
type loop struct {
	// Static after construction.
	load     *Load
	index    int // among all loops
	of       int // all loops, of every process
	dialer   *epoll.Dialer
	timeout  int64 // T; 0: unknown
	in       <-chan Order
	out      chan<- Message
	connects ramp  // of all loops
	beats    pacer // of all loops; nil: none
	rand     *rand.Rand
	edge     *edge // nil: plain TCP
	faulty   faultyBytes
	nonce    uint64 // part of those of WebSocket requests
	beat     []byte // an empty frame
	filler   []byte // follows the stamp in an echoed frame
	hello    []byte // the same for all connections; nil: none, or one with a device for each

	poller       *epoll.Poller
	buf          []byte // for reading
	frame        []byte // for writing
	stamp        [MinPayload]byte
	conns        []conn
	free         []int32 // churn: without a socket
	partial      map[int32][]byte
	unsent       map[int32][]byte
	links        []link // of the conns; nil: no edge needs them
	records      map[int32][]byte
	handshakes   handshakes
	closeNotices map[int32]closeNotice
	connecting   connectQueue
	injections   []injection
	drips        []int32 // indexes of injections that drip
	progress     []faultProgress

	start, hold, end int64 // of the phases; 0: not known yet
	mayEnd           bool  // see Order
	holdCPU          usage // at the start of hold
	dialed           int64 // connects begun
	beatRound        int64 // connection beatNext beats next, in this round
	beatNext         int
	ticks            int
	connectedSent    bool  // the message was sent
	handledUntil     int64 // every event up to then was handled
	done             bool

	tallies                   Tallies
	result                    Result
	tickResponse, tickService Histogram
	tickLag                   Histogram
}

// How much a loop does before it looks for events again: few enough that a frame
// that has arrived does not wait for long.
const (
	maxEvents   = 128
	maxSends    = 128
	maxConnects = 32
)

// The longest waits: idleWait bounds how late an order is seen, injectionWait how
// uncertain the time of a detection is (see peerClose.slack).
const (
	idleWait      = int64(20 * time.Millisecond)
	injectionWait = int64(4 * time.Millisecond)
)

// endGrace bounds how long after the end a loop still sends what was due before it,
// for a loop that never catches up.
const endGrace = int64(time.Second)

type closeNotice struct {
	code   int
	reason string
}

// newLoop makes loop index of of. Its last message on out has Result or Error.
func newLoop(p *Load, index, of int, dialer *epoll.Dialer, timeout time.Duration, in <-chan Order,
	out chan<- Message) *loop {
	l := &loop{
		load: p, index: index, of: of, dialer: dialer, timeout: int64(timeout), in: in, out: out,
		connects: p.connects(), rand: rand.New(rand.NewPCG(p.Seed, uint64(index))), beat: make([]byte, 4),
		buf: make([]byte, 64<<10), partial: map[int32][]byte{}, unsent: map[int32][]byte{},
		closeNotices: map[int32]closeNotice{}, progress: make([]faultProgress, len(p.Faults)),
		tickResponse: NewHistogram(tickDigits), tickService: NewHistogram(tickDigits),
		tickLag: NewHistogram(tickDigits),
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
	l.nonce = rand.Uint64()
	l.edge, l.faulty = newEdge(p), newFaultyBytes(p)
	l.result = Result{
		Loop:     index,
		Response: NewHistogram(RunDigits), Service: NewHistogram(RunDigits), Lag: NewHistogram(RunDigits),
		Connect: NewHistogram(RunDigits), ConnectLag: NewHistogram(RunDigits),
		Failures: map[string]*Failure{}, Told: map[int]int{}, Faults: make([]FaultTally, len(p.Faults)),
	}
	if l.edge != nil && l.edge.hasLinks() {
		l.links, l.records = make([]link, len(l.conns)), map[int32][]byte{}
		l.handshakes.running = map[int32]*handshake{}
		l.result.TCP, l.result.TLS, l.result.Upgrade = NewHistogram(RunDigits), NewHistogram(RunDigits),
			NewHistogram(RunDigits)
	}
	return l
}

// number is the connection's number in the load.
func (l *loop) number(i int32) int { return int(i)*l.of + l.index }

// run returns when the phases are over or the loop was stopped, with every socket
// closed.
func (l *loop) run() {
	runtime.LockOSThread() // the thread's processor time is measured; it ends with the goroutine
	// Timer slack in ns, by which the kernel may extend a sleep; usually 50,000.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	var err error
	if l.poller, err = epoll.New(maxEvents); err != nil {
		l.out <- Message{Loop: l.index, Error: fmt.Sprintf("event loop %d: epoll: %s", l.index, err)}
		return
	}
	defer l.poller.Close()
	if !l.load.HasTLS() { // handshakes need every P
		l.poller.HoldP()
	}
	l.handledUntil = epoll.Monotonic()
	for !l.done {
		l.receiveOrders()
		next := l.runDue()
		if err := l.poll(next); err != nil {
			l.closeAll()
			l.handshakes.wg.Wait()
			l.out <- Message{Loop: l.index, Error: fmt.Sprintf("event loop %d: epoll: %s", l.index, err)}
			return
		}
	}
	l.collect()
	l.handshakes.wg.Wait()
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

// runDue does what is due and returns when something is due again.
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
			// What was due before the end is sent first, however late: it counts as
			// unanswered.
			last := l.end - 1
			l.done = l.beatsDue(last) > last || now >= l.end+endGrace
			return now
		}
		next = min(next, l.faultsDue(now))
	} else if l.hold != 0 {
		next = min(next, l.hold)
	}
	next = min(next, l.connectsDue(now), l.beatsDue(now), l.expireConnects(now))
	// Ticks are staggered: on few cores, loops that report at one instant make each
	// other late.
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
		l.poller.HoldP()
		counts := l.tallies
		l.out <- Message{Loop: l.index, Connected: &counts}
	}
	return next
}

// beginHold takes the first measurements of the phase and starts the echo.
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

// poll waits for events until next and handles them.
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
		l.handledUntil = max(before, min(next, at)) // the kernel looks once more at the timeout
	case n < maxEvents:
		l.handledUntil = before // all that had happened by then is among these
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

// handleEvent handles the events of one connection. at is when they were seen.
func (l *loop) handleEvent(i int32, c *conn, events uint32, at, slack int64) {
	if c.state == stateConnecting && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if !l.connected(i, c, at) {
			return
		}
	}
	if c.state == stateHandshake && !l.handshakeEvent(i, c, at) {
		return
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

// sendTick sends the figures of the second that has ended.
func (l *loop) sendTick() {
	l.out <- Message{Loop: l.index, Tick: &Tick{
		N: l.ticks, Tallies: l.tallies,
		Response: l.tickResponse.Drain(), Service: l.tickService.Drain(), Lag: l.tickLag.Drain(),
		ProcCPU: processCPU(),
	}}
}

// event sends an event.
func (l *loop) event(at int64, kind, fault string, count int, text string) {
	l.out <- Message{Loop: l.index, Event: &Event{T: Since(l.start, at), Kind: kind, Fault: fault, Count: count,
		Text: text}}
}

// usage is the processor time used up to a moment.
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

// liveHeap is the size of live heap objects and stacks in bytes.
func liveHeap() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() + s[1].Value.Uint64())
}
