package server

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
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

// naive is the same rules without a bound, written as they are told.
type naive struct {
	cfg      Config
	arrivals map[addressKey][]time.Duration // of the present window
	paid     map[addressKey]time.Duration
	live     map[addressKey]int
	banned   map[addressKey]time.Duration
	listed   []netip.Prefix
}

func (m *naive) admit(ip netip.Addr, now time.Duration, full bool) string {
	key := keyOf(ip)
	for _, p := range m.listed {
		if p.Contains(ip) {
			return "banned"
		}
	}
	if until, ok := m.banned[key]; ok && now < until {
		return "flapping"
	}
	if full {
		return "overloaded"
	}
	if m.cfg.FlapLimit > 0 {
		w := m.arrivals[key]
		if len(w) > 0 && now-w[0] >= time.Minute {
			w = nil
		}
		w = append(w, now)
		if len(w) > m.cfg.FlapLimit {
			m.banned[key] = now + m.cfg.BanTime
			w = nil
		}
		m.arrivals[key] = w
		if w == nil {
			return "flapping"
		}
	}
	if m.cfg.AddressMax > 0 && m.live[key] >= m.cfg.AddressMax {
		return "address_limit"
	}
	if m.cfg.AddressRate > 0 {
		every := time.Second / time.Duration(m.cfg.AddressRate)
		from := max(m.paid[key], now)
		if from-now > every*time.Duration(m.cfg.AddressBurst-1) {
			return "address_rate"
		}
		m.paid[key] = from + every
	}
	m.live[key]++
	return "in"
}

func TestAddressesAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Config{
			AddressRate: rapid.IntRange(0, 4).Draw(t, "rate"),
			AddressMax:  rapid.IntRange(0, 3).Draw(t, "max"),
			FlapLimit:   rapid.IntRange(0, 5).Draw(t, "flaps"),
			BanTime:     rapid.SampledFrom([]time.Duration{time.Second, 3 * time.Minute}).Draw(t, "ban"),
			Ban:         []string{"10.0.0.8/31", "2001:db8:9::/48"},
		}
		if cfg.AddressRate > 0 {
			cfg.AddressBurst = rapid.IntRange(1, 5).Draw(t, "burst")
		}
		cfg = cfg.WithDefaults()
		a := newAddresses(&cfg)
		now := time.Duration(0)
		a.now = func() int64 { return int64(now) }
		m := &naive{cfg: cfg, arrivals: map[addressKey][]time.Duration{}, paid: map[addressKey]time.Duration{},
			live: map[addressKey]int{}, banned: map[addressKey]time.Duration{}}
		for _, text := range cfg.Ban {
			m.listed = append(m.listed, netip.MustParsePrefix(text))
		}
		ips := []netip.Addr{nth(8), netip.MustParseAddr("2001:db8:9::1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), nth(1), nth(2), nth(3)}
		var in []netip.Addr
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				ip := rapid.SampledFrom(ips).Draw(t, "ip")
				full := rapid.IntRange(0, 9).Draw(t, "full") == 0
				v := a.admit(ip, full)
				if want := m.admit(ip, now, full); v.outcome() != want {
					t.Fatalf("%s at %s: %s, want %s", ip, now, v.outcome(), want)
				}
				if v.rest != 0 && v.rest != int64(m.banned[keyOf(ip)]-now) {
					t.Fatalf("%s at %s: banned for %s more, want until %s", ip, now, time.Duration(v.rest), m.banned[keyOf(ip)])
				}
				if v.ok {
					in = append(in, ip)
				}
			},
			"go": func(t *rapid.T) {
				if len(in) == 0 {
					t.Skip("nobody is in")
				}
				i := rapid.IntRange(0, len(in)-1).Draw(t, "who")
				a.leave(in[i])
				m.live[keyOf(in[i])]--
				in = slices.Delete(in, i, i+1)
			},
			"wait": func(t *rapid.T) {
				now += rapid.SampledFrom([]time.Duration{1, time.Millisecond, 250 * time.Millisecond, time.Second, 20 * time.Second, time.Minute, 3 * time.Minute}).Draw(t, "time")
			},
			"": func(t *rapid.T) {
				if err := a.check(); err != nil && a.counting {
					t.Fatal(err)
				}
				want := addressFigures{conns: int64(len(in))}
				for _, until := range m.banned {
					if now < until {
						want.banned++
					}
				}
				got := a.figures()
				if got.banned != want.banned || a.counting && got.conns != want.conns || got.known > len(ips) {
					t.Fatalf("%+v, want %+v", got, want)
				}
			},
		})
	})
}

