package client

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A simPath is a client that beats through a NAT to a server, in virtual time.
// Beats come as PROTOCOL.md says: the first after H × U(0.5, 1), then H ± 10 %.
type simPath struct {
	t        testing.TB
	s        search
	random   func() float64 // uniform in [0, 1)
	now      time.Time
	mapping  time.Duration // the NAT forgets a connection after this much silence; 0: never
	low, top time.Duration // the server's range
	rtt      time.Duration

	h      time.Duration // in force
	up     bool
	first  bool
	losses int
	saved  int
}

// mostLosses is what a search may cost, in connections.
const mostLosses = 6

func newPath(t testing.TB, a *Adaptive, seed uint64) *simPath {
	return &simPath{
		t: t, s: search{a: a}, random: rand.New(rand.NewPCG(seed, 4)).Float64,
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), low: time.Second, top: time.Hour,
	}
}

func (p *simPath) decide(wish time.Duration) time.Duration { return min(max(wish, p.low), p.top) }

// connect sends HELLO and takes WELCOME.
func (p *simPath) connect() {
	p.h = p.decide(p.s.begin(p.now))
	p.s.welcome(p.h, 0)
	p.up, p.first = true, true
	p.check()
}

// after takes what good or lost reported, as the transport does.
func (p *simPath) after(changed bool) {
	if changed {
		p.s.save()
		p.saved++
	}
	if p.up && p.s.asked {
		p.h = p.decide(p.s.interval())
		p.s.allowed(p.h)
	}
	p.check()
}

// check holds the interval against what the server and Max allow. Between
// connections it is a wish, which the server has yet to answer.
func (p *simPath) check() {
	p.t.Helper()
	top := p.top
	if p.s.a.Max > 0 {
		top = min(top, p.s.a.Max)
	}
	if i := p.s.interval(); p.up && (i != p.h || i < p.low || i > max(top, p.low) || i%time.Millisecond != 0) {
		p.t.Fatalf("interval is %v with %v in force, not whole milliseconds from %v to %v", i, p.h, p.low, top)
	}
	if l := p.s.Learned; l != l.sane() {
		p.t.Fatalf("learned %+v, which would be refused when loaded", l)
	}
}

// beat lets one beat pass.
func (p *simPath) beat() {
	if !p.up {
		p.connect()
	}
	silence := time.Duration(float64(p.h) * (0.9 + p.random()/5))
	if p.first {
		silence = time.Duration(float64(p.h) * (0.5 + p.random()/2))
		p.first = false
	}
	p.now = p.now.Add(silence)
	silence -= min(p.rtt, silence) // the last byte was the answer to the beat before
	if p.mapping != 0 && silence >= p.mapping {
		p.now = p.now.Add(10 * time.Second)
		p.losses++
		p.up = false
		p.after(p.s.lost(silence, p.now))
		return
	}
	p.after(p.s.good(silence, p.now))
}

// run beats for a while and returns the connections lost in it.
func (p *simPath) run(d time.Duration) int {
	before := p.losses
	for end := p.now.Add(d); p.now.Before(end); {
		p.beat()
	}
	return p.losses - before
}

