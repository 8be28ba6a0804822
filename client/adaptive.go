package client

import (
	"sync"
	"time"
)

// Adaptive lets a client search for the longest beat interval that its network
// path survives. A NAT or firewall forgets a connection that carried nothing
// for a while, and says so to nobody: RFC 5382 wants 2 h 4 min of it, Linux
// waits 5 days, others a minute. Beating just often enough for the path at hand
// saves traffic and battery.
//
// Its zero value is ready for use. It may be shared by any number of clients,
// and must be neither changed nor copied once one of them has it.
type Adaptive struct {
	Start   time.Duration // first interval tried on an unknown network; 0: 15 s, or Max if that is less
	Max     time.Duration // longest interval tried; 0: 24 h. The server's limits go before it
	Reprobe time.Duration // how long a result holds before a longer interval is tried again, by the wall clock; 0: 72 h

	// Network names the network that the device is on now, such as the SSID or
	// the carrier; nil: there is one network, "". It is asked while each
	// connection is made, before HELLO.
	Network func() string
	// Load returns what was learned about a network earlier, false for nothing;
	// nil: what was learned through this Adaptive, of up to 64 networks. A value
	// that cannot be true is ignored.
	Load func(network string) (Learned, bool)
	// Save keeps what was learned about a network, to be loaded after a restart;
	// nil: nothing is kept. It is called at most once for three beats or a loss.
	//
	// Network, Load and Save are called in goroutines of the client and delay
	// its beats. They must not call Close, and must be safe for concurrent use
	// if the Adaptive is shared.
	Save func(network string, l Learned)

	mu     sync.Mutex
	memory map[string]Learned // guarded by mu; used where Load is nil
}

// Learned is what a search knows about one network. Its zero value knows
// nothing.
type Learned struct {
	Good time.Duration `json:"good"`        // the path survives this much silence; 0: not known
	Bad  time.Duration `json:"bad"`         // it did not survive this much, always above Good; 0: not known
	At   time.Time     `json:"at,omitzero"` // when the search ended; zero: it goes on
}

const (
	firstInterval    = 15 * time.Second
	shortestInterval = 100 * time.Millisecond // no server decides upon less (server.MinBeat)
	longestInterval  = 24 * time.Hour
	reprobeAfter     = 72 * time.Hour
	maxNetworks      = 64

	beatsInARow = 3   // this many answered beats prove a silence
	growth      = 1.5 // from what is proven to what is tried, while no bound is known
	margin      = 0.9 // from what is proven to what is kept: with 10 % jitter 0.99 of it
	longestGap  = 1.1 // the jitter of an interval; also the bound over the proof when the search ends

	sameSilence = 1.05 // what a timer of the network may be off by

	// maxLosses is how many connections a search may cost before it is content
	// with what is proven. One finds that there is a bound, about two close in,
	// one confirms it.
	maxLosses = 6
)

// network returns the key of the network that the device is on. Safe for
// concurrent use.
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

// save keeps l. Safe for concurrent use.
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
		for other := range a.memory { // any one: it is found again
			delete(a.memory, other)
			break
		}
	}
	if a.memory == nil {
		a.memory = make(map[string]Learned)
	}
	a.memory[network] = l
}

// sane returns l, or nothing if l cannot be the result of a search.
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

// longestSilence is the longest silence that is told apart.
const longestSilence = 2 * longestInterval

// A search finds the longest interval on one path after another. It learns from
// the silence that a beat ended, which jitter and the application's own traffic
// make differ from the interval: the path had carried nothing, either way, for
// so long. There is good news and bad, and the interval follows from what is
// learned alone:
//
//   - nothing is proven: Start, or half of what was lost, down to the server's
//     minimum;
//   - no bound is known: 1.5 times what is proven;
//   - between the two: the middle, with its longest jitter below the bound, so
//     that no connection is spent on what is known;
//   - proof and bound lie within 10 % or 1 s: the bound itself is tried once
//     more. A network that failed by chance would else hold the interval down
//     for days. Three answered beats refute the bound, a loss ends the search;
//   - it has ended: 0.9 of what is proven, until Reprobe has passed. Then the
//     bound is tried once more, as before.
//
// A loss that contradicts what is proven is forgiven once, as a chance, until
// a silence of that length has been answered again. A second one before that
// says that the path has changed, and the search begins below it.
//
// It knows no I/O and no clock. Not safe for concurrent use.
type search struct {
	a       *Adaptive
	begun   bool
	network string

	Learned               // invariant: Bad == 0 || Bad > Good; At is zero unless both are known
	row     int           // answered beats in a row that prove more than Good
	shorts  time.Duration // the shortest silence of row
	losses  int           // of this search
	doubt   time.Duration // the shortest silence that was lost although it is proven; 0: none
	cut     time.Duration // the silence in which the last connection was closed; 0: it was not, or a longer one was survived since

	// Of this connection.
	bears        time.Duration // the shortest interval whose beats the server bears
	floor, limit time.Duration // what the server decides upon; the floor holds where they contradict
	asked        bool          // a wish has no answer yet; until then beats teach nothing
}

