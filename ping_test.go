package main

import (
	"testing"
	"time"
)

func TestTally(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		rtts       []time.Duration
		sent, lost int
		want       string
	}{
		{nil, 0, 0, "0 beats, 0 answered, 0% lost, time 1.235s\n"},
		{nil, 2, 2, "2 beats, 0 answered, 100% lost, time 1.235s\n"},
		{[]time.Duration{150 * time.Microsecond}, 1, 0,
			"1 beats, 1 answered, 0% lost, time 1.235s\nrtt min/avg/max/stddev = 0.150/0.150/0.150/0.000 ms\n"},
		// Mean 5, sum of squared differences 32, over 8 values: the deviation is 2.
		{[]time.Duration{2 * ms, 4 * ms, 4 * ms, 4 * ms, 5 * ms, 5 * ms, 7 * ms, 9 * ms}, 12, 4,
			"12 beats, 8 answered, 33.3333% lost, time 1.235s\nrtt min/avg/max/stddev = 2.000/5.000/9.000/2.000 ms\n"},
		// What is under way is neither answered nor lost.
		{[]time.Duration{time.Hour, time.Hour + ms}, 4, 1,
			"4 beats, 2 answered, 33.3333% lost, 1 under way, time 1.235s\nrtt min/avg/max/stddev = 3600000.000/3600000.500/3600001.000/0.500 ms\n"},
	} {
		y := tally{sent: c.sent, lost: c.lost}
		for _, rtt := range c.rtts {
			y.add(rtt)
		}
		if got, want := y.summary("tcp://h:1", 1234567*time.Microsecond), "\n--- tcp://h:1 ---\n"+c.want; got != want {
			t.Errorf("%v: got\n%s\nwant\n%s", c.rtts, got, want)
		}
	}
}
