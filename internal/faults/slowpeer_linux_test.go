package faults

import (
	"bytes"
	be "encoding/binary"
	"errors"
	"math"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// TestSlowReaders is the reading half of case 9. Peers for which much waits
// read it at a steady pace of their own, and beat. Those that take less than
// 4 KiB in each write stall are closed for it, those that take more live for as
// long as they like and get every byte. More is four times as much: a full buffer
// opens again in steps, of 7 KB here, and what counts is what it has taken.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	// The timeout is short, as the kernel's own clocks follow it: they must not
	// end a slow reader either.
	stall, timeout := sized[time.Duration](2, 2, 8)*time.Second, sized[time.Duration](2000, 2000, 7500)*time.Millisecond
	watched := sized[time.Duration](6, 10, 60) * time.Second
	s := startServer(t, binary(t), "--beat", "1s", "--timeout", timeout.String(), "--write-stall", stall.String(),
		"--outbox", "64MiB", "--drain", "1s")
	least := 4096 / stall.Seconds() // bytes a second
	peers := []*slowPeer{
		{name: "1 byte a second", segment: 88, chunk: 1, every: time.Second},
		{name: "1 byte a second, large segments", segment: 1400, chunk: 1, every: time.Second},
		{name: "a quarter of the least pace", segment: 88, chunk: int(least / 40), every: time.Second / 10},
		{name: "4 times the least pace", segment: 536, chunk: int(least / 2.5), every: time.Second / 10, honest: true},
		{name: "4 times the least pace, large segments", segment: 1400, chunk: int(least / 2.5),
			every: time.Second / 10, honest: true},
		{name: "30 kB/s, large segments", segment: 1400, chunk: 3000, every: time.Second / 10, honest: true},
	}
	w := watch(t, s)
	slow := 0
	for _, p := range peers {
		dialSlow(t, s.addr, p)
		p.live() // before anything waits for it: its pace counts from then on
		p.fill(s, 256<<10+int(watched/p.every)*p.chunk)
		if !p.honest {
			slow++
		}
	}
	time.Sleep(watched)
	s.await("the slow ones are closed", func(m metrics) bool {
		return m.by("heartwheel_closed_total")["slow_consumer"] >= float64(slow)
	})
	for _, p := range peers {
		if p.honest {
			p.fast.Store(true)
			p.wantAll(t)
		}
	}
	delays := w.stop()
	s.check()
	if closed := s.metrics().by("heartwheel_closed_total"); len(closed) != 1 ||
		closed["slow_consumer"] != float64(slow) {
		t.Errorf("the server closed %v, not just %d for slow_consumer", closed, slow)
	}
	for _, p := range peers {
		if !p.honest {
			p.judge(t, stall, delays)
		}
	}
	figure(t, 9, "%d readers below 4 KiB in %s closed within it and an eighth, 3 above it lived for %s and "+
		"got all", slow, stall, watched)
}

// A slowPeer asks for more echoes than its socket holds, reads them at a pace
// of its own, and beats. Its receive buffer is small, so that the server sees
// the pace, and so are its segments: a window opens by one at a time, and on
// the loopback interface one is 64 KiB.
type slowPeer struct {
	*conn
	name    string
	segment int           // bytes; 88 is the least that Linux knows
	chunk   int           // bytes it reads
	every   time.Duration // at a time
	honest  bool          // it must not be closed

	frames atomic.Uint32 // that it asks for; the most there is until that is known
	filled int64         // monotonic, when the last of them had reached the server
	fast   atomic.Bool   // it reads as they come from now on
	got    atomic.Int64  // bytes it has read
	gone   chan struct{} // closed when a beat could not be sent
	before int64         // monotonic, when the last one was sent
	seen   int64         // and when the next one could not be
	order  chan error    // what came of reading: nil after the last frame
}

// dialSlow connects p. What it sets has to be set before.
func dialSlow(t testing.TB, addr string, p *slowPeer) {
	t.Helper()
	if err := dialSlowFrom(t, "127.0.0.1", addr, p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.reset)
}

