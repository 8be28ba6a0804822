package faults

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// maxAbsent is how many addresses without a connection the server remembers
// (server/address.go).
const maxAbsent = 65536

// dialFrom is dial from an address of the loopback network.
func dialFrom(t testing.TB, source, addr string) *conn {
	t.Helper()
	c, err := dialFromErr(t, source, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.reset)
	return c
}

func dialFromErr(t testing.TB, source, addr string) (*conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: limit}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{TCPConn: nc.(*net.TCPConn), t: t}, nil
}

// arrivals is what came of connections that were made one after another, at an
// even pace, each from the connect to its first echo.
type arrivals struct {
	took   []time.Duration
	lag    []time.Duration // how much longer than asked for a sleep of the same process took, meanwhile
	failed []error
}

// arrive makes perSecond connections a second for a while, from 127.0.1.1 to
// 127.0.1.250 in turn.
func (a *arrivals) arrive(t testing.TB, addr string, perSecond int, during time.Duration) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	quit := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			began := time.Now()
			time.Sleep(time.Millisecond)
			mu.Lock()
			a.lag = append(a.lag, time.Since(began)-time.Millisecond)
			mu.Unlock()
		}
	})
	var dials sync.WaitGroup
	began := time.Now()
	for n := range int(during.Seconds() * float64(perSecond)) {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(perSecond))))
		dials.Go(func() {
			start := time.Now()
			c, err := dialFromErr(t, fmt.Sprintf("127.0.1.%d", 1+n%250), addr)
			if err == nil {
				err = c.echoErr()
				c.reset()
			}
			took := time.Since(start)
			mu.Lock()
			defer mu.Unlock()
			if a.took = append(a.took, took); err != nil {
				a.failed = append(a.failed, err)
			}
		})
	}
	dials.Wait()
	close(quit)
	wg.Wait()
}

func (a *arrivals) add(b arrivals) {
	a.took, a.lag, a.failed = append(a.took, b.took...), append(a.lag, b.lag...), append(a.failed, b.failed...)
}

func (a *arrivals) String() string {
	return fmt.Sprintf("p50 %s, p99 %s", quantile(a.took, 0.5).Round(10*time.Microsecond),
		quantile(a.took, 0.99).Round(10*time.Microsecond))
}

// A floodTest is a server that is flooded, and what is measured meanwhile.
type floodTest struct {
	t        testing.TB
	s        *serverProcess
	sinkAddr string         // of a process that accepts and resets
	lost     func() float64 // see backlogLosses
	flood    *floodProcess
	rate     int           // of the flood, dials a second
	during   time.Duration // of one turn

	quiet, beside, under arrivals // with no flood; with one against the sink; with one against the server
	toSink, toServer     floodReport
}

const (
	floodRate  = 10_000 // dials a second, at first
	othersRate = 250    // dials a second
)

// turn floods the target, while others come to the server. It returns what they
// met this time.
func (f *floodTest) turn(target string, others *arrivals, sum *floodReport) arrivals {
	f.t.Helper()
	report := f.flood.start(floodOrder{Target: target, Source: [4]byte{127, 0, 0, 2}, Rate: f.rate, For: f.during})
	var now arrivals
	now.arrive(f.t, f.s.addr, othersRate, f.during)
	r := report()
	if r.Failed > 0 || r.Dials == 0 {
		f.t.Fatalf("the flood itself failed: %+v", r)
	}
	sum.Dials += r.Dials
	sum.Took += r.Took
	others.add(now)
	return now
}

// round has one turn of each kind, and reports whether the others did as well
// as they have to.
func (f *floodTest) round() (ok bool, figures string) {
	f.t.Helper()
	beside := f.turn(f.sinkAddr, &f.beside, &f.toSink)
	under := f.turn(f.s.addr, &f.under, &f.toServer)
	lag := quantile(under.lag, 0.99)
	base, got := quantile(beside.took, 0.99), quantile(under.took, 0.99)
	return got <= 2*base+lag, fmt.Sprintf("p99 %s, the bound is 2 × %s + %s", got, base, lag)
}

