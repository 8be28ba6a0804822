package client

import (
	"context"
	"net"
	"sync"
	"time"

	"heartwheel/codec"
)

// A Conn is one connection that beats: it does not connect again when it ends.
// Client does, and consists of them. Safe for concurrent use.
type Conn struct {
	// Static after newConn.
	nc      net.Conn
	cfg     *Config // with defaults
	base    time.Time
	wait    *waiting
	in      *inbox
	welcome *codec.Welcome // nil in a Client, where nobody can ask for it
	limit   int            // largest frame body that the server accepts, in bytes
	adapt   *search        // nil: the interval stays; guarded by mu
	owner   owner          // nil: none
	flusher func()         // flush, made once
	quit    latch          // closed when it cannot be used any more
	done    latch          // closed when its goroutines have ended

	mu       sync.Mutex
	pulse    pulse
	timer    *time.Timer
	armed    time.Duration // when timer runs out; never: it does not
	out      []byte        // frames to be written
	spare    []byte        // an empty buffer
	running  int32         // goroutines: the reader and the one that writes
	nextID   uint32
	flushing bool          // a goroutine writes
	reading  bool          // the reader waits for the server, and not for the application
	closing  bool          // CLOSE is the last frame in out
	leaving  bool          // a GOAWAY has announced the end
	unsaved  bool          // adapt has learned something
	err      error         // why quit is closed
	room     chan struct{} // closed when out has room; made when somebody waits
	calls    map[uint64]*call
	beats    Beats
	quiet    time.Duration // how long neither side had spoken before the last beat; 0: not known
}

// An owner makes the next connection.
type owner interface {
	goaway(g *codec.Goaway) // is told a GOAWAY after which to connect again
	lost(err error)         // is told the end, last of all
}

// Beats are figures about heartbeats.
type Beats struct {
	Interval time.Duration // H in force
	Timeout  time.Duration // T in force: the server drops whoever is silent for so long
	Sent     uint64        // empty frames sent
	Answered uint64        // empty frames received
	RTT      time.Duration // of the last beat that was asked and answered; 0: none yet
}

// NewConn makes a connection that beats of one that is open: TCP, TLS, or
// whatever else carries bytes in order. It sends HELLO and waits for WELCOME,
// at most cfg.ConnectTimeout. nc belongs to it from now on, also after an error.
// RetryDial, TLS, DialContext, Adaptive and OnState are Client's and not used.
func NewConn(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		_ = nc.Close()
		return nil, err
	}
	cfg = cfg.withDefaults()
	limited, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	w := &waiting{beat: cfg.OnHeartbeat, rate: cfg.HeartbeatRate}
	nc = progressConn{nc}
	type outcome struct {
		welcome *codec.Welcome
		rest    []byte
		err     error
	}
	ready, got := make(chan struct{}), outcome{}
	go func() {
		defer close(ready)
		got.welcome, got.rest, got.err = handshake(limited, nc, &cfg, "", 0)
	}()
	if err := w.await(ctx, ready, nil); err != nil {
		_ = nc.Close()
		<-ready // at once: its reads and writes end with it
		return nil, err
	}
	if got.err != nil {
		_ = nc.Close()
		return nil, &Error{URL: addrOf(nc), Err: got.err, Final: final(got.err, false)}
	}
	c := newConn(nc, &cfg, got.welcome)
	c.wait, c.in = w, &inbox{limit: cfg.ReceiveBuffer}
	c.start(got.rest)
	return c, nil
}

func addrOf(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil {
		return a.String()
	}
	return "the server"
}

// newConn prepares a connection whose handshake is over.
func newConn(nc net.Conn, cfg *Config, w *codec.Welcome) *Conn {
	c := &Conn{
		nc: nc, cfg: cfg, base: time.Now(), welcome: w, limit: w.MaxFrame, armed: never,
		running: 1, // the reader, from start on
	}
	if c.limit == 0 {
		c.limit = codec.DefaultMaxFrame
	}
	c.timer = time.AfterFunc(time.Hour, c.onTimer)
	c.timer.Stop()
	c.flusher = c.flush
	c.pulse.start(time.Duration(w.BeatMS)*time.Millisecond, w.Beats == "server", cfg.rand, 0)
	c.setBeat(w.BeatMS, w.TimeoutMS)
	return c
}

// start begins to read and to beat. rest is what came behind the WELCOME. Calls
// may come before it.
func (c *Conn) start(rest []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	go c.read(rest)
	c.arm()
}

func (c *Conn) now() time.Duration { return time.Since(c.base) }

// Welcome returns what the server decided at the beginning.
func (c *Conn) Welcome() codec.Welcome { return *c.welcome }

// Beats returns the figures up to now.
func (c *Conn) Beats() Beats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beats
}

// Done returns a channel that is closed when the connection has ended and
// nothing of it runs any more.
func (c *Conn) Done() <-chan struct{} { return c.done.wait() }

