package admission

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"heartwheel/codec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newControl returns a Control with room for max connections.
func newControl(t testing.TB, max int, cfg Config) *Control {
	t.Helper()
	cfg.MaxConnections = max
	c, err := New(withDefaults(cfg))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantCounts fails the test unless conns connections are counted, and those of
// them with an address by it.
func wantCounts(t *testing.T, c *Control, conns, withAddress int64) {
	t.Helper()
	if n := c.Connections(); n != conns {
		t.Errorf("%d connections are counted, want %d", n, conns)
	}
	if n := c.AddressStats().Connections; n != withAddress {
		t.Errorf("%d connections are counted by address, want %d", n, withAddress)
	}
	if problems := c.Check(); len(problems) > 0 {
		t.Error(problems)
	}
}

func TestCauseWords(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range Causes() {
		if word := c.String(); seen[word] || !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(word) {
			t.Errorf("cause %d has the word %q", c, word)
		}
		seen[c.String()] = true
		if code := c.Code(); code < 3000 || code > 3999 || code.String() == "unknown" {
			t.Errorf("%s has the code %d, which codec/SPEC.md does not know", c, code)
		}
	}
	if len(seen) != int(numCauses)-1 || Cause(0).String() != "" {
		t.Errorf("causes %v, the zero one is %q", seen, Cause(0))
	}
	for c, want := range map[Cause]codec.Code{Overloaded: 3020, AddressLimit: 3020, Memory: 3020, AddressRate: 3013,
		Flapping: 3013, Banned: 3513} {
		if c.Code() != want {
			t.Errorf("%s has the code %d, want %d", c, c.Code(), want)
		}
	}
}

func TestTicketIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Ticket{}); n != 4 {
		t.Errorf("a Ticket takes %d bytes, want 4", n)
	}
}

// A Ticket is released once, whatever is done with it afterwards, and one that
// stands for nothing releases nothing.
func TestReleaseTwice(t *testing.T) {
	for name, cfg := range map[string]Config{"no address limits": {}, "a list": {Ban: prefixes(t, "192.0.2.0/24")},
		"address limits": {AddressMax: 1}} {
		c := newControl(t, 10, cfg)
		counted := int64(0)
		if cfg.AddressMax > 0 {
			counted = 1
		}
		other, _ := c.Admit(nth(2))
		for range 3 {
			ticket, r := c.Admit(nth(1))
			if r.Refused() {
				t.Fatalf("%s: refused as %s", name, r.Cause)
			}
			wantCounts(t, c, 2, 2*counted)
			for range 3 {
				c.Release(&ticket)
				wantCounts(t, c, 1, counted)
			}
			if r := c.Bind(&ticket, nth(3)); r.Refused() {
				t.Errorf("%s: %+v", name, r)
			}
			c.Release(&ticket)
			c.Release(&Ticket{})
			wantCounts(t, c, 1, counted)
		}
		c.Release(&other)
		wantCounts(t, c, 0, 0)
	}
}

// The address may come later. Until then nothing is counted for one, and then
// every rule holds.
func TestBind(t *testing.T) {
	c := newControl(t, 10, Config{AddressMax: 1, FlapLimit: 3, Ban: prefixes(t, "192.0.2.0/24"),
		RetryAfter: 7 * time.Second})
	x, y, listed := nth(1), nth(2), netip.MustParseAddr("192.0.2.1")
	var tickets [4]Ticket
	for i := range tickets { // more than any address may have
		var r Refusal
		if tickets[i], r = c.Admit(netip.Addr{}); r.Refused() {
			t.Fatalf("refused as %s before its address is known", r.Cause)
		}
	}
	wantCounts(t, c, 4, 0)
	bind := func(i int, addr netip.Addr, want string) Refusal {
		t.Helper()
		return wantOutcome(t, c.Bind(&tickets[i], addr), want)
	}
	bind(0, x, "in")
	wantCounts(t, c, 4, 1)
	if r := bind(1, x, "address_limit"); r.RetryAfter != 7*time.Second || r.Silent {
		t.Errorf("%+v", r)
	}
	bind(2, listed, "banned")
	wantCounts(t, c, 4, 1)
	bind(0, y, "in") // another header: the connection moves
	wantCounts(t, c, 4, 1)
	bind(1, x, "in")
	wantCounts(t, c, 4, 2)
	bind(3, x, "flapping") // the fourth connect
	if f := c.AddressStats(); f.Bans != 1 || c.Refused(Flapping) != 1 || c.Refused(Banned) != 1 ||
		c.Refused(AddressLimit) != 1 {
		t.Errorf("%+v, refused %d, %d, %d", f, c.Refused(Flapping), c.Refused(Banned), c.Refused(AddressLimit))
	}
	bind(0, x, "flapping") // it is counted for no address then
	wantCounts(t, c, 4, 1)
	for i := range tickets {
		c.Release(&tickets[i])
	}
	wantCounts(t, c, 0, 0)
}

