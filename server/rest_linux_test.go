package server

import (
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// Peers whose input takes long do not all get their turn before others get one.
func TestOthersBetweenHeavyPeers(t *testing.T) {
	const heavies, work = 32, time.Millisecond
	heavy, seen := 0, make(chan int, 1) // heavy is the loop's: callbacks since the last light one
	s := start(t, Config{Loops: 1}, hooks{frame: func(c *Conn, f codec.Frame) error {
		if len(f.Payload) < restBytes {
			seen <- heavy
			heavy = 0
			return nil
		}
		heavy++
		time.Sleep(work)
		return c.Send(codec.OpData, nil)
	}})
	frame, answer := codec.AppendData(nil, make([]byte, restBytes)), codec.AppendData(nil, nil)
	var all sync.WaitGroup
	var first sync.WaitGroup
	quit := make(chan struct{})
	for range heavies {
		c := dial(t, s)
		first.Add(1)
		all.Go(func() {
			for n := 0; ; n++ {
				_, _ = c.Write(frame)
				if _, err := io.ReadFull(c, make([]byte, len(answer))); err != nil {
					t.Errorf("a heavy peer, after %d answers: %v", n, err)
				}
				if n == 0 {
					first.Done()
				}
				select {
				case <-quit:
					return
				default:
				}
			}
		})
	}
	first.Wait()
	light := dial(t, s)
	var between []int
	for range 21 {
		_, _ = light.Write(data("light"))
		between = append(between, <-seen)
	}
	close(quit)
	all.Wait()
	slices.Sort(between[1:]) // the first counts from the start
	if median := between[len(between)/2]; median > heavies/3 {
		t.Errorf("between two frames of a light peer %d of %d heavy ones are served: %v", median, heavies, between[1:])
	}
	eventually(t, "none rests that sends nothing", func() bool {
		resting := -1
		s.ask(s.loops[0], func() { resting = len(s.engines[0].resting) })
		return resting == 0
	})
}

// A connection rests once, whatever pauses and resumes it meanwhile.
func TestRestsOnce(t *testing.T) {
	s := start(t, Config{Loops: 1}, Echo{})
	c := dial(t, s)
	in(t, c)
	l, e := s.loops[0], s.engines[0]
	if !s.ask(l, func() {
		conn := l.conns()[0]
		long := l.mono() - int64(time.Second)
		e.mayRest(conn, long)
		l.stopReading(conn)
		l.readOn(conn)
		e.mayRest(conn, long)
		if len(e.resting) != 1 {
			t.Errorf("it rests %d times", len(e.resting))
		}
	}) {
		t.Fatal("the loop does not run")
	}
	_, _ = c.Write(beat)
	expect(t, c, beat) // its rest ends
}

// Peers that read again, and for which input is held, do not all get their turn before
// others get one.
func TestOthersBetweenRelievedPeers(t *testing.T) {
	const conns, work = 32, 2 * time.Millisecond
	served, before := 0, make(chan int, 1) // served is the loop's
	s := start(t, Config{Loops: 1}, hooks{frame: func(_ *Conn, f codec.Frame) error {
		if string(f.Payload) == "held" {
			time.Sleep(work)
			served++
		} else {
			before <- served
		}
		return nil
	}})
	for range conns {
		in(t, dial(t, s))
	}
	l, e := s.loops[0], s.engines[0]
	var fds []int
	if !s.ask(l, func() {
		for _, c := range l.conns() {
			c.ensureExt().ensureOut()
			l.pause(c, flagFull)
			l.keepPartial(c, stageMessage, data("held"))
			e.blocked[c.sock.Fd()] = c
			fds = append(fds, c.sock.Fd())
		}
	}) {
		t.Fatal("the loop does not run")
	}
	light := dial(t, s)
	in(t, light)
	blocked, release := make(chan struct{}), make(chan struct{})
	if err := l.mail.postOwn(func() { close(blocked); <-release }); err != nil {
		t.Fatal(err)
	}
	<-blocked
	e.roomFor(fds)
	_, _ = light.Write(data("light"))
	time.Sleep(10 * time.Millisecond) // so that it has arrived
	close(release)
	if n := <-before; n > conns/4 {
		t.Errorf("a light peer was served after %d of %d others, which took %s each", n, conns, work)
	}
	eventually(t, "all are served", func() bool {
		n := 0
		return s.ask(l, func() { n = served }) && n == conns
	})
}
