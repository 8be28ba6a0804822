package admission

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

// naive is the same rules without a bound, written as the documents have them.
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
			Ban:         []netip.Prefix{netip.MustParsePrefix("10.0.0.8/31"), netip.MustParsePrefix("2001:db8:9::/48")},
		}
		if cfg.AddressRate > 0 {
			cfg.AddressBurst = rapid.IntRange(1, 5).Draw(t, "burst")
		}
		now := time.Duration(0)
		cfg.Now = func() time.Duration { return now }
		a := newAddresses(&cfg)
		m := &naive{cfg: cfg, arrivals: map[addressKey][]time.Duration{}, paid: map[addressKey]time.Duration{},
			live: map[addressKey]int{}, banned: map[addressKey]time.Duration{}}
		m.listed = cfg.Ban
		ips := []netip.Addr{nth(8), netip.MustParseAddr("2001:db8:9::1"), netip.MustParseAddr("2001:db8::1"),
			netip.MustParseAddr("2001:db8::2"), nth(1), nth(2), nth(3)}
		type entered struct {
			ip   netip.Addr
			slot uint32
		}
		var in []entered
		t.Repeat(map[string]func(*rapid.T){
			"come": func(t *rapid.T) {
				ip := rapid.SampledFrom(ips).Draw(t, "ip")
				full := rapid.IntRange(0, 9).Draw(t, "full") == 0
				slot, v := a.admit(ip, full)
				if want := m.admit(ip, now, full); v.outcome() != want {
					t.Fatalf("%s at %s: %s, want %s", ip, now, v.outcome(), want)
				}
				if v.RetryAfter != 0 && v.RetryAfter != m.banned[keyOf(ip)]-now {
					t.Fatalf("%s at %s: banned for %s more, want until %s", ip, now, v.RetryAfter, m.banned[keyOf(ip)])
				}
				if !v.Refused() {
					in = append(in, entered{ip, slot})
				}
			},
			"go": func(t *rapid.T) {
				if len(in) == 0 {
					t.Skip("none is in")
				}
				i := rapid.IntRange(0, len(in)-1).Draw(t, "who")
				if a.limits.Load().counting {
					a.leave(in[i].slot)
				}
				m.live[keyOf(in[i].ip)]--
				in = slices.Delete(in, i, i+1)
			},
			"wait": func(t *rapid.T) {
				now += rapid.SampledFrom([]time.Duration{1, time.Millisecond, 250 * time.Millisecond, time.Second,
					20 * time.Second, time.Minute, 3 * time.Minute}).Draw(t, "time")
			},
			"": func(t *rapid.T) {
				if err := a.check(); err != nil && a.limits.Load().counting {
					t.Fatal(err)
				}
				want := AddressStats{Connections: int64(len(in))}
				for _, until := range m.banned {
					if now < until {
						want.Banned++
					}
				}
				got := a.stats()
				if got.Banned != want.Banned || a.limits.Load().counting && got.Connections != want.Connections ||
					got.Known > len(ips) {
					t.Fatalf("%+v, want %+v", got, want)
				}
			},
		})
	})
}

// Eight acceptors and the loops use it at one time.
func TestAddressesTogether(t *testing.T) {
	a, _ := clocked(Config{AddressMax: 100, FlapLimit: 1e6})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				ip := nth(rand.IntN(20))
				if slot, r := a.addresses.admit(ip, false); !r.Refused() {
					a.addresses.leave(slot)
				}
			}
		})
	}
	wg.Wait()
	if f := a.stats(); f.Connections != 0 || f.Known > 20 {
		t.Errorf("%+v", f)
	}
	if err := a.check(); err != nil {
		t.Error(err)
	}
}

func TestAddressesCheckFinds(t *testing.T) {
	for name, harm := range map[string]func(a *addresses){
		"counted":             func(a *addresses) { a.conns++ },
		"in the list":         func(a *addresses) { a.known[keyOf(nth(2))].live++; a.conns++ },
		"differs by":          func(a *addresses) { a.absent.remove(a.known[keyOf(nth(2))]) },
		"has the entry":       func(a *addresses) { a.known[keyOf(nth(1))].key++ },
		"is not in the table": func(a *addresses) { a.banned.table.Delete(prefixOf(nth(3))) },
		"but comes after it":  func(a *addresses) { a.banned.ending[0].until++ },
		"with -1 connections": func(a *addresses) { a.known[keyOf(nth(2))].live-- },
		"more than 65536": func(a *addresses) {
			a.banned.ending = slices.Repeat(a.banned.ending[:1], maxBans+1)
		},
		"is not in its slot":     func(a *addresses) { a.slots[a.known[keyOf(nth(1))].slot-firstSlot] = nil },
		"1 connections, but 0 a": func(a *addresses) { a.conns-- },
	} {
		a, _ := clocked(Config{FlapLimit: 1})
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
		harm(a.addresses)
		if err := a.check(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%q is found as %v", name, err)
		}
	}
}

func TestAdmitAllocatesNothing(t *testing.T) {
	a, now := clocked(Config{AddressRate: 1, AddressMax: 5, Ban: prefixes(t, "192.0.2.0/24")})
	ip, listed := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")
	for name, f := range map[string]func(){
		"in and out": func() {
			*now += time.Second
			if slot, r := a.addresses.admit(ip, false); !r.Refused() {
				a.addresses.leave(slot)
			}
		},
		"refused": func() { a.addresses.admit(ip, false) },
		"banned":  func() { a.addresses.admit(listed, false) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

func BenchmarkAdmit(b *testing.B) {
	remote := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	for _, bench := range []struct {
		name  string
		cfg   Config
		fresh bool // a new address each time
	}{
		{"off", Config{}, false},
		{"list", Config{Ban: prefixes(b, "192.0.2.0/24", "2001:db8::/32")}, false},
		{"known", Config{AddressRate: 1e6, AddressMax: 10, FlapLimit: 1e6, Ban: prefixes(b, "192.0.2.0/24")}, false},
		{"new", Config{AddressRate: 1, AddressMax: 10, FlapLimit: 10, Ban: prefixes(b, "192.0.2.0/24")}, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			cfg := withDefaults(bench.cfg)
			c := &Control{addresses: newAddresses(&cfg)}
			c.capacity.max.Store(10)
			if bench.name == "known" { // faster than any rate that may be set: none of it is refused
				l := c.addresses.limits.Load()
				l.rate, l.flaps = newGCRA(1e6, 1e6), 1<<30
			}
			i := uint32(0)
			b.ReportAllocs()
			for b.Loop() {
				if bench.fresh {
					i++
					binary.BigEndian.PutUint32(remote.IP[12:], i)
				}
				var peer netip.Addr
				if c.ByAddress() {
					peer = remote.AddrPort().Addr().Unmap()
				}
				t, _ := c.Admit(peer)
				c.Release(&t)
			}
		})
	}
}
