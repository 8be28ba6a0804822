package admission

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gaissmai/bart"
)

const (
	// maxAbsent is how many addresses without a connection are remembered.
	maxAbsent = 65536

	// flapWindow is the time in which the connects of an address are counted.
	flapWindow = time.Minute

	// noticesPerSecond is how many refused connections of an address, or of a
	// listed prefix, are told why. The others are reset: that costs a third less
	// (some 11 µs instead of 16) and leaves no socket in TIME_WAIT for a minute.
	noticesPerSecond = 10
)

// addresses admits connections by the address that they come from: banned or
// not, their number, their rate. An address is an IPv4 address or the /64 of an
// IPv6 one, the least that a provider gives to one customer.
//
// It is one table under one mutex, held for some 100 ns when a connection comes
// and when it goes. Entries are those with a connection, and at most maxAbsent
// others in the order in which their last connection went. Connections that come
// drop entries that have nothing to remember. If too many have, the one absent
// longest is forgotten: it gets its burst afresh, and no connected address is
// forgotten.
//
// Safe for concurrent use.
type addresses struct {
	// Static after construction.
	notices gcra
	now     func() int64

	limits atomic.Pointer[addressLimits] // written under mu

	mu     sync.Mutex
	known  map[addressKey]*address // guarded by mu, as are the entries
	slots  []*address              // guarded by mu: by address.slot, less firstSlot
	free   []uint32                // guarded by mu: unused slots
	absent addressList             // guarded by mu: entries without a connection
	conns  int                     // guarded by mu: sum of live
	banned bans                    // guarded by mu
	spare  *address                // guarded by mu: the last one forgotten, to be used again
}

// addressLimits are what the settings say of addresses. They do not change:
// reload puts others in their place.
type addressLimits struct {
	active   bool // there is a limit for each address, or a list of bans
	counting bool // there is a limit for each address
	rate     gcra
	max      int32 // connections of one address; 0: no limit
	flaps    int32 // connects in flapWindow; 0: no limit
	banTime  int64 // ns
	trusted  bart.Lite
}

// An address is what is known of one address.
type address struct {
	key       addressKey
	rateTAT   int64 // see gcra
	noticeTAT int64
	window    int64  // when the first of connects came
	connects  int32  // within flapWindow
	live      int32  // connections
	slot      uint32 // for Ticket

	prev, next *address // in absent, while live is 0
}

// addressKey is the first half of an IPv6 address, or 0:ffff:a.b.c.d, which no
// IPv6 address begins with (0000::/8 is reserved, RFC 4291).
type addressKey uint64

func keyOf(ip netip.Addr) addressKey {
	b := ip.As16()
	if ip.Is4() {
		return 0xffff<<32 | addressKey(binary.BigEndian.Uint32(b[12:]))
	}
	return addressKey(binary.BigEndian.Uint64(b[:8]))
}

// prefixOf returns all that shares the key of ip.
func prefixOf(ip netip.Addr) netip.Prefix {
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, _ := ip.Prefix(bits) // fails for other numbers of bits only
	return p
}

// A gcra admits an even rate and a burst: the generic cell rate algorithm
// (ITU-T I.371). The zero value admits everything.
type gcra struct{ interval, tolerance int64 } // ns

func newGCRA(perSecond, burst int) gcra {
	if perSecond == 0 {
		return gcra{}
	}
	interval := int64(time.Second) / int64(perSecond)
	return gcra{interval, interval * int64(burst-1)}
}

// allow reports whether one more conforms. *tat is its theoretical arrival time,
// all that is remembered.
func (g gcra) allow(tat *int64, now int64) bool {
	at := max(*tat, now)
	if at-now > g.tolerance {
		return false
	}
	*tat = at + g.interval
	return true
}

