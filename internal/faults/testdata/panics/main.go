// Panics is a server whose handler panics where its client asks for it: in Open
// if the client's address is 127.66.0.1, in Hello if that is the device's name,
// and where DATA says: in Frame, Close, or a posted function. Everything else is
// echoed.
package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"heartwheel/codec"
	"heartwheel/server"
)

type handler struct{ server.Echo }

func panicIf(asked bool) {
	if asked {
		panic("asked for by the client")
	}
}

func (handler) Open(c *server.Conn) {
	panicIf(strings.HasPrefix(c.RemoteAddr().String(), "127.66.0.1:"))
}

func (handler) Hello(_ *server.Conn, h codec.Hello) error {
	panicIf(h.Device == "hello")
	return nil
}

func (h handler) Frame(c *server.Conn, f codec.Frame) error {
	switch string(f.Payload) {
	case "frame":
		panicIf(true)
	case "post":
		return c.Post(func(*server.Conn) { panicIf(true) })
	case "close":
		c.SetValue("close")
	}
	return h.Echo.Frame(c, f)
}

func (handler) Close(c *server.Conn, _ server.Reason) { panicIf(c.Value() == "close") }

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(log *slog.Logger) error {
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"},
		Drain: time.Second, Logger: log}, handler{})
	if err != nil {
		return err
	}
	ops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(ops, s.OpsHandler()) }()
	log.Info("ops listening", "addr", ops.Addr().String())
	log.Info("listening", "addr", s.Addrs()[0].String())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return s.Run(ctx)
}
