// Sender is a server whose handler sends on its own, from goroutines. It echoes, and understands three words in DATA:
//
//	push N MS  N frames of 16 KiB to this connection, one every MS milliseconds,
//	           or with 0 as fast as its loop takes them
//	flood N 0  N numbered frames to this connection from each of two goroutines
//	spin 0 MS  for MS milliseconds, two goroutines keep this connection's loop busy with
//	           one short task each at a time; answered by DATA "spun" at the end
//	ack P 0    the client has read another block of the flood of goroutine P
//
// It logs where it listens as the command does.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"heartwheel/codec"
	"heartwheel/server"
)

const (
	pushSize  = 16 << 10
	atOnce    = 64   // pushes that loops have not done yet, over all connections
	producers = 2    // of a flood
	block     = 1024 // messages of a flood that are acknowledged together
	ahead     = 4    // blocks that a producer may be ahead of that; they fit into an outbox
)

// pushed is one push. All share it, as only the server's memory is of interest.
var pushed = codec.AppendData(nil, make([]byte, pushSize))

type handler struct{ slots chan struct{} }

// A target is a connection that is pushed to.
type target struct {
	gone chan struct{}            // closed by the close event
	room [producers]chan struct{} // one entry for each block that may be sent
}

func main() {
	loops := flag.Int("loops", 0, "event loops; 0: one for each processor")
	flag.Parse()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(*loops, log); err != nil {
		log.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(loops int, log *slog.Logger) error {
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0"}, Loops: loops, Logger: log},
		&handler{slots: make(chan struct{}, atOnce)})
	if err != nil {
		return err
	}
	ops, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log.Info("listening", "addr", s.Addrs()[0].String())
	log.Info("ops listening", "addr", ops.Addr().String())
	mux := http.NewServeMux()
	mux.Handle("/", s.OpsHandler())
	mux.HandleFunc("GET /live", live)
	go func() { log.Error("ops", "error", http.Serve(ops, mux)) }()
	return s.Run(context.Background())
}

// live runs the collector and writes how many bytes it left, less those that
// were allocated while it ran, which it leaves in any case.
func live(w http.ResponseWriter, _ *http.Request) {
	before := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	after := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(before)
	runtime.GC()
	metrics.Read(after)
	fmt.Fprintln(w, int64(after[1].Value.Uint64())-int64(after[0].Value.Uint64()-before[0].Value.Uint64()))
}

func (h *handler) Open(c *server.Conn) {}

func (h *handler) Close(c *server.Conn, _ server.Reason) {
	if t, ok := c.Value().(*target); ok {
		close(t.gone)
	}
}

func (h *handler) Frame(c *server.Conn, f codec.Frame) error {
	var word string
	var n, ms int
	if fields, _ := fmt.Sscan(string(f.Payload), &word, &n, &ms); fields != 3 {
		return server.Echo{}.Frame(c, f)
	}
	t, ok := c.Value().(*target)
	if !ok {
		t = &target{gone: make(chan struct{})}
		c.SetValue(t)
	}
	switch word {
	case "push":
		go h.push(c, t, n, time.Duration(ms)*time.Millisecond)
	case "flood":
		for p := range producers {
			t.room[p] = make(chan struct{}, ahead)
			for range ahead {
				t.room[p] <- struct{}{}
			}
			go flood(c, t, p, n)
		}
	case "spin":
		end := time.Now().Add(time.Duration(ms) * time.Millisecond)
		var wg sync.WaitGroup
		for range producers {
			wg.Go(func() { spin(c, t, end) })
		}
		go func() {
			wg.Wait()
			_ = post(c, func(c *server.Conn) { _ = c.Send(codec.OpData, []byte("spun")) })
		}()
	case "ack":
		t.room[n] <- struct{}{}
	default:
		return server.Echo{}.Frame(c, f)
	}
	return nil
}

// push sends n frames, or as many as the connection lives for. Those of
// different connections are not in step.
func (h *handler) push(c *server.Conn, t *target, n int, every time.Duration) {
	done := make(chan struct{}, 1)
	due := time.Now().Add(time.Duration(rand.Float64() * float64(every)))
	for range n {
		time.Sleep(time.Until(due))
		due = due.Add(every)
		h.slots <- struct{}{}
		err := post(c, func(c *server.Conn) {
			_ = c.Write(pushed) // if that fails, c is being closed
			done <- struct{}{}
		})
		if err == nil {
			select {
			case <-done:
			case <-t.gone:
				err = server.ErrClosed
			}
		}
		<-h.slots
		if err != nil {
			return
		}
	}
}

// flood sends n messages: the producer's number and the message's.
func flood(c *server.Conn, t *target, producer, n int) {
	for i := range n {
		if i%block == 0 {
			select {
			case <-t.room[producer]:
			case <-t.gone:
				return
			}
		}
		payload := binary.BigEndian.AppendUint32([]byte{byte(producer)}, uint32(i))
		if post(c, func(c *server.Conn) { _ = c.Send(codec.OpData, payload) }) != nil {
			return
		}
	}
}

// spin has the loop burn 100 µs at a time.
func spin(c *server.Conn, t *target, end time.Time) {
	done := make(chan struct{}, 1)
	for time.Now().Before(end) {
		if post(c, func(*server.Conn) {
			for start := time.Now(); time.Since(start) < 100*time.Microsecond; {
			}
			done <- struct{}{}
		}) != nil {
			return
		}
		select {
		case <-done:
		case <-t.gone:
			return
		}
	}
}

// post waits while the loop has too many tasks.
func post(c *server.Conn, f func(*server.Conn)) error {
	for {
		err := c.Post(f)
		if !errors.Is(err, server.ErrBusy) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
