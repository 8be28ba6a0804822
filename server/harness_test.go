package server

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
	"heartwheel/wheel"
)

// tick is the wheel's, slack how late an expiry may be (codec/SPEC.md).
const (
	tick  = 100 * time.Millisecond
	slack = 2 * tick
)

// A fakeSock is one end of a connection that has no socket. All of it is loop
// only, except what mu guards.
type fakeSock struct {
	fd       int
	out      []byte // every byte the loop has written
	writes   int    // calls of write
	forget   bool   // do not keep what is written
	unacked  int    // bytes of out that the peer's machine has not acknowledged
	room     int    // bytes it takes before it is full; negative: never full
	chunk    int    // most bytes one write takes, the rest would block; 0: any
	writeErr error  // what write fails with
	watchErr error  // what watch fails with
	watched  bool
	watches  int
	paused   bool // it is not read
	closes   int
	aborted  bool
	closedAt time.Time
	timeouts []time.Duration // what setTimeout was told
	onWrite  func(b []byte)  // sees what the socket takes; may be nil

	mu     sync.Mutex
	inbox  []byte // guarded by mu: has arrived, not read
	unread int    // guarded by mu: bytes reported besides as unread
}

func (s *fakeSock) Fd() int              { return s.fd }
func (s *fakeSock) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: s.fd} }

// setUnread makes the socket report n bytes more than have arrived.
func (s *fakeSock) setUnread(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unread = n
}

// fakeSockets stands in for the engine. It finds the socket of a Conn by the
// Conn, also after the close event.
type fakeSockets struct {
	mu     sync.RWMutex
	byConn map[*Conn]*fakeSock // guarded by mu
}

// of returns the socket of c. Safe for concurrent use.
func (f *fakeSockets) of(c *Conn) *fakeSock {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.byConn[c]
}

// add gives c a socket. Safe for concurrent use.
func (f *fakeSockets) add(c *Conn) *fakeSock {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &fakeSock{fd: len(f.byConn) + 100, room: -1}
	f.byConn[c] = s
	return s
}

func (f *fakeSockets) write(c *Conn, b []byte) (int, error) {
	s := f.of(c)
	s.writes++
	if s.closes > 0 {
		panic("write after close")
	}
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	n := len(b)
	if s.room >= 0 {
		n = min(n, s.room)
	}
	if s.chunk > 0 {
		n = min(n, s.chunk)
	}
	if s.room >= 0 {
		s.room -= n
	}
	if s.onWrite != nil && n > 0 {
		s.onWrite(b[:n])
	}
	if !s.forget {
		s.out = append(s.out, b[:n]...)
	}
	if n < len(b) {
		return n, errWouldBlock
	}
	return n, nil
}

func (f *fakeSockets) traffic(c *Conn) (in, out uint64, ok bool) {
	return 0, uint64(len(f.of(c).out)), true
}

func (f *fakeSockets) unread(c *Conn) int {
	s := f.of(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.inbox) + s.unread
}

func (f *fakeSockets) unacked(c *Conn) int { return f.of(c).unacked }

func (f *fakeSockets) setTimeout(c *Conn, t time.Duration) {
	s := f.of(c)
	s.timeouts = append(s.timeouts, t)
}

func (f *fakeSockets) close(c *Conn, abort bool) {
	s := f.of(c)
	s.closes++
	s.aborted, s.closedAt = abort, time.Now()
}

func (f *fakeSockets) watch(c *Conn) error {
	s := f.of(c)
	s.watches++
	s.watched = s.watchErr == nil
	return s.watchErr
}

func (f *fakeSockets) unwatch(c *Conn) { f.of(c).watched = false }

func (f *fakeSockets) pause(c *Conn)  { f.of(c).paused = true }
func (f *fakeSockets) resume(c *Conn) { f.of(c).paused = false }

// A recorder is a Handler that notes what it is called with. Loop only.
type recorder struct {
	opens  map[*Conn]int
	got    []gotFrame
	closes map[*Conn]int
	why    map[*Conn]Reason
	at     map[*Conn]time.Time // of the close event

	onOpen  func(*Conn)
	onFrame func(*Conn, codec.Frame) error
	onClose func(*Conn, Reason)
}

