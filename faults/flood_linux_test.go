package faults

import (
	be "encoding/binary"
	"fmt"
	"testing"
	"time"

	"heartwheel/codec"
)

// What testdata/torrent does in a flood.
const (
	floodProducers = 2
	floodBlock     = 1024 // messages that are acknowledged together
)

// TestFlood is case 13: two goroutines flood one loop with messages to one
// receiver, as fast as it takes them. They arrive in the order in which each
// sent its own, none is missing and none comes twice; and the loop still serves
// others: their beats are answered within 10 ms (p99).
//
// A loop that is always busy has to wait for a processor like any other work of
// this machine. How long is measured in turn with the floods: the same loop is
// as busy then, but has no more than two tasks waiting.
func TestFlood(t *testing.T) {
	const rounds = 5
	each := 100_000 / rounds
	if *long {
		each = 500_000 / rounds
	}
	s := startTorrent(t, "-loops", "1")
	others := newProbe(t, s, startTorrent(t, "-loops", "1"))
	var flood, busy latencies
	var took time.Duration
	for range rounds {
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
	}
	s.check()

	flooded, floodIdle := flood.p99()
	spun, spunIdle := busy.p99()
	if bound := 10*time.Millisecond + max(spun, floodIdle); flooded > bound {
		t.Errorf("beats were answered within %s (p99); the bound is %s, as a busy loop took %s and an idle server %s",
			flooded, bound, spun, floodIdle)
	}
	total := rounds * floodProducers * each
	figure(t, 13, "%d messages from %d goroutines in order, %.0f a second; beats of others meanwhile p99 %s (of a busy loop %s, of an idle server %s and %s)",
		total, floodProducers, float64(total)/took.Seconds(), flooded, spun, floodIdle, spunIdle)
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
