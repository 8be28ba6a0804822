package loadtest

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// A Fault is one --fault: KIND:SHARE@WHEN[,+OPTION].
type Fault struct {
	Text  string        // as written
	Kind  string        // a name in faultKinds
	Share float64       // 0 to 1 of the plan's connections; 0: Count
	Count int           // so many connections
	For   time.Duration // stall-server: how long the server is stopped
	At    time.Duration // after the hold phase began

	Over      time.Duration // +over=D: the connections fail one after the other within D
	Reconnect bool          // +reconnect: whoever was noticed connects again, as healthy
}

// expect says when a fault has to be noticed.
type expect uint8

const (
	expectTimeout expect = iota // T after the last byte of the last whole frame
	expectPartial               // that, or the limit for a part of a frame, whichever is first
	expectAtOnce                // when it happens
	expectNothing               // never: nobody is dead
)

// A faultKind is one thing that can go wrong with a peer.
type faultKind struct {
	name   string
	expect expect
	unseen bool // the client cannot see that the server noticed
	does   string
}

// faultKinds has every kind of fault. What each does to a connection is in
// behave_linux.go.
var faultKinds = []faultKind{
	{name: "silent", expect: expectTimeout, does: "stops beating; still reads, and the kernel still acknowledges"},
	{name: "freeze", expect: expectTimeout, does: "stops beating and never reads again"},
	{name: "partial", expect: expectPartial, does: "sends half a frame, then nothing"},
	{name: "drip", expect: expectPartial, does: "sends a frame a byte a second, which never ends"},
	{name: "reset", expect: expectAtOnce, unseen: true, does: "resets the connection"},
	{name: "halfclose", expect: expectAtOnce, does: "closes its direction and goes on reading"},
	{name: "garbage", expect: expectAtOnce, does: "sends bytes that are not frames"},
	{name: "oversize", expect: expectAtOnce, does: "sends the header of a frame of 16,777,215 bytes"},
	{name: "herd", expect: expectNothing, does: "resets and connects again, all at once"},
	{name: stallServer, expect: expectNothing, does: "stops a local server's process with SIGSTOP for a time, then SIGCONT"},
}

// stallServer is the one kind that happens to the server, so it has a duration
// in place of a share.
const stallServer = "stall-server"

func faultKindByName(name string) (faultKind, bool) {
	for _, k := range faultKinds {
		if k.name == name {
			return k, true
		}
	}
	return faultKind{}, false
}

func faultNames() []string {
	var names []string
	for _, k := range faultKinds {
		names = append(names, k.name)
	}
	return names
}

// words says when the fault has to be noticed.
func (e expect) words() string {
	return [...]string{
		expectTimeout: "T after the last whole frame",
		expectPartial: "T after the last whole frame, or the limit for part of a frame",
		expectAtOnce:  "at once",
		expectNothing: "nobody is dead",
	}[e]
}

// after is the time, from start, by which the fault has to be noticed at the
// earliest, all in ns of one clock. It is the zero of a detection's error.
func (e expect) after(start, lastFrame, timeout, partial int64) int64 {
	switch e {
	case expectTimeout:
		return lastFrame + timeout
	case expectPartial:
		return min(lastFrame+timeout, start+partial)
	default:
		return start
	}
}

// latest is how long after its start the fault may take to be noticed.
func (f *Fault) latest(timeout, partial, bound time.Duration) time.Duration {
	k, _ := faultKindByName(f.Kind)
	switch k.expect {
	case expectTimeout:
		return f.Over + timeout + bound
	case expectPartial:
		return f.Over + min(timeout, partial) + bound
	case expectNothing:
		return max(f.Over, f.For)
	}
	return f.Over + bound
}

// needsTimeout says whether T must be known to judge f.
func (f *Fault) needsTimeout() bool {
	k, _ := faultKindByName(f.Kind)
	return k.expect == expectTimeout || k.expect == expectPartial
}

const faultForm = "write KIND:SHARE@WHEN, such as silent:10%@30s or reset:500@1m"

// parseFault reads a --fault. The error says what to write instead.
func parseFault(text string) (Fault, error) {
	f := Fault{Text: text}
	main, options, _ := strings.Cut(text, ",")
	kind, rest, ok := strings.Cut(main, ":")
	if !ok { // perhaps herd@30s
		kind, _, _ = strings.Cut(kind, "@")
	}
	if _, known := faultKindByName(kind); !known {
		return f, fmt.Errorf("%q is not a fault; the nearest is %s, and there are %s",
			kind, wording.Nearest(kind, faultNames()), wording.Choice(faultNames()))
	}
	f.Kind = kind
	share, when, hasWhen := strings.Cut(rest, "@")
	if !ok || !hasWhen {
		if kind == stallServer {
			return f, errors.New("lacks a part; write stall-server:HOW-LONG@WHEN, such as stall-server:5s@30s")
		}
		return f, errors.New("lacks a part; " + faultForm)
	}
	if err := f.parseShare(share); err != nil {
		return f, err
	}
	at, err := parseDuration(when)
	if err != nil {
		return f, fmt.Errorf("the time %q %w", when, err)
	}
	if at < 0 {
		return f, fmt.Errorf("the time %q is before the start; times count from the beginning of the hold phase", when)
	}
	f.At = at
	if options == "" {
		if strings.Contains(text, ",") {
			return f, errors.New("ends in a comma; after it comes an option such as +over=5s")
		}
		return f, nil
	}
	for option := range strings.SplitSeq(options, ",") {
		if err := f.parseOption(option); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *Fault) parseShare(share string) error {
	if f.Kind == stallServer {
		d, err := parseDuration(share)
		if err == nil && d <= 0 {
			err = errors.New("is not a time to be stopped for; write one such as 5s")
		}
		if err != nil {
			return fmt.Errorf("the duration %q %w", share, err)
		}
		f.For = d
		return nil
	}
	if percent, ok := strings.CutSuffix(share, "%"); ok {
		v, err := strconv.ParseFloat(percent, 64)
		if err != nil || math.IsNaN(v) || v <= 0 || v > 100 {
			return fmt.Errorf("the share %q is not one; write more than 0%% and at most 100%%", share)
		}
		f.Share = v / 100
		return nil
	}
	n, err := parseCount(share)
	if err != nil || n <= 0 {
		return fmt.Errorf("the share %q is not one; write a part such as 10%%, or a number of connections such as 500", share)
	}
	f.Count = n
	return nil
}

func (f *Fault) parseOption(option string) error {
	name, value, _ := strings.Cut(option, "=")
	switch name {
	case "+over":
		d, err := parseDuration(value)
		if err == nil && d <= 0 {
			err = errors.New("must be more than zero")
		}
		if err != nil {
			return fmt.Errorf("the duration %q of +over %w", value, err)
		}
		f.Over = d
	case "+reconnect":
		f.Reconnect = true
	default:
		return fmt.Errorf("%q is not an option of a fault; there are +over=DURATION and +reconnect", option)
	}
	if k, _ := faultKindByName(f.Kind); f.Kind == stallServer || k.expect == expectNothing && f.Reconnect {
		return fmt.Errorf("%s has no option %s; leave it out", f.Kind, name)
	}
	return nil
}
