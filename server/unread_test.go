package server

import (
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// hold puts bytes into the socket of c that the loop reads only when told to.
func hold(r *rig, c *Conn, b []byte) {
	s := r.sock(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox = append(s.inbox, b...)
}

// What saved a connection once says nothing about its next deadline: a frame
// wipes the slate, so unread bytes save it again, also after a part was read.
func TestUnreadSavesEachTime(t *testing.T) {
	const idle = 7500 * time.Millisecond
	frame := data("in two parts")
	for _, early := range []bool{false, true} { // part of the frame is read long before the deadline
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, profile(t, "fast"), nil)
			c := r.open()
			for round := range 4 {
				if early {
					r.wait(idle - 500*time.Millisecond)
					r.feed(c, frame[:7])
					r.wait(400 * time.Millisecond)
				} else {
					r.wait(idle - 100*time.Millisecond)
				}
				rest := frame
				if early {
					rest = frame[7:]
				}
				hold(r, c, rest)
				r.wait(3 * tick)
				r.alive(c, "with a frame unread")
				if n := r.stats().averted[avertedUnread]; n <= uint64(round) {
					t.Fatalf("round %d: averted %d times", round, n)
				}
				r.do(func() { r.read(c) })
				if n := len(r.rec.got); n != round+1 {
					t.Fatalf("round %d: %d frames", round, n)
				}
			}
			last := time.Now()
			r.wait(idle + slack)
			within(t, "expired", last, r.wantEnd(c, IdleTimeout, true).at, idle)
		})
	}
}

// A frame larger than one read is read in several: while the rest of it waits
// in the socket, what was read counts for nothing, but costs nothing either.
func TestUnreadLargeFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, profile(t, "fast"), nil)
		c := r.open()
		frame := codec.AppendFrame(nil, codec.OpData, make([]byte, 50_000))
		r.wait(7 * time.Second)
		s := r.sock(c)
		s.setUnread(len(frame))
		r.wait(500*time.Millisecond + slack)
		r.alive(c, "with all of it unread")
		for n := 0; len(frame) > 0; n++ {
			part := frame[:min(8192, len(frame))]
			frame = frame[len(part):]
			s.setUnread(len(frame))
			r.feed(c, part)
			r.alive(c, "with less of it unread")
			if len(frame) > 0 {
				r.wait(2 * tick)
			}
		}
		if n := len(r.rec.got); n != 1 {
			t.Fatalf("%d frames", n)
		}
		r.wait(7 * time.Second)
		r.alive(c, "after the frame")
	})
}
