// Pusher is a server that pushes data to every connection all the time, and
// logs each close event with its reason and the monotonic time.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/server"
)

func main() {
	listen := flag.String("listen", "tcp://127.0.0.1:0", "address for clients")
	timeout := flag.Duration("timeout", 3*time.Second, "idle timeout")
	every := flag.Duration("every", 10*time.Millisecond, "distance of pushes")
	size := flag.Int("size", 4096, "bytes of a push")
	outbox := flag.Int("outbox", 0, "bytes that may wait for a peer; 0: the server's default")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	cfg := server.Config{Listen: []string{*listen}, Timeout: *timeout, Outbox: *outbox, Logger: log}
	if err := run(cfg, *every, make([]byte, *size)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(cfg server.Config, every time.Duration, payload []byte) error {
	p := &pusher{log: cfg.Logger, conns: map[*server.Conn]struct{}{}}
	s, err := server.New(cfg, p)
	if err != nil {
		return err
	}
	ops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go http.Serve(ops, s.OpsHandler()) // until the process is killed
	cfg.Logger.Info("listening", "addr", s.Addrs()[0].String())
	cfg.Logger.Info("ops listening", "addr", ops.Addr().String())
	go p.push(every, payload)
	return s.Run(context.Background())
}

type pusher struct {
	log *slog.Logger

	mu    sync.Mutex
	conns map[*server.Conn]struct{} // guarded by mu
}

func (p *pusher) Open(c *server.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[c] = struct{}{}
}

func (p *pusher) Frame(*server.Conn, codec.Frame) error { return nil }

func (p *pusher) Close(c *server.Conn, why server.Reason) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	p.log.Info("close event", "addr", c.RemoteAddr().String(), "reason", why.String(), "at", now.Nano())
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// push never ends, whether or not anything arrives.
func (p *pusher) push(every time.Duration, payload []byte) {
	for range time.Tick(every) {
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Post(func(c *server.Conn) { _ = c.Send(codec.OpData, payload) })
		}
		p.mu.Unlock()
	}
}
