package faults

import (
	be "encoding/binary"
	"fmt"
	"testing"
	"time"

	"heartwheel/codec"
)

// What testdata/sender does in a flood.
const (
	floodProducers = 2
	floodBlock     = 1024 // messages that are acknowledged together
)

// How long others may wait: as many messages as the loop does in eight of its
// turns, and 10 ms where a processor does more of them in that.
const (
	floodMost  = 10 * time.Millisecond
	floodTurns = 8 * 256
)

// TestFlood is case 13: two goroutines flood one loop with messages to one
// receiver, as fast as it takes them. They arrive in the order in which each
// sent its own, none is missing and none comes twice; and the loop still serves
// others: their beats are answered within 10 ms (p99), or on a slower processor
// within the time of as many messages.
//
// A loop that is always busy has to wait for a processor like any other work of
// this machine. How long is measured in turn with the floods: the same loop is
// as busy then, but has no more than two tasks waiting. Other work of the machine
// spoils a round, while a flood that hurts others spoils each: of several at
// least one good round is asked for, in the long form three of ten. The order
// has to hold in every one.
func TestFlood(t *testing.T) {
	each, least := sized(10_000, 20_000, 100_000), sized(1, 5, 5)
	rounds, enough := sized(20, 20, 10), sized(1, 1, 3)
	s := startSender(t, "-loops", "1")
	others := newProbe(t, s, startSender(t, "-loops", "1"))
	var took time.Duration
	good, ran, last := 0, 0, ""
	for ; ran < least || good < enough && ran < rounds; ran++ {
		var flood, busy latencies
		c := dial(t, s.addr)
		others.start()
		start := time.Now()
		c.send(codec.AppendData(nil, fmt.Appendf(nil, "flood %d 0", each)))
		if err := c.wantFlood(each); err != nil {
			t.Error(err)
		}
		round := time.Since(start)
		others.stop(&flood)
		took += round

		others.start()
		c.send(codec.AppendData(nil, fmt.Appendf(nil, "spin 0 %d", round.Milliseconds())))
		if f := c.frame(); string(f.Payload) != "spun" {
			t.Errorf("got %s %q behind the flood", f.Op, f.Payload)
		}
		others.stop(&busy)
		c.reset()

		flooded, floodIdle := flood.p99()
		spun, _ := busy.p99()
		most := max(floodMost, floodTurns*round/time.Duration(floodProducers*each))
		if flooded <= most+max(spun, floodIdle) {
			good++
		}
		last = fmt.Sprintf("p99 %s (of a busy loop %s, of an idle server %s; the bound without these is %s)", flooded,
			spun, floodIdle, most.Round(10*time.Microsecond))
	}
	s.check()
	if good < enough {
		t.Errorf("in %d of %d rounds beats were answered within the bound and what an equally busy loop takes; the "+
			"last one: %s", good, ran, last)
	}
	total := ran * floodProducers * each
	figure(t, 13, "%d messages from %d goroutines in order, %.0f a second; %d of %d rounds good; beats of others "+
		"meanwhile, in the last one: %s",
		total, floodProducers, float64(total)/took.Seconds(), good, ran, last)
}

// wantFlood wants each producer's messages from 0 on, and acknowledges them.
func (c *conn) wantFlood(each int) error {
	next := [floodProducers]int{}
	for range floodProducers * each {
		f, err := c.frameErr()
		if err != nil {
			return fmt.Errorf("after the messages %v: %w", next, err)
		}
		if f.Op != codec.OpData || len(f.Payload) != 5 {
			return fmt.Errorf("got %s %q, not a message", f.Op, f.Payload)
		}
		producer := f.Payload[0]
		if got := int(be.BigEndian.Uint32(f.Payload[1:])); got != next[producer] {
			return fmt.Errorf("message %d of producer %d came in the place of %d", got, producer, next[producer])
		}
		if next[producer]++; next[producer]%floodBlock == 0 {
			if err := c.sendErr(codec.AppendData(nil, fmt.Appendf(nil, "ack %d 0", producer))); err != nil {
				return err
			}
		}
	}
	return nil
}