// The longest interval that survives a mapping is 1/1.1 of it. The search ends
// with the bound within 10 % of the proof (or 1 s) and keeps 0.9 of the proof,
// so at worst 0.9/1.1 of the mapping: 0.9 of the optimum, less for short ones.
func TestAdaptiveSettles(t *testing.T) {
	const seeds = 40
	for _, c := range []struct {
		mapping, top time.Duration
	}{
		{20 * time.Second, time.Minute},
		{20 * time.Second, time.Hour},
		{60 * time.Second, time.Minute},
		{60 * time.Second, time.Hour},
		{300 * time.Second, time.Minute},
		{300 * time.Second, time.Hour},
		{15 * time.Minute, time.Minute},
		{15 * time.Minute, time.Hour},
		{0, time.Minute},
		{0, time.Hour},
		{5 * time.Second, time.Hour}, // shorter than Start
	} {
		t.Run(fmt.Sprintf("%v below %v", c.mapping, c.top), func(t *testing.T) {
			worst, sum := 0, 0
			for seed := range uint64(seeds) {
				p := newPath(t, &Adaptive{}, seed)
				p.mapping, p.top = c.mapping, c.top
				for beats := 0; beats < 400 && !p.s.settled(); beats++ {
					p.beat()
				}
				p.connect()
				best := c.top
				if c.mapping != 0 {
					best = min(best, c.mapping*10/11)
				}
				worst, sum = max(worst, p.losses), sum+p.losses
				if p.losses > mostLosses {
					t.Fatalf("seed %d: %d connections lost, want at most %d", seed, p.losses, mostLosses)
				}
				if c.mapping == 0 && p.losses != 0 {
					t.Fatalf("seed %d: lost without a reason", seed)
				}
				if p.h > best || p.h < best*8/10 {
					t.Fatalf("seed %d: beats every %v, want up to a fifth below %v; %+v", seed, p.h, best, p.s.Learned)
				}
				// Until the result is old, nothing is lost any more.
				if n := p.run(70 * time.Hour); n != 0 {
					t.Fatalf("seed %d: %d connections lost at %v after it had settled", seed, n, p.h)
				}
			}
			t.Logf("at most %d connections lost, %.1f on average", worst, float64(sum)/seeds)
		})
	}
}

func TestAdaptiveGrowth(t *testing.T) {
	s := search{a: &Adaptive{}}
	now := time.Unix(1e9, 0)
	if wish := s.begin(now); wish != 15*time.Second {
		t.Fatalf("first wish is %v, want 15s", wish)
	}
	if s.good(15*time.Second, now); s.row != 0 {
		t.Error("a beat counted before WELCOME had said which interval is in force")
	}
	s.welcome(15*time.Second, 0)
	if s.asked {
		t.Error("WELCOME is no answer")
	}
	for i, silence := range []time.Duration{14 * time.Second, 16 * time.Second} {
		if s.good(silence, now) || s.interval() != 15*time.Second {
			t.Fatalf("changed after %d beats", i+1)
		}
	}
	if !s.good(15*time.Second, now) || !s.asked {
		t.Fatal("no wish after three beats")
	}
	if got, want := s.interval(), 21*time.Second; got != want { // 1.5 × the shortest of the three
		t.Errorf("wish is %v, want %v", got, want)
	}
	s.allowed(20 * time.Second)
	if got := s.interval(); got != 20*time.Second {
		t.Errorf("interval is %v, want the 20s that the server decided", got)
	}
	// Three in a row: a loss between them begins the count anew.
	s.good(19*time.Second, now)
	s.good(19*time.Second, now)
	s.lost(0, now)
	s.begin(now)
	s.welcome(21*time.Second, 0)
	s.good(19*time.Second, now)
	s.good(19*time.Second, now)
	if s.Good != 14*time.Second {
		t.Errorf("proven is %v after a loss between the beats, want 14s", s.Good)
	}
}

func TestAdaptiveStartFails(t *testing.T) {
	p := newPath(t, &Adaptive{}, 1)
	p.mapping, p.low = 100*time.Millisecond, 2*time.Second
	p.run(time.Hour)
	if p.h != p.low {
		t.Errorf("beats every %v, want the server's minimum %v", p.h, p.low)
	}
	p.mapping = 0
	if n := p.run(time.Hour); n != 0 || p.h < time.Minute {
		t.Errorf("beats every %v after the path got well, %d lost", p.h, n)
	}
}

