package faults

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	floodWord = "flood" // of floodEnv: dial as ordered
	sinkWord  = "sink"  // of floodEnv: accept and reset

	floodWorkers = 4
	floodOpen    = 64 // sockets that each worker leaves open, so that the server meets them alive
)

// A floodOrder has a flood process dial for a while.
type floodOrder struct {
	Target  string
	Source  [4]byte // the first address that is dialled from
	Sources int     // how many of those that follow it are used in turn
	Rate    int     // dials a second, if this machine can
	For     time.Duration
}

// A floodReport says what came of it.
type floodReport struct {
	Dials  int // that were accepted by the kernel of the server
	Failed int
	Took   time.Duration
	Error  string // of one that failed
}

func init() {
	floodMain = func(word string) int {
		if word == sinkWord {
			return sink()
		}
		orders, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
		for {
			var o floodOrder
			if err := orders.Decode(&o); err != nil {
				return 0 // the test has closed it
			}
			if err := out.Encode(o.run()); err != nil {
				return 1
			}
		}
	}
}

// sink accepts as the server does, and resets at once: the least that anybody
// can do against a flood.
func sink() int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	fmt.Println(ln.Addr())
	for range 8 {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					continue
				}
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test ends it
	return 0
}

// run dials. It does not make up for lost time.
func (o *floodOrder) run() floodReport {
	addr, err := net.ResolveTCPAddr("tcp", o.Target)
	if err != nil {
		return floodReport{Error: err.Error()}
	}
	to := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	var (
		mu   sync.Mutex
		all  floodReport
		wg   sync.WaitGroup
		next atomic.Int64
	)
	began := time.Now()
	every := time.Second * floodWorkers / time.Duration(o.Rate)
	for range floodWorkers {
		wg.Go(func() {
			var r floodReport
			var open []int
			for due := began; due.Sub(began) < o.For; due = due.Add(every) {
				if late := time.Since(due); late < 0 {
					time.Sleep(-late)
				} else if late > 50*time.Millisecond {
					due = time.Now()
				}
				fd, err := o.dial(int(next.Add(1)), to)
				if err != nil {
					r.Failed++
					r.Error = err.Error()
					continue
				}
				r.Dials++
				if open = append(open, fd); len(open) == floodOpen {
					resetFD(open[0])
					open = append(open[:0], open[1:]...)
				}
			}
			for _, fd := range open {
				resetFD(fd)
			}
			mu.Lock()
			defer mu.Unlock()
			all.Dials += r.Dials
			all.Failed += r.Failed
			if r.Error != "" {
				all.Error = r.Error
			}
		})
	}
	wg.Wait()
	all.Took = time.Since(began)
	return all
}

func (o *floodOrder) dial(n int, to *unix.SockaddrInet4) (int, error) {
	from := &unix.SockaddrInet4{Addr: o.Source}
	for i, k := 3, int(from.Addr[3])+n%max(1, o.Sources); i > 0; i-- {
		from.Addr[i] = byte(k)
		k = k>>8 + int(from.Addr[i-1])
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err = unix.Bind(fd, from); err == nil {
		err = unix.Connect(fd, to)
	}
	if err != nil && err != unix.ECONNRESET { // connected, and reset before connect returned
		_ = unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func resetFD(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(fd)
}

// A floodProcess is another process of the test binary. Both ends are given:
// what it reads and what it prints.
type floodProcess struct {
	t      testing.TB
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// startFlood starts one. The test's end kills it.
func startFlood(t testing.TB, word string) *floodProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(ordinaryEnv(), floodEnv+"="+word)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &floodProcess{t: t, stdin: stdin, stdout: bufio.NewReader(stdout)}
}

// line is the next line that it prints.
func (f *floodProcess) line() string {
	f.t.Helper()
	text, err := f.stdout.ReadString('\n')
	if err != nil {
		f.t.Fatalf("the flood process says nothing more: %v", err)
	}
	return text[:len(text)-1]
}

// start has it begin. The report comes when it is done.
func (f *floodProcess) start(o floodOrder) (report func() floodReport) {
	f.t.Helper()
	if err := json.NewEncoder(f.stdin).Encode(o); err != nil {
		f.t.Fatal(err)
	}
	return func() (r floodReport) {
		f.t.Helper()
		if err := json.Unmarshal([]byte(f.line()), &r); err != nil {
			f.t.Fatal(err)
		}
		return r
	}
}
