package admission

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// nth returns IPv4 addresses that differ.
func nth(i int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i))))
}

// withDefaults is what package server does to the limits by address.
func withDefaults(cfg Config) Config {
	if cfg.AddressBurst == 0 {
		cfg.AddressBurst = cfg.AddressRate
	}
	if cfg.BanTime == 0 {
		cfg.BanTime = 5 * time.Minute
	}
	return cfg
}

// prefixes parses a list of bans.
func prefixes(t testing.TB, texts ...string) (all []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		p, err := ParsePrefix(text)
		if err != nil {
			t.Fatalf("%s %v", text, err)
		}
		all = append(all, p)
	}
	return all
}

// A table is addresses that keeps the slots of what it has let in.
type table struct {
	*addresses
	in map[netip.Addr][]uint32
}

// clocked returns a table whose clock the test moves.
func clocked(cfg Config) (*table, *time.Duration) {
	var now time.Duration
	cfg.Now = func() time.Duration { return now }
	cfg = withDefaults(cfg)
	return &table{newAddresses(&cfg), map[netip.Addr][]uint32{}}, &now
}

func (a *table) admit(ip netip.Addr, full bool) Refusal {
	slot, r := a.addresses.admit(ip, full)
	if !r.Refused() && slot >= firstSlot {
		a.in[ip] = append(a.in[ip], slot)
	}
	return r
}

func (a *table) leave(ip netip.Addr) {
	if in := a.in[ip]; len(in) > 0 {
		a.addresses.leave(in[len(in)-1])
		a.in[ip] = in[:len(in)-1]
	}
}

// outcome is a Refusal in a word.
func (r Refusal) outcome() string {
	if !r.Refused() {
		return "in"
	}
	return r.Cause.String()
}

func wantOutcome(t *testing.T, r Refusal, want string) Refusal {
	t.Helper()
	if got := r.outcome(); got != want {
		t.Fatalf("the outcome is %q, want %q", got, want)
	}
	return r
}

func TestAddressKeys(t *testing.T) {
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"2001:db8::1", "2001:db8::ffff:0:0:1", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"0.0.0.0", "::", false},
		{"1.2.3.4", "::1.2.3.4", false},
		{"fe80::1%1", "fe80::2%2", true}, // all of a link is one
	} {
		var keys []addressKey
		var prefixes []netip.Prefix
		for _, text := range []string{test.a, test.b} {
			ip := netip.MustParseAddr(text)
			keys = append(keys, keyOf(ip.Unmap()))
			prefixes = append(prefixes, prefixOf(ip.Unmap()))
		}
		if (keys[0] == keys[1]) != test.same || (prefixes[0] == prefixes[1]) != test.same {
			t.Errorf("%s and %s have the keys %x and %x and the prefixes %s and %s", test.a, test.b, keys[0], keys[1],
				prefixes[0], prefixes[1])
		}
		if !prefixes[0].IsValid() || prefixes[0] != prefixes[0].Masked() {
			t.Errorf("%s has the prefix %s", test.a, prefixes[0])
		}
	}
}

// Off by default, and then there is nothing: no entry, no cost.
func TestAddressesOff(t *testing.T) {
	if c := newControl(t, 100, Config{AddressBurst: 1, BanTime: time.Minute}); c.ByAddress() {
		t.Fatal("addresses are looked at without a limit")
	}
	a, _ := clocked(Config{Ban: prefixes(t, "192.0.2.0/24")})
	for i := range 100 {
		wantOutcome(t, a.admit(nth(i), false), "in")
		a.leave(nth(i))
	}
	wantOutcome(t, a.admit(netip.MustParseAddr("192.0.2.7"), false), "banned")
	if f := a.stats(); f.Known != 0 || f.Connections != 0 {
		t.Errorf("with no more than a list %+v is tracked", f)
	}
}

