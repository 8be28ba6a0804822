package server

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"
)

// nth returns IPv4 addresses that differ.
func nth(i int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+uint32(i))))
}

// clocked returns a table whose clock the test moves.
func clocked(t testing.TB, cfg Config) (*addresses, *time.Duration) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	cfg = cfg.WithDefaults()
	a := newAddresses(&cfg)
	var now time.Duration
	a.now = func() int64 { return int64(now) }
	return a, &now
}

// outcome is a verdict in a word.
func (v verdict) outcome() string {
	if v.ok {
		return "in"
	}
	return refusals[v.why]
}

func wantOutcome(t *testing.T, v verdict, want string) verdict {
	t.Helper()
	if got := v.outcome(); got != want {
		t.Fatalf("the verdict is %q, want %q", got, want)
	}
	return v
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
			tcp := &net.TCPAddr{IP: ip.AsSlice(), Zone: ip.Zone(), Port: 1}
			keys = append(keys, keyOf(ipOf(tcp)))
			prefixes = append(prefixes, prefixOf(ipOf(tcp)))
		}
		if (keys[0] == keys[1]) != test.same || (prefixes[0] == prefixes[1]) != test.same {
			t.Errorf("%s and %s have the keys %x and %x and the prefixes %s and %s", test.a, test.b, keys[0], keys[1], prefixes[0], prefixes[1])
		}
		if !prefixes[0].IsValid() || prefixes[0] != prefixes[0].Masked() {
			t.Errorf("%s has the prefix %s", test.a, prefixes[0])
		}
	}
	if ip := ipOf(&net.UnixAddr{}); !ip.IsValid() {
		t.Error("what is no TCP address has no valid one")
	}
}

// Off by default, and then there is nothing: no table, no entry, no cost.
func TestAddressesOff(t *testing.T) {
	cfg := Config{}.WithDefaults()
	if a := newAddresses(&cfg); a != nil {
		t.Fatal("there is a table that nobody asked for")
	}
	if f := (*addresses)(nil).figures(); f != (addressFigures{}) {
		t.Errorf("figures without a table: %+v", f)
	}
	a, _ := clocked(t, Config{Ban: []string{"192.0.2.0/24"}})
	for i := range 100 {
		wantOutcome(t, a.admit(nth(i), false), "in")
		a.leave(nth(i))
	}
	wantOutcome(t, a.admit(netip.MustParseAddr("192.0.2.7"), false), "banned")
	if f := a.figures(); f.known != 0 || f.conns != 0 {
		t.Errorf("with no more than a list %+v is tracked", f)
	}
}

func TestAddressRate(t *testing.T) {
	a, now := clocked(t, Config{AddressRate: 10, AddressBurst: 3})
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
	a, _ := clocked(t, Config{AddressMax: 2, AddressRate: 3, AddressBurst: 3})
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
	a, now := clocked(t, Config{FlapLimit: 15})
	x, y := nth(1), nth(2)
	connect := func(want string) verdict {
		t.Helper()
		v := wantOutcome(t, a.admit(x, false), want)
		if v.ok {
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
	if v := connect("flapping"); !v.made || !v.tell || v.rest != int64(5*time.Minute) {
		t.Errorf("banned with %+v", v)
	}
	wantOutcome(t, a.admit(y, false), "in")
	*now += time.Minute
	if v := connect("flapping"); v.made || v.rest != int64(4*time.Minute) {
		t.Errorf("a minute later: %+v", v)
	}
	if f := a.figures(); f.banned != 1 || f.bans != 1 {
		t.Errorf("%+v", f)
	}
	*now += 4*time.Minute - 1
	connect("flapping")
	*now++
	if f := a.figures(); f.banned != 0 || f.bans != 1 {
		t.Errorf("at its end %+v", f)
	}
	for range 15 { // what it did before and meanwhile is forgotten
		connect("in")
	}
	connect("flapping")
}

// A full server turns peers away, who come again soon. That is not their fault.
func TestFullServerCountsNothing(t *testing.T) {
	a, _ := clocked(t, Config{FlapLimit: 2, AddressRate: 1, AddressMax: 1, Ban: []string{"192.0.2.0/24"}})
	for range 100 {
		if v := wantOutcome(t, a.admit(nth(1), true), "overloaded"); !v.tell {
			t.Fatal("it is not told")
		}
	}
	wantOutcome(t, a.admit(netip.MustParseAddr("192.0.2.7"), true), "banned")
	wantOutcome(t, a.admit(nth(1), false), "in")
}

// Some of those refused are told, ten a second; each address has its own ten.
func TestSomeAreTold(t *testing.T) {
	listed := netip.MustParseAddr("192.0.2.7")
	for name, cfg := range map[string]Config{
		"address_rate": {AddressRate: 1}, "address_limit": {AddressMax: 1}, "flapping": {FlapLimit: 1},
		"banned": {Ban: []string{"192.0.2.7", "10.0.0.1"}},
	} {
		a, now := clocked(t, cfg)
		told := func(ip netip.Addr, n int) (told int) {
			for range n {
				*now += 10 * time.Microsecond
				if v := a.admit(ip, false); v.tell && !v.ok {
					if v.outcome() != name {
						t.Fatalf("%s: refused as %s", name, v.outcome())
					}
					told++
				}
			}
			return told
		}
		one, other := listed, nth(1)
		if n := told(one, 90_000); n < 10 || n > 20 { // 0.9 s
			t.Errorf("%s: %d told in 0.9 s", name, n)
		}
		if n := told(other, 100); n != 10 {
			t.Errorf("%s: %d of another address told", name, n)
		}
	}
}

// The table holds the connected and no more than maxAbsent others, and who is
// connected is never forgotten.
func TestAddressesAreBounded(t *testing.T) {
	a, now := clocked(t, Config{AddressRate: 1, AddressMax: 1, FlapLimit: 10})
	const conns = 1000
	for i := range conns {
		wantOutcome(t, a.admit(nth(i), false), "in")
	}
	for i := range 3 * maxAbsent {
		ip := nth(conns + i)
		wantOutcome(t, a.admit(ip, false), "in")
		a.leave(ip)
		*now += time.Microsecond
		if n := a.figures().known; n > conns+maxAbsent {
			t.Fatalf("%d addresses are tracked, with %d connected", n, conns)
		}
	}
	if n := a.figures().known; n != conns+maxAbsent {
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
	if n := a.figures().known; n > conns+2 {
		t.Errorf("%d addresses are tracked, with %d connected", n, conns)
	}
	if err := a.check(); err != nil {
		t.Fatal(err)
	}
}