// begin takes up the network that the device is on, for a new connection, and
// returns the interval to wish for in HELLO. now is the wall clock. It may call
// the application.
func (s *search) begin(now time.Time) (wish time.Duration) {
	if network := s.a.network(); !s.begun || network != s.network {
		*s = search{a: s.a, begun: true, network: network, Learned: s.a.load(network).sane()}
	}
	s.row = 0
	s.bears, s.floor, s.limit = shortestInterval, 0, longestInterval
	if s.a.Max > 0 {
		s.limit = min(s.limit, s.a.Max)
	}
	if s.reprobe(now) {
		s.save()
	}
	s.asked = true
	return s.interval()
}

// welcome takes WELCOME's values: the interval that the server decided upon,
// and the shortest distance of beats that it bears, 0 for any.
func (s *search) welcome(beat, shortest time.Duration) {
	// The shortest jitter of an interval is 0.9 of it.
	s.bears = max(s.bears, min(shortest, longestInterval)*10/9)
	s.allowed(beat)
}

// allowed takes the server's answer to the last wish, or values that it decided
// upon by itself. What is below the wish is the server's maximum, what is above
// it the minimum. Of a minimum above Max the minimum holds.
func (s *search) allowed(beat time.Duration) {
	wish := s.interval()
	s.asked = false
	switch beat = min(beat, longestInterval); {
	case beat <= 0:
	case beat < wish:
		s.floor, s.limit = min(s.floor, beat), beat
	case beat > wish:
		s.floor = beat
	}
}

// interval returns the interval to wish for, in whole milliseconds as the wire
// has it.
func (s *search) interval() time.Duration {
	low := max(s.floor, s.bears) + time.Millisecond - 1
	return max(min(s.target(), s.limit), low).Truncate(time.Millisecond)
}

// target returns what the interval would be without limits.
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

// narrow reports whether proof and bound are so close that there is nothing to
// find between them.
func (s *search) narrow() bool {
	return s.Good != 0 && s.Bad != 0 && s.Bad <= max(times(s.Good, longestGap), s.Good+time.Second)
}

// settled reports whether the search has ended.
func (s *search) settled() bool { return !s.At.IsZero() }

// good notes that a beat was answered after a silence of the path. It reports
// whether there is something to save; then asked says whether interval is a new
// wish to send in CONFIG. now is the wall clock.
func (s *search) good(silence time.Duration, now time.Time) (changed bool) {
	if s.asked || silence < s.interval()*8/10 { // 0.9 by jitter, and a round trip
		return false
	}
	silence = min(silence, longestSilence)
	if silence >= s.doubt {
		s.doubt = 0
	}
	if silence >= s.cut {
		s.cut = 0
	}
	before := s.interval()
	changed = s.reprobe(now)
	if silence > s.Good && !s.settled() {
		if s.row == 0 || silence < s.shorts {
			s.shorts = silence
		}
		if s.row++; s.row == beatsInARow {
			s.prove(s.shorts)
			changed = true
		}
	}
	s.asked = s.interval() != before
	return changed
}

// prove raises what is proven.
func (s *search) prove(silence time.Duration) {
	s.Good, s.row = silence, 0
	if s.Bad != 0 && s.Bad <= s.Good { // the bound is refuted
		s.Bad = 0
	}
}

// lost notes that the connection died with a beat unanswered that ended a
// silence of the path. It reports whether there is something to save. now is
// the wall clock.
//
// Less than 0.4 of an interval says nothing about the path. More does, because
// half an interval, less a round trip, may come before a connection's first
// beat: if only whole intervals counted, a path that kills each first beat would
// teach nothing.
func (s *search) lost(silence time.Duration, now time.Time) (changed bool) {
	if silence <= 0 || silence < s.interval()*4/10 {
		return false
	}
	return s.fails(silence, now)
}

// closed notes that the connection was closed without a word in the midst of a
// silence of the path. Servers and networks that fail do so at any time, but
// proxies and firewalls after a fixed one: two in a row after the same silence
// say that it was one of these, however short it is for the interval. It reports
// whether there is something to save. now is the wall clock.
func (s *search) closed(silence time.Duration, now time.Time) (changed bool) {
	least, most := min(s.cut, silence), max(s.cut, silence)
	if least < shortestInterval || most > times(least, sameSilence) {
		s.cut = silence
		return false
	}
	s.cut = 0
	if least <= s.Good && s.doubt == 0 {
		s.doubt = least // the first one was forgiven
	}
	return s.fails(least, now)
}

// fails takes a silence that the path did not survive.
func (s *search) fails(silence time.Duration, now time.Time) (changed bool) {
	silence = min(silence, longestSilence)
	retrying := !s.settled() && s.narrow()
	switch {
	case silence <= s.Good && s.doubt == 0:
		s.doubt = silence
		return false
	case silence <= s.Good:
		s.Learned = Learned{Bad: min(silence, s.doubt)}
		s.doubt, s.losses = 0, 0
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

// reprobe opens the search again when its result is old, and reports whether it
// did anything. A clock that jumped back begins the wait anew: else a result
// could be kept for as long as the clock was wrong.
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

// save hands what is learned to the Adaptive. It may call the application.
func (s *search) save() { s.a.save(s.network, s.Learned) }
