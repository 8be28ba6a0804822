package server

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

// onBodies runs f with native over WebSocket, alone and in TLS.
func onBodies(t *testing.T, cfg Config, f func(t *testing.T, r *edgeRig)) {
	onEachEdge(t, cfg, func(t *testing.T, r *edgeRig) {
		if !r.bodies() {
			t.Skip("it is not WebSocket")
		}
		f(t, r)
	})
}

// sendFrames has the peer send WebSocket frames.
func (r *edgeRig) sendFrames(c *Conn, frames ...[]byte) {
	b := bytes.Join(frames, nil)
	if p := r.peers[c]; p != nil {
		b = p.seal(r.t, b)
	}
	r.feed(c, b)
}

// Each fragment and each control frame is a sign of life, and begins the 10 s of an
// incomplete message anew.
func TestWebSocketSignsOfLife(t *testing.T) {
	onBodies(t, profile(t, "fast"), func(t *testing.T, r *edgeRig) { // idle timeout 7.5 s
		c := r.open()
		r.sendFrames(c, masked(wsBinary&^wsFin, "\x03a"))
		for _, next := range [][]byte{
			masked(0, "b"), masked(wsPing, "p"), masked(wsPong, ""), masked(0, ""), masked(0, "c"),
		} {
			r.wait(7 * time.Second)
			r.alive(c, "with a message in fragments")
			r.sendFrames(c, next)
		}
		r.sendFrames(c, masked(wsFin, "d"))
		if got := r.heard(); !slices.Equal(got, []string{"abcd"}) {
			t.Errorf("heard %q", got)
		}
		from := time.Now()
		r.wait(7500*time.Millisecond + slack)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 7500*time.Millisecond)
	})
	onBodies(t, Config{}, func(t *testing.T, r *edgeRig) {
		c := r.open()
		r.sendFrames(c, masked(wsBinary&^wsFin, "\x03a"))
		r.wait(6 * time.Second)
		r.sendFrames(c, masked(wsPing, "p"))
		r.wait(6 * time.Second)
		r.alive(c, "10 s after the first fragment, 6 s after a ping")
		from := time.Now().Add(-6 * time.Second)
		r.sendFrames(c, masked(0, "bcd")[:8])
		r.wait(4*time.Second + slack)
		within(t, "closed", from, r.wantEnd(c, Incomplete, false).at, 10*time.Second)
	})
}

// A pong overtakes messages that wait, and a close frame none.
func TestWebSocketPongOvertakes(t *testing.T) {
	onBodies(t, Config{}, func(t *testing.T, r *edgeRig) {
		c := r.open()
		fill(r.rig, c)
		posted(t, r.rig, c, func(c *Conn) { _ = r.send(c, "sealed") })
		posted(t, r.rig, c, func(c *Conn) { _ = r.send(c, "one") })
		r.sendFrames(c, masked(wsPing, "p"))
		r.sendFrames(c, masked(wsClose, "\x10\xe1bye"))
		r.do(func() { r.writable(c, -1) })
		r.wantEnd(c, PeerClosed, false)
		want := []string{"pong p", "sealed", "one", "end"}
		if r.flipped() { // what is sealed stays first
			want[0], want[1] = want[1], want[0]
		}
		r.want(c, want...)
	})
}

// Pings that come faster than their pongs go out stop the input. None is lost.
func TestWebSocketPingFlood(t *testing.T) {
	onBodies(t, Config{MaxFrame: 1024, Outbox: 4096, WriteStall: time.Minute}, func(t *testing.T, r *edgeRig) {
		c := r.open()
		fill(r.rig, c)
		payload := strings.Repeat("p", 125)
		for range 10 {
			r.sendFrames(c, bytes.Repeat(masked(wsPing, payload), 100))
			r.do(func() {
				if c.queued() > 2*r.cfg.Outbox {
					t.Errorf("%d bytes wait", c.queued())
				}
			})
		}
		if !r.sock(c).paused {
			t.Error("it is read from")
		}
		r.check()
		for range 1000 {
			r.do(func() { r.writable(c, 3000) })
		}
		all := slices.DeleteFunc(r.messages(c, false), func(s string) bool { return s != "pong "+payload })
		if n := len(all); n != 1000 {
			t.Errorf("%d of 1000 pings were answered", n)
		}
		noBytesWait(t, r.rig)
		r.alive(c, "with all of them answered")
	})
}

// A text message counts as DATA, and has its limit: that of the frame which it stands
// for.
func TestWebSocketTextLimit(t *testing.T) {
	onBodies(t, Config{MaxFrame: 1024}, func(t *testing.T, r *edgeRig) {
		r.rec.onFrame = func(c *Conn, f codec.Frame) error { return c.Send(f.Op, f.Payload) }
		c := r.open()
		s := strings.Repeat("x", 1023)
		r.sendFrames(c, masked(wsText, s))
		r.want(c, s)
		r.sendFrames(c, masked(wsText, s+"x"))
		r.wantEnd(c, FrameTooLarge, false)
	})
}
