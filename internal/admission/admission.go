// Package admission decides whether a connection may come in. It counts
// connections against what this process may open, against a quota that several
// processes share and against the limits of the peer's address, and it refuses
// them while memory is short.
//
// Control.Admit is the only way in. What it counts is in the Ticket, and
// Control.Release gives it back.
//
// Of this module it imports codec.
package admission

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"heartwheel/codec"
)

// Config configures a Control. Each zero limit means no limit.
type Config struct {
	MaxConnections int           // of this process; 0, or more than its descriptors allow: as many as they allow
	Quota          Quota         // limit shared with other processes; nil: none
	AddressRate    int           // new connections per second from one address
	AddressBurst   int           // of these, how many may come at once; at least 1
	AddressMax     int           // connections of one address at a time
	FlapLimit      int           // connects of one address within a minute; one more is banned
	BanTime        time.Duration // how long a flapping address is banned
	Ban            []netip.Prefix
	Trust          []netip.Prefix // addresses without limits of their own, disjoint from Ban
	RetryAfter     time.Duration  // of a Refusal that is no ban
	Logger         *slog.Logger

	// Now is the clock of the address limits. It never goes back. nil: the
	// monotonic time since New.
	Now func() time.Duration
}

// A Cause says why a connection was refused. The zero value is none. Its word is
// the metric label, and the same in logs and tests. Its methods are pure functions.
type Cause uint8

const (
	Overloaded   Cause = iota + 1 // the connection limit or the quota is reached
	EnrollFailed                  // admitted, but the event loop did not take the socket
	Gone                          // admitted, but the peer was gone before it could be served
	AddressRate                   // the address connects faster than Config.AddressRate
	AddressLimit                  // the address has Config.AddressMax connections
	Flapping                      // the address is banned for some time: it connected too often
	Banned                        // the address is listed in Config.Ban
	Memory                        // memory is short
	NoProxy                       // the peer is no load balancer, and only those may connect
	ProxyHeader                   // a load balancer sent no PROXY header, or a bad one
	TLSHandshake                  // a TLS handshake failed, or was not complete in time
	numCauses
)

var causes = [numCauses]struct {
	word string
	code codec.Code
}{
	Overloaded:   {"overloaded", codec.CodeOverloaded},
	EnrollFailed: {"enroll_failed", codec.CodeInternalError},
	Gone:         {"gone", codec.CodePeerClosed},
	AddressRate:  {"address_rate", codec.CodeRateLimited},
	AddressLimit: {"address_limit", codec.CodeOverloaded},
	Flapping:     {"flapping", codec.CodeRateLimited},
	Banned:       {"banned", codec.CodeBanned},
	Memory:       {"memory", codec.CodeOverloaded},
	NoProxy:      {"no_proxy", codec.CodeBanned},
	ProxyHeader:  {"proxy_header", codec.CodeProtocolError},
	TLSHandshake: {"tls_handshake", codec.CodeProtocolError},
}

// String returns the word of the cause, such as "overloaded"; of the zero Cause
// it is empty.
func (c Cause) String() string { return causes[c].word }

// Code returns the close code for the peer. After 3013 and 3020 clients connect
// again. AddressLimit is 3020 like Overloaded, as waiting helps; 3504 would end
// clients for good, and many may share the address.
func (c Cause) Code() codec.Code { return causes[c].code }

// Causes returns every Cause.
func Causes() []Cause {
	all := make([]Cause, 0, numCauses-1)
	for c := Cause(1); c < numCauses; c++ {
		all = append(all, c)
	}
	return all
}

// A Refusal says why a connection may not come in, and when its peer may try
// again. The zero Refusal is none: the connection may come in.
type Refusal struct {
	Cause      Cause
	Silent     bool          // reset the connection: its address got enough notices this second
	RetryAfter time.Duration // when the peer may try again; 0: no time is known
	ban        bool          // the address was banned by this connect
}

// Refused reports whether the connection may not come in.
func (r Refusal) Refused() bool { return r.Cause != 0 }

// A Ticket stands for one connection that was admitted, and remembers the
// address that was counted for it. The zero Ticket stands for none. A Ticket has
// one owner at a time and must not be copied while it is in use: only the copy
// that was given to Release knows that it was released.
type Ticket struct {
	n uint32 // 0: nothing is counted; 1: no address is; from firstSlot: index of addresses.slots + firstSlot
}

const firstSlot = 2

// A Control admits connections. Its methods are safe for concurrent use; a Ticket
// is its owner's alone.
type Control struct {
	// Static after New, but for memory: set by Watch, before any Admit.
	log       *slog.Logger
	addresses *addresses
	memory    *memory // nil: no limit is known

	capacity   capacity
	retryAfter atomic.Int64 // ns
	unbound    atomic.Int64 // Tickets without an address
	refused    [numCauses]atomic.Uint64
	banLog     atomic.Int64 // unix time of the last message about a ban, in s

	limitMu     sync.Mutex
	limitLog    time.Time // guarded by limitMu: of the last message about the connection limit
	limitLogged uint64    // guarded by limitMu: Overloaded refusals that messages have had
}

// limitLogEvery is the time between messages about the connection limit.
const limitLogEvery = time.Minute

// logLimit says that the connection limit was reached, unless it did less than
// limitLogEvery ago.
func (c *Control) logLimit() {
	if !c.limitMu.TryLock() {
		return // another one is just saying it
	}
	defer c.limitMu.Unlock()
	if !c.limitLog.IsZero() && time.Since(c.limitLog) < limitLogEvery {
		return
	}
	n := c.refused[Overloaded].Load()
	c.log.Warn("at the connection limit", "limit", c.Max(), "connections", c.Connections(), "refused", n-c.limitLogged)
	c.limitLog, c.limitLogged = time.Now(), n
}

