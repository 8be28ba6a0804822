package faults

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// socketPeriod is the distance between two looks at a server's sockets, and
// so the usual width of the bracket around a close.
const socketPeriod = 5 * time.Millisecond

// A socketWatch looks at the established TCP sockets of a server, in the
// kernel's table of the server's namespace: it tells when a connection is
// closed where no packet can. The peers are told apart by their ports.
type socketWatch struct {
	t      testing.TB
	pid    int
	listen uint16 // the server's port

	mu     sync.Mutex
	before int64           // when the last look began
	states map[int]string  // by the peer's port: what the last look showed
	gone   map[int]silence // by the peer's port
	err    error

	quit chan struct{}
	done chan struct{}
}

const established, listening = "01", "0A" // include/net/tcp_states.h, in hexadecimal

func watchSockets(t testing.TB, s *serverProcess) *socketWatch {
	t.Helper()
	w := &socketWatch{
		t: t, pid: s.pid(), listen: netip.MustParseAddrPort(s.addr).Port(),
		gone: map[int]silence{}, states: map[int]string{},
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	w.look()
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.quit:
				return
			case <-time.After(socketPeriod):
				w.look()
			}
		}
	}()
	t.Cleanup(w.stop)
	return w
}

// stop ends it. It may be called again.
func (w *socketWatch) stop() {
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
	<-w.done
}

func (w *socketWatch) look() {
	start := monotonic()
	sockets, err := tcpTable(w.pid, w.listen)
	now := monotonic()
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.err = err
		return
	}
	for port, state := range w.states {
		s := sockets[port]
		if state != established || s.state == established {
			continue
		}
		how := "reset" // an orderly end waits for its acknowledgement
		if s.state != "" {
			how = "state " + s.state
		}
		w.gone[port] = silence{Before: w.before, Seen: now, How: how}
	}
	clear(w.states)
	for port, s := range sockets {
		w.states[port] = s.state
		if s.state == established {
			delete(w.gone, port) // a table that is read in parts may leave one out
		}
	}
	w.before = start
}

// closed returns what came of the connection from a port.
func (w *socketWatch) closed(port int) silence {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gone[port]
}

// await waits until n connections have been closed.
func (w *socketWatch) await(n int, within time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(socketPeriod) {
		w.mu.Lock()
		gone, err := len(w.gone), w.err
		w.mu.Unlock()
		if err != nil {
			w.t.Fatal(err)
		}
		if gone >= n {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("%d of %d connections are closed after %s", gone, n, within)
		}
	}
}

// A tcpSocket is one line of the kernel's table (proc_net_tcp in the kernel's
// documentation).
type tcpSocket struct {
	local, peer int // ports
	state       string
	unsent      int64 // bytes that are not acknowledged
	waiting     int64 // bytes that are not read; connections that are not accepted if it listens
	retransmits int64 // retransmission timeouts without an answer
}

// tcpSockets returns all sockets in the namespace of a process.
func tcpSockets(pid int) (all []tcpSocket, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", pid))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 7 || f[0] == "sl" {
			continue
		}
		_, local, _ := strings.Cut(f[1], ":")
		_, peer, _ := strings.Cut(f[2], ":")
		unsent, waiting, _ := strings.Cut(f[4], ":")
		var n [5]int64
		for i, hex := range []string{local, peer, unsent, waiting, f[6]} {
			if n[i], err = strconv.ParseInt(hex, 16, 64); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
		}
		all = append(all, tcpSocket{int(n[0]), int(n[1]), f[3], n[2], n[3], n[4]})
	}
	return all, nil
}

// tcpTable returns those of them that are connections to the port listen, by the
// peer's port.
func tcpTable(pid int, listen uint16) (map[int]tcpSocket, error) {
	all, err := tcpSockets(pid)
	sockets := map[int]tcpSocket{}
	for _, s := range all {
		if s.local == int(listen) && s.peer != 0 {
			sockets[s.peer] = s
		}
	}
	return sockets, err
}

// backlog is how many connections a server has not accepted yet.
func backlog(t testing.TB, s *serverProcess) (n int64) {
	t.Helper()
	all, err := tcpSockets(s.pid())
	if err != nil {
		t.Fatal(err)
	}
	for _, socket := range all {
		if socket.state == listening && socket.local == int(netip.MustParseAddrPort(s.addr).Port()) {
			n += socket.waiting
		}
	}
	return n
}
