package engine

import (
	"bytes"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/internal/epoll"
)

// beatLoad is a load of n connections that beat.
func beatLoad(n int, interval, duration time.Duration) *Load {
	return &Load{Connections: n, Processes: 1, Loops: 1, Duration: duration, ConnectRate: Rate{20e3, 20e3},
		ConnectTimeout: 10 * time.Second, Mode: ModeBeat, Interval: interval, Phase: PhaseUniform, Frame: FrameEmpty,
		Bound: 200 * time.Millisecond, PartialTimeout: 10 * time.Second, Seed: 1}
}

// pairLoop is a loop with one established connection over a pair of sockets, and the
// other socket.
func pairLoop(t testing.TB, load *Load) (l *loop, other int) {
	t.Helper()
	l = newLoop(load, 0, 1, nil, 0, nil, make(chan Message, 100))
	var err error
	if l.poller, err = epoll.New(maxEvents); err != nil {
		t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		l.poller.Close()
	})
	l.start = epoll.Monotonic()
	l.conns[0] = conn{fd: int32(fds[0]), injection: -1, state: stateUp}
	if err := l.poller.Add(fds[0], watched, l.conns[0].key(0)); err != nil {
		t.Fatal(err)
	}
	return l, fds[1]
}

// What one turn does not read, the next turns do, without another arrival.
func TestManyReads(t *testing.T) {
	l, other := pairLoop(t, beatLoad(1, 3*time.Second, 30*time.Second))
	b := bytes.Repeat(codec.AppendFrame(nil, 0x40, make([]byte, 995)), 1024)
	size := 4 * maxReads * len(l.buf)
	_ = unix.SetsockoptInt(other, unix.SOL_SOCKET, unix.SO_SNDBUF, size)
	sent := 0
	for sent < len(b) {
		n, err := unix.Write(other, b[sent:])
		if err != nil {
			break
		}
		sent += n
	}
	l.buf = l.buf[:sent/(maxReads*2)] // as if so much more had come
	for range 4 {
		if err := l.poll(0); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := unix.Read(int(l.conns[0].fd), l.buf); err != unix.EAGAIN {
		t.Errorf("%d of %d bytes were not read (%v)", n, sent, err)
	}
	if l.tallies.Wrong != 0 {
		t.Error(l.result.WrongExample)
	}
}

// Unsent bytes are sent when the socket takes them, in order, and count as sent then.
func TestPendingBytes(t *testing.T) {
	l, other := pairLoop(t, beatLoad(1, 3*time.Second, 30*time.Second))
	c := &l.conns[0]
	_ = unix.SetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4096)
	var want, got []byte
	for i := range 50 {
		b := bytes.Repeat([]byte{byte(i)}, 4000)
		want = append(want, b...)
		l.write(0, c, b, int64(i+1))
	}
	if c.flags&flagUnsent == 0 || c.lastFrame > 10 {
		t.Fatalf("flags %b, last frame %d: nothing waits", c.flags, c.lastFrame)
	}
	buf := make([]byte, 64<<10)
	for range 1000 {
		if n, err := unix.Read(other, buf); err == nil {
			got = append(got, buf[:n]...)
		}
		if err := l.poll(0); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came, %d were sent, or not in order", len(got), len(want))
	}
	if c.flags&flagUnsent != 0 || len(l.unsent) != 0 || c.lastFrame < l.start {
		t.Errorf("flags %b, %d wait, last frame %d", c.flags, len(l.unsent), c.lastFrame)
	}
}

// An event of an earlier socket of the conn is ignored.
func TestStaleEvent(t *testing.T) {
	l, other := pairLoop(t, beatLoad(1, 3*time.Second, 30*time.Second))
	l.conns[0].gen++
	_, _ = unix.Write(other, []byte{1, 2, 3, 4}) // would be a wrong answer
	if err := l.poll(0); err != nil {
		t.Fatal(err)
	}
	if l.tallies.Wrong != 0 {
		t.Errorf("%d", l.tallies.Wrong)
	}
}

func TestQueueKeepsTheOrder(t *testing.T) {
	var q connectQueue
	at := int64(0)
	for i := range int64(100000) {
		q.push(connectDeadline{at: i})
		if i%3 != 0 { // two are taken for three that come
			if got := q.entries[q.head].at; got != at {
				t.Fatalf("%d, want %d", got, at)
			}
			q.head++
			at++
		}
	}
	if cap(q.entries) > 150000 {
		t.Errorf("room for %d entries", cap(q.entries))
	}
}

func TestStamp(t *testing.T) {
	want := stamp{sent: 1 << 60, lag: 1 << 31, seq: firstSeq(7)}
	if b := appendStamp(nil, want); len(b) != MinPayload || parseStamp(b) != want {
		t.Errorf("% x is %+v", b, parseStamp(b))
	}
	seen := map[uint32]bool{}
	for i := range 100000 {
		seen[firstSeq(i)] = true
	}
	if len(seen) != 100000 {
		t.Errorf("%d numbers for 100,000 connections", len(seen))
	}
}

func TestHelloFrame(t *testing.T) {
	p := &Load{HelloBeat: 5 * time.Second, HelloBeats: "server", HelloDevice: "dev-", HelloToken: "s"}
	f, _, err := codec.Decode(p.AppendHello(nil, 42), codec.DefaultMaxFrame)
	if err != nil {
		t.Fatal(err)
	}
	h, err := codec.ParseHello(f.Payload)
	if want := (codec.Hello{V: 1, Token: "s", Device: "dev-42", BeatMS: 5000, Beats: "server"}); err != nil ||
		h != want {
		t.Errorf("%+v (%v), want %+v", h, err, want)
	}
}

// A loop that was paused across the end of hold sends what was due before the end.
func TestBeatsDueBeforeTheEnd(t *testing.T) {
	l, other := pairLoop(t, beatLoad(1, 100*time.Millisecond, time.Second))
	l.start -= int64(2 * time.Second)
	l.hold, l.end, l.mayEnd = l.start, l.start+int64(l.load.Duration), true
	for !l.done {
		l.runDue()
	}
	n, err := unix.Read(other, l.buf)
	l.judgeOpen(epoll.Monotonic())
	if r := &l.result; n != 10*len(l.beat) || l.tallies.Sent != 10 || r.Unanswered != 10 || r.Lag.Count() != 10 ||
		r.Lag.h.Max() < 1.9e9 {
		t.Errorf("%d bytes (%v), %d sent, %d without an answer, lag at most %d ns", n, err, l.tallies.Sent,
			r.Unanswered, r.Lag.h.Max())
	}
}

// A loop that never catches up ends all the same.
func TestOverload(t *testing.T) {
	l, _ := pairLoop(t, beatLoad(1, time.Millisecond, time.Second))
	l.start -= int64(time.Second) + endGrace
	l.hold, l.end, l.mayEnd = l.start, l.start+int64(l.load.Duration), true
	if l.runDue(); !l.done || l.tallies.Sent != maxSends {
		t.Errorf("over: %v, %d were sent", l.done, l.tallies.Sent)
	}
}
