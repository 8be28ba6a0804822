// Package gnetecho is what the three gnet servers have in common. Written as
// gnet's README and gnet-examples/simple_protocol have it: level-triggered, Peek
// and Discard, one write for all frames of a read.
package gnetecho

import (
	"log"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"heartwheel/bench/peers/peer"
)

// Engine is an event handler that says where it listens, and no more.
type Engine struct{ gnet.BuiltinEventEngine }

// Run serves until the process ends.
func Run(h gnet.EventHandler, o peer.Options) {
	peer.Fail(gnet.Run(h, "tcp://"+o.Addr, gnet.WithMulticore(o.Loops > 1), gnet.WithNumEventLoop(o.Loops),
		gnet.WithLogger(errorLog{})))
}

// errorLog keeps gnet's log off standard output, which is the harness's.
type errorLog struct{}

func (errorLog) Debugf(string, ...any)          {}
func (errorLog) Infof(string, ...any)           {}
func (errorLog) Warnf(string, ...any)           {}
func (errorLog) Errorf(format string, a ...any) { log.Printf("gnet: "+format, a...) }
func (errorLog) Fatalf(format string, a ...any) { log.Fatalf("gnet: "+format, a...) }

// OnBoot implements gnet.EventHandler. The listener accepts already.
func (e *Engine) OnBoot(g gnet.Engine) gnet.Action {
	fd, err := g.Dup()
	if err != nil {
		peer.Fail(err)
	}
	addr, err := peer.Address(fd)
	if err != nil {
		peer.Fail(err)
	}
	_ = unix.Close(fd)
	peer.Listening(addr)
	return gnet.None
}

// Echo answers all whole frames of c, and reports whether there was one. It is
// called in OnTraffic.
func Echo(c gnet.Conn) (whole bool, action gnet.Action) {
	have := c.InboundBuffered()
	if have < peer.Header {
		return false, gnet.None
	}
	// While a frame is incomplete only its header is looked at: to peek at all
	// of it would copy it each time.
	head, err := c.Peek(peer.Header)
	if err != nil {
		return false, gnet.Close
	}
	size, ok := peer.Size(head)
	if !ok {
		return false, gnet.Close
	}
	if have < size {
		return false, gnet.None
	}
	b, err := c.Peek(-1)
	if err != nil {
		return false, gnet.Close
	}
	n, ok := peer.Whole(b)
	if !ok {
		return false, gnet.Close
	}
	if _, err := c.Write(b[:n]); err != nil {
		return false, gnet.Close
	}
	if _, err := c.Discard(n); err != nil {
		return false, gnet.Close
	}
	return true, gnet.None
}
