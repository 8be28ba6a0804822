package client

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/server"
)

// asServer has the test binary be a server, so that only one end of each
// connection is in the process that is measured. It prints its address and
// lives as long as its standard input.
const asServer = "HEARTWHEEL_CLIENT_TEST_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		serveAlone()
		return
	}
	os.Exit(m.Run())
}

func serveAlone() {
	s, err := server.New(server.Config{Listen: []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0"}, Beat: 2 * time.Second,
		Logger: slog.New(slog.DiscardHandler)}, nothingServed{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Addrs()[0], s.Addrs()[1])
	ctx, stop := context.WithCancel(context.Background())
	signal.Ignore(os.Interrupt) // it is for the test, which then closes the input
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	_ = s.Run(ctx)
}

// nothingServed is a server.Handler for connections that only beat.
type nothingServed struct{}

func (nothingServed) Open(*server.Conn)                     {}
func (nothingServed) Frame(*server.Conn, codec.Frame) error { return nil }
func (nothingServed) Close(*server.Conn, server.Reason)     {}

// startServer runs a server in another process and returns its URLs, of tcp and ws.
func startServer(tb testing.TB) (tcp, ws string) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asServer+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatalf("the server process: %v", err)
	}
	tcp, ws, _ = strings.Cut(strings.TrimSpace(line), " ")
	return "tcp://" + tcp, "ws://" + ws
}

// BenchmarkIdleClients measures the memory of an idle client, of 10,000 in one process:
// heap and stack, and the process's RSS. The aim is 4,096 bytes of heap and stack.
func BenchmarkIdleClients(b *testing.B) {
	tcp, ws := startServer(b)
	b.Run("tcp", func(b *testing.B) { benchmarkIdle(b, tcp) })
	b.Run("ws", func(b *testing.B) { benchmarkIdle(b, ws) }) // where the server beats
}

func benchmarkIdle(b *testing.B, url string) {
	const n = 10_000
	for b.Loop() {
		clients := make([]*Client, n)
		before := measure()
		var wg sync.WaitGroup
		for w := range 32 {
			wg.Go(func() {
				for i := w; i < n; i += 32 {
					c, err := Dial(b.Context(), url, Config{})
					if err != nil {
						b.Error(err)
						return
					}
					clients[i] = c
				}
			})
		}
		wg.Wait()
		if b.Failed() {
			return
		}
		for _, c := range clients { // each has beaten: the steady state
			for c.Beats().Sent < 2 {
				time.Sleep(10 * time.Millisecond)
			}
		}
		after := measure()
		b.ReportMetric(float64(after.heap-before.heap)/n, "heap-B/client")
		b.ReportMetric(float64(after.stacks-before.stacks)/n, "stack-B/client")
		b.ReportMetric(float64(after.heap+after.stacks-before.heap-before.stacks)/n, "B/client")
		b.ReportMetric(float64(after.rss-before.rss)/n, "rss-B/client")
		b.ReportMetric(float64(after.goroutines-before.goroutines)/n, "goroutines/client")
		for i, c := range clients {
			if c.State() != Connected {
				b.Errorf("client %d is %s: %v", i, c.State(), c.Err())
			}
			wg.Go(func() { c.Close() })
		}
		wg.Wait()
	}
}

// A footprint is what a process has in use, in bytes.
type footprint struct {
	heap, stacks, rss int64
	goroutines        int64
}

func measure() footprint {
	for range 3 { // stacks shrink by half in each
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := footprint{heap: int64(m.HeapAlloc), stacks: int64(m.StackInuse), goroutines: int64(runtime.NumGoroutine())}
	if b, err := os.ReadFile("/proc/self/statm"); err == nil { // Linux
		if fields := strings.Fields(string(b)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			f.rss = pages * int64(os.Getpagesize())
		}
	}
	return f
}

// benchClient is a client on a loopback socket. feed is what the server does with
// the socket once it has welcomed.
func benchClient(b *testing.B, cfg Config, feed func(nc net.Conn)) *Client {
	b.Helper()
	s := startTiny(b, nil, func(nc net.Conn) {
		hello := make([]byte, 4096)
		if _, err := nc.Read(hello); err != nil {
			return
		}
		w := welcomed
		w.BeatMS, w.TimeoutMS = 3600_000, 3*3600_000
		_, _ = nc.Write(codec.AppendWelcome(nil, w))
		if feed != nil {
			feed(nc)
		}
	})
	c, err := Dial(context.Background(), "tcp://"+s.addr(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// Send of 16 bytes to a server that drops them.
func BenchmarkSend(b *testing.B) {
	c := benchClient(b, Config{}, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	payload := make([]byte, 16)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Send(ctx, payload); err != nil {
			b.Fatal(err)
		}
	}
}

// Receive of 16 bytes of a server that sends as fast as it can.
func BenchmarkReceive(b *testing.B) {
	c := benchClient(b, Config{}, func(nc net.Conn) {
		var many []byte
		for range 1000 {
			many = codec.AppendData(many, make([]byte, 16))
		}
		for {
			if _, err := nc.Write(many); err != nil {
				return
			}
		}
	})
	dst := make([]byte, 0, 16)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Receive(ctx, dst); err != nil {
			b.Fatal(err)
		}
	}
}

// A call of Beat and its answer.
func BenchmarkBeat(b *testing.B) {
	c := benchClient(b, Config{}, nil)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Beat(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
