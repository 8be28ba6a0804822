package admission

import (
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestReload checks that other limits hold for the next connection, and that those
// that are in stay and are given back.
func TestReload(t *testing.T) {
	a, now := clocked(Config{})
	reload := func(cfg Config) {
		t.Helper()
		cfg = withDefaults(cfg)
		a.addresses.reload(&cfg)
		if err := a.check(); err != nil {
			t.Fatal(err)
		}
	}
	ip, other := nth(1), nth(2)
	wantOutcome(t, a.admit(ip, false), "in") // while no limit counts it
	reload(Config{AddressMax: 1})
	wantOutcome(t, a.admit(ip, false), "in")
	wantOutcome(t, a.admit(ip, false), "address_limit")
	reload(Config{AddressMax: 2})
	wantOutcome(t, a.admit(ip, false), "in")
	reload(Config{Ban: []netip.Prefix{prefixOf(ip)}})
	wantOutcome(t, a.admit(ip, false), "banned")
	wantOutcome(t, a.admit(other, false), "in")
	reload(Config{Trust: []netip.Prefix{prefixOf(ip)}, FlapLimit: 1})
	for range 3 {
		wantOutcome(t, a.admit(ip, false), "in")
	}

	// Bans of flapping addresses: a listed one is not lost with them, a shorter
	// time ends them sooner, and without a limit they end.
	flap := func() {
		t.Helper()
		a.admit(other, false)
		wantOutcome(t, a.admit(other, false), "flapping")
	}
	flap()
	reload(Config{FlapLimit: 1, BanTime: time.Second, Ban: []netip.Prefix{prefixOf(other)}})
	wantOutcome(t, a.admit(other, false), "banned")
	*now += 2 * time.Second
	wantOutcome(t, a.admit(other, false), "banned")
	reload(Config{FlapLimit: 1, BanTime: time.Hour})
	*now += time.Minute
	flap()
	reload(Config{FlapLimit: 1, BanTime: time.Second})
	wantOutcome(t, a.admit(other, false), "flapping")
	*now += time.Second
	wantOutcome(t, a.admit(other, false), "in")
	wantOutcome(t, a.admit(other, false), "flapping")
	reload(Config{})
	wantOutcome(t, a.admit(other, false), "in")
}

// TestReloadWhileTheyCome has limits change while connections come and go.
func TestReloadWhileTheyCome(t *testing.T) {
	c := newControl(t, 100, Config{})
	configs := []Config{{MaxConnections: 50}, {MaxConnections: 90, AddressMax: 3},
		{AddressRate: 1e6, AddressBurst: 1e6, BanTime: time.Second}, {Ban: prefixes(t, "10.0.0.0/8")}}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				ticket, _ := c.Admit(nth(n%5 + i))
				c.Release(&ticket)
			}
		})
	}
	for i := range 400 {
		if err := c.Reload(configs[i%len(configs)]); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
	if problems := c.Check(); problems != nil || c.Connections() != 0 || c.unbound.Load() != 0 {
		t.Errorf("%d connections are left, %d without an address, %q", c.Connections(), c.unbound.Load(), problems)
	}
	if err := c.Reload(Config{MaxConnections: 7}); err != nil || c.Max() != 7 {
		t.Errorf("the limit is %d, want 7 (%v)", c.Max(), err)
	}
}