func TestAddressRate(t *testing.T) {
	a, now := clocked(Config{AddressRate: 10, AddressBurst: 3})
	x, y := nth(1), nth(2)
	*now = time.Hour
	for range 3 {
		wantOutcome(t, a.admit(x, false), "in")
	}
	wantOutcome(t, a.admit(x, false), "address_rate")
	wantOutcome(t, a.admit(y, false), "in")
	*now += 100*time.Millisecond - 1
	wantOutcome(t, a.admit(x, false), "address_rate")
	*now++
	wantOutcome(t, a.admit(x, false), "in") // refusals cost nothing of it
	wantOutcome(t, a.admit(x, false), "address_rate")
	*now += time.Hour // and no more is saved than the burst
	for range 3 {
		wantOutcome(t, a.admit(x, false), "in")
	}
	wantOutcome(t, a.admit(x, false), "address_rate")
}

func TestAddressMax(t *testing.T) {
	a, _ := clocked(Config{AddressMax: 2, AddressRate: 3, AddressBurst: 3})
	x, y := nth(1), nth(2)
	wantOutcome(t, a.admit(x, false), "in")
	wantOutcome(t, a.admit(x, false), "in")
	wantOutcome(t, a.admit(x, false), "address_limit")
	wantOutcome(t, a.admit(y, false), "in")
	a.leave(x)
	wantOutcome(t, a.admit(x, false), "in") // what the limit refused was not paid from the rate
	a.leave(x)
	wantOutcome(t, a.admit(x, false), "address_rate")
	if err := a.check(); err != nil {
		t.Error(err)
	}
}

func TestFlapping(t *testing.T) {
	a, now := clocked(Config{FlapLimit: 15})
	x, y := nth(1), nth(2)
	connect := func(want string) Refusal {
		t.Helper()
		v := wantOutcome(t, a.admit(x, false), want)
		if !v.Refused() {
			a.leave(x)
		}
		return v
	}
	// 15 a minute, for ever, are fine.
	for range 100 {
		connect("in")
		*now += 4 * time.Second
	}
	*now += time.Minute
	// 16 within a minute are not.
	for range 15 {
		connect("in")
		*now += 4*time.Second - 1
	}
	if v := connect("flapping"); !v.ban || v.Silent || v.RetryAfter != 5*time.Minute {
		t.Errorf("banned with %+v", v)
	}
	wantOutcome(t, a.admit(y, false), "in")
	*now += time.Minute
	if v := connect("flapping"); v.ban || v.RetryAfter != 4*time.Minute {
		t.Errorf("a minute later: %+v", v)
	}
	if f := a.stats(); f.Banned != 1 || f.Bans != 1 {
		t.Errorf("%+v", f)
	}
	*now += 4*time.Minute - 1
	connect("flapping")
	*now++
	if f := a.stats(); f.Banned != 0 || f.Bans != 1 {
		t.Errorf("at its end %+v", f)
	}
	for range 15 { // what it did before and meanwhile is forgotten
		connect("in")
	}
	connect("flapping")
}

// A full server turns peers away, who come again soon. That is not their fault.
func TestFullServerCountsNothing(t *testing.T) {
	a, _ := clocked(Config{FlapLimit: 2, AddressRate: 1, AddressMax: 1, Ban: prefixes(t, "192.0.2.0/24")})
	for range 100 {
		if v := wantOutcome(t, a.admit(nth(1), true), "overloaded"); v.Silent {
			t.Fatal("it is silent")
		}
	}
	wantOutcome(t, a.admit(netip.MustParseAddr("192.0.2.7"), true), "banned")
	wantOutcome(t, a.admit(nth(1), false), "in")
}

