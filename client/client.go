package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"heartwheel/codec"
)

// A Client keeps a connection to a server and reconnects when it is lost. Safe for
// concurrent use.
type Client struct {
	// Static after Dial.
	cfg    *Config // with defaults
	target target
	wait   waiter
	in     inbox
	done   latch

	mu       sync.Mutex
	state    State
	met      bool               // the server has sent WELCOME once
	running  bool               // an attempt or a connection exists
	stop     context.CancelFunc // cancels the attempt; nil: none
	conn     *Conn              // nil unless Connected
	changed  chan struct{}      // closed when state changes; made by the first wait
	err      error              // why there is no connection
	retry    *time.Timer
	backoff  backoff
	session  string // of the last connection, for resume
	spread   time.Duration
	redirect *redirect // nil: no GOAWAY
	search   *search   // nil: the interval is fixed
}

// A redirect is when and where GOAWAY says to reconnect.
type redirect struct {
	at    time.Time // when to reconnect; zero: as the backoff says
	addr  string    // where; empty: Dial's address
	why   error
	timer *time.Timer // closes the connection at that time
}

// Dial connects to url, tcp://HOST:PORT or tls://HOST:PORT, and stays connected
// until Close. It returns once WELCOME is received. An error is an *Error, which
// says whether trying again can help, or matches ErrConfig, or is ctx's. ctx
// limits Dial only, not the connection.
func Dial(ctx context.Context, url string, cfg Config) (*Client, error) {
	target, err := parseURL(url)
	if err = errors.Join(err, cfg.Validate()); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{cfg: &cfg, target: target}
	c.wait.beat, c.wait.rate = cfg.OnHeartbeat, cfg.HeartbeatRate
	c.in.limit = cfg.ReceiveBuffer
	c.backoff.rand = cfg.rand
	if cfg.Adaptive != nil {
		c.search = &search{a: cfg.Adaptive}
	}
	c.running = true
	go c.attempt()
	if _, err := c.current(ctx); err != nil {
		c.beginClose()
		return nil, err
	}
	return c, nil
}

// State returns what the client is doing.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Beats returns the settings and counters of the current connection, or the zero
// value.
func (c *Client) Beats() Beats {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return Beats{}
	}
	return conn.Beats()
}

// Done returns a channel that is closed when the client and its goroutines have
// ended.
func (c *Client) Done() <-chan struct{} { return c.done.wait() }

// Err returns why there is no connection: the last loss, the last failed attempt,
// or what ended the client. It is nil while connected.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close closes the connection as Conn.Close does and ends the client. It waits
// until both have ended and returns nil. OnState, OnData and OnError must not call
// it.
func (c *Client) Close() error {
	c.beginClose()
	<-c.Done()
	return nil
}

// Send is Conn.Send on the current connection. Without one it waits for the next.
func (c *Client) Send(ctx context.Context, payload []byte) error {
	return c.do(ctx, func(conn *Conn) error { return conn.Send(ctx, payload) })
}

// Request is Conn.Request on the current connection. Without one it waits for the
// next; a request that was sent is never sent again.
func (c *Client) Request(ctx context.Context, subject string, payload []byte) (body []byte, err error) {
	err = c.do(ctx, func(conn *Conn) (err error) {
		body, err = conn.Request(ctx, subject, payload)
		return err
	})
	return body, err
}

// Beat is Conn.Beat on the current connection. Without one it waits for the next.
func (c *Client) Beat(ctx context.Context) (rtt time.Duration, err error) {
	err = c.do(ctx, func(conn *Conn) (err error) {
		rtt, err = conn.Beat(ctx)
		return err
	})
	return rtt, err
}

// Receive returns the payload of the next DATA, appended to dst, which may be nil.
// It keeps waiting across reconnects.
func (c *Client) Receive(ctx context.Context, dst []byte) ([]byte, error) {
	return c.in.receive(ctx, &c.wait, c.Done(), dst, c.Err)
}

