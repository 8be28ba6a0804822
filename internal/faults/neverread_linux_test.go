package faults

import (
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

// startTorrent starts the program in testdata/sender as a server.
func startSender(t *testing.T, args ...string) *serverProcess {
	t.Helper()
	return startCommand(t, exec.Command(program(t, "sender"), args...))
}

// outboxLimit is what a server keeps for one peer at most, by default.
const outboxLimit = 256 << 10

// TestReadersThatNeverRead is case 8: a server pushes to many peers, and none
// of them reads. Its live heap stays bounded, the peers are closed as slow
// consumers in time, and others notice no more than twice as much of it as of
// the same pushes to the same peers when these read.
//
// That is what it is compared with, in turn and in one run, because beside a
// server that does nothing any work shows. For the same reason the push is as
// fast as such peers can read on a small machine. A last one is as fast as the
// loops take it.
//
// What else this machine does may spoil a round, but a server that lets such
// peers hurt others spoils each: one good round out of several is asked for.
func TestReadersThatNeverRead(t *testing.T) {
	c := &neverRead{readers: sized(50, 200, 1000), every: sized[time.Duration](20, 50, 250) * time.Millisecond}
	rounds, enough := sized(0, 6, 9), sized(0, 1, 3) // the smoke form compares nothing
	c.s = startSender(t)
	c.others = newProbe(t, c.s, startSender(t))
	w := watch(t, c.s)
	good, ran, last := 0, 0, ""
	for good < enough && ran < rounds {
		var ok bool
		if ok, last = c.round(t); ok {
			good++
		}
		ran++
	}
	if good < enough {
		t.Errorf("in %d of %d rounds others were served in time; the last one: %s", good, ran, last)
	}
	c.dial(t)
	c.neverRead(t, sized(c.every, 0, 0), &c.flatOut)
	delays := w.stop()

	c.s.check()
	if closed := c.s.metrics().by("heartwheel_closed_total"); len(closed) != 1 ||
		closed["slow_consumer"] != float64((ran+1)*c.readers) {
		t.Errorf("the server closed %v, not just %d for slow_consumer", closed, (ran+1)*c.readers)
	}
	// 1 MiB: buffers of the loops and of /live, whatever the number of peers
	if most := int64(c.readers)*(outboxLimit+4<<10) + 1<<20; c.heap > most {
		t.Errorf("the live heap grew by %d bytes for %d peers; the bound is %d", c.heap, c.readers, most)
	}
	lag := heldUp(delays, 0, monotonic()) // for all rounds together: only ever too much
	if c.slowest > 10*time.Second+lag {
		t.Errorf("a peer that never reads was closed after %s; the bound is 10 s, and %s were measured", c.slowest, lag)
	}
	reading, readingIdle := c.reading.p99()
	never, neverIdle := c.never.p99()
	quiet, quietIdle := c.quiet.p99()
	flat, flatIdle := c.flatOut.p99()
	figure(t, 8, "%d peers that never read: closed within %s, live heap +%.1f MB, %.0f %% of the bound (%.1f MB with "+
		"garbage); p99 of others %s, peers reading %s, no push %s, push flat out %s (of an idle server "+
		"meanwhile: %s, %s, %s, %s)",
		c.readers, c.slowest.Round(time.Millisecond), float64(c.heap)/1e6,
		100*float64(c.heap)/float64(c.readers*(outboxLimit+4<<10)), float64(c.garbage)/1e6,
		never, reading, quiet, flat, neverIdle, readingIdle, quietIdle, flatIdle)
	t.Logf("%d of %d rounds were good; the last one: %s", good, ran, last)
}

// round pushes to peers that read, then to peers that do not, and reports
// whether others did as well beside these as they have to.
func (c *neverRead) round(t *testing.T) (ok bool, figures string) {
	t.Helper()
	c.others.start()
	time.Sleep(time.Second)
	c.others.stop(&c.quiet)
	c.dial(t)
	var reads, nevers latencies
	c.read(t, &reads)
	c.neverRead(t, c.every, &nevers)
	c.reading.add(reads)
	c.never.add(nevers)
	reading, readingIdle := reads.p99()
	never, neverIdle := nevers.p99()
	most := 2*reading + max(0, neverIdle-readingIdle)
	return never <= most, fmt.Sprintf("others waited %s (p99) while peers did not read, and %s while they read; the "+
		"bound is %s, as an idle server took %s and %s in the same moments",
		never, reading, most, neverIdle, readingIdle)
}

// neverRead is what the case has and what it sees.
type neverRead struct {
	s       *serverProcess
	readers int
	every   time.Duration // between two pushes to one peer
	others  *probe
	peers   []*conn // of this round

	quiet, reading, never, flatOut latencies
	base                           int64         // bytes of live heap before this push
	heap, garbage                  int64         // the most that it grew by, live and with garbage
	slowest                        time.Duration // from asking for a push to being closed
}

// dial makes the peers of a round.
func (c *neverRead) dial(t *testing.T) {
	t.Helper()
	c.peers = nil
	for range c.readers {
		p := dial(t, c.s.addr)
		if err := p.SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		p.echo()
		c.peers = append(c.peers, p)
	}
	c.base = c.live(t)
}

// ask asks for n pushes to each.
func (c *neverRead) ask(n int, every time.Duration) {
	for _, p := range c.peers {
		p.send(codec.AppendData(nil, fmt.Appendf(nil, "push %d %d", n, every.Milliseconds())))
	}
}

// read has the server push for as long as it takes to fill an outbox twice, to
// peers that read everything.
func (c *neverRead) read(t *testing.T, seen *latencies) {
	t.Helper()
	const pushes, size = 2 * outboxLimit >> 14, 16<<10 + codec.HeaderSize + 1
	c.others.start()
	c.ask(pushes, c.every)
	done := make(chan error, c.readers)
	for _, p := range c.peers {
		go func() { done <- discard(p.TCPConn, pushes*size) }()
	}
	for n := 0; n < c.readers; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("a peer that reads: %v", err)
			}
			n++
		case <-time.After(50 * time.Millisecond):
			c.live(t) // as while they do not read
		}
	}
	c.others.stop(seen)
}

func discard(c net.Conn, n int) error {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	for b := make([]byte, 64<<10); n > 0; {
		k, err := c.Read(b)
		if n -= k; err != nil {
			return err
		}
	}
	return nil
}

// neverRead has the server push until it has closed all peers.
func (c *neverRead) neverRead(t *testing.T, every time.Duration, seen *latencies) {
	t.Helper()
	c.others.start()
	start := time.Now()
	c.ask(1<<20, every)
	for open := c.peers; len(open) > 0; time.Sleep(10 * time.Millisecond) {
		if every == 0 {
			c.garbage = max(c.garbage, int64(c.s.metrics().value("go_memstats_heap_alloc_bytes"))-c.base)
		} else {
			c.heap = max(c.heap, c.live(t)-c.base)
			time.Sleep(50 * time.Millisecond)
		}
		var left []*conn
		for _, p := range open {
			if p.sendErr(beat) == nil {
				left = append(left, p)
			}
		}
		if len(left) < len(open) {
			c.slowest = max(c.slowest, time.Since(start))
		}
		if open = left; time.Since(start) > limit {
			t.Fatalf("%d peers that never read are still there", len(open))
		}
	}
	c.others.stop(seen)
}

// live returns what is left of the server's heap when its collector has run.
func (c *neverRead) live(t *testing.T) int64 {
	t.Helper()
	_, body, err := c.s.get("/live")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(body), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
