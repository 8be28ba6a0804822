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

// A Client keeps a connection to a server, and makes a new one when it is lost.
// Safe for concurrent use.
type Client struct {
	// Static after Dial.
	cfg    *Config // with defaults
	target target
	wait   waiting
	in     inbox
	done   latch

	mu      sync.Mutex
	state   State
	met     bool               // the server has said WELCOME once
	running bool               // an attempt or a connection lives
	stop    context.CancelFunc // ends the attempt; nil: there is none
	conn    *Conn              // nil unless Connected
	changed chan struct{}      // closed when state changes; made when somebody waits
	err     error              // why there is no connection
	retry   *time.Timer
	backoff backoff
	session string // of the last connection, to be resumed
	spread  time.Duration
	move    *move   // nil: there was no GOAWAY
	search  *search // nil: the interval stays
}

// A move is what a GOAWAY asks for.
type move struct {
	at    time.Time // when to connect again; zero: the backoff says
	addr  string    // where; empty: to the address of Dial
	why   error
	timer *time.Timer // ends the connection at that time
}

// Dial connects to url, tcp://HOST:PORT or tls://HOST:PORT, and keeps connecting
// until Close. It returns once the server has said WELCOME. An error is an
// *Error, which says whether trying again could help, or ctx's, or matches
// ErrConfig. ctx is for Dial alone.
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
		c.shut()
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

// Beats returns the figures of the present connection, or zeroes.
func (c *Client) Beats() Beats {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return Beats{}
	}
	return conn.Beats()
}

// Done returns a channel that is closed when the client has ended and nothing
// of it runs any more.
func (c *Client) Done() <-chan struct{} { return c.done.wait() }

// Err returns why there is no connection: the last loss or failed attempt, or
// after the end what ended it. nil while there is one.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close says CLOSE, as Conn.Close does, and ends the client. It waits for the end
// and returns nil. OnState, OnData and OnError must not call it.
func (c *Client) Close() error {
	c.shut()
	<-c.Done()
	return nil
}

// Send is Conn.Send on the present connection. Without one it waits for the next.
func (c *Client) Send(ctx context.Context, payload []byte) error {
	return c.do(ctx, func(conn *Conn) error { return conn.Send(ctx, payload) })
}

// Request is Conn.Request on the present connection. Without one it waits for
// the next, but a request that was sent is not sent again.
func (c *Client) Request(ctx context.Context, subject string, payload []byte) (body []byte, err error) {
	err = c.do(ctx, func(conn *Conn) (err error) {
		body, err = conn.Request(ctx, subject, payload)
		return err
	})
	return body, err
}

// Beat is Conn.Beat on the present connection. Without one it waits for the next.
func (c *Client) Beat(ctx context.Context) (rtt time.Duration, err error) {
	err = c.do(ctx, func(conn *Conn) (err error) {
		rtt, err = conn.Beat(ctx)
		return err
	})
	return rtt, err
}

// Receive returns the payload of the next DATA, appended to dst, which may be
// nil. It waits across connections.
func (c *Client) Receive(ctx context.Context, dst []byte) ([]byte, error) {
	return c.in.receive(ctx, &c.wait, c.Done(), dst, c.Err)
}

// do calls f with the present connection, and with the next one if that had
// ended before f sent anything.
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

// current returns the connection, and waits for one.
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

// enter changes the state and tells those who wait for it, after OnState. Called
// with mu held, which it gives back.
func (c *Client) enter(e Event) {
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

// attempt makes one attempt to connect. It runs in a goroutine of its own.
func (c *Client) attempt() {
	c.mu.Lock()
	if c.state == Ended {
		c.finish()
		return
	}
	addr, resume := c.next(), c.session
	c.move = nil
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.ConnectTimeout)
	defer cancel()
	c.stop = cancel
	c.enter(Event{State: Connecting, Addr: addr})

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
		c.enter(Event{State: Connected, Addr: addr, Session: c.session, Interval: conn.beats.Interval, Timeout: conn.beats.Timeout})
		conn.start(rest)
	}
}

// open makes a connection.
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
	var wish time.Duration
	if c.search != nil {
		wish = c.search.begin(time.Now())
	}
	w, rest, err := handshake(ctx, nc, c.cfg, resume, wish)
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

// tlsConfig is the user's, with the name that the server has to prove: that of
// the address, also where a GOAWAY sent us to a bare IP address.
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

// failed plans the next attempt after one that came to nothing. Called with mu
// held, which it gives back.
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
	c.waitFor(delay, err)
}

// obey takes note of where a GOAWAY sends us, and returns after which time: at
// most maxWait. Called with mu held.
func (c *Client) obey(g *codec.Goaway) time.Duration {
	c.move = &move{}
	if checkAddr(g.Addr) == nil {
		c.move.addr = g.Addr
	}
	return min(time.Duration(g.AfterMS)*time.Millisecond, maxWait)
}

// goaway plans to leave the present connection, which is used until then. A
// server that names no time gets everybody spread over its window.
func (c *Client) goaway(g *codec.Goaway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn := c.conn
	if conn == nil || c.state != Connected || c.move != nil {
		return
	}
	after := c.obey(g)
	if g.AfterMS == 0 {
		after = c.backoff.draw(max(c.spread, backoffMin))
	}
	c.move.at, c.move.why = time.Now().Add(after), &CodeError{g.Code, g.Reason}
	c.move.timer = time.AfterFunc(after, conn.shut)
}

// lost plans the next attempt after the end of a connection.
func (c *Client) lost(err error) {
	c.mu.Lock()
	lasted := c.conn.now()
	c.conn = nil
	if c.move != nil {
		c.move.timer.Stop()
	}
	if c.state == Ended || c.ends(err) {
		c.finish()
		return
	}
	delay := c.backoff.lost(lasted, c.spread)
	if c.move != nil {
		err = c.move.why
		left := max(0, time.Until(c.move.at))
		if c.backoff.failures > 1 { // sent away again and again
			left = max(left, delay)
		}
		delay = left
	}
	c.waitFor(delay, err)
}

// ends notes why there is no connection, and reports whether it ends the client
// for good. Called with mu held.
func (c *Client) ends(err error) bool {
	end := &Error{URL: c.target.url, Err: err, Final: final(err, c.met)}
	c.err = end
	return end.Final
}

// next returns where the next attempt goes. Called with mu held.
func (c *Client) next() string {
	if c.move != nil && c.move.addr != "" {
		return c.move.addr
	}
	return c.target.addr
}

// waitFor waits for the next attempt. Called with mu held, which it gives back.
func (c *Client) waitFor(delay time.Duration, err error) {
	c.enter(Event{State: Waiting, Addr: c.next(), Err: err, In: delay})
	c.mu.Lock()
	if c.state == Ended { // Close came while OnState ran
		c.finish()
		return
	}
	c.running = false
	c.retry = time.AfterFunc(delay, c.again)
	c.mu.Unlock()
}

// again begins the next attempt, unless Close came first.
func (c *Client) again() {
	c.mu.Lock()
	if c.state == Ended {
		c.mu.Unlock()
		return
	}
	c.running = true
	c.mu.Unlock()
	c.attempt()
}

// shut begins to close.
func (c *Client) shut() {
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
		conn.shut()
	}
}

// finish is the end of the client. Called with mu held, which it gives back,
// when nothing runs any more but the caller.
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

// wake tells those who wait for a change of state. Called with mu held.
func (c *Client) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}
