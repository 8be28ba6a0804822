package client

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"heartwheel/codec"
)

// A Conn is a single connection that beats. Unlike a Client, it does not
// reconnect. Safe for concurrent use.
type Conn struct {
	// Static after newConn.
	nc      net.Conn
	web     *webConn // nc, if that is a WebSocket; nil otherwise
	cfg     *Config  // with defaults
	base    time.Time
	wait    *waiter
	in      *inbox
	welcome *codec.Welcome // nil in a Client, which does not expose it
	limit   int            // largest frame length that the server accepts, in bytes
	adapt   *search        // nil: the interval is fixed; guarded by mu
	owner   owner          // nil: none
	refresh *refresh       // of the token; nil: TokenFunc is not set
	flusher func()         // flush, made once
	quit    latch          // closed when the connection is unusable
	done    latch          // closed when its goroutines have ended

	mu        sync.Mutex
	keepalive keepalive
	timer     *time.Timer
	armed     time.Duration // when timer fires; never: it does not
	out       []byte        // frames to be written
	spare     []byte        // an empty buffer
	running   int32         // goroutines: the reader and the writer
	nextID    uint32
	flushing  bool          // the writer runs
	reading   bool          // the reader waits for the server, not for the application
	closing   bool          // CLOSE is the last frame in out
	leaving   bool          // GOAWAY was received
	farewell  bool          // the server's close frame was answered
	unsaved   bool          // adapt has learned something to save
	err       error         // why quit is closed
	room      chan struct{} // closed when out has room; made by the first wait
	calls     map[uint64]*call
	beats     Beats
	quiet     time.Duration // silence of both sides before the last beat; 0: unknown
}

// An owner makes the next connection.
type owner interface {
	goaway(g *codec.Goaway) // called for a GOAWAY whose code says to reconnect
	lost(err error)         // called once, when the connection has ended
}

// Beats has the heartbeat settings and counters of a connection.
type Beats struct {
	Interval time.Duration // H in force
	Timeout  time.Duration // T in force: the server closes a connection that is silent this long
	Sent     uint64        // empty frames sent, and over a WebSocket the pongs for a server that beats
	Answered uint64        // empty frames received
	RTT      time.Duration // of the last answered beat; 0: none yet
}

// NewConn starts the protocol on an open connection: TCP, TLS or any other ordered
// stream. It sends HELLO and waits for WELCOME, for at most cfg.ConnectTimeout.
// It takes ownership of nc, and closes it if it returns an error. The fields
// RetryDial, TLS, DialContext, RedirectHosts, Adaptive and OnState are not used.
func NewConn(ctx context.Context, nc net.Conn, cfg Config) (*Conn, error) {
	if err := cfg.Validate(); err != nil {
		_ = nc.Close()
		return nil, err
	}
	cfg = cfg.withDefaults()
	limited, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	w := &waiter{beat: cfg.OnHeartbeat, rate: cfg.HeartbeatRate}
	nc = progressConn{nc}
	type outcome struct {
		welcome *codec.Welcome
		rest    []byte
		err     error
	}
	ready, got := make(chan struct{}), outcome{}
	go func() {
		defer close(ready)
		var h codec.Hello
		if h, got.err = cfg.helloTo(limited, addrOf(nc), ""); got.err == nil {
			got.welcome, got.rest, got.err = handshake(limited, nc, h)
		}
	}()
	if err := w.await(ctx, ready, nil); err != nil {
		cancel()
		_ = nc.Close()
		<-ready // at once: these end TokenFunc, reads and writes
		return nil, err
	}
	if got.err != nil {
		_ = nc.Close()
		return nil, &Error{URL: addrOf(nc), Err: got.err, Final: final(got.err, false) || cfg.stale(got.err)}
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

// newConn prepares a connection after its handshake.
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
	if c.web, _ = nc.(*webConn); c.web != nil {
		c.web.attached = true
	}
	c.keepalive.start(time.Duration(w.BeatMS)*time.Millisecond, w.Beats == "server", cfg.rand, 0)
	c.setBeat(w.BeatMS, w.TimeoutMS)
	if cfg.TokenFunc != nil {
		c.refresh = &refresh{addr: addrOf(nc), life: w.ExpiresMS}
		c.refresh.timer = time.AfterFunc(time.Hour, c.refreshToken)
		c.refresh.timer.Stop()
	}
	return c
}

// start starts reading and beating. rest is what followed the WELCOME. Other
// methods may be called before it.
func (c *Conn) start(rest []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	go c.read(rest)
	if c.refresh != nil {
		c.setExpiry(c.refresh.life, 0)
	}
	c.arm()
}

func (c *Conn) now() time.Duration { return time.Since(c.base) }

// Welcome returns the server's WELCOME. CONFIG may have changed values since, see
// Beats.
func (c *Conn) Welcome() codec.Welcome { return *c.welcome }

// Beats returns the settings and counters now.
func (c *Conn) Beats() Beats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beats
}

// Done returns a channel that is closed when the connection and its goroutines
// have ended.
func (c *Conn) Done() <-chan struct{} { return c.done.wait() }