func newAddresses(cfg *Config) *addresses {
	a := &addresses{notices: newGCRA(noticesPerSecond, noticesPerSecond), known: map[addressKey]*address{}}
	start := time.Now()
	a.now = func() int64 { return int64(time.Since(start)) }
	if cfg.Now != nil {
		a.now = func() int64 { return int64(cfg.Now()) }
	}
	a.reload(cfg)
	return a
}

// reload puts the limits of cfg in force, for connections that come. Those that
// are in stay, counted or not: a limit for each address counts the connections
// that came while there was one. Of flapping addresses, a ban ends within the new
// ban time, and at once if there is no limit of flaps any more.
func (a *addresses) reload(cfg *Config) {
	l := &addressLimits{
		counting: cfg.AddressRate > 0 || cfg.AddressMax > 0 || cfg.FlapLimit > 0,
		rate:     newGCRA(cfg.AddressRate, cfg.AddressBurst),
		max:      int32(cfg.AddressMax), flaps: int32(cfg.FlapLimit), banTime: int64(cfg.BanTime),
	}
	l.active = l.counting || len(cfg.Ban) > 0
	for _, p := range cfg.Trust {
		l.trusted.Insert(p)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.banned.relist(cfg.Ban)
	latest := a.now()
	if l.flaps > 0 {
		latest += l.banTime
	}
	a.banned.endBy(latest)
	a.limits.Store(l)
}

// admit decides on a connection from ip. If it is let in, its slot is for Ticket
// and leave must be called once when it has gone. A full server counts nothing:
// refusing peers for that does not make them flap. A trusted address is counted
// nowhere, and a ban of its /64 does not hold for it.
func (a *addresses) admit(ip netip.Addr, full bool) (slot uint32, r Refusal) {
	if a.limits.Load().trusted.Contains(ip) {
		if full {
			return 0, Refusal{Cause: Overloaded}
		}
		return 1, Refusal{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now, l := a.now(), a.limits.Load()
	if b := a.banned.find(ip, now); b != nil {
		return 0, a.refuseBanned(b, now)
	}
	if full {
		return 0, Refusal{Cause: Overloaded}
	}
	if !l.counting {
		return 1, Refusal{}
	}
	e := a.entry(keyOf(ip), now)
	switch {
	case l.flapping(e, now):
		r := a.refuseBanned(a.banned.add(prefixOf(ip), now, now+l.banTime), now)
		r.ban = true
		return 0, r
	case l.max > 0 && e.live >= l.max:
		return 0, Refusal{Cause: AddressLimit, Silent: !a.notices.allow(&e.noticeTAT, now)}
	case !l.rate.allow(&e.rateTAT, now):
		return 0, Refusal{Cause: AddressRate, Silent: !a.notices.allow(&e.noticeTAT, now)}
	}
	if e.live == 0 {
		a.absent.remove(e)
	}
	e.live++
	a.conns++
	return e.slot, Refusal{}
}

// refuseBanned is the Refusal of a banned address.
func (a *addresses) refuseBanned(b *ban, now int64) Refusal {
	silent := !a.notices.allow(&b.noticeTAT, now)
	if b.until == forever {
		return Refusal{Cause: Banned, Silent: silent}
	}
	return Refusal{Cause: Flapping, Silent: silent, RetryAfter: time.Duration(b.until - now)}
}

// leave gives back what admit counted.
func (a *addresses) leave(slot uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.slots[slot-firstSlot]
	if e == nil || e.live == 0 {
		return // a Ticket was copied; check finds what it has done
	}
	a.conns--
	if e.live--; e.live == 0 {
		a.remember(e)
	}
}

// flapping counts a connect, and reports whether it is one too many.
func (l *addressLimits) flapping(e *address, now int64) bool {
	if l.flaps == 0 {
		return false
	}
	if e.connects == 0 || now-e.window >= int64(flapWindow) {
		e.window, e.connects = now, 0
	}
	if e.connects++; e.connects <= l.flaps {
		return false
	}
	e.connects = 0 // the count starts anew after the ban
	return true
}

// entry finds or makes the entry of an address. It drops up to two absent ones
// that have nothing to remember, so each new one makes room for itself.
func (a *addresses) entry(key addressKey, now int64) *address {
	for range 2 {
		if old := a.absent.first; old != nil && old.key != key && a.blank(old, now) {
			a.forget(old)
		}
	}
	e := a.known[key]
	if e == nil {
		e = a.newEntry()
		*e = address{key: key, slot: e.slot}
		a.known[key] = e
		a.remember(e)
	}
	return e
}

// newEntry returns an entry that has a slot.
func (a *addresses) newEntry() (e *address) {
	if e, a.spare = a.spare, nil; e != nil {
		return e
	}
	e = new(address)
	if last := len(a.free) - 1; last >= 0 {
		e.slot, a.free = a.free[last], a.free[:last]
		a.slots[e.slot-firstSlot] = e
		return e
	}
	e.slot = uint32(len(a.slots)) + firstSlot
	a.slots = append(a.slots, e)
	return e
}

// blank reports whether an absent address would be treated the same if it were
// not known: its whole burst is there and its connects are out of date.
func (a *addresses) blank(e *address, now int64) bool {
	return e.rateTAT <= now && (e.connects == 0 || now-e.window >= int64(flapWindow))
}

// remember keeps an address that has no connection, and forgets another if there
// are too many of these.
func (a *addresses) remember(e *address) {
	a.absent.push(e)
	if a.absent.len > maxAbsent {
		a.forget(a.absent.first)
	}
}

func (a *addresses) forget(e *address) {
	a.absent.remove(e)
	delete(a.known, e.key)
	if old := a.spare; old != nil {
		a.slots[old.slot-firstSlot] = nil
		a.free = append(a.free, old.slot)
	}
	a.spare = e
}

// An addressList is a doubly linked list, the longest absent first.
type addressList struct {
	first, last *address
	len         int
}

func (l *addressList) push(e *address) {
	e.prev, e.next = l.last, nil
	if l.last == nil {
		l.first = e
	} else {
		l.last.next = e
	}
	l.last = e
	l.len++
}

func (l *addressList) remove(e *address) {
	if e.prev == nil {
		l.first = e.next
	} else {
		e.prev.next = e.next
	}
	if e.next == nil {
		l.last = e.prev
	} else {
		e.next.prev = e.prev
	}
	e.prev, e.next = nil, nil
	l.len--
}

// AddressStats are the figures of the limits by address; all are 0 without.
type AddressStats struct {
	Known       int    // addresses in the table, connected or not
	Banned      int    // flapping addresses, now
	Bans        uint64 // of flapping addresses, since the start
	Connections int64  // counted for an address
}

// AddressStats returns the figures of the limits by address.
func (c *Control) AddressStats() AddressStats { return c.addresses.stats() }

func (a *addresses) stats() AddressStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.banned.expire(a.now())
	return AddressStats{len(a.known), len(a.banned.ending), a.banned.made, int64(a.conns)}
}

// check re-derives what must always hold.
func (a *addresses) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	conns, absent := 0, 0
	for key, e := range a.known {
		conns += int(e.live)
		if e.live == 0 {
			absent++
		}
		if a.slots[e.slot-firstSlot] != e {
			return fmt.Errorf("address %x is not in its slot %d", key, e.slot)
		}
		if e.key != key || e.live < 0 {
			return fmt.Errorf("address %x has the entry of %x with %d connections", key, e.key, e.live)
		}
	}
	for e := a.absent.first; e != nil; e = e.next {
		if absent--; e.live != 0 {
			return fmt.Errorf("address %x has %d connections, but is in the list of absent ones", e.key, e.live)
		}
	}
	switch {
	case absent != 0 || a.absent.len > maxAbsent:
		return fmt.Errorf("%d addresses are absent, which differs by %d from those in their list", a.absent.len, absent)
	case conns != a.conns:
		return fmt.Errorf("addresses have %d connections, but %d are counted", conns, a.conns)
	}
	return a.banned.check()
}
