package server

import (
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync/atomic"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
	"heartwheel/wheel"
)

// Limits of one wake-up of a loop, after which sockets get their turn again. A
// close costs about 15 µs, most of it in the kernel: half a millisecond for all.
const (
	tasksPerRun  = 256
	closesPerRun = 32

	// runTasksFor is how long tasks may take. The server's own end with the one that
	// is under way; of the application's the clock is read every tasksPerLook.
	runTasksFor  = time.Millisecond
	tasksPerLook = 16
)

// readTurn is how long a wake-up may wait while sockets are read: deadlines, tasks
// and a drain get their turn among the sockets that are ready together, of which
// there may be 1,024 with readSize bytes each.
const readTurn = 2 * time.Millisecond

// flushLimit is how many bytes of answers a loop collects before it writes them.
const flushLimit = 64 << 10

// socketOps is what a loop does to sockets: the engine in production, a fake in
// tests. All of it is Loop only, and none of it calls back into the loop.
type socketOps interface {
	// write writes what the socket takes now; errWouldBlock: it is full.
	write(c *Conn, b []byte) (int, error)
	// unread returns the number of bytes that wait in the socket.
	unread(c *Conn) int
	// unacked returns the number of bytes written that the peer's kernel has not
	// acknowledged; 0 where the system does not know.
	unacked(c *Conn) int
	// traffic returns the bytes received, and those that the peer's kernel has
	// acknowledged; false where the system does not count.
	traffic(c *Conn) (in, out uint64, ok bool)
	// setTimeout sets the kernel's own timeouts to match the idle timeout.
	setTimeout(c *Conn, t time.Duration)
	// close closes the socket; abort resets and drops what is unsent.
	close(c *Conn, abort bool)
	// watch calls loop.writable once, when the socket has room.
	watch(c *Conn) error
	unwatch(c *Conn)
	// pause stops reading, where the system can.
	pause(c *Conn)
	resume(c *Conn)
}

// A loop owns its connections: every field below the first group belongs to
// the loop's goroutine, and so do its methods unless they say otherwise.
type loop struct {
	// Static after construction.
	h       Handler
	hello   HelloHandler // nil if h is none
	edges   []edge       // what connections speak, by Conn.edge; the first is plain native
	io      socketOps
	wheel   *wheel.Loop
	mono    func() int64
	log     *slog.Logger
	boot    string // names this run of the server in session ids
	index   int
	release func(*admission.Ticket) // of a connection that has gone
	// bind counts a connection for its client's address, see bindForwarded.
	bind    func(*admission.Ticket, *net.TCPAddr) admission.Refusal
	collect int // how many bytes of answers are collected before they are written

	mail     mailbox       // safe for concurrent use
	assigned atomic.Int64  // connections given to this loop, those on the way included
	entering chan struct{} // one for each socket on its way: see listener.enter

	cfg        *Config // does not change: see reload
	floorAfter uint64  // connections up to this seq have no beat floor

	now        int64    // loop clock at the start of the current callback
	cur        *Conn    // whose callback runs: its messages collect in out
	asked      *Conn    // whose input is acted on; see enqueue
	reading    []byte   // the frame of cur that is being acted on, in the read buffer
	back       []byte   // frames of cur that go back as they came, in the read buffer; out is empty then
	out        []byte   // messages of the current callback
	marks      []mark   // where those in out end, if cur is not plain native
	terminated []*Conn  // to be finished at the end of the current callback
	tasks      []task   // taken from the mailbox
	next       int      // the first of them that has not run
	own        []func() // tasks of the server itself
	nextOwn    int      // likewise
	seq        uint64
	connLog    connLog

	configs map[*Conn]int64 // native: the theoretical arrival time of the next CONFIG, monotonic ns; see mayConfig

	plain, unframed, sealed []byte // scratch: see consume, mark and write

	drain     drainState
	strangers strangers
	stats     counters
	account   account // of the memory that connections hold
}

func newLoop(index int, cfg *Config, h Handler, w *wheel.Wheel, boot string, release func(*admission.Ticket)) *loop {
	l := &loop{
		cfg: cfg, h: h, mono: w.Now, log: cfg.Logger.With("loop", index), boot: boot, index: index, release: release,
		configs: map[*Conn]int64{}, entering: make(chan struct{}, enteringMost),
	}
	l.hello, _ = h.(HelloHandler)
	l.collect = cfg.collectMost()
	l.account.init()
	l.edges = []edge{{protocol: native{l}, native: true}}
	l.mail.now = w.Now
	l.wheel = w.NewLoop(l.mail.wake)
	return l
}

// newConn makes the session of a socket that a listener of that edge accepted. t is nil
// without TLS. Safe for concurrent use.
func (l *loop) newConn(edge uint8, t transport) *Conn {
	c := &Conn{loop: l, edge: edge}
	if l.edges[edge].layered || t != nil {
		c.flags = flagLayered
	}
	if t != nil {
		c.ext = &ext{edge: &edgeState{transport: t}}
	}
	return c
}

// clock starts a callback: it reads the loop clock, which stands still while
// this loop cannot run.
func (l *loop) clock() int64 {
	l.now = l.wheel.Now()
	return l.now
}

// nowMS is the loop clock in ms, rounded up and never 0; sinceMS reads it back
// within 24 days.
func (l *loop) nowMS() uint32 { return uint32(l.now/1e6+1) | 1 }