func TestAdaptiveInterval(t *testing.T) {
	const s = time.Second
	ended := time.Unix(1e9, 0)
	for _, c := range []struct {
		learned Learned
		want    time.Duration
	}{
		{Learned{}, 15 * s},
		{Learned{Bad: 10 * s}, 5 * s},
		{Learned{Good: 10 * s}, 15 * s},
		{Learned{Good: 20 * s, Bad: 40 * s}, 30 * s},
		{Learned{Good: 100 * s, Bad: 112200 * time.Millisecond}, 102 * s}, // the middle would reach 117 s
		{Learned{Good: 81 * s, Bad: 89*s + 100*time.Millisecond}, 99 * s}, // closed: the shortest jitter of 99 s is the bound
		{Learned{Good: 2 * s, Bad: 2700 * time.Millisecond}, 3 * s},
		{Learned{Good: 100 * s, Bad: 105 * s, At: ended}, 90 * s},
		{Learned{Good: 100 * s, Bad: 200 * s, At: ended}, 90 * s}, // ran out of losses
	} {
		p := search{a: &Adaptive{Load: func(string) (Learned, bool) { return c.learned, true }}}
		p.begin(ended)
		if got := p.interval(); got != c.want {
			t.Errorf("interval is %v with %+v, want %v", got, c.learned, c.want)
		}
	}
}

// settledAt returns a client that settled on a mapping, and its interval.
func settledAt(t *testing.T, a *Adaptive, seed uint64, mapping time.Duration) (*simPath, time.Duration) {
	t.Helper()
	p := newPath(t, a, seed)
	p.mapping = mapping
	for !p.s.settled() {
		p.beat()
	}
	p.run(time.Hour)
	return p, p.h
}

func TestAdaptivePathGotWorse(t *testing.T) {
	for _, mapping := range []time.Duration{250 * time.Second, 100 * time.Second, 20 * time.Second} {
		for seed := range uint64(100) {
			p, _ := settledAt(t, &Adaptive{}, seed, 300*time.Second)
			p.mapping = mapping
			// Two losses within the proof, then halving, then a search.
			if n := p.run(24 * time.Hour); n > 2+4+mostLosses {
				t.Errorf("seed %d: %d connections lost to a mapping of %v", seed, n, mapping)
			}
			if best := mapping * 10 / 11; p.h > best || p.h < best*8/10 {
				t.Errorf("seed %d: beats every %v, want up to a fifth below %v", seed, p.h, best)
			}
		}
	}
}

// A mapping that only the longest jitter meets: the beats between the losses
// are answered, and must not excuse them.
func TestAdaptivePathGotALittleWorse(t *testing.T) {
	p, h := settledAt(t, &Adaptive{}, 3, 300*time.Second)
	p.mapping = h * 105 / 100
	p.run(24 * time.Hour)
	if n := p.run(24 * time.Hour); n != 0 || p.h > h*105/110 {
		t.Errorf("beats every %v with a mapping of %v, %d lost on the second day", p.h, p.mapping, n)
	}
}

func TestAdaptiveUnrelatedLosses(t *testing.T) {
	p, h := settledAt(t, &Adaptive{}, 1, 300*time.Second)
	before := p.s.Learned
	for range 1000 {
		// In the midst of traffic, or with no beat under way.
		p.after(p.s.lost(time.Duration(p.random()*0.39*float64(h)), p.now))
		p.connect()
	}
	// A failing network that is not the path's doing, now and then.
	for range 100 {
		p.up = false
		p.after(p.s.lost(time.Duration(p.random()*1.05*float64(h)), p.now))
		p.connect()
		for range 300 {
			p.after(p.s.good(time.Duration((0.9+p.random()/5)*float64(h)), p.now))
		}
	}
	if p.s.Learned != before || p.s.interval() != h {
		t.Errorf("learned %+v and beats every %v, want %+v and %v", p.s.Learned, p.s.interval(), before, h)
	}
}

// A bound that was chance does not hold the interval down: it is tried again.
func TestAdaptiveFalseBound(t *testing.T) {
	for seed := range uint64(100) {
		p := newPath(t, &Adaptive{}, seed)
		p.mapping = 15 * time.Minute
		for p.s.Good < time.Minute {
			p.beat()
		}
		p.up = false
		p.after(p.s.lost(p.h, p.now))
		p.run(24 * time.Hour)
		if p.h < 10*time.Minute || p.losses > mostLosses {
			t.Errorf("seed %d: beats every %v after %d losses, %+v", seed, p.h, p.losses, p.s.Learned)
		}
	}
}

