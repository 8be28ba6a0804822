package engine

import (
	"math"
	"strconv"
	"time"
)

// A Rate is events a second, constant or changing linearly.
type Rate struct {
	From, To float64 // equal for a constant rate
}

// String is the rate as a user would write it.
func (r Rate) String() string {
	if r.From == r.To {
		return formatRate(r.From)
	}
	return formatRate(r.From) + ":" + formatRate(r.To)
}

func formatRate(v float64) string {
	if v >= 1000 && math.Mod(v, 100) == 0 {
		return strconv.FormatFloat(v/1000, 'f', -1, 64) + "k"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// A pacer says when each event of a series is due. Pacers are pure and know no
// clock. due does not decrease, and due(0) is 0.
type pacer interface {
	// when event k, counted from 0, is due after the start
	due(k int64) time.Duration
}

// never is longer than any run.
const never = time.Duration(math.MaxInt64 / 4)

// A ramp paces connects: the rate goes linearly from From to To within over, and
// stays there.
type ramp struct {
	Rate
	over time.Duration
}

// rampOf is the ramp whose n-th event is due at its end.
func rampOf(r Rate, n int) ramp {
	return ramp{r, time.Duration(2 * float64(n) / (r.From + r.To) * 1e9)}
}

// N(t) = from·t + (to − from)·t²/(2·over) events are due by t. Event k is due at the t
// with N(t) = k: the positive root, in the form that is exact also for from = to and
// for from = 0.
func (r ramp) due(k int64) time.Duration {
	if k <= 0 {
		return 0
	}
	n, over := float64(k), r.over.Seconds()
	slope := 0.0 // of the rate
	if over > 0 {
		slope = (r.To - r.From) / over
	}
	if inRamp := (r.From + r.To) / 2 * over; n > inRamp {
		return r.over + seconds((n-inRamp)/r.To)
	}
	return seconds(2 * n / (r.From + math.Sqrt(r.From*r.From+2*slope*n)))
}

func seconds(s float64) time.Duration {
	if s >= never.Seconds() {
		return never
	}
	return time.Duration(s * 1e9)
}

// uniform paces the beats of n connections in an open loop: event k is the beat of
// connection k mod n, and the beats are spread evenly over the interval.
type uniform struct {
	n        int64
	interval time.Duration
}

func (u uniform) due(k int64) time.Duration {
	round, i := k/u.n, k%u.n
	// i × interval may overflow 64 bits
	return time.Duration(round)*u.interval + time.Duration(float64(u.interval)*(float64(i)/float64(u.n)))
}

// synchronous paces all connections' beats at one instant of each interval.
type synchronous struct {
	n        int64
	interval time.Duration
}

func (t synchronous) due(k int64) time.Duration { return time.Duration(k/t.n) * t.interval }