func dialSlowFrom(t testing.TB, source, addr string, p *slowPeer) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: limit,
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) {
				err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, p.segment))
			}), err)
		}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	p.conn = &conn{TCPConn: nc.(*net.TCPConn), t: t}
	p.gone, p.order = make(chan struct{}), make(chan error, 1)
	p.frames.Store(math.MaxUint32)
	return nil
}

// slowPayload is the size of each DATA frame that a slow peer asks for.
const slowPayload = 1000

// fill asks for echoes until more than backlog bytes of them wait for p in the
// server, beside what its socket holds. One that is too slow may be closed before.
func (p *slowPeer) fill(s *serverProcess, backlog int) {
	p.t.Helper()
	waiting := func() float64 { return s.metrics().value("heartwheel_outbox_bytes") }
	frames := uint32(0)
	for most := waiting() + float64(backlog); waiting() < most; {
		var b []byte
		for range 20 {
			b = codec.AppendData(b, be.BigEndian.AppendUint32(make([]byte, slowPayload-4), frames))
			frames++
		}
		if err := p.sendErr(b); err != nil {
			if p.honest {
				p.t.Fatalf("%s: %v", p.name, err)
			}
			break
		}
		if frames > 100_000 {
			p.t.Fatalf("%s: 100 MB of echoes, and the server says that no socket is full", p.name)
		}
	}
	_ = p.SetWriteDeadline(time.Time{}) // it beats for longer
	p.frames.Store(frames)
	p.filled = monotonic()
}

// live reads and beats until the connection ends.
func (p *slowPeer) live() {
	go func() {
		defer close(p.gone)
		for {
			at := monotonic()
			if _, err := p.Write(beat); err != nil {
				p.seen = monotonic()
				return
			}
			p.before = at
			time.Sleep(20 * time.Millisecond)
		}
	}()
	go func() { p.order <- p.read() }()
}

// read reads, and wants each frame in its place; beats may come between.
func (p *slowPeer) read() error {
	chunk, have := make([]byte, 64<<10), []byte{}
	at := time.Now()
	for next := uint32(0); next < p.frames.Load(); { // the answers to beats end a read that waits
		most := len(chunk)
		if !p.fast.Load() {
			at = at.Add(p.every) // a read that came late does not make the next one late
			time.Sleep(time.Until(at))
			most = p.chunk
		}
		n, err := p.Read(chunk[:most])
		if err != nil {
			return err
		}
		p.got.Add(int64(n))
		have = append(have, chunk[:n]...)
		for {
			f, size, err := codec.Decode(have, codec.MaxFrameLimit)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			if f.Op == codec.OpData {
				if want := be.BigEndian.AppendUint32(make([]byte, slowPayload-4), next); !bytes.Equal(f.Payload, want) {
					return errors.New("a frame is out of order")
				}
				next++
			}
			have = have[size:]
		}
	}
	return nil
}

// wantAll wants everything that p asked for.
func (p *slowPeer) wantAll(t *testing.T) {
	t.Helper()
	select {
	case err := <-p.order:
		if err != nil {
			t.Errorf("%s: %v after %d bytes", p.name, err, p.got.Load())
		}
	case <-time.After(limit):
		t.Errorf("%s: only %d bytes came", p.name, p.got.Load())
	}
}

// judge holds the end of a peer that is too slow against the promise. What it
// takes counts until its receive buffer is full, which may be some time after
// the last frame was sent: the acknowledgements for that are delayed by 40 ms.
func (p *slowPeer) judge(t *testing.T, stall time.Duration, delays []delay) {
	t.Helper()
	select {
	case <-p.gone:
	case <-time.After(limit):
		t.Errorf("%s: was not closed", p.name)
		return
	}
	const settling = 200 * time.Millisecond
	last := p.filled + int64(stall+stall/8+lateTicks*tick+settling)
	bound := last + int64(heldUp(delays, p.filled, p.before)+credited(delays, p.filled, p.before)) + p.seen - p.before
	t.Logf("%s: closed after %.3f s, %d bytes read", p.name, float64(p.seen-p.filled)/1e9, p.got.Load())
	if p.seen > bound {
		t.Errorf("%s: closed %.3f s after the last frame was sent; the bound is %.3f s",
			p.name, float64(p.seen-p.filled)/1e9, float64(bound-p.filled)/1e9)
	}
}
