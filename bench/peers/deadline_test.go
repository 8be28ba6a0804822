//go:build linux

package peers

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/bench/peers/peer"
)

const (
	timeout = 1500 * time.Millisecond
	beat    = timeout / 15

	// late is how late a server may notice: heartwheel's promise, 200 ms, is the
	// widest of all; early is how early one that is known for it may. lagging is
	// how often what a sleeper of this test was late by may have happened on the
	// way: to the server's timer, to its loop, to the test's reader.
	late    = 200 * time.Millisecond
	lagging = 3
	early   = 100 * time.Millisecond
)

// A lag adds up by how much this machine lets sleepers oversleep: what it does
// to the test it may have done to the servers.
type lag struct{ total atomic.Int64 }

func measureLag(t *testing.T) *lag {
	l, quit := new(lag), make(chan struct{})
	t.Cleanup(func() { close(quit) })
	go func() {
		const nap = 5 * time.Millisecond
		for {
			select {
			case <-quit:
				return
			default:
			}
			begin := time.Now()
			time.Sleep(nap)
			l.total.Add(int64(max(0, time.Since(begin)-nap-time.Millisecond)))
		}
	}()
	return l
}

func (l *lag) sum() time.Duration { return time.Duration(l.total.Load()) }

// A life is what became of a connection.
type life struct {
	lastSent time.Time     // before the last whole frame was written
	gap      time.Duration // longest time between two of its frames, both writes included
	closed   time.Time     // zero: it was still open at the end
	lag      time.Duration // that was measured meanwhile
}

// live dials, beats n times, does what then says, and waits until the connection
// is closed, at the latest for the time given.
func live(t *testing.T, s *server, n int, then func(*net.TCPConn), end time.Duration, slow *lag) life {
	l, before := life{lastSent: time.Now()}, slow.sum()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Error(err)
		return l
	}
	defer conn.Close()
	c := conn.(*net.TCPConn)
	closed := make(chan time.Time, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			close(closed)
			return
		}
		closed <- time.Now()
	}()
	var next [peer.Header]byte
	for range n {
		time.Sleep(beat)
		previous := l.lastSent
		sent := time.Now()
		if _, err := c.Write(next[:]); err != nil {
			break
		}
		l.lastSent = sent
		l.gap = max(l.gap, time.Since(previous))
	}
	if then != nil {
		then(c)
	}
	_ = c.SetReadDeadline(l.lastSent.Add(end))
	l.closed = <-closed
	l.lag = slow.sum() - before
	return l
}

// judge checks that a connection which fell silent was closed at about the
// timeout, but for those that have none.
func judge(t *testing.T, what string, b subject, l life) {
	t.Helper()
	after := l.closed.Sub(l.lastSent)
	least := timeout
	if b.early {
		least -= early
	}
	switch {
	case !b.deadline:
		if !l.closed.IsZero() {
			t.Errorf("%s, %s: closed after %s, by a server without deadlines", b.name, what, after)
		}
	case l.closed.IsZero():
		t.Errorf("%s, %s: still open after %s", b.name, what, limit)
	case after < least && l.gap < least:
		t.Errorf("%s, %s: closed after %s, the timeout is %s", b.name, what, after, timeout)
	case after > timeout+late+lagging*l.lag:
		t.Errorf("%s, %s: closed only after %s, the timeout is %s; this machine was late by %s in all", b.name,
			what, after, timeout, l.lag)
	default:
		t.Logf("%s, %s: closed %s after the timeout", b.name, what, after-timeout)
	}
}

// dribble sends part of a frame, byte by byte, for longer than the timeout.
func dribble(c *net.TCPConn) {
	part := append(binary.BigEndian.AppendUint32(nil, peer.MaxFrame), 3)
	for range int(timeout/beat) + 5 {
		if _, err := c.Write(part); err != nil {
			return
		}
		part = []byte{0}
		time.Sleep(beat)
	}
}

// TestDeadline has all servers at work at once, as all do little but wait.
func TestDeadline(t *testing.T) {
	slow := measureLag(t)
	var wg sync.WaitGroup
	for _, b := range subjects {
		if why := absent[b.name]; why != "" {
			t.Logf("%s is left out: %s", b.name, why)
			continue
		}
		s := start(t, b, timeout)
		end := limit
		if !b.deadline {
			end = 2 * timeout
		}
		wg.Go(func() { judge(t, "silent from the start", b, live(t, s, 0, nil, end, slow)) })
		wg.Go(func() { judge(t, "silent after beats", b, live(t, s, 20, nil, end, slow)) })
		wg.Go(func() { judge(t, "never whole again", b, live(t, s, 1, dribble, end, slow)) })
		wg.Go(func() {
			var beaten time.Time
			l := live(t, s, 30, func(c *net.TCPConn) {
				beaten = time.Now()
				_ = c.CloseWrite()
			}, end, slow)
			switch {
			case l.gap+lagging*l.lag >= timeout-early:
				t.Logf("%s: too busy a machine to tell: %s between two beats, and late by %s "+
					"in all", b.name, l.gap, l.lag)
			case !l.closed.IsZero() && l.closed.Before(beaten):
				t.Errorf("%s: closed while it beat, with %s between two beats at most", b.name, l.gap)
			}
		})
	}
	wg.Wait()
}
