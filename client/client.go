package client

import (
	"context"
	"errors"
	"sync"
	"time"
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

// Dial connects to url and stays connected until Close: tcp://HOST:PORT,
// tls://HOST:PORT, ws://HOST:PORT/path, wss://HOST:PORT/path or unix:///PATH. Without a
// path, ws and wss ask for /, without a port for 80 and 443; a query is refused, as the
// token travels in HELLO. It returns once WELCOME is received. An error is an *Error, which
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