// do calls f with the current connection, and again with the next one if the
// connection had ended before f sent anything.
func (c *Client) do(ctx context.Context, f func(*Conn) error) error {
	for {
		conn, err := c.current(ctx)
		if err != nil {
			return err
		}
		if err = f(conn); err == nil {
			return nil
		}
		var not notSent
		if !errors.As(err, &not) {
			return err
		}
		if err := c.wait.await(ctx, conn.Done(), nil); err != nil {
			return err
		}
	}
}

// current returns the connection. It waits for one.
func (c *Client) current(ctx context.Context) (*Conn, error) {
	for {
		c.mu.Lock()
		conn, state, err := c.conn, c.state, c.err
		if conn == nil && state != Ended && c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		switch {
		case state == Ended:
			return nil, err
		case conn != nil:
			return conn, nil
		}
		if err := c.wait.await(ctx, changed, nil); err != nil {
			return nil, err
		}
	}
}

// setState changes the state, calls OnState, then wakes the waiting calls. Called
// with mu held; unlocks it.
func (c *Client) setState(e Event) {
	c.state = e.State
	changed := c.changed
	c.changed = nil
	c.mu.Unlock()
	if c.cfg.OnState != nil {
		c.cfg.OnState(e)
	}
	if changed != nil {
		close(changed)
	}
}

// attempt makes one attempt to connect, in a goroutine of its own.
func (c *Client) attempt() {
	c.mu.Lock()
	if c.state == Ended {
		c.finish()
		return
	}
	addr, resume := c.next(), c.session
	c.redirect = nil
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ConnectTimeout)
	defer cancel()
	c.stop = cancel
	c.setState(Event{State: Connecting, Addr: addr})

	conn, rest, err := c.open(ctx, addr, resume)
	c.mu.Lock()
	c.stop = nil
	switch {
	case c.state == Ended:
		if conn != nil {
			_ = conn.nc.Close()
		}
		c.finish()
	case err != nil:
		c.failed(err)
	default:
		c.conn, c.err, c.met = conn, nil, true
		c.session = conn.welcome.Session
		c.spread = min(time.Duration(conn.welcome.SpreadMS)*time.Millisecond, maxWait)
		conn.welcome = nil
		c.setState(Event{State: Connected, Addr: addr, Session: c.session,
			Interval: conn.beats.Interval, Timeout: conn.beats.Timeout})
		conn.start(rest)
	}
}

// open dials and completes the handshake.
func (c *Client) open(ctx context.Context, addr, resume string) (conn *Conn, rest []byte, err error) {
	nc, err := c.cfg.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			_ = nc.Close()
		}
	}()
	nc = progressConn{nc}
	if c.target.tls {
		t := tls.Client(nc, c.tlsConfig(addr))
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, nil, err
		}
		nc = t
	}
	var request time.Duration
	if c.search != nil {
		request = c.search.begin(time.Now())
	}
	w, rest, err := handshake(ctx, nc, c.cfg, resume, request)
	if err != nil {
		return nil, nil, err
	}
	conn = newConn(nc, c.cfg, w)
	conn.wait, conn.in, conn.owner = &c.wait, &c.in, c
	if c.search != nil {
		conn.adapt = c.search
		c.search.welcome(conn.beats.Interval, time.Duration(w.MinBeatMS)*time.Millisecond)
		conn.setBeat(w.BeatMS, w.TimeoutMS)
	}
	return conn, rest, nil
}

// tlsConfig is the user's with the server name filled in: the host of addr, or
// Dial's host where GOAWAY named a bare IP address.
func (c *Client) tlsConfig(addr string) *tls.Config {
	t := c.cfg.TLS.Clone()
	if t == nil {
		t = &tls.Config{}
	}
	if t.ServerName == "" {
		t.ServerName, _, _ = net.SplitHostPort(c.target.addr)
		if host, _, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host) == nil {
			t.ServerName = host
		}
	}
	return t
}

// failed schedules the next attempt after a failed one. Called with mu held;
// unlocks it.
func (c *Client) failed(err error) {
	if c.ends(err) || !c.met && !c.cfg.RetryDial {
		c.finish()
		return
	}
	delay := c.backoff.failed()
	var g *goawayError
	if errors.As(err, &g) {
		delay += c.obey(&g.goaway)
	}
	c.scheduleRetry(delay, err)
}