// TestAddressFlood is case 19: one address dials as fast as it can, others come
// as ever. The one gets its rate and no more, the others are served, and their
// connect and first echo take no longer than twice as long.
//
// Twice as long as what: on a machine of few processors the flood itself takes
// one, whatever the server does. So it is compared with the same flood against
// another process, which does the least that is possible: it accepts and
// resets. Both take turns, and the bound is widened by how late a sleep of the
// measuring process ended while the server was flooded. What else this machine
// does may spoil a round, but a server that lets a flood hurt others spoils
// each: one good round out of several is asked for. In the second half of them
// the flood is half as fast: where a machine has no processor left for all those
// dials, what waits for it is the backlog, which all clients share.
func TestAddressFlood(t *testing.T) {
	const rate, burst = 50, 100
	f := &floodTest{t: t, rate: floodRate, during: sized(500*time.Millisecond, time.Second, 3*time.Second)}
	rounds, enough := sized(0, 8, 20), sized(0, 1, 5)
	f.s = startServer(t, binary(t), "--address-rate", fmt.Sprint(rate), "--address-burst",
		fmt.Sprint(burst), "--flap-limit", "1m")
	f.lost = backlogLosses(t, f.s)
	f.sinkAddr, f.flood = startFlood(t, sinkWord).line(), startFlood(t, floodWord)

	f.flood.start(floodOrder{Target: f.sinkAddr, Rate: 100, For: 100 * time.Millisecond})() // until all processes run
	f.quiet.arrive(t, f.s.addr, othersRate, f.during)
	began := time.Now()
	good, ran, last := 0, 0, ""
	if size == smoke { // too short for a p99 of the others
		f.turn(f.s.addr, &f.under, &f.toServer)
	}
	for good < enough && ran < rounds {
		if ran == rounds/2 {
			f.rate = floodRate / 2
		}
		var ok bool
		if ok, last = f.round(); ok {
			good++
		}
		ran++
	}
	if good < enough {
		t.Errorf("in %d of %d rounds the others were served in time; the last one: connect "+
			"and echo %s", good, ran, last)
	}
	admitted, allowed := f.settle(began, rate, burst)
	perSecond := func(r floodReport) float64 { return float64(r.Dials) / r.Took.Seconds() }
	figure(t, 19, "%.0f dials/s from one address, %v of %d let in (at most %.0f); connect and echo of %d "+
		"others a second: %s quiet; "+
		"%s beside a flood of %.0f/s against another process; %s under the flood; in the last of %d rounds %s",
		perSecond(f.toServer), admitted, f.toServer.Dials, allowed, othersRate, &f.quiet, &f.beside,
		perSecond(f.toSink), &f.under, ran, last)
}

// settle waits until the server has dealt with all, and sees that it let in
// what it had to and no more.
func (f *floodTest) settle(began time.Time, rate, burst float64) (admitted, allowed float64) {
	t, dials := f.t, float64(f.toServer.Dials)
	t.Helper()
	others := 0.0
	for _, a := range []*arrivals{&f.quiet, &f.beside, &f.under} {
		others += float64(len(a.took))
		if len(a.failed) > 0 {
			t.Errorf("%d of %d others were not served: %v", len(a.failed), len(a.took), a.failed[0])
		}
	}
	lost := 0.0
	m := f.s.await("all of the flood is dealt with", func(m metrics) bool {
		missing := others + dials - m.value("heartwheel_accepted_total") - m.sum("heartwheel_refused_total")
		ok := missing >= 0 && missing <= lost && m.value("heartwheel_connections") == 0
		lost = f.lost() // of what the next look sees
		return ok
	})
	f.s.check()
	dials = m.value("heartwheel_accepted_total") + m.sum("heartwheel_refused_total") - others // that it has seen
	admitted, allowed = m.value("heartwheel_accepted_total")-others, burst+rate*time.Since(began).Seconds()
	if admitted > allowed || admitted < burst {
		t.Errorf("of the flood %v were let in, want %v to %.0f", admitted, burst, allowed)
	}
	if refused := m.by("heartwheel_refused_total"); refused["address_rate"] != dials-admitted || len(refused) != 1 {
		t.Errorf("of %v the server refused %v", dials, refused)
	}
	if n := m.value("heartwheel_addresses"); n < 1 || n > 251 {
		t.Errorf("%v addresses are tracked of 251", n)
	}
	return admitted, allowed
}