// New raises this process's limit of open descriptors to its hard value and
// returns a Control that knows no limit of memory until Watch. It fails if the
// descriptors leave no room for connections.
func New(cfg Config) (*Control, error) {
	c := &Control{log: cfg.Logger, addresses: newAddresses(&cfg)}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if err := c.capacity.init(&cfg, c.log); err != nil {
		return nil, err
	}
	c.retryAfter.Store(int64(cfg.RetryAfter))
	return c, nil
}

// Reload puts the limits of cfg in force for connections that come, but for the
// Quota, which stays, as do Logger and Now. No connection that is in is affected.
// If there is an error, nothing has changed.
func (c *Control) Reload(cfg Config) error {
	if err := c.capacity.resize(cfg.MaxConnections, c.log); err != nil {
		return err
	}
	c.retryAfter.Store(int64(cfg.RetryAfter))
	c.addresses.reload(&cfg)
	return nil
}

// ByAddress reports whether Admit and Bind look at addresses now. If not, callers
// need not find them out.
func (c *Control) ByAddress() bool { return c.addresses.limits.Load().active }

// Admit decides on a connection from peer, the cheapest refusals first. The zero
// Addr says that the address comes later, through Bind: nothing is counted for
// an address then. If the connection is let in, its Ticket must be released when
// it has gone.
func (c *Control) Admit(peer netip.Addr) (Ticket, Refusal) {
	t := Ticket{n: 1}
	if c.ByAddress() && peer.IsValid() {
		slot, r := c.addresses.admit(peer, c.capacity.full())
		if r.Refused() {
			return Ticket{}, c.refuse(r, peer)
		}
		t.n = slot
	}
	if !c.memory.admit() {
		c.leaveAddress(&t)
		return Ticket{}, c.refuse(Refusal{Cause: Memory}, peer)
	}
	if !c.capacity.enter() {
		c.leaveAddress(&t)
		return Ticket{}, c.refuse(Refusal{Cause: Overloaded}, peer)
	}
	c.countUnbound(&t, 1)
	return t, Refusal{}
}

// Bind counts a connection that is in for addr, once it is known, in place of
// the address it was counted for before. If addr is refused, the Ticket is still
// to be released. Bind does nothing with a Ticket that stands for none.
func (c *Control) Bind(t *Ticket, addr netip.Addr) Refusal {
	if t.n == 0 || !c.ByAddress() {
		return Refusal{}
	}
	c.countUnbound(t, -1)
	c.leaveAddress(t)
	slot, r := c.addresses.admit(addr, false)
	if !r.Refused() {
		t.n = slot
	}
	c.countUnbound(t, 1)
	if r.Refused() {
		return c.refuse(r, addr)
	}
	return Refusal{}
}

// Release gives back what was counted for the connection, and makes the Ticket
// stand for none: releasing it again does nothing.
func (c *Control) Release(t *Ticket) {
	if t.n == 0 {
		return
	}
	c.countUnbound(t, -1)
	c.leaveAddress(t)
	t.n = 0
	c.capacity.leave()
}

// Fail releases the Ticket of a connection that was let in and could not be
// served, and counts it as refused for cause.
func (c *Control) Fail(t *Ticket, cause Cause) {
	c.Release(t)
	c.refused[cause].Add(1)
}

func (c *Control) leaveAddress(t *Ticket) {
	if t.n >= firstSlot {
		c.addresses.leave(t.n)
		t.n = 1
	}
}

// countUnbound adds n to the Tickets without an address if t is one of them. It
// does so without limits by address too, as Reload may set some.
func (c *Control) countUnbound(t *Ticket, n int64) {
	if t.n == 1 {
		c.unbound.Add(n)
	}
}

// refuse counts a refusal and completes it.
func (c *Control) refuse(r Refusal, peer netip.Addr) Refusal {
	c.refused[r.Cause].Add(1)
	if r.Cause == Overloaded {
		c.logLimit()
	}
	switch r.Cause {
	case Overloaded, AddressLimit, AddressRate, Memory:
		r.RetryAfter = time.Duration(c.retryAfter.Load())
	}
	if r.ban {
		if now, last := time.Now().Unix(), c.banLog.Load(); now != last && c.banLog.CompareAndSwap(last, now) {
			c.log.Warn("banned an address that connects too often", "address", prefixOf(peer).String(),
				"limit", c.addresses.limits.Load().flaps, "for", r.RetryAfter.String())
		}
	}
	return r
}

// Max returns the connection limit of this process.
func (c *Control) Max() int { return int(c.capacity.max.Load()) }

// Connections returns how many connections are in.
func (c *Control) Connections() int64 { return c.capacity.live.Load() }

// Refused returns how many connections were refused for cause.
func (c *Control) Refused(cause Cause) uint64 { return c.refused[cause].Load() }

// Check re-derives what must always hold, and returns what does not. It keeps
// Admit waiting for some 10 ms per 100,000 addresses.
func (c *Control) Check() (problems []string) {
	if err := c.addresses.check(); err != nil {
		problems = append(problems, err.Error())
	}
	return append(problems, c.checkCounts()...)
}

// checkCounts compares the sum over the addresses with the count of connections,
// if that did not change meanwhile.
func (c *Control) checkCounts() []string {
	before := c.Connections()
	counted := c.addresses.stats().Connections + c.unbound.Load()
	if now := c.Connections(); c.addresses.limits.Load().counting && now == before && counted != now {
		return []string{fmt.Sprintf("%d connections are counted, but %d by their addresses", now, counted)}
	}
	return nil
}
