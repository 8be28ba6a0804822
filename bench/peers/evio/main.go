// Command evio is github.com/tidwall/evio, as its README.md has it. It has no
// deadlines, and offers no way to close a connection from outside its loop, so
// this server has none: a silent peer stays for ever.
package main

import (
	"os"
	"strconv"

	"github.com/tidwall/evio"
	"golang.org/x/sys/unix"

	"heartwheel/bench/peers/peer"
)

func main() {
	o := peer.Start()
	var events evio.Events
	events.NumLoops = o.Loops
	events.Serving = func(s evio.Server) evio.Action {
		if err := noDelay(); err != nil {
			peer.Fail(err)
		}
		peer.Listening(s.Addrs[0].String())
		return evio.None
	}
	events.Opened = func(c evio.Conn) ([]byte, evio.Options, evio.Action) {
		peer.Conns.Add(1)
		c.SetContext(&evio.InputStream{})
		return nil, evio.Options{ReuseInputBuffer: true}, evio.None
	}
	events.Closed = func(evio.Conn, error) evio.Action {
		peer.Conns.Add(-1)
		return evio.None
	}
	events.Data = func(c evio.Conn, in []byte) ([]byte, evio.Action) {
		stream := c.Context().(*evio.InputStream)
		data := stream.Begin(in)
		n, ok := peer.Whole(data)
		if !ok {
			return nil, evio.Close
		}
		out := data[:n]
		if n < len(data) && len(data) != len(in) {
			// data is the stream's own, and End moves the rest over its front
			// before evio has taken out.
			out = append([]byte{}, out...)
		}
		stream.End(data[n:])
		return out, evio.None
	}
	peer.Fail(evio.Serve(events, "tcp://"+o.Addr))
}

// noDelay sets TCP_NODELAY on the listener, from which accepted sockets inherit
// it: evio sets it nowhere, and shows no descriptor.
func noDelay() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
				return err
			}
		}
	}
	return nil
}
