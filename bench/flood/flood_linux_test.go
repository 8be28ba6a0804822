package flood

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// echoServer sends back what serve makes of it.
func echoServer(t *testing.T, serve func(c net.Conn)) string {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	return ln.Addr().String()
}

// The generator is meant to have its process to itself; in a test the server is
// in the same one, so that only a few connections and small times are used.
func job(addr string, inflight, size int) Job {
	return Job{Addr: addr, PID: os.Getpid(), Conns: 3, Inflight: inflight, Size: size, Warm: 20 * time.Millisecond,
		For: 100 * time.Millisecond, CPUs: []int{0}}
}

func TestFlood(t *testing.T) {
	addr := echoServer(t, func(c net.Conn) { _, _ = io.Copy(c, c) })
	for _, c := range []struct{ inflight, size int }{{1, 1}, {1, 16}, {16, 1024}, {64, 16 << 10}, {3, 300_000}} {
		for try := 1; ; try++ { // the machine may have no time for it
			r, err := Run(job(addr, c.inflight, c.size))
			if err != nil {
				t.Fatalf("%+v: %s", c, err)
			}
			if r.Frames > 0 && r.Seconds > 0 && r.OwnCPU > 0 && r.ServerCPU >= r.OwnCPU && r.Threads == 1 {
				break
			}
			if try == 20 {
				t.Fatalf("%+v: %+v", c, r)
			}
		}
	}
}

// TestInflight checks that a server which does not answer gets as many frames as
// asked for, each as the protocol has it, and no more.
func TestInflight(t *testing.T) {
	got := make(chan []byte, 3)
	addr := echoServer(t, func(c net.Conn) {
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		b, _ := io.ReadAll(c)
		got <- b
	})
	if _, err := Run(job(addr, 5, 7)); err == nil {
		t.Error("a server that closes is no error")
	}
	for range 3 {
		if b := <-got; string(b) != strings.Repeat("\x00\x00\x00\x07\x03\x05\x06\x07\x08\x09\x0a", 5) {
			t.Errorf("the server got %x", b)
		}
	}
}

func TestWrongServers(t *testing.T) {
	for _, c := range []struct {
		name, want string
		serve      func(c net.Conn)
	}{
		{"closes", "closed a connection", func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 20)) }},
		{"sends something else", "something else", func(c net.Conn) {
			b := make([]byte, 64<<10)
			for n := 0; ; {
				k, err := c.Read(b)
				if err != nil {
					return
				}
				if n += k; n > 1000 {
					b[0]++
				}
				_, _ = c.Write(b[:k])
			}
		}},
	} {
		addr := echoServer(t, c.serve)
		if _, err := Run(job(addr, 1, 16)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestCPUTime(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := CPUTime(os.Getpid())
	if err != nil || after <= before {
		t.Errorf("%s, then %s: %v", before, after, err)
	}
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("a process that does not exist has used no time")
	}
}