type gotFrame struct {
	c       *Conn
	op      codec.Op
	payload string
}

func newRecorder() *recorder {
	return &recorder{opens: map[*Conn]int{}, closes: map[*Conn]int{},
		why: map[*Conn]Reason{}, at: map[*Conn]time.Time{}}
}

func (h *recorder) Open(c *Conn) {
	h.opens[c]++
	if h.onOpen != nil {
		h.onOpen(c)
	}
}

func (h *recorder) Frame(c *Conn, f codec.Frame) error {
	h.got = append(h.got, gotFrame{c, f.Op, string(f.Payload)})
	if h.onFrame != nil {
		return h.onFrame(c, f)
	}
	return nil
}

func (h *recorder) Close(c *Conn, why Reason) {
	h.closes[c]++
	h.why[c], h.at[c] = why, time.Now()
	if h.onClose != nil {
		h.onClose(c, why)
	}
}

// A helloRecorder looks at HELLO too.
type helloRecorder struct {
	*recorder
	hellos  []codec.Hello
	onHello func(*Conn, codec.Hello) error
}

func (h *helloRecorder) Hello(c *Conn, m codec.Hello) error {
	h.hellos = append(h.hellos, m)
	if h.onHello != nil {
		return h.onHello(c, m)
	}
	return nil
}

// A rig is one loop with fake sockets. newRig gives it a goroutine of its own,
// on which everything of the loop's happens; it is meant for a synctest bubble.
// newBareRig has no goroutine: the test calls the loop's methods itself, and
// run when it likes; it is meant for benchmarks and for counting allocations.
type rig struct {
	t         testing.TB
	cfg       Config
	loop      *loop
	wheel     *wheel.Wheel
	io        *fakeSockets
	rec       *recorder        // nil if the handler is another
	edge      uint8            // of the connections that open makes
	transport func() transport // of the connections; nil: none
	gone      int              // calls of release
	onRun     func()           // called after each run of the loop; may be nil. Loop only

	signal chan struct{}
	jobs   chan func()
	quit   chan struct{}
	ended  chan struct{}
	bare   bool
	closed bool

	readyMu sync.Mutex
	ready   []*Conn // guarded by readyMu: sockets that have become readable
	readyC  chan struct{}
}

// newRig makes a rig with a goroutine. A nil handler is a recorder.
func newRig(t testing.TB, cfg Config, h Handler) *rig {
	t.Helper()
	r := makeRig(t, cfg, h)
	r.loop.mail.open(func() {
		select {
		case r.signal <- struct{}{}:
		default:
		}
	})
	go r.serve()
	return r
}

// newBareRig makes a rig without a goroutine.
func newBareRig(t testing.TB, cfg Config, h Handler) *rig {
	t.Helper()
	r := makeRig(t, cfg, h)
	r.bare = true
	r.loop.mail.open(func() {})
	return r
}

func makeRig(t testing.TB, cfg Config, h Handler) *rig {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, cfg: cfg.WithDefaults(), io: &fakeSockets{byConn: map[*Conn]*fakeSock{}},
		signal: make(chan struct{}, 1), jobs: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{}),
		readyC: make(chan struct{}, 1),
	}
	switch known := h.(type) {
	case nil:
		r.rec = newRecorder()
		h = r.rec
	case *recorder:
		r.rec = known
	case *helloRecorder:
		r.rec = known.recorder
	}
	r.wheel = wheel.New(wheel.Config{Logger: r.cfg.Logger})
	r.loop = newLoop(0, &r.cfg, h, r.wheel, "boot", func(*admission.Ticket) { r.gone++ })
	r.loop.io = r.io
	t.Cleanup(r.close)
	return r
}

// serve is the loop's goroutine.
func (r *rig) serve() {
	defer close(r.ended)
	for {
		select {
		case <-r.quit:
			return
		case f := <-r.jobs:
			f()
		case <-r.signal:
			r.loop.run()
			if r.onRun != nil {
				r.onRun()
			}
		case <-r.readyC:
			r.readyMu.Lock()
			ready := r.ready
			r.ready = nil
			r.readyMu.Unlock()
			for _, c := range ready {
				r.read(c)
			}
		}
	}
}