// obey stores where a GOAWAY sends the client, and returns its after_ms, at most
// maxWait. Called with mu held.
func (c *Client) obey(g *codec.Goaway) time.Duration {
	c.redirect = &redirect{}
	if checkAddr(g.Addr) == nil {
		c.redirect.addr = g.Addr
	}
	return min(time.Duration(g.AfterMS)*time.Millisecond, maxWait)
}

// goaway schedules the end of the current connection, which stays in use until
// then. If the server names no time, its clients spread over spread_ms.
func (c *Client) goaway(g *codec.Goaway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conn
	if conn == nil || c.state != Connected || c.redirect != nil {
		return
	}
	after := c.obey(g)
	if g.AfterMS == 0 {
		after = c.backoff.draw(max(c.spread, backoffMin))
	}
	c.redirect.at, c.redirect.why = time.Now().Add(after), &CodeError{g.Code, g.Reason}
	c.redirect.timer = time.AfterFunc(after, conn.beginClose)
}

// lost schedules the next attempt after the end of a connection.
func (c *Client) lost(err error) {
	c.mu.Lock()
	lasted := c.conn.now()
	c.conn = nil
	if c.redirect != nil {
		c.redirect.timer.Stop()
	}
	if c.state == Ended || c.ends(err) {
		c.finish()
		return
	}
	delay := c.backoff.lost(lasted, c.spread)
	if c.redirect != nil {
		err = c.redirect.why
		left := max(0, time.Until(c.redirect.at))
		if c.backoff.failures > 1 { // sent away repeatedly
			left = max(left, delay)
		}
		delay = left
	}
	c.scheduleRetry(delay, err)
}

// ends stores why there is no connection, and reports whether that ends the
// client. Called with mu held.
func (c *Client) ends(err error) bool {
	end := &Error{URL: c.target.url, Err: err, Final: final(err, c.met)}
	c.err = end
	return end.Final
}

// next returns the address of the next attempt. Called with mu held.
func (c *Client) next() string {
	if c.redirect != nil && c.redirect.addr != "" {
		return c.redirect.addr
	}
	return c.target.addr
}

// scheduleRetry starts the next attempt after delay. Called with mu held; unlocks
// it.
func (c *Client) scheduleRetry(delay time.Duration, err error) {
	c.setState(Event{State: Waiting, Addr: c.next(), Err: err, In: delay})
	c.mu.Lock()
	if c.state == Ended { // Close came while OnState ran
		c.finish()
		return
	}
	c.running = false
	c.retry = time.AfterFunc(delay, c.retryNow)
	c.mu.Unlock()
}

// retryNow makes the next attempt, unless Close came first.
func (c *Client) retryNow() {
	c.mu.Lock()
	if c.state == Ended {
		c.mu.Unlock()
		return
	}
	c.running = true
	c.mu.Unlock()
	c.attempt()
}

// beginClose starts closing and does not wait.
func (c *Client) beginClose() {
	c.mu.Lock()
	if c.state == Ended {
		c.mu.Unlock()
		return
	}
	c.err = ErrClosed
	c.state = Ended
	if c.retry != nil {
		c.retry.Stop()
	}
	if c.stop != nil {
		c.stop()
	}
	if !c.running {
		c.finish()
		return
	}
	c.wake()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		conn.beginClose()
	}
}

// finish ends the client. Called with mu held when no other goroutine of the client
// runs; unlocks it.
func (c *Client) finish() {
	c.state = Ended
	err := c.err
	c.wake()
	c.mu.Unlock()
	if c.cfg.OnState != nil {
		e := Event{State: Ended, Addr: c.target.addr, Err: err}
		var why *Error
		if errors.As(err, &why) {
			e.Err = why.Err
		}
		c.cfg.OnState(e)
	}
	c.done.close()
}

// wake wakes the calls that wait for a change of state. Called with mu held.
func (c *Client) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
