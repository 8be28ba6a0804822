package faults

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// badKinds is what bad peers send. Those with a code are closed with it after the
// given time; the others are served, and
// leave by themselves.
var badKinds = []struct {
	name  string
	input []byte
	code  codec.Code
	after time.Duration
	ends  string
}{
	{"byte at a time", append(append(hello(`{"device":"slow"}`), beat...),
		codec.AppendData(nil, []byte("data"))...), 0, 0, "peer_closed"},
	{"partial frame", raw("00 00 00 05 03 61"), codec.CodeIncomplete, incomplete, "incomplete"},
	{"garbage", slices.Repeat(raw("99 c3 28 ff"), 500), codec.CodeProtocolError, 0, "protocol_error"},
	{"oversize", raw("00 01 00 01 03 61 61 61"), codec.CodeFrameTooLarge, 0, "frame_too_large"},
	{"TLS", append(raw("16 03 01 02 00 01 00 01 fc 03 03"), make([]byte, 506)...),
		codec.CodeProtocolError, 0, "protocol_error"},
	{"HTTP", []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"), codec.CodeProtocolError, 0, "protocol_error"},
}

// A badPeer is one connection that sends bad input, and its result.
type badPeer struct {
	c          *conn
	kind       int
	sent, seen int64 // monotonic: before its input was written, and after its end was read
	err        error
}

// TestBadCrowd feeds the real command with much bad input at the same time.
// Each connection ends for its own reason and in time, and others notice
// nothing.
func TestBadCrowd(t *testing.T) {
	t.Parallel()
	each := sized(10, 100, 834) // of six kinds
	over := sized(100*time.Millisecond, 500*time.Millisecond, 3*time.Second)
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	good := startNeighbours(t, s.addr, 8)
	var peers []*badPeer
	for range each {
		for kind := range badKinds {
			peers = append(peers, &badPeer{c: dial(t, s.addr), kind: kind})
		}
	}
	w, lag := watch(t, s), ownLag()
	var all sync.WaitGroup
	for i, p := range peers {
		all.Go(func() {
			time.Sleep(over * time.Duration(i) / time.Duration(len(peers)))
			p.run()
		})
	}
	all.Wait()
	late := lag()
	if err := good.stop(); err != nil {
		t.Errorf("a connection that behaved was affected: %v", err)
	}
	m := s.await("all bad ones are closed", func(m metrics) bool {
		return m.sum("heartwheel_closed_total") >= float64(len(peers))
	})
	want, slowest := judgeBad(t, peers, w.stop(), late)
	got := m.by("heartwheel_closed_total")
	for reason := range got {
		want[reason] += 0
	}
	for reason, n := range want {
		if got[reason] != n {
			t.Errorf("%v connections were closed for %s, not %v", got[reason], reason, n)
		}
	}
	if n := m.value("heartwheel_connections"); n != float64(len(good.conns)) {
		t.Errorf("%v connections are open, not %d", n, len(good.conns))
	}
	s.check()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 10, "%d connections of bad input, %d of each kind, closed for %v; late at most: %s (this process up to "+
		"%s); %d neighbours unaffected",
		len(peers), each, got, strings.Join(slowest, ", "), late.Round(100*time.Microsecond), len(good.conns))
}

// judgeBad holds each of them against the promise. It returns how many have to
// be counted for each reason, and how late the latest of each kind was.
func judgeBad(t *testing.T, peers []*badPeer, delays []delay,
	late time.Duration) (want map[string]float64, slowest []string) {
	t.Helper()
	took := make([][]time.Duration, len(badKinds))
	want = map[string]float64{}
	wrongs := 0
	wrong := func(format string, args ...any) {
		t.Helper()
		if wrongs++; wrongs <= 10 {
			t.Errorf(format, args...)
		}
	}
	for _, p := range peers {
		kind := badKinds[p.kind]
		want[kind.ends]++
		if p.err != nil {
			wrong("%s: %v", kind.name, p.err)
			continue
		}
		if kind.code == 0 {
			continue
		}
		lateBy := time.Duration(p.seen-p.sent) - kind.after
		took[p.kind] = append(took[p.kind], lateBy)
		if lateBy < 0 {
			wrong("%s: closed %s before %s were over", kind.name, -lateBy, kind.after)
		}
		bound := lateTicks*tick + late + heldUp(delays, p.sent+int64(kind.after), p.seen) +
			credited(delays, p.sent, p.seen)
		if lateBy > bound {
			wrong("%s: closed %s late; the bound is %s", kind.name, lateBy, bound)
		}
	}
	if wrongs > 10 {
		t.Errorf("and %d times more", wrongs-10)
	}
	for kind, all := range took {
		if len(all) > 0 {
			slowest = append(slowest, fmt.Sprintf("%s %s", badKinds[kind].name,
				slices.Max(all).Round(100*time.Microsecond)))
		}
	}
	return want, slowest
}

// run sends the input and waits for what has to come.
func (p *badPeer) run() {
	kind := badKinds[p.kind]
	p.sent = monotonic()
	if kind.code == 0 {
		p.err = dribble(p.c, kind.input)
		_ = p.c.Close()
		return
	}
	if p.err = p.c.sendErr(kind.input); p.err != nil {
		return
	}
	f, err := p.c.frameErr()
	p.seen = monotonic()
	code, _, perr := codec.ParseClose(f.Payload)
	if err := errors.Join(err, perr); err != nil || f.Op != codec.OpClose || code != kind.code {
		p.err = fmt.Errorf("got %s %q %w, not close %d", f.Op, f.Payload, err, kind.code)
		return
	}
	if _, err = p.c.frameErr(); err != io.EOF {
		p.err = fmt.Errorf("%w, not the end", err)
	}
}

// dribble sends frames in packets of one byte, and wants the answers to them.
func dribble(c *conn, input []byte) error {
	for i := range input { // Go sends each at once: no delay is the default
		if err := c.sendErr(input[i : i+1]); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	for _, op := range []codec.Op{codec.OpWelcome, codec.OpBeat, codec.OpData} {
		if f, err := c.frameErr(); err != nil || f.Op != op {
			return fmt.Errorf("got %s %q %w, not %s", f.Op, f.Payload, err, op)
		}
	}
	return nil
}
