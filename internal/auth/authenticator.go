package auth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"heartwheel/codec"
)

// maxInline is the longest JSON Web Token that a loop checks itself, in bytes: one of
// HMAC takes some 10 µs then.
const maxInline = 1 << 10

// An Authenticator checks requests: a few at one time, while others wait in a queue
// with a bound. Safe for concurrent use.
type Authenticator struct {
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	state     atomic.Pointer[state]
	reloading sync.Mutex // held by Reload and Close
	workers   sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	queue    []*check
	running  int    // workers
	overload uint64 // checks that were not taken
	accepted uint64
	refused  map[string]uint64 // by word of the code
}

// A state is what a reload replaces.
type state struct {
	Config
	checker *checker
	jwks    *keySet // nil: none
	hook    *hook   // nil: none
	inline  bool    // tokens to maxInline are cheap to check
}

// A check waits for its turn.
type check struct {
	Request
	done func(Identity, error)
	by   time.Time
}

// NewAuthenticator returns an Authenticator, or everything that is wrong with c. It
// fetches the JWK set, which takes Timeout at most. What it gets instead of one is
// an error; if it gets no answer it logs that, and tokens that need the set are
// refused with ErrUnavailable until it does.
func NewAuthenticator(c Config) (*Authenticator, error) {
	a := &Authenticator{refused: map[string]uint64{}}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	if err := a.load(c, true); err != nil {
		a.cancel()
		return nil, err
	}
	return a, nil
}

// Reload replaces the configuration. If anything is wrong with c, or it names a JWK
// set that cannot be fetched within Timeout, it changes nothing and returns all of it.
// One that is in use already is not fetched.
func (a *Authenticator) Reload(c Config) error { return a.load(c, false) }

// load is Reload. In place of a JWK set that does not answer, starting takes none.
func (a *Authenticator) load(c Config, starting bool) error {
	a.reloading.Lock()
	defer a.reloading.Unlock()
	if a.ctx.Err() != nil {
		return errors.New("auth: closed")
	}
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	s := &state{Config: c, inline: true}
	if s.checker, err = newChecker(c); err != nil {
		return err
	}
	for _, key := range c.Keys {
		s.inline = s.inline && key.Public == nil
	}
	old := a.state.Load()
	if c.JWKS != "" {
		s.inline = false
		if old != nil && old.jwks != nil && old.jwks.serves(c) {
			s.jwks = old.jwks
		} else if s.jwks, err = newKeySet(a.ctx, c, a.resume); err == nil {
			err = s.jwks.first(starting)
		}
		if err != nil {
			return err
		}
	}
	if c.Mode == Hook {
		if old != nil && old.hook != nil && old.hook.serves(c) {
			s.hook = old.hook
		} else if s.hook, err = newHook(c); err != nil {
			return err
		}
	}
	a.state.Store(s)
	if s.jwks != nil && (old == nil || old.jwks != s.jwks) {
		a.workers.Go(s.jwks.run)
	}
	if old != nil && old.jwks != nil && old.jwks != s.jwks {
		old.jwks.cancel()
	}
	if old != nil && old.hook != nil && old.hook != s.hook {
		old.hook.client.CloseIdleConnections()
	}
	return nil
}

// CheckNow checks a request that is cheap to check, in some 10 µs and without
// waiting. Otherwise ok is false, and it is for Check.
func (a *Authenticator) CheckNow(r Request) (id Identity, ok bool, err error) {
	s := a.state.Load()
	switch {
	case s.Mode == Hook:
		return Identity{}, false, nil
	case s.Mode == None:
	case s.Mode == MTLS:
		id, err = identify(r.Certificate)
	case s.Mode == Tokens, s.inline && len(r.Token) <= maxInline, r.Token == "":
		id, err = s.checker.check(r.Token, nil)
	default:
		return Identity{}, false, nil
	}
	a.count(err)
	return id, true, err
}

// Check checks a request, and calls done once with its result from a goroutine of
// the Authenticator; done must not block. It returns false, and done is not called,
// if the queue is full or the Authenticator closed: the client should come back, as
// with ErrUnavailable. Check itself does not wait.
func (a *Authenticator) Check(r Request, done func(Identity, error)) bool {
	s := a.state.Load()
	c := &check{Request: r, done: done, by: time.Now().Add(s.Timeout)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.queue) >= s.Queue {
		a.overload++
		return false
	}
	a.enqueue(s, c)
	return true
}