// Ten refused connections a second get a notice, ten of each address.
func TestNoticesPerSecond(t *testing.T) {
	listed := netip.MustParseAddr("192.0.2.7")
	for name, cfg := range map[string]Config{
		"address_rate": {AddressRate: 1}, "address_limit": {AddressMax: 1}, "flapping": {FlapLimit: 1},
		"banned": {Ban: prefixes(t, "192.0.2.7", "10.0.0.1")},
	} {
		a, now := clocked(cfg)
		notices := func(ip netip.Addr, n int) (count int) {
			for range n {
				*now += 10 * time.Microsecond
				if v := a.admit(ip, false); v.Refused() && !v.Silent {
					if v.outcome() != name {
						t.Fatalf("%s: refused as %s", name, v.outcome())
					}
					count++
				}
			}
			return count
		}
		one, other := listed, nth(1)
		if n := notices(one, 90_000); n < 10 || n > 20 { // 0.9 s
			t.Errorf("%s: %d notices in 0.9 s", name, n)
		}
		if n := notices(other, 100); n != 10 {
			t.Errorf("%s: %d notices for another address", name, n)
		}
	}
}

// The table holds the connected and no more than maxAbsent others, and who is
// connected is never forgotten.
func TestAddressesAreBounded(t *testing.T) {
	a, now := clocked(Config{AddressRate: 1, AddressMax: 1, FlapLimit: 10})
	const conns = 1000
	for i := range conns {
		wantOutcome(t, a.admit(nth(i), false), "in")
	}
	for i := range 3 * maxAbsent {
		ip := nth(conns + i)
		wantOutcome(t, a.admit(ip, false), "in")
		a.leave(ip)
		*now += time.Microsecond
		if n := a.stats().Known; n > conns+maxAbsent {
			t.Fatalf("%d addresses are tracked, with %d connected", n, conns)
		}
	}
	if n := a.stats().Known; n != conns+maxAbsent {
		t.Errorf("%d addresses are tracked, want %d", n, conns+maxAbsent)
	}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
	for i := range conns {
		wantOutcome(t, a.admit(nth(i), false), "address_limit")
	}
	wantOutcome(t, a.admit(nth(conns+3*maxAbsent-1), false), "address_rate") // the last is known
	wantOutcome(t, a.admit(nth(conns), false), "in")                         // the first is not
	a.leave(nth(conns))

	// What has nothing to remember goes as others come.
	*now += 2 * time.Minute
	for i := range maxAbsent + 1 {
		ip := nth(i % 2)
		a.leave(ip)
		wantOutcome(t, a.admit(ip, false), "in")
		*now += time.Second
		a.leave(ip)
		wantOutcome(t, a.admit(ip, false), "in")
		*now += 2 * time.Minute
	}
	if n := a.stats().Known; n > conns+2 {
		t.Errorf("%d addresses are tracked, with %d connected", n, conns)
	}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
}

// TestTrusted: a trusted address has no limits of its own, even while its /64 is
// banned, and the whole server's hold for it.
func TestTrusted(t *testing.T) {
	c := newControl(t, 40, Config{FlapLimit: 1, AddressRate: 1, AddressMax: 1,
		Trust: prefixes(t, "10.1.0.0/16", "2001:db8::1")})
	balancer, trusted6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")
	neighbour, other := netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("10.2.0.1")
	for _, ip := range []netip.Addr{neighbour, other} {
		_, r := c.Admit(ip)
		wantOutcome(t, r, "in")
		_, r = c.Admit(ip)
		wantOutcome(t, r, "flapping")
	}
	var tickets []Ticket
	for i := range 38 {
		ip := balancer
		if i%2 == 1 {
			ip = trusted6
		}
		ticket, r := c.Admit(ip)
		wantOutcome(t, r, "in")
		tickets = append(tickets, ticket)
	}
	_, r := c.Admit(balancer)
	wantOutcome(t, r, "overloaded")
	_, r = c.Admit(neighbour)
	wantOutcome(t, r, "flapping")
	wantOutcome(t, c.Bind(&tickets[0], trusted6), "in")
	wantOutcome(t, c.Bind(&tickets[1], neighbour), "flapping")
	wantCounts(t, c, 40, 2)
	for i := range tickets {
		c.Release(&tickets[i])
	}
	wantCounts(t, c, 2, 2)
	if problems := c.Check(); problems != nil {
		t.Error(problems)
	}
}