// TestAddressTableIsBounded is the rest of case 19: more addresses than the
// server remembers. The long form only; a small one is
// TestAddressesAreBounded of package server.
func TestAddressTableIsBounded(t *testing.T) {
	if size != long {
		t.Skip("the long form only: go test ./internal/faults -form long")
	}
	s := startServer(t, binary(t), "--flap-limit", "1000")
	flood := startFlood(t, floodWord)
	const sources = 3 * maxAbsent / 2
	report := flood.start(floodOrder{Target: s.addr, Source: [4]byte{127, 2, 0, 0}, Sources: sources,
		Rate: 20_000, For: 20 * time.Second})
	most, before := 0.0, resident(t, s.pid())
	done := make(chan floodReport)
	go func() { done <- report() }()
	var r floodReport
	for r.Dials == 0 {
		select {
		case r = <-done:
		case <-time.After(100 * time.Millisecond):
		}
		m := s.metrics()
		n := m.value("heartwheel_addresses")
		most = max(most, n)
		if n > maxAbsent+m.value("heartwheel_connections_max") {
			t.Fatalf("%v addresses are tracked", n)
		}
	}
	m := s.await("all have gone", func(m metrics) bool {
		seen := m.value("heartwheel_accepted_total") + m.sum("heartwheel_refused_total")
		return m.value("heartwheel_connections") == 0 && seen >= float64(r.Dials)
	})
	s.check()
	if n := m.value("heartwheel_addresses"); n > maxAbsent {
		t.Errorf("%v addresses are tracked with no connection, the bound is %d", n, maxAbsent)
	}
	if r.Dials < sources {
		t.Skipf("this machine made %d connections only: %+v", r.Dials, r)
	}
	figure(t, 19, "%d connections from %d addresses: at most %v tracked, %v at the end, %d MiB more in use",
		r.Dials, sources, most, m.value("heartwheel_addresses"), (resident(t, s.pid())-before)>>20)
}

// goaway reads the GOAWAY of a refused connection.
func goaway(c *conn) (codec.Goaway, error) {
	f, err := c.frameErr()
	if err != nil {
		return codec.Goaway{}, err
	}
	if f.Op != codec.OpGoaway {
		return codec.Goaway{}, fmt.Errorf("got %s %q", f.Op, f.Payload)
	}
	return codec.ParseGoaway(f.Payload)
}