// resume puts checks back that have been in the queue before, whatever its bound.
func (a *Authenticator) resume(checks []*check) {
	s := a.state.Load()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range checks {
		a.enqueue(s, c)
	}
}

// enqueue needs mu.
func (a *Authenticator) enqueue(s *state, c *check) {
	a.queue = append(a.queue, c)
	if a.running < s.Workers {
		a.running++
		a.workers.Go(a.work)
	}
}

// work runs checks until none waits.
func (a *Authenticator) work() {
	for {
		a.mu.Lock()
		if len(a.queue) == 0 || a.running > a.state.Load().Workers {
			a.running--
			a.mu.Unlock()
			return
		}
		c := a.queue[0]
		a.queue[0] = nil
		if a.queue = a.queue[1:]; len(a.queue) == 0 {
			a.queue = nil // what a burst took
		}
		a.mu.Unlock()
		if id, parked, err := a.run(c); !parked {
			a.count(err)
			c.done(id, err)
		}
	}
}

// run checks. If it has parked the check, that comes back by resume.
func (a *Authenticator) run(c *check) (id Identity, parked bool, err error) {
	for again := true; again; {
		s := a.state.Load()
		if s.jwks == nil {
			id, err = a.try(s, c, nil)
			return id, false, err
		}
		seen := s.jwks.list.Load()
		id, err = a.try(s, c, seen)
		var missing *noKeyError
		if !errors.As(err, &missing) {
			return id, false, err
		}
		var verdict *codec.Error
		if parked, again, verdict = s.jwks.unknown(c, seen, missing.kid); verdict != nil {
			err = refuse(verdict, missing)
		}
	}
	return Identity{}, parked, err
}

// try checks with the keys of list beside those of s.
func (a *Authenticator) try(s *state, c *check, list *keyList) (Identity, error) {
	switch {
	case a.ctx.Err() != nil:
		return Identity{}, refuse(ErrUnavailable, errors.New("closed"))
	case !time.Now().Before(c.by):
		return Identity{}, refuse(ErrUnavailable, errors.New("it has waited too long for its turn"))
	case s.Mode == None:
		return Identity{}, nil
	case s.Mode == MTLS:
		return identify(c.Certificate)
	case len(c.Token) > s.MaxToken:
		return Identity{}, refuse(ErrBadToken, fmt.Errorf("%d bytes", len(c.Token)))
	case s.Mode == Hook:
		ctx, cancel := context.WithDeadline(a.ctx, c.by)
		defer cancel()
		return s.hook.ask(ctx, c.Request)
	}
	var keys []Key
	if list != nil {
		keys = list.keys
	}
	return s.checker.check(c.Token, keys)
}

// count counts the result of a check.
func (a *Authenticator) count(err error) {
	code := codec.CodeInternalError
	var e *codec.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.accepted++
	} else {
		a.refused[code.String()]++
	}
}

// Close ends the Authenticator: it takes no more checks, ends those that it has with
// ErrUnavailable, and waits until it has called done for each.
func (a *Authenticator) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.reloading.Lock()
	defer a.reloading.Unlock()
	a.workers.Wait()
	if h := a.state.Load().hook; h != nil {
		h.client.CloseIdleConnections()
	}
}

// Stats are the figures of an Authenticator. Counters run from its start.
type Stats struct {
	Accepted   uint64
	Refused    map[string]uint64 // by word of the code
	Overloaded uint64            // not taken by Check
	Waiting    int               // for their turn, now
	Running    int               // checks, now

	JWKSFetches, JWKSFailures uint64 // of the JWK set in use
	HookCalls, HookFailures   uint64 // of the hook in use; a refusal is no failure
}

// Stats returns the figures.
func (a *Authenticator) Stats() Stats {
	a.mu.Lock()
	st := Stats{
		Accepted: a.accepted, Refused: maps.Clone(a.refused), Overloaded: a.overload, Waiting: len(a.queue),
		Running: a.running,
	}
	a.mu.Unlock()
	s := a.state.Load()
	if h := s.hook; h != nil {
		st.HookCalls, st.HookFailures = h.called.Load(), h.failures.Load()
	}
	if k := s.jwks; k != nil {
		st.JWKSFetches, st.JWKSFailures = k.fetches.Load(), k.failures.Load()
	}
	return st
}
