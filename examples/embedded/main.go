// Command embedded is a chat room with a heartwheel server inside: who says
// HELLO comes in under the name of its device, and what one says all hear.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"heartwheel/codec"
	"heartwheel/server"
)

// A room handles all connections. One connection's callbacks come from its own
// event loop, one after the other; what the loops share must bear all of them.
type room struct{ members sync.Map } // keys are *server.Conn

// Hello is the place to check h.Token: an error refuses the connection.
func (r *room) Hello(c *server.Conn, h codec.Hello) error {
	c.SetValue(cmp.Or(h.Device, c.RemoteAddr().String()))
	return nil
}

func (r *room) Open(c *server.Conn) {
	r.members.Store(c, true)
	r.tell("%s is here", c.Value())
}

func (r *room) Frame(c *server.Conn, f codec.Frame) error {
	if f.Op == codec.OpData {
		r.tell("%s: %s", c.Value(), f.Payload)
	}
	return nil
}

// Close is the one end of every Open. The reason of a missed heartbeat is
// server.IdleTimeout.
func (r *room) Close(c *server.Conn, why server.Reason) {
	r.members.Delete(c)
	r.tell("%s has left: %s", c.Value(), why)
}

// tell sends to everybody, each on the loop that the connection belongs to.
func (r *room) tell(format string, args ...any) {
	text := fmt.Appendf(nil, format, args...)
	log.Printf("%s", text)
	for c := range r.members.Range {
		_ = c.(*server.Conn).Post(func(c *server.Conn) { _ = c.Send(codec.OpData, text) }) // fails if it is leaving
	}
}

func main() {
	listen := flag.String("listen", "tcp://127.0.0.1:9000", "address for clients")
	ops := flag.String("ops", "127.0.0.1:9090", "address for health and metrics")
	flag.Parse()
	s, err := server.New(server.Config{Listen: []string{*listen}, RequireHello: true, Drain: 5 * time.Second}, &room{})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", *ops)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Print(http.Serve(ln, s.OpsHandler())) }()
	log.Printf("listening on %s, ops on %s", s.Addrs()[0], ln.Addr())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := s.Run(ctx); err != nil { // until a signal comes, then it drains
		log.Fatal(err)
	}
}