// Err returns why the connection ended, or nil while it is open.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// setBeat adopts the server's values. Called with mu held, or before start.
func (c *Conn) setBeat(beatMS, timeoutMS int64) {
	c.beats.Interval = time.Duration(beatMS) * time.Millisecond
	c.beats.Timeout = time.Duration(timeoutMS) * time.Millisecond
	if c.adapt != nil {
		c.adapt.allowed(c.beats.Interval)
		// Longer than the server's where that is below min_beat_ms.
		c.beats.Interval = c.adapt.interval()
	}
	c.keepalive.setInterval(c.beats.Interval)
}

// arm sets the timer if something is due before it fires. It never sets it back:
// onTimer does that. Called with mu held.
func (c *Conn) arm() {
	if c.err != nil || c.closing {
		return
	}
	if at := c.keepalive.due(); at < c.armed {
		c.armed = at
		c.timer.Reset(max(0, at-c.now()))
	}
}

// A timer later than lateTimer means that this process did not run. The server's
// deadline then moves by that time and grace.
const (
	lateTimer = 100 * time.Millisecond
	grace     = time.Second
)

// onTimer beats, asks or gives up, as is due.
func (c *Conn) onTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return
	case c.closing:
		if c.now() >= c.armed { // CLOSE was not written in time
			c.fail(ErrClosed)
		}
		return
	}
	now := c.now()
	if late := now - c.armed; late > lateTimer {
		c.keepalive.credit(late + grace)
		c.quiet = 0
	}
	if !c.reading {
		c.keepalive.pause()
	}
	quiet := c.silence(now)
	c.armed = never
	switch c.keepalive.poll(now) {
	case sendBeat:
		if !c.keepalive.unanswered {
			c.quiet = quiet
		}
		c.queueBeat()
	case sendPing:
		c.out = codec.AppendPing(c.out, nil)
		c.write()
	case giveUp:
		c.fail(ErrSilent)
		return
	}
	c.arm()
}

// silence returns how long both sides have been silent, or 0 where that is
// unknown: the application does not receive, bytes are being written, or this
// process did not run. Called with mu held.
func (c *Conn) silence(now time.Duration) time.Duration {
	if c.keepalive.paused || c.flushing || now-c.armed > lateTimer {
		return 0
	}
	return now - max(c.keepalive.lastSent, c.keepalive.lastReceived)
}

// queueBeat queues an empty frame. Called with mu held.
func (c *Conn) queueBeat() {
	c.beats.Sent++
	c.out = codec.AppendBeat(c.out)
	c.write()
}

// write starts the writer unless it runs. Called with mu held.
func (c *Conn) write() {
	if !c.flushing && c.err == nil {
		c.flushing = true
		c.running++
		go c.flusher()
	}
}

// flush is the writer: it writes until out is empty.
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
		if c.keepalive.wrote(began, c.now()) {
			c.answered(c.keepalive.lastReceived - began)
		}
		c.arm()
	}
	if c.closing && c.err == nil {
		c.fail(ErrClosed)
	}
	c.flushing = false
	c.exit()
}

// fail ends the connection: it resets the socket and ends pending calls. Called
// with mu held.
func (c *Conn) fail(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	c.timer.Stop()
	c.refresh.stop()
	if c.adapt != nil && !c.leaving && !deliberate(err) {
		if c.keepalive.unanswered || c.keepalive.inFlight {
			c.unsaved = c.adapt.lost(c.quiet, time.Now()) || c.unsaved
		} else {
			c.unsaved = c.adapt.closed(c.silence(c.now()), time.Now()) || c.unsaved
		}
	}
	if !c.closing && !c.farewell { // after CLOSE it ends in order
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

// abort makes the following Close drop queued bytes and reset the connection,
// rather than wait for a dead peer, which TLS does.
func abort(nc net.Conn) {
	raw := bottom(nc)
	if l, ok := raw.(interface{ SetLinger(int) error }); ok {
		_ = l.SetLinger(0)
	}
	if isTLS(nc) {
		_ = raw.Close()
	}
}

// bottom returns the connection below WebSocket and TLS.
func bottom(nc net.Conn) net.Conn {
	for {
		switch c := nc.(type) {
		case *webConn:
			nc = c.Conn
		case *tls.Conn:
			nc = c.NetConn()
		case progressConn:
			nc = c.Conn
		default:
			return nc
		}
	}
}

func isTLS(nc net.Conn) bool {
	if w, ok := nc.(*webConn); ok {
		nc = w.Conn
	}
	_, ok := nc.(*tls.Conn)
	return ok
}

// exit ends one of the connection's goroutines. Called with mu held; unlocks it.
func (c *Conn) exit() {
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

// closeTimeout is how long Close waits for pending writes.
const closeTimeout = time.Second

// Close sends CLOSE after what is queued, within 1 s, and ends the connection. It
// waits until the connection has ended and returns nil. OnData and OnError must
// not call it.
func (c *Conn) Close() error {
	c.beginClose()
	<-c.Done()
	return nil
}

// beginClose starts closing and does not wait. Called with mu not held.
func (c *Conn) beginClose() {
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
