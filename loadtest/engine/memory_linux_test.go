package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"heartwheel/internal/epoll"
)

// A connection costs at most 500 bytes of user memory, with all that the loop has. At
// 10,000 connections the histograms are 100 of them.
func TestMemoryPerConnection(t *testing.T) {
	n := 10000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n)+500 {
		t.Skipf("this process may open %d files, and %d are needed", limit.Cur, n+500)
	}
	target := echoProcess(t)
	var sources []netip.Addr
	for i := range 16 {
		sources = append(sources, netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)}))
	}
	before := heapNow()
	load := beatLoad(n, 10*time.Second, 2*time.Second)
	load.ConnectRate = Rate{4e3, 4e3} // what a process accepts that shares a busy processor
	c, err := Start(&Job{Load: *load, Of: 1, Target: target, Timeout: time.Minute,
		Sources: sources}, nil)
	if err != nil {
		t.Fatal(err)
	}
	start := epoll.Monotonic() + int64(30*time.Millisecond)
	c.Send(Order{Start: start})
	var most, connected int64
	for {
		r := <-c.Messages()
		if r.Connected != nil {
			connected = int64(r.Connected.Established)
			c.Send(Order{Hold: epoll.Monotonic(), MayEnd: true})
		}
		if r.Tick != nil && connected > 0 {
			most = max(most, heapNow()-before)
		}
		if r.Result != nil {
			break
		}
	}
	c.Wait()
	if connected < int64(n)/2 { // a machine that is too slow for the rest shows as much with these
		t.Fatalf("%d of %d were established", connected, n)
	}
	each := float64(most) / float64(connected)
	t.Logf("%.0f bytes a connection, of which the conn itself is %d", each, unsafe.Sizeof(conn{}))
	if each > 500 || each < float64(unsafe.Sizeof(conn{})) {
		t.Errorf("%.0f bytes a connection, want at most 500", each)
	}
}

// echoProcess starts an echo server in another process and returns its address.
func echoProcess(t *testing.T) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), echoEnv+"=1")
	stdin, err := cmd.StdinPipe() // it ends with this
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(strings.TrimSpace(line))
}

// echoUntilEOF is that server. It ends with its standard input.
func echoUntilEOF() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ln.Addr())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c) }()
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func heapNow() int64 {
	runtime.GC()
	return liveHeap()
}
