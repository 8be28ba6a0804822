package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/address"
)

// A redirect is when and where GOAWAY says to reconnect.
type redirect struct {
	at    time.Time // when to reconnect; zero: as the backoff says
	addr  string    // where; empty: Dial's address
	why   error
	timer *time.Timer // closes the connection at that time
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
	h, err := c.cfg.helloTo(ctx, addr, resume)
	if err != nil {
		return nil, nil, err
	}
	nc, err := c.cfg.DialContext(ctx, c.target.address.Network(), addr)
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
			return nil, nil, c.target.explainTLS(err)
		}
		nc = t
	}
	if c.target.web {
		w, err := upgrade(ctx, nc, c.target, addr, c.cfg.MaxFrame)
		if err != nil {
			return nil, nil, err
		}
		nc = w
	}
	if c.search != nil {
		if request := c.search.begin(time.Now()); request > 0 {
			h.BeatMS = request.Milliseconds()
		}
	}
	w, rest, err := handshake(ctx, nc, h)
	if err != nil {
		return nil, nil, err
	}
	conn = newConn(nc, c.cfg, w)
	conn.wait, conn.in, conn.owner = &c.wait, &c.in, c
	if conn.refresh != nil {
		conn.refresh.addr = addr // as TokenFunc knows it
	}
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
	var (
		g    *goawayError
		http *httpError
	)
	switch {
	case errors.As(err, &g):
		delay += c.obey(&g.goaway)
	case errors.As(err, &http):
		delay += min(http.after, maxWait)
	}
	c.scheduleRetry(delay, err)
}

// obey stores where a GOAWAY sends the client, and returns its after_ms, at most
// maxWait. Called with mu held.
func (c *Client) obey(g *codec.Goaway) time.Duration {
	c.redirect = &redirect{}
	if c.follows(g.Addr) {
		c.redirect.addr = g.Addr
	}
	return min(time.Duration(g.AfterMS)*time.Millisecond, maxWait)
}

// follows reports whether GOAWAY may lead to addr: a host:port on Dial's host or on
// one of RedirectHosts.
func (c *Client) follows(addr string) bool {
	to, err := parsePeer(addr)
	if err != nil || c.target.address.Scheme == address.Unix {
		return false
	}
	home, _, _ := net.SplitHostPort(c.target.addr)
	same := func(allowed string) bool {
		host, err := address.ParseHost(allowed)
		return err == nil && host == to.Host
	}
	return same(home) || slices.ContainsFunc(c.cfg.RedirectHosts, same)
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
	end := &Error{URL: c.target.url, Err: err, Final: final(err, c.met) || c.cfg.stale(err)}
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
