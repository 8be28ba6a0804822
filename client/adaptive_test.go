package client

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// The longest interval that survives a mapping is 1/1.1 of it. The search ends
// with the bound within 10 % of the proof (or 1 s) and keeps 0.9 of the proof,
// so at worst 0.9/1.1 of the mapping: 0.9 of the optimum, less for short ones.
func TestAdaptiveSettles(t *testing.T) {
	t.Parallel()
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
	if request := s.begin(now); request != 15*time.Second {
		t.Fatalf("first request is %v, want 15s", request)
	}
	if s.good(15*time.Second, now); s.streak != 0 {
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
		t.Fatal("no request after three beats")
	}
	if got, want := s.interval(), 21*time.Second; got != want { // 1.5 × the shortest of the three
		t.Errorf("request is %v, want %v", got, want)
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
		// closed: the shortest jitter of 99 s is the bound
		{Learned{Good: 81 * s, Bad: 89*s + 100*time.Millisecond}, 99 * s},
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

func TestAdaptiveRefusesNonsense(t *testing.T) {
	const s, huge = time.Second, time.Duration(math.MaxInt64)
	old := time.Unix(1e9, 0)
	for _, l := range []Learned{
		{Good: -s}, {Bad: -s}, {Good: huge}, {Bad: huge}, {Good: math.MinInt64, Bad: math.MinInt64},
		{Good: 20 * s, Bad: 20 * s, At: old}, {Good: 20 * s, Bad: 10 * s, At: old},
		{At: old}, {At: time.Unix(1<<40, 0)},
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

// A server with nonsensical values is not flooded.
func TestAdaptiveServer(t *testing.T) {
	const s = time.Second
	for _, c := range []struct{ beat, shortest, want time.Duration }{
		{15 * s, 0, 15 * s},
		{10 * s, 0, 10 * s},                            // its maximum
		{30 * s, 0, 30 * s},                            // its minimum
		{15 * s, 27 * s, 30 * s},                       // 30 s with the shortest jitter are 27 s
		{1, 0, shortestInterval},                       // nonsensical from here on
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
		p.allowed(5 * s) // of two contradicting answers the last counts
		if got, want := p.interval(), max(5*s, p.minSpacing); got != want && c.beat != 1 {
			t.Errorf("WELCOME %v, CONFIG 5s: interval is %v, want %v", c.beat, got, want)
		}
		p.begin(time.Unix(1e9, 0))
		if got := p.interval(); got != 15*s {
			t.Errorf("interval is %v on the next connection: what a server allowed must not outlive it", got)
		}
	}
}

// The interval keeps within its limits under any sequence of events.
func TestAdaptiveRange(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		span := rapid.Int64Range(-1, math.MaxInt64)
		ms := rapid.Map(rapid.Int64Range(100, 2*24*3600*1000),
			func(n int64) time.Duration { return time.Duration(n) * time.Millisecond })
		when := rapid.Map(rapid.Int64Range(-1<<40, 1<<40), func(n int64) time.Time { return time.Unix(n, 0) })
		loaded := Learned{Good: time.Duration(span.Draw(rt, "good")), Bad: time.Duration(span.Draw(rt, "bad")),
			At: when.Draw(rt, "at")}
		a := &Adaptive{
			Start: time.Duration(span.Draw(rt, "start")), Max: ms.Draw(rt, "max"),
			Reprobe: time.Duration(span.Draw(rt, "reprobe")),
			Load:    func(string) (Learned, bool) { return loaded, true },
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
			"closed": func(rt *rapid.T) {
				p.up = false
				p.after(p.s.closed(times(p.h, rapid.SampledFrom([]float64{-1, 0, 0.3, 1, 1.04, 3}).Draw(rt, "part")),
					p.now))
				p.connect()
			},
			"clock": func(rt *rapid.T) { p.now = when.Draw(rt, "now") },
		})
	})
}

func TestAdaptiveAllocs(t *testing.T) {
	p, h := settledAt(t, &Adaptive{}, 1, 300*time.Second)
	if n := testing.AllocsPerRun(100, func() { p.s.good(h, p.now) }); n != 0 {
		t.Errorf("%v allocations for a beat, want none", n)
	}
}

func TestAdaptiveSettings(t *testing.T) {
	for _, c := range []struct {
		a     *Adaptive
		wrong string
	}{
		{&Adaptive{}, ""},
		{&Adaptive{Start: time.Second, Max: time.Second, Reprobe: time.Hour}, ""},
		{&Adaptive{Max: time.Second}, ""}, // less than the default of Start
		{&Adaptive{Start: -1}, "Adaptive.Start is -1ns: must not be negative"},
		{&Adaptive{Max: -1}, "Adaptive.Max is -1ns: must not be less than Start"},
		{&Adaptive{Start: 2 * time.Second, Max: time.Second}, "Adaptive.Max is 1s: must not be less than Start = 2s"},
		{&Adaptive{Reprobe: -1}, "Adaptive.Reprobe is -1ns: must not be negative"},
	} {
		switch err := (Config{Adaptive: c.a}).Validate(); {
		case c.wrong == "" && err == nil:
		case err == nil, c.wrong == "", !errors.Is(err, ErrConfig), !strings.Contains(err.Error(), c.wrong):
			t.Errorf("Start %s, Max %s, Reprobe %s: %v, want %q", c.a.Start, c.a.Max, c.a.Reprobe, err, c.wrong)
		}
	}
}
