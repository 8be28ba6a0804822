package client

import (
	"sync"
	"time"
)

// Adaptive lets a client search for the longest beat interval that its network
// path survives. NATs and firewalls silently drop the state of an idle
// connection: RFC 5382 requires at least 2 h 4 min, Linux waits 5 days, others a
// minute. Beating only as often as the path needs saves traffic and battery.
//
// The zero value is ready for use. An Adaptive may be shared by any number of
// clients, and must not be changed or copied once one of them uses it.
type Adaptive struct {
	Start   time.Duration // first interval tried on an unknown network; 0: 15 s, or Max if that is less
	Max     time.Duration // longest interval tried; 0: 24 h. The server's limits take precedence
	Reprobe time.Duration // wall-clock time after which a longer interval is tried again; 0: 72 h

	// Network returns the network that the device is on, such as the SSID or the
	// carrier; nil: there is one network, "". It is called for each connection,
	// before HELLO.
	Network func() string
	// Load returns what was learned about a network, or false; nil: what was learned
	// through this Adaptive, for up to 64 networks. An impossible value is ignored.
	Load func(network string) (Learned, bool)
	// Save stores what was learned about a network, for Load after a restart; nil:
	// nothing is stored. It is called at most once per three beats or per loss.
	//
	// Network, Load and Save are called in goroutines of the client and delay its
	// beats. They must not call Close, and must be safe for concurrent use if the
	// Adaptive is shared.
	Save func(network string, l Learned)

	mu     sync.Mutex
	memory map[string]Learned // guarded by mu; used where Load is nil
}

// Learned is what a search knows about one network. The zero value is no
// knowledge.
type Learned struct {
	Good time.Duration `json:"good"`        // longest silence that the path survived; 0: unknown
	Bad  time.Duration `json:"bad"`         // shortest silence that it did not survive, above Good; 0: unknown
	At   time.Time     `json:"at,omitzero"` // when the search ended; zero: it continues
}

const (
	firstInterval    = 15 * time.Second
	shortestInterval = 100 * time.Millisecond // the least a server allows (server.MinBeat)
	longestInterval  = 24 * time.Hour
	reprobeAfter     = 72 * time.Hour
	maxNetworks      = 64

	beatsInARow = 3   // answered beats that prove a silence
	growth      = 1.5 // from Good to the next interval, while Bad is unknown
	margin      = 0.9 // from Good to the final interval: 0.99 of Good with 10 % jitter
	longestGap  = 1.1 // the longest jitter; also Bad / Good at which the search ends

	sameSilence = 1.05 // tolerance of the network's timers

	// maxLosses is how many connections a search may cost. One finds that there is
	// a bound, about two narrow it down, one confirms it.
	maxLosses = 6
)

// network returns the name of the current network. Safe for concurrent use.
func (a *Adaptive) network() string {
	if a.Network == nil {
		return ""
	}
	return a.Network()
}