func TestAdaptiveTrafficProvesNothing(t *testing.T) {
	p := newPath(t, &Adaptive{}, 1)
	p.connect()
	for range 1000 {
		p.after(p.s.good(time.Duration(p.random()*0.79*float64(p.h)), p.now))
	}
	if p.h != 15*time.Second || p.s.Learned != (Learned{}) || p.saved != 0 {
		t.Errorf("beats every %v, learned %+v from beats between traffic", p.h, p.s.Learned)
	}
}

func TestAdaptiveReprobe(t *testing.T) {
	for seed := range uint64(100) {
		p, h := settledAt(t, &Adaptive{}, seed, 300*time.Second)
		if n := p.run(70 * time.Hour); n != 0 {
			t.Fatalf("%d lost before the result was old", n)
		}
		// The same path costs one connection, or a whole search if the first
		// one ran out of losses.
		most := mostLosses
		if p.s.closed() {
			most = 1
		}
		if n := p.run(24 * time.Hour); n < 1 || n > most || p.h < h*95/100 || !p.s.settled() {
			t.Errorf("seed %d: %d lost, beats every %v, was %v", seed, n, p.h, h)
		}
		p.mapping = 30 * time.Minute
		p.run(6 * 24 * time.Hour)
		if p.h < 20*time.Minute {
			t.Errorf("seed %d: beats every %v days after the mapping grew to %v", seed, p.h, p.mapping)
		}
	}
}

func TestAdaptiveClockJumps(t *testing.T) {
	p, h := settledAt(t, &Adaptive{}, 1, 300*time.Second)
	p.now = p.now.AddDate(-10, 0, 0)
	if n := p.run(70 * time.Hour); n != 0 || p.h != h {
		t.Errorf("%d lost and beats every %v after the clock jumped back, was %v", n, p.h, h)
	}
	if n := p.run(24 * time.Hour); n == 0 {
		t.Error("the search did not begin again three days after the clock jumped back")
	}
	p.now = p.now.AddDate(-10, 0, 0)
	if p.connect(); !p.s.a.memory[""].At.Equal(p.now) {
		t.Error("a restart would not know that the clock jumped back")
	}
	p.now = p.now.AddDate(20, 0, 0)
	if n := p.run(70 * time.Hour); n > mostLosses || !p.s.settled() {
		t.Errorf("%d lost after the clock jumped ahead", n)
	}
}

func TestAdaptiveRemembers(t *testing.T) {
	network, files := "home", map[string][]byte{}
	a := func() *Adaptive {
		return &Adaptive{
			Network: func() string { return network },
			Load: func(key string) (l Learned, ok bool) {
				return l, json.Unmarshal(files[key], &l) == nil
			},
			Save: func(key string, l Learned) { files[key], _ = json.Marshal(l) },
		}
	}
	p, h := settledAt(t, a(), 1, 300*time.Second)
	s := search{a: a()} // after a restart
	if wish := s.begin(p.now); wish != h || !s.settled() {
		t.Errorf("wish is %v after a restart, want %v", wish, h)
	}
	network = "train"
	if wish := s.begin(p.now); wish != firstInterval {
		t.Errorf("wish is %v on another network, want %v", wish, firstInterval)
	}
	network = "home"
	if wish := s.begin(p.now); wish != h {
		t.Errorf("wish is %v back on the first network, want %v", wish, h)
	}
	if want := `{"good":`; len(files) != 1 || string(files["home"][:8]) != want {
		t.Errorf("kept %q", files)
	}
	// A reconnect takes up where it was: one loss forgiven, the second not.
	s.welcome(h, 0)
	s.lost(h, p.now)
	s.begin(p.now)
	s.welcome(h, 0)
	if !s.lost(h, p.now) || s.interval() != (h/2).Truncate(time.Millisecond) {
		t.Errorf("interval is %v after two losses at %v", s.interval(), h)
	}
	// The next proof has a loss to forgive too.
	s.begin(p.now)
	s.welcome(h/2, 0)
	for range beatsInARow {
		s.good(h/2, p.now)
	}
	if s.lost(h/2, p.now) || s.Good != h/2 {
		t.Errorf("one loss took the proof of %v away", h/2)
	}
}

