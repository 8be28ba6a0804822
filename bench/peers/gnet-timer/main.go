// Command gnet-timer is gnet with a time.Timer for each connection, which every
// read that completes a frame resets.
package main

import (
	"time"

	"github.com/panjf2000/gnet/v2"

	"heartwheel/bench/peers/gnetecho"
	"heartwheel/bench/peers/peer"
)

type server struct {
	gnetecho.Engine
	timeout time.Duration
}

func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	peer.Conns.Add(1)
	// Close is one of the few methods of a gnet.Conn for any goroutine; on a
	// connection that has ended meanwhile it does nothing.
	c.SetContext(time.AfterFunc(s.timeout, func() { _ = c.Close() }))
	return nil, gnet.None
}

func (s *server) OnClose(c gnet.Conn, _ error) gnet.Action {
	peer.Conns.Add(-1)
	c.Context().(*time.Timer).Stop()
	return gnet.None
}

func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	whole, action := gnetecho.Echo(c)
	if whole {
		c.Context().(*time.Timer).Reset(s.timeout)
	}
	return action
}

func main() {
	o := peer.Start()
	gnetecho.Run(&server{timeout: o.Timeout}, o)
}
