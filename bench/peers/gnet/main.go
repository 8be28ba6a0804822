// Command gnet is the floor: a bare gnet echo server without deadlines.
// github.com/panjf2000/gnet, README.md.
package main

import (
	"github.com/panjf2000/gnet/v2"

	"heartwheel/bench/peers/gnetecho"
	"heartwheel/bench/peers/peer"
)

type server struct{ gnetecho.Engine }

func (s *server) OnOpen(gnet.Conn) ([]byte, gnet.Action) {
	peer.Conns.Add(1)
	return nil, gnet.None
}

func (s *server) OnClose(gnet.Conn, error) gnet.Action {
	peer.Conns.Add(-1)
	return gnet.None
}

func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	_, action := gnetecho.Echo(c)
	return action
}

func main() {
	gnetecho.Run(&server{}, peer.Start())
}
