package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"heartwheel/codec"
)

const (
	// refreshAt is the part of a token's life after which another is asked for, and
	// refreshSpread how much earlier or later that is at most.
	refreshAt     = 0.75
	refreshSpread = 0.05
	// refreshLeast is the least time between two calls of TokenFunc, as a server may end
	// a client that sends more than one CONFIG a second. Errors double it up to refreshMost.
	refreshLeast = time.Second
	refreshMost  = 30 * time.Second
)

// A refresh replaces the token of a connection before it expires. Guarded by Conn.mu,
// but for what is static.
type refresh struct {
	addr    string             // static: what TokenFunc gets
	life    int64              // static: expires_ms of WELCOME
	timer   *time.Timer        // static: calls Conn.refreshToken
	expires time.Duration      // when the token does, as Conn.now
	asked   time.Duration      // when TokenFunc was called last; 0: never
	pause   time.Duration      // until the call after the next error
	cancel  context.CancelFunc // ends TokenFunc; nil: it does not run
	sent    bool               // a token whose CONFIG has not been answered
}

// setExpiry adopts expires_ms of the server, which arrived at now; 0: the token does not
// expire. Called with mu held.
func (c *Conn) setExpiry(ms int64, now time.Duration) {
	r := c.refresh
	if r == nil {
		return
	}
	if ms == 0 {
		r.timer.Stop()
		r.expires, r.sent = 0, false
		return
	}
	left := time.Duration(ms) * time.Millisecond
	// Another CONFIG repeats what is known, give or take the way here.
	if same := now + left - r.expires; !r.sent && r.expires != 0 && max(same, -same) < refreshLeast {
		return
	}
	r.expires, r.sent, r.pause = now+left, false, refreshLeast
	wait := time.Duration((refreshAt + refreshSpread*(2*c.cfg.rand()-1)) * float64(left))
	if r.asked != 0 {
		wait = max(wait, r.asked+refreshLeast-now)
	}
	if c.err == nil {
		r.timer.Reset(max(0, now+wait-c.now()))
	}
}

// refreshToken asks TokenFunc for another token and sends it. It runs in a goroutine of
// its own, and only one at a time.
func (c *Conn) refreshToken() {
	c.mu.Lock()
	r, now := c.refresh, c.now()
	if c.err != nil || c.closing || r.cancel != nil || now >= r.expires {
		c.mu.Unlock() // without a token in time the server ends the connection
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), min(c.cfg.ConnectTimeout, r.expires-now))
	r.cancel, r.asked = cancel, now
	c.running++
	c.mu.Unlock()

	token, err := c.cfg.TokenFunc(ctx, r.addr)
	cancel()
	if err == nil {
		err = checkToken(token)
	}
	c.mu.Lock()
	r.cancel = nil
	switch {
	case c.err != nil || c.closing || c.now() >= r.expires:
	case err != nil:
		wait := time.Duration((0.5 + c.cfg.rand()/2) * float64(r.pause))
		r.pause = min(2*r.pause, refreshMost)
		r.timer.Reset(wait)
	default:
		r.sent = true
		c.out = codec.AppendConfig(c.out, codec.Config{Token: token})
		c.write()
	}
	c.exit()
}

// checkToken reports a token that a CONFIG cannot carry.
func checkToken(token string) error {
	if token == "" {
		return errors.New("TokenFunc returned none")
	}
	if n := len(codec.AppendConfig(nil, codec.Config{Token: token})); n > maxHello {
		return fmt.Errorf("CONFIG would have %d bytes with it, %d are allowed", n, maxHello)
	}
	return nil
}

// stop ends the refreshing. Called with mu held.
func (r *refresh) stop() {
	if r == nil {
		return
	}
	r.timer.Stop()
	if r.cancel != nil {
		r.cancel()
	}
}

// stale reports whether the server has said that the token has expired, and there is no
// other: it would say so again.
func (c *Config) stale(err error) bool {
	var code *CodeError
	return c.TokenFunc == nil && c.Token != "" && errors.As(err, &code) && code.Code == codec.CodeTokenExpired
}