// Without Load the memory is the Adaptive's, shared and bounded.
func TestAdaptiveMemory(t *testing.T) {
	a := &Adaptive{}
	_, h := settledAt(t, a, 1, 300*time.Second)
	if s := (search{a: a}); s.begin(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)) != h {
		t.Errorf("another client wishes for %v, want %v", s.interval(), h)
	}
	var all sync.WaitGroup
	for c := range 4 {
		all.Go(func() {
			for i := range 200 {
				key := fmt.Sprint(c, i)
				a.save(key, Learned{Good: time.Second})
				a.load(key)
			}
		})
	}
	all.Wait()
	if len(a.memory) != maxNetworks {
		t.Errorf("%d networks remembered, want %d", len(a.memory), maxNetworks)
	}
}

func TestAdaptiveRefusesNonsense(t *testing.T) {
	const s, huge = time.Second, time.Duration(math.MaxInt64)
	old := time.Unix(1e9, 0)
	for _, l := range []Learned{
		{Good: -s}, {Bad: -s}, {Good: huge}, {Bad: huge}, {Good: math.MinInt64, Bad: math.MinInt64},
		{Good: 20 * s, Bad: 20 * s, At: old}, {Good: 20 * s, Bad: 10 * s, At: old}, {At: old}, {At: time.Unix(1<<40, 0)},
	} {
		a := &Adaptive{Load: func(string) (Learned, bool) { return l, true }}
		p := newPath(t, a, 1)
		if p.connect(); p.h != firstInterval || p.s.settled() {
			t.Errorf("beats every %v with %+v", p.h, l)
		}
	}
}

func TestAdaptiveEndlessSilence(t *testing.T) {
	p := newPath(t, &Adaptive{}, 1)
	p.connect()
	for range beatsInARow {
		p.after(p.s.good(math.MaxInt64, p.now)) // checks that what is learned can be loaded again
	}
	if p.s.interval() != p.top || p.s.Good != longestSilence {
		t.Errorf("interval is %v, learned %+v", p.s.interval(), p.s.Learned)
	}
}

// A server that decides upon nonsense is not flooded.
func TestAdaptiveServer(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ beat, shortest, want time.Duration }{
		{15 * s, 0, 15 * s},
		{10 * s, 0, 10 * s},                            // its maximum
		{30 * s, 0, 30 * s},                            // its minimum
		{15 * s, 27 * s, 30 * s},                       // 30 s with the shortest jitter are 27 s
		{1, 0, shortestInterval},                       // nonsense from here on
		{0, -s, 15 * s},                                //
		{-s, 0, 15 * s},                                //
		{math.MaxInt64, 0, longestInterval},            //
		{15 * s, math.MaxInt64, 26*time.Hour + 2400*s}, // 24 h / 0.9
	} {
		p := search{a: &Adaptive{}}
		p.begin(time.Unix(1e9, 0))
		p.welcome(c.beat, c.shortest)
		if got := p.interval(); got != c.want {
			t.Errorf("WELCOME %v, shortest %v: interval is %v, want %v", c.beat, c.shortest, got, c.want)
		}
		p.allowed(5 * s) // of two answers that contradict each other the last holds
		if got, want := p.interval(), max(5*s, p.bears); got != want && c.beat != 1 {
			t.Errorf("WELCOME %v, CONFIG 5s: interval is %v, want %v", c.beat, got, want)
		}
		p.begin(time.Unix(1e9, 0))
		if got := p.interval(); got != 15*s {
			t.Errorf("interval is %v on the next connection: what a server allowed must not outlive it", got)
		}
	}
}