// Whatever refuses a connection, nothing stays counted for it.
func TestRefusalsCountNothing(t *testing.T) {
	meter := newFakeMeter(0, gib)
	quota, err := NewSharedCount(make([]byte, SlotBytes), 0)
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(t, 100, Config{AddressMax: 100, RetryAfter: time.Second, Quota: quota.Quota(2)})
	c.memory = fakeMemory(io.Discard, nothing, meter)
	defer c.memory.goLimit.restore()
	var in []Ticket
	admit := func(want string) {
		t.Helper()
		ticket, r := c.Admit(nth(1))
		wantOutcome(t, r, want)
		if !r.Refused() {
			in = append(in, ticket)
		} else if r.RetryAfter != time.Second || r.Silent || ticket != (Ticket{}) {
			t.Errorf("%+v with the ticket %v", r, ticket)
		}
		wantCounts(t, c, int64(len(in)), int64(len(in)))
	}
	admit("in")
	meter.use.Store(gib)
	c.memory.sample()
	admit("memory")
	if !c.MemoryFull() {
		t.Error("memory is not short")
	}
	meter.use.Store(0)
	c.memory.sample()
	admit("in")
	admit("overloaded")
	c.Fail(&in[0], EnrollFailed)
	in = in[1:]
	wantCounts(t, c, 1, 1)
	admit("in")
	if quota.Total() != 2 || c.Refused(Memory) != 1 || c.Refused(Overloaded) != 1 || c.Refused(EnrollFailed) != 1 {
		t.Errorf("the quota counts %d; refused %d, %d, %d", quota.Total(), c.Refused(Memory), c.Refused(Overloaded),
			c.Refused(EnrollFailed))
	}
	for i := range in {
		c.Release(&in[i])
	}
	if quota.Total() != 0 {
		t.Errorf("the quota counts %d", quota.Total())
	}
}

// Eight acceptors want the last place. Some find the server full only after
// their address was counted; it is given back.
func TestLastPlace(t *testing.T) {
	c := newControl(t, 1, Config{AddressMax: 1000})
	var wg sync.WaitGroup
	var most atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 100_000 {
				ticket, _ := c.Admit(nth(1))
				if n := c.Connections(); n > 1 {
					most.Store(n)
				}
				if ticket != (Ticket{}) {
					runtime.Gosched()
					c.Release(&ticket)
				}
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 1 {
		t.Errorf("%d connections were counted, and there is room for 1", n)
	}
	wantCounts(t, c, 0, 0)
}

func TestCheckFindsAMissingAddress(t *testing.T) {
	c := newControl(t, 10, Config{AddressMax: 10})
	ticket, _ := c.Admit(nth(1))
	c.addresses.leave(ticket.n)
	if problems := c.Check(); len(problems) != 1 || !strings.Contains(problems[0],
		"1 connections are counted, but 0 by their addresses") {
		t.Errorf("it is found as %q", problems)
	}
}

// A ban is logged, with the address that it bans, once a second at most.
func TestBanIsLogged(t *testing.T) {
	var log bytes.Buffer
	c := newControl(t, 10, Config{FlapLimit: 1, BanTime: time.Hour, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 5 {
		ticket, _ := c.Admit(netip.MustParseAddr("2001:db8::1"))
		c.Release(&ticket)
	}
	if n := strings.Count(log.String(), "address=2001:db8::/64 limit=1 for=1h0m0s"); n != 1 ||
		strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log says %s", &log)
	}
}

// TestLimitIsLogged: a server at its limit says so, once a minute, with the number
// of refusals since the last time.
func TestLimitIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		c := newControl(t, 1, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		said := func(refusals int, want string) {
			t.Helper()
			log.Reset()
			for range refusals {
				_, r := c.Admit(netip.Addr{})
				wantOutcome(t, r, "overloaded")
			}
			if got := log.String(); strings.Count(got, "\n") != min(len(want), 1) || !strings.Contains(got, want) {
				t.Errorf("the log says %q, want one line with %q", got, want)
			}
		}
		_, r := c.Admit(netip.Addr{})
		wantOutcome(t, r, "in")
		said(5, `msg="at the connection limit" limit=1 connections=1 refused=1`)
		time.Sleep(59 * time.Second)
		said(2, "")
		time.Sleep(time.Second)
		said(3, "refused=7")
	})
}