// TestFlappingAddress is case 20: an address that reconnects more than 15 times in
// a minute is banned, gets GOAWAY with the time, and is admitted again afterwards.
// Others are unaffected. All of it is off by default.
func TestFlappingAddress(t *testing.T) {
	t.Parallel()
	const flapper, flaps = "127.0.0.2", 15
	ban, pause, args := 2*time.Second, time.Duration(0), []string{"--flap-limit", fmt.Sprint(flaps), "--ban-time", "2s"}
	if size == long { // at the default, by a peer that does it 16 times in just less than a minute
		ban, pause, args = 5*time.Minute, 3800*time.Millisecond, args[:2]
	}
	off := startServer(t, binary(t))
	reconnect(t, off.addr, flapper, 4*flaps, 0)
	if m := off.metrics(); m.sum("heartwheel_refused_total") != 0 || m.value("heartwheel_addresses") != 0 {
		t.Errorf("with no limit by address the server says\n%s", m.ours())
	}

	s := startServer(t, binary(t), append(args, "--timeout", "20m")...)
	nb := startNeighbours(t, s.addr, 10) // from 127.0.0.1: fewer than the limit
	old := dialFrom(t, flapper, s.addr)
	old.echo()
	reconnect(t, s.addr, flapper, flaps-1, pause)
	time.Sleep(pause)
	b := banned{t: t, addr: s.addr, source: flapper, pause: ban / 15, from: time.Now()}
	g, err := goaway(dialFrom(t, flapper, s.addr))
	b.notified, b.after = time.Now(), time.Duration(g.AfterMS)*time.Millisecond
	if err != nil || g.Code != codec.CodeRateLimited || b.after != ban {
		t.Fatalf("connection %d got %+v, %v", flaps+1, g, err)
	}
	if m := s.metrics(); m.value("heartwheel_banned_addresses") != 1 || m.value("heartwheel_bans_total") != 1 {
		t.Errorf("a ban in force does not show:\n%s", m.ours())
	}
	for i := range 20 { // others come while it is banned
		dialFrom(t, fmt.Sprintf("127.0.1.%d", i+1), s.addr).echo()
	}
	refused := 1 + b.untilLetIn()
	back := time.Since(b.from)

	old.echo() // what it had is left alone
	if err := nb.stop(); err != nil {
		t.Errorf("neighbours: %v", err)
	}
	m := s.metrics()
	if by := m.by("heartwheel_refused_total"); by["flapping"] != float64(refused) || len(by) != 1 ||
		m.value("heartwheel_banned_addresses") != 0 || m.value("heartwheel_bans_total") != 1 {
		t.Errorf("after %d refusals the server says\n%s", refused, m.ours())
	}
	s.check()
	figure(t, 20, "banned at connection %d for %s with 3013 and after_ms %d; refused %d times, back after %s; 30 "+
		"others unaffected; off by default: %d reconnects served",
		flaps+1, ban, b.after.Milliseconds(), refused, back.Round(10*time.Millisecond), 4*flaps)
}

// reconnect makes n connections one after the other, each of which is served.
func reconnect(t *testing.T, addr, source string, n int, pause time.Duration) {
	t.Helper()
	for range n {
		time.Sleep(pause)
		c := dialFrom(t, source, addr)
		c.echo()
		c.reset()
	}
}

// banned is an address under a ban. The end of its ban lies
// between from and notified, and after later.
type banned struct {
	t              *testing.T
	addr, source   string
	from, notified time.Time // before it connected, and when GOAWAY had come
	after, pause   time.Duration
}

// untilLetIn has it try again and again, and returns how often it was refused.
// It has to be while its ban lasts, with the time that is left, and not after.
func (b *banned) untilLetIn() (refused int) {
	b.t.Helper()
	first, last := b.from.Add(b.after), b.notified.Add(b.after)
	for ; ; refused++ {
		began := time.Now()
		c := dialFrom(b.t, b.source, b.addr)
		_ = c.sendErr(beat) // if it is refused, the end may have come already
		f, err := c.frameErr()
		answered := time.Now()
		if err == nil && f.Op == codec.OpBeat {
			if answered.Before(first) {
				b.t.Errorf("it was let in %s before its ban was over", first.Sub(answered))
			}
			return refused
		}
		g, perr := codec.ParseGoaway(f.Payload)
		rest := time.Duration(g.AfterMS) * time.Millisecond
		if err != nil || perr != nil || g.Code != codec.CodeRateLimited ||
			answered.Add(rest).Before(first) || began.Add(rest).After(last.Add(time.Millisecond)) {
			b.t.Fatalf("%s after it was banned it got %+v %v", answered.Sub(b.from), g, err)
		}
		if began.After(last) {
			b.t.Fatalf("it was not let in %s after its ban was over", began.Sub(last))
		}
		c.reset()
		time.Sleep(b.pause)
	}
}
