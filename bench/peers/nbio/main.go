// Command nbio is github.com/lesismal/nbio with its own deadlines: a connection
// whose read deadline passes is closed by nbio, and SetReadDeadline is to be
// called whenever a message has come (comment of Conn.SetReadDeadline). The rest
// is the quick start of README.md: level-triggered, read in the poller.
package main

import (
	"net"
	"time"

	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"

	"heartwheel/bench/peers/peer"
)

func main() {
	o := peer.Start()
	logging.SetLevel(logging.LevelNone) // it would write to standard output

	engine := nbio.NewEngine(nbio.Config{
		Network:            "tcp",
		Addrs:              []string{o.Addr},
		Listen:             func(_, _ string) (net.Listener, error) { return o.Listen() },
		NPoller:            o.Loops,
		MaxWriteBufferSize: 6 * 1024 * 1024, // as in README.md
	})
	engine.OnOpen(func(c *nbio.Conn) {
		peer.Conns.Add(1)
		_ = c.SetReadDeadline(time.Now().Add(o.Timeout))
	})
	engine.OnClose(func(*nbio.Conn, error) { peer.Conns.Add(-1) })
	engine.OnData(func(c *nbio.Conn, data []byte) {
		// The session is the part of a frame that earlier data ended with, and
		// nil while there is none. data is nbio's, which reads into it again.
		rest, _ := c.Session().([]byte)
		if rest != nil {
			data = append(rest, data...)
		}
		n, ok := peer.Whole(data)
		if !ok {
			_ = c.Close()
			return
		}
		if n > 0 {
			_ = c.SetReadDeadline(time.Now().Add(o.Timeout))
			_, _ = c.Write(data[:n]) // copies what the socket does not take; closes on an error
		}
		switch {
		case n == len(data):
			if rest != nil {
				c.SetSession(nil)
			}
		case rest != nil:
			c.SetSession(data[n:])
		default:
			c.SetSession(append([]byte{}, data[n:]...))
		}
	})
	if err := engine.Start(); err != nil {
		peer.Fail(err)
	}
	peer.Listening(engine.Addrs[0])
	select {}
}
