package server

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// maxAbsent is how many addresses without a connection are remembered.
	maxAbsent = 65536

	// flapWindow is the time in which the connects of an address are counted.
	flapWindow = time.Minute

	// noticesPerSecond is how many refused connections of an address, or of a
	// listed prefix, are told why. The rest are reset: that costs a third less
	// (some 11 µs instead of 16) and leaves nothing behind in the kernel, where
	// each that is told leaves a socket in TIME_WAIT for a minute.
	noticesPerSecond = 10
)

// addresses admits connections by the address that they come from: banned or
// not, how many there are, how fast they come. An address is an IPv4 address or
// the /64 of an IPv6 one, the least that a provider gives to one customer.
//
// It is one table under one mutex, which is held for some 100 ns for each
// connection that comes, and again when it goes. Each live connection keeps one
// entry at most, and beside these there are no more than maxAbsent, in the
// order in which their last connection went. An entry that has nothing to
// remember is dropped by the next connections that come. If there are too many
// that have, the one absent longest is forgotten. That never hurts: an address
// that comes back gets its burst afresh, and who is connected is not forgotten.
//
// Safe for concurrent use.
type addresses struct {
	// Static after construction.
	counting bool // there is a limit for each address, not only a list
	rate     meter
	tells    meter
	max      int32 // connections of one address; 0: any number
	flaps    int32 // connects in flapWindow; 0: any number
	banTime  int64 // ns
	now      func() int64

	mu     sync.Mutex
	known  map[addressKey]*address // guarded by mu, as are the entries
	absent addressList             // guarded by mu: those without a connection
	conns  int                     // guarded by mu: sum of live
	banned bans                    // guarded by mu
	spare  *address                // guarded by mu: the last one forgotten, to be used again
}

// An address is what is known of one address.
type address struct {
	key        addressKey
	paid, told int64 // of rate and tells
	window     int64 // when the first of connects came
	connects   int32 // within flapWindow
	live       int32 // connections

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

// ipOf returns the address of a TCP socket's peer, as keyOf wants it.
func ipOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.IPv6Unspecified()
}

// A meter lets an even rate through, and a burst: the generic cell rate
// algorithm (ITU-T I.371). The zero value lets everything through.
type meter struct{ every, slack int64 } // ns

func newMeter(perSecond, burst int) meter {
	if perSecond == 0 {
		return meter{}
	}
	every := int64(time.Second) / int64(perSecond)
	return meter{every, every * int64(burst-1)}
}

// allow reports whether one more may pass. paid is all that is remembered: the
// time up to which those that have passed are paid for.
func (m meter) allow(paid *int64, now int64) bool {
	at := max(*paid, now)
	if at-now > m.slack {
		return false
	}
	*paid = at + m.every
	return true
}

// newAddresses returns nil if cfg limits nothing by address.
func newAddresses(cfg *Config) *addresses {
	a := &addresses{
		counting: cfg.AddressRate > 0 || cfg.AddressMax > 0 || cfg.FlapLimit > 0,
		rate:     newMeter(cfg.AddressRate, cfg.AddressBurst), tells: newMeter(noticesPerSecond, noticesPerSecond),
		max: int32(cfg.AddressMax), flaps: int32(cfg.FlapLimit), banTime: int64(cfg.BanTime),
		known: map[addressKey]*address{},
	}
	if !a.counting && len(cfg.Ban) == 0 {
		return nil
	}
	start := time.Now()
	a.now = func() int64 { return int64(time.Since(start)) }
	for _, text := range cfg.Ban {
		if p, err := parseBan(text); err == nil { // Validate has seen to that
			a.banned.list(p)
		}
	}
	return a
}

// A verdict says what becomes of a connection that has come.
type verdict struct {
	ok   bool
	why  refusal
	tell bool  // tell the peer; else reset the connection
	rest int64 // ns until the ban ends; 0: never, or there is none
	made bool  // the ban was made just now
}