// Eight acceptors and the loops use it at one time.
func TestAddressesTogether(t *testing.T) {
	a, _ := clocked(t, Config{AddressMax: 100, FlapLimit: 1e6})
	a.now = func() int64 { return 0 }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				ip := nth(rand.IntN(20))
				if a.admit(ip, false).ok {
					a.leave(ip)
				}
			}
		})
	}
	wg.Wait()
	if f := a.figures(); f.conns != 0 || f.known > 20 {
		t.Errorf("%+v", f)
	}
	if err := a.check(); err != nil {
		t.Error(err)
	}
}

func TestAddressesCheckFinds(t *testing.T) {
	for name, harm := range map[string]func(a *addresses){
		"counted":                func(a *addresses) { a.conns++ },
		"in the list":            func(a *addresses) { a.known[keyOf(nth(2))].live++; a.conns++ },
		"differs by":             func(a *addresses) { a.absent.remove(a.known[keyOf(nth(2))]) },
		"has the entry":          func(a *addresses) { a.known[keyOf(nth(1))].key++ },
		"is not in the table":    func(a *addresses) { a.banned.table.Delete(prefixOf(nth(3))) },
		"but comes after it":     func(a *addresses) { a.banned.ending[0].until++ },
		"with -1 connections":    func(a *addresses) { a.known[keyOf(nth(2))].live-- },
		"more than 65536":        func(a *addresses) { a.banned.ending = slices.Repeat(a.banned.ending[:1], maxBans+1) },
		"1 connections, but 0 a": func(a *addresses) { a.conns-- },
	} {
		a, _ := clocked(t, Config{FlapLimit: 1})
		a.admit(nth(1), false)
		a.admit(nth(2), false)
		a.leave(nth(2))
		for i := 3; i < 5; i++ {
			a.admit(nth(i), false)
			a.leave(nth(i))
			wantOutcome(t, a.admit(nth(i), false), "flapping")
		}
		if err := a.check(); err != nil {
			t.Fatal(err)
		}
		harm(a)
		if err := a.check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q is found as %v", name, err)
		}
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	a, now := clocked(t, Config{AddressRate: 1, AddressMax: 5, Ban: []string{"192.0.2.0/24"}})
	ip, listed := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	for name, f := range map[string]func(){
		"in and out": func() {
			*now += time.Second
			if a.admit(ip, false).ok {
				a.leave(ip)
			}
		},
		"refused": func() { a.admit(ip, false) },
		"banned":  func() { a.admit(listed, false) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	remote := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	for _, bench := range []struct {
		name string
		cfg  Config
		tidy bool // of a new address each time
	}{
		{"off", Config{}, false},
		{"list", Config{Ban: []string{"192.0.2.0/24", "2001:db8::/32"}}, false},
		{"known", Config{AddressRate: 1e6, AddressMax: 10, FlapLimit: 1e6, Ban: []string{"192.0.2.0/24"}}, false},
		{"new", Config{AddressRate: 1, AddressMax: 10, FlapLimit: 10, Ban: []string{"192.0.2.0/24"}}, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			cfg := bench.cfg.WithDefaults()
			s := &Server{addresses: newAddresses(&cfg)}
			s.admission.cap = 10
			if bench.name == "known" { // its rate is not what is measured
				s.addresses.rate, s.addresses.flaps = newMeter(1e6, 1e6), 1<<30
			}
			i := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				if bench.tidy {
					i++
					binary.BigEndian.PutUint32(remote.IP[12:], i)
				}
				ip := ipOf(remote)
				if s.addresses != nil {
					if v := s.addresses.admit(ip, s.admission.full()); !v.ok {
						s.admission.refused[v.why].Add(1)
						continue
					}
				}
				s.admission.admit()
				s.admission.leave()
				if s.addresses != nil {
					s.addresses.leave(ip)
				}
			}
		})
	}
}