// do runs f on the loop's goroutine and waits for it.
func (r *rig) do(f func()) {
	if r.bare {
		f()
		return
	}
	done := make(chan struct{})
	r.jobs <- func() { f(); close(done) }
	<-done
}

// wait lets time pass, and returns when the loop has nothing more to do.
func (r *rig) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	r.do(func() {})
}

// open opens a connection.
func (r *rig) open() *Conn {
	var tr transport
	if r.transport != nil {
		tr = r.transport()
	}
	c := r.loop.newConn(r.edge, tr)
	r.do(func() { r.opened(c) })
	return c
}

// opened gives c a socket and takes it in. Loop only.
func (r *rig) opened(c *Conn) {
	s := r.io.add(c)
	r.loop.assigned.Add(1)
	c.taken = true
	r.loop.opened(c, s)
}

// sock returns the socket of c. Loop only.
func (r *rig) sock(c *Conn) *fakeSock { return r.io.of(c) }

// feed gives c bytes, as if they had arrived and been read at once.
func (r *rig) feed(c *Conn, parts ...[]byte) {
	r.do(func() {
		for _, b := range parts {
			r.input(c, b)
		}
	})
}

// arrive puts bytes into the socket of c, from where the loop reads them when
// its turn comes. Safe for concurrent use.
func (r *rig) arrive(c *Conn, b []byte) {
	s := r.io.of(c)
	s.mu.Lock()
	s.inbox = append(s.inbox, b...)
	s.mu.Unlock()
	r.readyMu.Lock()
	r.ready = append(r.ready, c)
	r.readyMu.Unlock()
	select {
	case r.readyC <- struct{}{}:
	default:
	}
}

// read takes what has arrived for c out of its socket. Loop only.
func (r *rig) read(c *Conn) {
	s := r.sock(c)
	if s.closes > 0 || s.paused {
		return
	}
	s.mu.Lock()
	b := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	if len(b) > 0 {
		r.input(c, b)
	}
}

// input gives c what was read from its socket, as the engine does. Nothing may
// look at b later. Loop only.
func (r *rig) input(c *Conn, b []byte) {
	if r.sock(c).closes > 0 {
		return
	}
	b = bytes.Clone(b)
	r.loop.received(c, b)
	clear(b)
}

// writable gives the socket of c room for n bytes more (negative: for any
// number) and tells the loop if it waits for that. Loop only.
func (r *rig) writable(c *Conn, n int) {
	s := r.sock(c)
	if s.room = n; s.watched {
		s.watched = false
		r.loop.writable(c)
	}
}

// frames returns every whole frame that was written to c so far.
func (r *rig) frames(c *Conn) (all []codec.Frame) {
	r.t.Helper()
	var b []byte
	r.do(func() { b = append(b, r.sock(c).out...) })
	for {
		f, n, err := codec.Decode(b, codec.MaxFrameLimit)
		if err != nil {
			r.t.Fatalf("the loop wrote what is not a frame: %v", err)
		}
		if n == 0 {
			return all
		}
		all = append(all, f)
		b = b[n:]
	}
}

// take is frames, and forgets them.
func (r *rig) take(c *Conn) []codec.Frame {
	r.t.Helper()
	all := r.frames(c)
	r.do(func() { r.sock(c).out = nil })
	return all
}

// ending is how a connection ended.
type ending struct {
	closed  bool
	aborted bool
	why     Reason
	at      time.Time
}

// end returns how c ended.
func (r *rig) end(c *Conn) (e ending) {
	r.do(func() {
		s := r.sock(c)
		e = ending{s.closes > 0, s.aborted, c.reason, s.closedAt}
		if (c.state == stateClosed) != e.closed {
			r.t.Errorf("the socket's closed = %v, but the state is %d", e.closed, c.state)
		}
	})
	return e
}

// alive fails the test if c has closed.
func (r *rig) alive(c *Conn, when string) {
	r.t.Helper()
	if e := r.end(c); e.closed {
		r.t.Fatalf("%s: closed as %s", when, e.why)
	}
}