// admit decides on a connection from ip. If it is let in, leave has to be
// called once when it has gone. A full server counts nothing: that it turns
// peers away does not make them flap.
func (a *addresses) admit(ip netip.Addr, full bool) verdict {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if b := a.banned.find(ip, now); b != nil {
		return b.refuse(a.tells.allow(&b.told, now), now)
	}
	if full {
		return verdict{why: refusedOverloaded, tell: true}
	}
	if !a.counting {
		return verdict{ok: true}
	}
	e := a.entry(keyOf(ip), now)
	switch {
	case a.flapping(e, now):
		b := a.banned.add(prefixOf(ip), now, now+a.banTime)
		v := b.refuse(a.tells.allow(&b.told, now), now)
		v.made = true
		return v
	case a.max > 0 && e.live >= a.max:
		return verdict{why: refusedAddressLimit, tell: a.tells.allow(&e.told, now)}
	case !a.rate.allow(&e.paid, now):
		return verdict{why: refusedAddressRate, tell: a.tells.allow(&e.told, now)}
	}
	if e.live == 0 {
		a.absent.remove(e)
	}
	e.live++
	a.conns++
	return verdict{ok: true}
}

// leave takes back what admit counted.
func (a *addresses) leave(ip netip.Addr) {
	if !a.counting {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.known[keyOf(ip)]
	if e == nil || e.live == 0 {
		return // check tells
	}
	a.conns--
	if e.live--; e.live == 0 {
		a.remember(e)
	}
}

// flapping counts a connect, and reports whether it is one too many.
func (a *addresses) flapping(e *address, now int64) bool {
	if a.flaps == 0 {
		return false
	}
	if e.connects == 0 || now-e.window >= int64(flapWindow) {
		e.window, e.connects = now, 0
	}
	if e.connects++; e.connects <= a.flaps {
		return false
	}
	e.connects = 0 // it begins anew after the ban
	return true
}

// entry finds or makes the entry of an address. Each one that is made makes
// room for itself, and drops up to two that have nothing to remember.
func (a *addresses) entry(key addressKey, now int64) *address {
	for range 2 {
		if old := a.absent.first; old != nil && old.key != key && a.blank(old, now) {
			a.forget(old)
		}
	}
	e := a.known[key]
	if e == nil {
		if e, a.spare = a.spare, nil; e == nil {
			e = new(address)
		}
		*e = address{key: key}
		a.known[key] = e
		a.remember(e)
	}
	return e
}

// blank reports whether an absent address would be treated just the same if it
// were not known: its bucket is full and its connects are out of date.
func (a *addresses) blank(e *address, now int64) bool {
	return e.paid <= now && (e.connects == 0 || now-e.window >= int64(flapWindow))
}

// remember keeps an address that has no connection, and forgets another if
// there are too many of these.
func (a *addresses) remember(e *address) {
	a.absent.push(e)
	if a.absent.len > maxAbsent {
		a.forget(a.absent.first)
	}
}

func (a *addresses) forget(e *address) {
	a.absent.remove(e)
	delete(a.known, e.key)
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

// addressFigures are what the metrics tell.
type addressFigures struct {
	known  int    // addresses in the table
	banned int    // flapping addresses, now
	bans   uint64 // made since the start
	conns  int64  // connections counted
}

// figures is fine to call on a nil a: all is 0.
func (a *addresses) figures() (f addressFigures) {
	if a == nil {
		return f
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.banned.expire(a.now())
	return addressFigures{len(a.known), len(a.banned.ending), a.banned.made, int64(a.conns)}
}

// check re-derives what must always hold. It keeps connections waiting while
// it does, some 10 ms for each 100,000 addresses.
func (a *addresses) check() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	conns, absent := 0, 0
	for key, e := range a.known {
		conns += int(e.live)
		if e.live == 0 {
			absent++
		}
		if e.key != key || e.live < 0 {
			return fmt.Errorf("address %x has the entry of %x with %d connections", key, e.key, e.live)
		}
	}
	for e := a.absent.first; e != nil; e = e.next {
		if absent--; e.live != 0 {
			return fmt.Errorf("address %x has %d connections, but is in the list of the absent", e.key, e.live)
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
