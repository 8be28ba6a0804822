// Command nbio is github.com/lesismal/nbio with its own deadlines: a connection
// whose read deadline passes is closed by nbio, and SetReadDeadline is to be
// called whenever a message has come (comment of Conn.SetReadDeadline). The rest
// is the quick start of README.md: level-triggered, read in the poller. -tls is
// nbio's own TLS in between, see tls.go.
package main

import (
	"flag"
	"net"
	"time"

	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"

	"heartwheel/bench/peers/peer"
)

func main() {
	secure := flag.Bool("tls", false, "serve TLS, with a self-signed certificate")
	o := peer.Start()
	logging.SetLevel(logging.LevelNone) // it would write to standard output

	engine := nbio.NewEngine(nbio.Config{
		Network:            "tcp",
		Addrs:              []string{o.Addr},
		Listen:             func(_, _ string) (net.Listener, error) { return o.Listen() },
		NPoller:            o.Loops,
		MaxWriteBufferSize: 6 * 1024 * 1024, // as in README.md
	})
	if *secure {
		if err := serveTLS(engine, o.Timeout); err != nil {
			peer.Fail(err)
		}
	} else {
		serve(engine, o.Timeout)
	}
	if err := engine.Start(); err != nil {
		peer.Fail(err)
	}
	peer.Listening(engine.Addrs[0])
	select {}
}

func serve(engine *nbio.Engine, timeout time.Duration) {
	engine.OnOpen(func(c *nbio.Conn) { opened(c, timeout) })
	engine.OnClose(func(*nbio.Conn, error) { peer.Conns.Add(-1) })
	engine.OnData(func(c *nbio.Conn, data []byte) {
		// The session is the part of a frame that earlier data ended with, and
		// nil while there is none. data is nbio's, which reads into it again.
		rest, _ := c.Session().([]byte)
		left := echo(c, c, rest, data, timeout)
		if rest != nil || left != nil {
			c.SetSession(left)
		}
	})
}

func opened(c *nbio.Conn, timeout time.Duration) {
	peer.Conns.Add(1)
	_ = c.SetReadDeadline(time.Now().Add(timeout))
}

// echo answers the whole frames of rest and data, and returns what is left of
// them, in memory of its own; nil: nothing. to is c, or TLS over it.
func echo(c *nbio.Conn, to net.Conn, rest, data []byte, timeout time.Duration) (left []byte) {
	if rest != nil {
		data = append(rest, data...)
	}
	n, ok := peer.Whole(data)
	if !ok {
		_ = c.Close()
		return nil
	}
	if n > 0 {
		_ = c.SetReadDeadline(time.Now().Add(timeout))
		_, _ = to.Write(data[:n]) // copies what the socket does not take; closes on an error
	}
	switch {
	case n == len(data):
		return nil
	case rest != nil:
		return data[n:]
	}
	return append([]byte{}, data[n:]...)
}
