package client

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

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
	// A failing network or server that is not the path's doing, now and then.
	for i := range 200 {
		fails := p.s.lost
		if i%2 == 0 {
			fails = p.s.closed
		}
		p.up = false
		p.after(fails(time.Duration(p.random()*1.05*float64(h)), p.now))
		p.connect()
		for range 300 {
			p.after(p.s.good(time.Duration((0.9+p.random()/5)*float64(h)), p.now))
		}
	}
	if p.s.Learned != before || p.s.interval() != h {
		t.Errorf("learned %+v and beats every %v, want %+v and %v", p.s.Learned, p.s.interval(), before, h)
	}
}

// A close during a silence counts when it comes twice in a row after the same silence.
func TestAdaptiveClosed(t *testing.T) {
	const s = time.Second
	good := Learned{Good: 60 * s}
	settled := Learned{Good: 100 * s, Bad: 105 * s, At: time.Unix(1e9, 0)}
	for _, c := range []struct {
		known  Learned
		closed []time.Duration
		want   Learned
	}{
		{good, []time.Duration{70 * s}, good},
		{good, []time.Duration{70 * s, 72 * s}, Learned{Good: 60 * s, Bad: 70 * s}},
		{good, []time.Duration{72 * s, 70 * s}, Learned{Good: 60 * s, Bad: 70 * s}},
		{good, []time.Duration{70 * s, 74 * s}, good},
		{good, []time.Duration{70 * s, 0, 70 * s}, good}, // traffic between them
		// A beat after 90 s was answered between them.
		{good, []time.Duration{70 * s, -90 * s, 70 * s}, good},
		// 73 s say nothing about 75 s.
		{good, []time.Duration{75 * s, -73 * s, 75 * s}, Learned{Good: 60 * s, Bad: 75 * s}},
		{good, []time.Duration{5 * s, 5 * s}, Learned{Bad: 5 * s}}, // far less than an interval
		{settled, []time.Duration{50 * s}, settled},
		{settled, []time.Duration{50 * s, 50 * s}, Learned{Bad: 50 * s}},
		{Learned{}, []time.Duration{9 * s, 9 * s}, Learned{Bad: 9 * s}},
		{Learned{}, []time.Duration{time.Millisecond, time.Millisecond}, Learned{}},
	} {
		p := search{a: &Adaptive{Load: func(string) (Learned, bool) { return c.known, true }}}
		now := time.Unix(1e9, 0)
		for _, silence := range c.closed {
			p.begin(now)
			p.welcome(p.interval(), 0)
			if silence < 0 {
				p.good(-silence, now)
			} else {
				p.closed(silence, now)
			}
		}
		if p.Learned != c.want {
			t.Errorf("closed after %v, knowing %+v: learned %+v, want %+v", c.closed, c.known, p.Learned, c.want)
		}
	}
}

// A bound found by chance does not limit the interval: it is tried again.
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
		if p.s.narrow() {
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
	if request := s.begin(p.now); request != h || !s.settled() {
		t.Errorf("request is %v after a restart, want %v", request, h)
	}
	network = "train"
	if request := s.begin(p.now); request != firstInterval {
		t.Errorf("request is %v on another network, want %v", request, firstInterval)
	}
	network = "home"
	if request := s.begin(p.now); request != h {
		t.Errorf("request is %v back on the first network, want %v", request, h)
	}
	if want := `{"good":`; len(files) != 1 || string(files["home"][:8]) != want {
		t.Errorf("kept %q", files)
	}
	// A reconnect continues the search: one loss is ignored, the second is not.
	s.welcome(h, 0)
	s.lost(h, p.now)
	s.begin(p.now)
	s.welcome(h, 0)
	if !s.lost(h, p.now) || s.interval() != (h/2).Truncate(time.Millisecond) {
		t.Errorf("interval is %v after two losses at %v", s.interval(), h)
	}
	// The next proof may ignore a loss too.
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
		t.Errorf("another client asks for %v, want %v", s.interval(), h)
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
		mappingMS := rapid.Int64Range(p.low.Milliseconds()*111/100, 7_200_000).Draw(rt, "mapping")
		p.mapping = time.Duration(mappingMS) * time.Millisecond
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
				rt.Fatalf("lost at %v after the search had ended, the mapping holds %v: %+v", p.h, p.mapping,
					p.s.Learned)
			}
		}
		if most := max(mostLosses, halvings+1); p.losses > most {
			rt.Fatalf("%d connections lost, want at most %d", p.losses, most)
		}
	})
}