// Whatever happens, the interval keeps within its limits.
func TestAdaptiveRange(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		span := rapid.Int64Range(-1, math.MaxInt64)
		ms := rapid.Map(rapid.Int64Range(100, 2*24*3600*1000), func(n int64) time.Duration { return time.Duration(n) * time.Millisecond })
		when := rapid.Map(rapid.Int64Range(-1<<40, 1<<40), func(n int64) time.Time { return time.Unix(n, 0) })
		loaded := Learned{Good: time.Duration(span.Draw(rt, "good")), Bad: time.Duration(span.Draw(rt, "bad")), At: when.Draw(rt, "at")}
		a := &Adaptive{
			Start: time.Duration(span.Draw(rt, "start")), Max: ms.Draw(rt, "max"), Reprobe: time.Duration(span.Draw(rt, "reprobe")),
			Load: func(string) (Learned, bool) { return loaded, true },
		}
		p := newPath(t, a, 0)
		p.low = min(ms.Draw(rt, "low"), longestInterval)
		p.top = min(max(p.low, ms.Draw(rt, "top")), longestInterval)
		p.now = when.Draw(rt, "now")
		p.connect()
		part := rapid.Float64Range(-0.1, 3)
		rt.Repeat(map[string]func(*rapid.T){
			"good":    func(rt *rapid.T) { p.after(p.s.good(times(p.h, part.Draw(rt, "part")), p.now)) },
			"goodAny": func(rt *rapid.T) { p.after(p.s.good(time.Duration(span.Draw(rt, "silence")), p.now)) },
			"lost": func(rt *rapid.T) {
				p.up = false
				p.after(p.s.lost(times(p.h, part.Draw(rt, "part")), p.now))
				p.connect()
			},
			"lostAny": func(rt *rapid.T) {
				p.up = false
				p.after(p.s.lost(time.Duration(span.Draw(rt, "silence")), p.now))
				p.connect()
			},
			"clock": func(rt *rapid.T) { p.now = when.Draw(rt, "now") },
		})
	})
}

// On any path that some allowed interval survives, the search costs few
// connections, and none once it has ended.
func TestAdaptiveAnyPath(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := &Adaptive{
			Start:   time.Duration(rapid.Int64Range(1, 120_000).Draw(rt, "start")) * time.Millisecond,
			Reprobe: 1000 * time.Hour,
		}
		p := newPath(t, a, rapid.Uint64().Draw(rt, "seed"))
		p.low = time.Duration(rapid.Int64Range(1000, 60_000).Draw(rt, "low")) * time.Millisecond
		p.top = time.Duration(rapid.Int64Range(p.low.Milliseconds(), 3_600_000).Draw(rt, "top")) * time.Millisecond
		p.mapping = time.Duration(rapid.Int64Range(p.low.Milliseconds()*111/100, 7_200_000).Draw(rt, "mapping")) * time.Millisecond
		p.rtt = time.Duration(rapid.Int64Range(0, 100).Draw(rt, "rtt")) * time.Millisecond
		// Halving from Start to low, then the losses that a search may cost.
		halvings := 1
		for h := p.decide(a.Start); h > p.low; h /= 2 {
			halvings++
		}
		for range 1000 {
			settled := p.s.settled()
			before := p.losses
			p.beat()
			if settled && p.losses != before {
				rt.Fatalf("lost at %v after the search had ended, the mapping holds %v: %+v", p.h, p.mapping, p.s.Learned)
			}
		}
		if most := max(mostLosses, halvings+1); p.losses > most {
			rt.Fatalf("%d connections lost, want at most %d", p.losses, most)
		}
	})
}

func TestAdaptiveAllocs(t *testing.T) {
	p, h := settledAt(t, &Adaptive{}, 1, 300*time.Second)
	if n := testing.AllocsPerRun(100, func() { p.s.good(h, p.now) }); n != 0 {
		t.Errorf("%v allocations for a beat, want none", n)
	}
}
