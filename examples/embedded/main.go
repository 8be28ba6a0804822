// Command embedded is a chat room with a heartwheel server inside: a client enters
// with HELLO, under its device name, and its DATA goes to everybody in the room.
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

// A room handles all connections. The callbacks of one connection run on its event
// loop, one at a time; what the loops share must be safe for concurrent use.
type room struct{ members sync.Map } // keys are *server.Conn

// Hello would check h.Token: an error refuses the connection.
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

// Close is called once for each Open. The reason of a dead peer is
// server.IdleTimeout.
func (r *room) Close(c *server.Conn, why server.Reason) {
	r.members.Delete(c)
	r.tell("%s has left: %s", c.Value(), why)
}

// tell sends to all members, each on its own loop.
func (r *room) tell(format string, args ...any) {
	text := fmt.Appendf(nil, format, args...)
	log.Printf("%s", text)
	for c := range r.members.Range {
		_ = c.(*server.Conn).Post(func(c *server.Conn) {
			_ = c.Send(codec.OpData,
				text)
		}) // an error means that it is leaving
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
