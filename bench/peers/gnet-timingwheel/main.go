// Command gnet-timingwheel is gnet with RussellLuo/timingwheel: a timer for each
// connection, which every read that completes a frame stops and makes anew. It
// has no Reset; Stop and AfterFunc is what its documentation has for it.
//
// The wheel has heartwheel's tick of 100 ms. It fires up to a tick early, and it
// goes by the wall clock; both is left as it is. It is made to reach eight times
// the timeout, beyond which nothing is ever armed: with less it can lock up
// (issue 53), and a second level of buckets would cost more.
package main

import (
	"time"

	"github.com/RussellLuo/timingwheel"
	"github.com/panjf2000/gnet/v2"

	"heartwheel/bench/peers/gnetecho"
	"heartwheel/bench/peers/peer"
)

const tick = 100 * time.Millisecond

type server struct {
	gnetecho.Engine
	timeout time.Duration
	wheel   *timingwheel.TimingWheel
}

// A session is the context of a connection. It belongs to its event loop.
type session struct {
	timer  *timingwheel.Timer
	expire func() // made once, so that arming does not make it each time
}

func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	peer.Conns.Add(1)
	// Close is one of the few methods of a gnet.Conn for any goroutine; on a
	// connection that has ended meanwhile it does nothing.
	expire := func() { _ = c.Close() }
	c.SetContext(&session{timer: s.wheel.AfterFunc(s.timeout, expire), expire: expire})
	return nil, gnet.None
}

func (s *server) OnClose(c gnet.Conn, _ error) gnet.Action {
	peer.Conns.Add(-1)
	c.Context().(*session).timer.Stop()
	return gnet.None
}

func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	whole, action := gnetecho.Echo(c)
	if whole {
		t := c.Context().(*session)
		t.timer.Stop()
		t.timer = s.wheel.AfterFunc(s.timeout, t.expire)
	}
	return action
}

func main() {
	o := peer.Start()
	s := &server{
		timeout: o.Timeout,
		wheel:   timingwheel.NewTimingWheel(tick, int64(8*o.Timeout/tick)+1),
	}
	s.wheel.Start()
	gnetecho.Run(s, o)
}