// run serves the mailbox, the wheel and a drain. The engine calls it after each
// wake-up, between the callbacks of connections.
func (l *loop) run() {
	since := l.mail.ack() // first: a wake after the clock was read means a later time
	now := l.clock()
	began := l.mono()
	if since != 0 {
		l.stats.lag.observe(began - since)
	}
	left := l.runTasks(began + int64(runTasksFor))
	more := l.wheel.Advance(now, closesPerRun, l.due)
	telling := l.stepDrain()
	l.reap()
	l.mail.wakeIf(left || more || telling)
}

// runIfLate runs if a wake-up has waited for readTurn.
func (l *loop) runIfLate() {
	if since := l.mail.waiting.Load(); since != 0 && l.mono()-since >= int64(readTurn) {
		l.run()
	}
}

// runTasks runs what the mailbox has, at least one task of the server's own and
// tasksPerLook others, and reports whether some are left.
func (l *loop) runTasks(until int64) (left bool) {
	if l.nextOwn == len(l.own) {
		l.own, l.nextOwn = l.mail.swapOwn(l.own), 0
	}
	for l.nextOwn < len(l.own) {
		f := l.own[l.nextOwn]
		l.own[l.nextOwn] = nil
		l.nextOwn++
		f()
		if l.mono() >= until {
			break
		}
	}
	if l.next == len(l.tasks) {
		l.tasks, l.next = l.mail.swap(l.tasks), 0
	}
	for n := 1; n <= tasksPerRun && l.next < len(l.tasks); n++ {
		t := l.tasks[l.next]
		l.tasks[l.next] = task{}
		l.next++
		l.do(t)
		if n%tasksPerLook == 0 && l.mono() >= until {
			break
		}
	}
	return l.nextOwn < len(l.own) || l.next < len(l.tasks)
}

func (l *loop) do(t task) {
	if t.conn.closing() {
		return
	}
	l.cur = t.conn
	defer l.recoverAndFlush()
	t.f(t.conn)
}

// recoverAndFlush, deferred, ends a callback of the current connection. A panic
// closes the connection; what it sent goes out.
func (l *loop) recoverAndFlush() {
	c := l.cur
	if p := recover(); p != nil {
		l.panicked(c, p)
	}
	l.cur, l.reading = nil, nil
	l.flush(c)
	l.asked = nil
}

func (l *loop) panicked(c *Conn, p any) {
	l.stats.panics++
	l.connLog.panics.log(l.log, slog.LevelError, faultLogEvery, "handler panicked; its connection is closed",
		func() []any {
			return []any{"conn", c.ID(), "panic", fmt.Sprint(p), "stack", string(debug.Stack())}
		})
	l.close(c, Internal, codec.CodeInternalError, "internal error")
}

// opened starts a connection whose socket has reached the loop.
func (l *loop) opened(c *Conn, sock netConn) {
	l.clock()
	l.seq++
	c.sock, c.id, c.state = sock, uint64(l.index)<<40|l.seq, stateOpen
	l.openEdge(c)
	l.stats.opened++
	l.logOpen(c)
	beat, timeout := l.cfg.decide(0)
	l.setBeat(c, beat, timeout)
	l.wheel.Arm(&c.timer, l.now, l.untilCheck(c))
	l.start(c)
	l.reap()
}

// start calls the protocol's Start, or waits for the request that comes before it.
func (l *loop) start(c *Conn) {
	l.cur = c
	defer l.recoverAndFlush()
	if c.upgrading() {
		Session{c}.ExpectHandshake()
		return
	}
	l.startProtocol(c)
}

func (l *loop) startProtocol(c *Conn) {
	c.flags |= flagStarted
	l.protocol(c).Start(Session{c})
}

// received takes all that has arrived for c. b is valid until it returns.
func (l *loop) received(c *Conn, b []byte) {
	l.clock()
	l.input(c, b)
	l.reap()
}

// lost ends a connection whose socket is gone.
func (l *loop) lost(c *Conn, why Reason) {
	if c.state == stateClosed || c.state == stateNew {
		return
	}
	l.clock()
	l.terminate(c, why, why != PeerClosed)
	l.reap()
}

// terminate ends c at the end of the current callback. The first reason stays.
func (l *loop) terminate(c *Conn, why Reason, abort bool) {
	if c.state == stateTerminated || c.state == stateClosed {
		return
	}
	if c.state != stateFlushing {
		c.reason = why
	}
	if abort {
		c.flags |= flagAbort
	}
	c.state = stateTerminated
	l.terminated = append(l.terminated, c)
}

// reap finishes the terminated.
func (l *loop) reap() {
	for i := 0; i < len(l.terminated); i++ { // a Close callback may terminate others
		l.finish(l.terminated[i])
		l.terminated[i] = nil
	}
	l.terminated = l.terminated[:0]
	if cap(l.out) > 4*flushLimit {
		l.out = nil
	}
}

// finish ends a connection. It is the only source of close events.
func (l *loop) finish(c *Conn) {
	c.state = stateClosed
	l.wheel.Cancel(&c.timer)
	l.strangers.met(c)
	if c.ext != nil {
		if c.ext.watched() {
			l.io.unwatch(c)
			c.ext.out.watched = false
		}
		l.unhold(c)
	}
	l.stats.closed[c.reason]++
	l.ended(c) // while the peer's address is still known
	l.logClose(c)
	l.closeTransport(c)
	l.io.close(c, c.has(flagAbort))
	c.sock = nil
	if c.ext != nil {
		c.ext.edge = nil // the handler may keep c
	}
	l.assigned.Add(-1)
	l.release(&c.ticket)
}

// ended calls the protocol's End, if there was a Start.
func (l *loop) ended(c *Conn) {
	if !c.has(flagStarted) {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			l.panicked(c, p)
		}
	}()
	l.protocol(c).End(Session{c}, c.reason)
}