// load returns what is known about a network. Safe for concurrent use.
func (a *Adaptive) load(network string) Learned {
	if a.Load != nil {
		l, _ := a.Load(network)
		return l
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.memory[network]
}

// save stores l. Safe for concurrent use.
func (a *Adaptive) save(network string, l Learned) {
	if a.Save != nil {
		a.Save(network, l)
	}
	if a.Load != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.memory[network]; !known && len(a.memory) >= maxNetworks {
		for other := range a.memory { // any: it is learned again
			delete(a.memory, other)
			break
		}
	}
	if a.memory == nil {
		a.memory = make(map[string]Learned)
	}
	a.memory[network] = l
}

// sane returns l, or the zero value if l cannot be the result of a search.
func (l Learned) sane() Learned {
	switch {
	case l.Good < 0, l.Good > longestSilence, l.Bad < 0, l.Bad > longestSilence:
		return Learned{}
	case l.Bad != 0 && l.Bad <= l.Good:
		return Learned{}
	case l.Good == 0, l.Bad == 0:
		l.At = time.Time{} // without both the search cannot have ended
	}
	return l
}

// longestSilence caps the silences that a search distinguishes.
const longestSilence = 2 * longestInterval

// A search finds the longest interval for the current path. It learns from the
// silence before each beat, in both directions, which differs from the interval
// through jitter and other traffic. Good is proven by three answered beats; Bad,
// the bound, comes from losses. The interval follows from the two:
//
//   - neither is known: Start;
//   - only Bad: half of it, down to the server's minimum;
//   - only Good: 1.5 times as much;
//   - both: the middle, kept below Bad by the longest jitter, so that no connection
//     is lost to what is known;
//   - both, within 10 % or 1 s: Bad once more, as the path may have failed by
//     chance. Three answered beats refute it, a loss ends the search;
//   - the search has ended: 0.9 of Good. After Reprobe, Bad is tried once more.
//
// A loss below Good is ignored once, as chance, until a silence of that length is
// answered again. A second one before that means that the path has changed, and
// the search starts below it.
//
// A search does no I/O and reads no clock. Not safe for concurrent use.
type search struct {
	a       *Adaptive
	begun   bool
	network string

	Learned                // invariant: Bad == 0 || Bad > Good; At is zero unless both are known
	streak   int           // consecutive answered beats above Good
	shortest time.Duration // the shortest silence of streak
	losses   int           // connections lost in this search
	doubted  time.Duration // the shortest silence lost below Good; 0: none
	cutAfter time.Duration // silence in which the last connection was closed; 0: none, or refuted since

	// Of this connection.
	minSpacing   time.Duration // the shortest interval that keeps to min_beat_ms
	floor, limit time.Duration // the server's range; floor wins if they contradict
	asked        bool          // a request is unanswered; until then beats are not evaluated
}

// begin starts a new connection on the current network and returns the interval to
// ask for in HELLO. now is the wall clock. It may call the application.
func (s *search) begin(now time.Time) (request time.Duration) {
	if network := s.a.network(); !s.begun || network != s.network {
		*s = search{a: s.a, begun: true, network: network, Learned: s.a.load(network).sane()}
	}
	s.streak = 0
	s.minSpacing, s.floor, s.limit = shortestInterval, 0, longestInterval
	if s.a.Max > 0 {
		s.limit = min(s.limit, s.a.Max)
	}
	if s.reprobe(now) {
		s.save()
	}
	s.asked = true
	return s.interval()
}

// welcome takes WELCOME's values: the interval and the shortest spacing of beats, 0
// for any.
func (s *search) welcome(beat, shortest time.Duration) {
	// The shortest jitter of an interval is 0.9 of it.
	s.minSpacing = max(s.minSpacing, min(shortest, longestInterval)*10/9)
	s.allowed(beat)
}

// allowed takes the interval from the server's answer, or from a CONFIG of its own.
// An interval below the request is the server's maximum, one above it the minimum.
// A minimum above Max wins over Max.
func (s *search) allowed(beat time.Duration) {
	request := s.interval()
	s.asked = false
	switch beat = min(beat, longestInterval); {
	case beat <= 0:
	case beat < request:
		s.floor, s.limit = min(s.floor, beat), beat
	case beat > request:
		s.floor = beat
	}
}

// interval returns the interval to ask for, in whole milliseconds as on the wire.
func (s *search) interval() time.Duration {
	low := max(s.floor, s.minSpacing) + time.Millisecond - 1
	return max(min(s.target(), s.limit), low).Truncate(time.Millisecond)
}

// target returns the interval before limits are applied.
func (s *search) target() time.Duration {
	switch {
	case s.Good == 0 && s.Bad == 0 && s.a.Start > 0:
		return s.a.Start
	case s.Good == 0 && s.Bad == 0:
		return firstInterval
	case s.Good == 0:
		return s.Bad / 2
	case s.Bad == 0:
		return times(s.Good, growth)
	case s.settled():
		return times(s.Good, margin)
	case s.narrow():
		return times(s.Bad, 1/margin)
	}
	return min(s.Good+(s.Bad-s.Good)/2, times(s.Bad, 1/longestGap))
}

func times(d time.Duration, f float64) time.Duration { return time.Duration(float64(d) * f) }

// narrow reports whether Good and Bad are too close to search between them.
func (s *search) narrow() bool {
	return s.Good != 0 && s.Bad != 0 && s.Bad <= max(times(s.Good, longestGap), s.Good+time.Second)
}

// settled reports whether the search has ended.
func (s *search) settled() bool { return !s.At.IsZero() }

// good notes that a beat was answered after a silence of the path. It reports
// whether there is something to save; asked then says whether interval is to be
// sent in CONFIG. now is the wall clock.
func (s *search) good(silence time.Duration, now time.Time) (changed bool) {
	if s.asked || silence < s.interval()*8/10 { // 0.9 by jitter, and a round trip
		return false
	}
	silence = min(silence, longestSilence)
	if silence >= s.doubted {
		s.doubted = 0
	}
	if silence >= s.cutAfter {
		s.cutAfter = 0
	}
	before := s.interval()
	changed = s.reprobe(now)
	if silence > s.Good && !s.settled() {
		if s.streak == 0 || silence < s.shortest {
			s.shortest = silence
		}
		if s.streak++; s.streak == beatsInARow {
			s.prove(s.shortest)
			changed = true
		}
	}
	s.asked = s.interval() != before
	return changed
}

// prove raises Good.
func (s *search) prove(silence time.Duration) {
	s.Good, s.streak = silence, 0
	if s.Bad != 0 && s.Bad <= s.Good { // the bound is refuted
		s.Bad = 0
	}
}

// lost notes that the connection died with a beat unanswered that ended a silence of
// the path. It reports whether there is something to save. now is the wall clock.
//
// Less than 0.4 of an interval says nothing about the path. More does: the first
// beat comes after half an interval, less a round trip, and a path that loses every
// first beat must teach something.
func (s *search) lost(silence time.Duration, now time.Time) (changed bool) {
	if silence <= 0 || silence < s.interval()*4/10 {
		return false
	}
	return s.fails(silence, now)
}

// closed notes that the connection was closed without CLOSE during a silence of the
// path. Failures come at any time; proxies and firewalls close after a fixed one. So
// two in a row after the same silence count as a bound, even one well below the
// interval. It reports whether there is something to save. now is the wall clock.
func (s *search) closed(silence time.Duration, now time.Time) (changed bool) {
	least, most := min(s.cutAfter, silence), max(s.cutAfter, silence)
	if least < shortestInterval || most > times(least, sameSilence) {
		s.cutAfter = silence
		return false
	}
	s.cutAfter = 0
	if least <= s.Good && s.doubted == 0 {
		s.doubted = least // the first one was ignored
	}
	return s.fails(least, now)
}

// fails notes a silence that the path did not survive.
func (s *search) fails(silence time.Duration, now time.Time) (changed bool) {
	silence = min(silence, longestSilence)
	retrying := !s.settled() && s.narrow()
	switch {
	case silence <= s.Good && s.doubted == 0:
		s.doubted = silence
		return false
	case silence <= s.Good:
		s.Learned = Learned{Bad: min(silence, s.doubted)}
		s.doubted, s.losses = 0, 0
		return true
	case s.Bad == 0 || silence < s.Bad:
		s.Bad = silence
		changed = true
	}
	if s.losses++; !s.settled() && s.Good != 0 && (retrying || s.losses >= maxLosses) {
		s.At = now.Round(0).UTC()
		changed = true
	}
	return changed
}

// reprobe reopens the search when its result is old, and reports whether anything
// changed. A clock that jumped back restarts the wait: a result must not be kept for
// as long as the clock was wrong.
func (s *search) reprobe(now time.Time) (changed bool) {
	after := s.a.Reprobe
	if after <= 0 {
		after = reprobeAfter
	}
	switch {
	case !s.settled():
		return false
	case now.Before(s.At):
		s.At = now.Round(0).UTC()
		return true
	case now.Sub(s.At) < after:
		return false
	}
	s.At, s.losses = time.Time{}, 0
	return true
}

// save passes what was learned to the Adaptive. It may call the application.
func (s *search) save() { s.a.save(s.network, s.Learned) }