// Err returns why the connection ended, nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// setBeat takes the server's values. Called with mu held, or before start.
func (c *Conn) setBeat(beatMS, timeoutMS int64) {
	c.beats.Interval = time.Duration(beatMS) * time.Millisecond
	c.beats.Timeout = time.Duration(timeoutMS) * time.Millisecond
	if c.adapt != nil {
		c.adapt.allowed(c.beats.Interval)
		// Its own, where the server's is shorter than what the server bears.
		c.beats.Interval = c.adapt.interval()
	}
	c.pulse.set(c.beats.Interval)
}

// arm sets the timer if something is due earlier than it runs out. What is due
// later is seen when it does. Called with mu held.
func (c *Conn) arm() {
	if c.err != nil || c.closing {
		return
	}
	if at := c.pulse.due(); at < c.armed {
		c.armed = at
		c.timer.Reset(max(0, at-c.now()))
	}
}

// lateTimer is how late the timer may be before it is this process that did not
// run, and grace what the server gets then, to be heard.
const (
	lateTimer = 100 * time.Millisecond
	grace     = time.Second
)

// onTimer does what is due.
func (c *Conn) onTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return
	case c.closing:
		if c.now() >= c.armed { // CLOSE could not be written in time
			c.fail(ErrClosed)
		}
		return
	}
	now := c.now()
	if late := now - c.armed; late > lateTimer {
		c.pulse.forgive(late + grace)
		c.quiet = 0
	}
	if !c.reading {
		c.pulse.hold()
	}
	quiet := c.silence(now)
	c.armed = never
	switch c.pulse.poll(now) {
	case beat:
		if !c.pulse.open {
			c.quiet = quiet
		}
		c.queueBeat()
	case ping:
		c.out = codec.AppendPing(c.out, nil)
		c.write()
	case dead:
		c.fail(ErrSilent)
		return
	}
	c.arm()
}

// silence returns for how long neither side has spoken, or 0 where that is not
// known: the application does not receive, bytes are still being written, or this
// process did not run. Called with mu held.
func (c *Conn) silence(now time.Duration) time.Duration {
	if c.pulse.held || c.flushing || now-c.armed > lateTimer {
		return 0
	}
	return now - max(c.pulse.sent, c.pulse.heard)
}

// queueBeat is called with mu held.
func (c *Conn) queueBeat() {
	c.beats.Sent++
	c.out = codec.AppendBeat(c.out)
	c.write()
}

// write has a goroutine write what is in out, if none does. Called with mu held.
func (c *Conn) write() {
	if !c.flushing && c.err == nil {
		c.flushing = true
		c.running++
		go c.flusher()
	}
}

// flush writes until nothing is left.
func (c *Conn) flush() {
	c.mu.Lock()
	for len(c.out) > 0 && c.err == nil {
		b := c.out
		c.out, c.spare = c.spare, nil
		if c.room != nil {
			close(c.room)
			c.room = nil
		}
		began := c.now()
		c.mu.Unlock()
		_, err := c.nc.Write(b)
		c.mu.Lock()
		if cap(b) <= keepBuffer {
			c.spare = b[:0]
		}
		if err != nil {
			c.fail(err)
			break
		}
		if c.pulse.wrote(began, c.now()) {
			c.answered(c.pulse.heard - began)
		}
		c.arm()
	}
	if c.closing && c.err == nil {
		c.fail(ErrClosed)
	}
	c.flushing = false
	c.leave()
}

// fail ends the connection: the socket is aborted, everybody who waits is told.
// Called with mu held.
func (c *Conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.timer.Stop()
	if c.adapt != nil && !c.leaving && !saidSo(err) {
		if c.pulse.open || c.pulse.asking {
			c.unsaved = c.adapt.lost(c.quiet, time.Now()) || c.unsaved
		} else {
			c.unsaved = c.adapt.closed(c.silence(c.now()), time.Now()) || c.unsaved
		}
	}
	if !c.closing { // with CLOSE said it ends in order
		abort(c.nc)
	}
	_ = c.nc.Close()
	for key, w := range c.calls {
		delete(c.calls, key)
		w.err = c.lost()
		w.done <- struct{}{}
	}
	c.quit.close()
}

// abort makes the coming Close drop what is queued and reset the connection: it
// must not wait for a peer that is dead.
func abort(nc net.Conn) {
	if p, ok := nc.(progressConn); ok {
		nc = p.Conn
	}
	if l, ok := nc.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
}

// leave is the end of one of the connection's goroutines. Called with mu held,
// which it gives back.
func (c *Conn) leave() {
	c.running--
	over, err := c.running == 0 && c.err != nil, c.err
	c.mu.Unlock()
	if over {
		if c.owner != nil {
			c.owner.lost(err)
		}
		c.done.close()
	}
}

// closeTimeout is how long Close waits for its last frame to be written.
const closeTimeout = time.Second

// Close says CLOSE and ends the connection; what was sent before is written
// first, within 1 s. It waits for the end and returns nil, however the
// connection ended. It must not be called by OnData or OnError.
func (c *Conn) Close() error {
	c.shut()
	<-c.Done()
	return nil
}

// shut begins to close.
func (c *Conn) shut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil || c.closing {
		return
	}
	c.closing = true
	c.armed = c.now() + closeTimeout
	c.timer.Reset(closeTimeout)
	c.out = codec.AppendClose(c.out, codec.CodePeerClosed, "")
	c.write()
}