// wantEnd fails the test unless c has closed for that reason.
func (r *rig) wantEnd(c *Conn, why Reason, abort bool) ending {
	r.t.Helper()
	e := r.end(c)
	if !e.closed {
		r.t.Fatalf("still open, want closed as %s", why)
	}
	if e.why != why || e.aborted != abort {
		r.t.Fatalf("closed as %s (abort %v), want %s (abort %v)", e.why, e.aborted, why, abort)
	}
	return e
}

// wantClose fails the test unless the last frame to c is CLOSE with that code
// and c has closed for that reason, not by reset.
func (r *rig) wantClose(c *Conn, why Reason, code codec.Code) ending {
	r.t.Helper()
	e := r.wantEnd(c, why, false)
	all := r.frames(c)
	if len(all) == 0 || all[len(all)-1].Op != codec.OpClose {
		r.t.Fatalf("frames %v do not end in CLOSE", all)
	}
	if got, text, err := codec.ParseClose(all[len(all)-1].Payload); err != nil || got != code {
		r.t.Fatalf("CLOSE %d %q (%v), want %d", got, text, err, code)
	}
	return e
}

// stats returns a copy of the loop's figures.
func (r *rig) stats() (s counters) {
	r.do(func() { s = r.loop.snapshot() })
	return s
}

// check fails the test if an invariant is broken.
func (r *rig) check() {
	r.t.Helper()
	r.do(func() {
		r.t.Helper()
		if err := r.loop.check(); err != nil {
			r.t.Error(err)
		}
	})
}

// close ends the rig: it closes what is open, sees that each connection was
// closed once, and ends all goroutines. Later calls do nothing.
func (r *rig) close() {
	if r.closed {
		return
	}
	r.closed = true
	r.check()
	r.do(func() {
		r.loop.stop()
		r.loop.reap()
	})
	r.check()
	r.do(r.verifyEnds)
	r.loop.mail.close()
	r.wheel.Close()
	if !r.bare {
		close(r.quit)
		<-r.ended
	}
}

// verifyEnds sees that every connection has ended, exactly once. Loop only.
func (r *rig) verifyEnds() {
	for c, s := range r.io.byConn {
		if s.closes != 1 || c.state != stateClosed || s.watched {
			r.t.Errorf("%s: closed %d times, state %d, watched %v", c.ID(), s.closes, c.state, s.watched)
		}
		if h := r.rec; h != nil && (h.closes[c] != h.opens[c] || h.opens[c] > 1) {
			r.t.Errorf("%s: %d Open and %d Close events", c.ID(), h.opens[c], h.closes[c])
		}
	}
	if n := len(r.io.byConn); r.gone != n || r.loop.assigned.Load() != 0 || r.loop.wheel.Len() != 0 {
		r.t.Errorf("of %d connections %d were reported gone, %d are assigned, %d armed",
			n, r.gone, r.loop.assigned.Load(), r.loop.wheel.Len())
	}
}

var beat = codec.AppendBeat(nil)

// data returns a DATA frame.
func data(s string) []byte { return codec.AppendFrame(nil, codec.OpData, []byte(s)) }

// profile returns the settings of a profile of codec/SPEC.md.
func profile(t testing.TB, name string) Config {
	t.Helper()
	p, ok := ProfileByName(name)
	if !ok {
		t.Fatalf("no profile %q", name)
	}
	return Config{Beat: p.Beat, BeatMin: p.BeatMin, BeatMax: p.BeatMax}
}

func TestHarness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, Echo{})
		c := r.open()
		r.feed(c, beat, data("hi"))
		r.arrive(c, beat)
		r.wait(0)
		got := r.take(c)
		if !slices.Equal(opsOf(got), []codec.Op{codec.OpBeat, codec.OpData, codec.OpBeat}) ||
			string(got[1].Payload) != "hi" {
			t.Fatalf("answers %v", got)
		}
		r.wait(time.Hour)
		r.wantEnd(c, IdleTimeout, true)
	})
	r := newBareRig(t, Config{}, nil)
	c := r.open()
	r.loop.received(c, beat)
	r.loop.run()
	if got := r.frames(c); len(got) != 1 {
		t.Fatalf("answers %v", got)
	}
}
