package netlab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long something is waited for that has to happen.
const patience = 30 * time.Second

// A pair is the two ends of a TCP connection through a lab, without probes of
// the kernel's own.
type pair struct {
	t              *testing.T
	client, server net.Conn
	last           time.Time // before the last packet
}

func listen(t *testing.T, n *Namespace) (ln net.Listener) {
	t.Helper()
	n.Do(func() {
		var err error
		ln, err = (&net.ListenConfig{KeepAlive: -1}).Listen(t.Context(), "tcp4", netip.AddrPortFrom(n.Addr, 0).String())
		if err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { ln.Close() })
	return ln
}

func connect(t *testing.T, l *Lab, ln net.Listener) *pair {
	t.Helper()
	p := &pair{t: t}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	if p.client, err = l.Client.Dial(ctx, "tcp4", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.client.Close() })
	if err := p.client.(*net.TCPConn).SetKeepAlive(false); err != nil {
		t.Fatal(err)
	}
	if p.server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.server.Close() })
	return p
}

// pass sends a byte and waits for it at the other end.
func pass(from, to net.Conn, within time.Duration) error {
	if _, err := from.Write([]byte{1}); err != nil {
		return err
	}
	_ = to.SetReadDeadline(time.Now().Add(within))
	_, err := to.Read(make([]byte, 64))
	return err
}

// exchange passes a byte each way.
func (p *pair) exchange() {
	p.t.Helper()
	p.last = time.Now()
	for _, way := range [][2]net.Conn{{p.client, p.server}, {p.server, p.client}} {
		if err := pass(way[0], way[1], patience); err != nil {
			p.t.Fatalf("%s to %s: %v", way[0].LocalAddr(), way[1].LocalAddr(), err)
		}
	}
}

// wantSilence sends both ways and wants nothing at either end: no byte, and no
// error from the network either.
func (p *pair) wantSilence() {
	p.t.Helper()
	for _, end := range []net.Conn{p.client, p.server} {
		if _, err := end.Write([]byte{1}); err != nil {
			p.t.Error(err)
		}
	}
	for _, end := range []net.Conn{p.client, p.server} {
		_ = end.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, err := end.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
			p.t.Errorf("%s got %v, not silence", end.LocalAddr(), err)
		}
	}
}

func TestCable(t *testing.T) {
	t.Parallel()
	l := Cable(t)
	p := connect(t, l, listen(t, l.Server))
	p.exchange()
	if got := p.server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != l.Client.Addr {
		t.Errorf("the client comes from %s, not %s", got, l.Client.Addr)
	}
	l.Pull()
	l.Pull()
	p.wantSilence()
	l.Plug()
	l.Plug()
	// What was sent meanwhile is sent again now.
	for _, end := range []net.Conn{p.client, p.server} {
		_ = end.SetReadDeadline(time.Now().Add(patience))
		if _, err := end.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
	p.exchange()
}

// TestNATForgets holds connections idle for half a second less and for half a
// second more than the mapping time: the one lives, again and again, and the
// other is dead both ways, while a new one works.
func TestNATForgets(t *testing.T) {
	t.Parallel()
	const (
		mapping = 2 * time.Second
		margin  = 500 * time.Millisecond // 200 ms of it are the longest that an acknowledgement may be delayed
	)
	l := NAT(t, mapping)
	ln := listen(t, l.Server)
	short, long := connect(t, l, ln), connect(t, l, ln)
	if got := short.server.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got == l.Client.Addr {
		t.Fatalf("the server sees the client's own address, %s", got)
	}
	short.exchange()
	long.exchange()
	start := time.Now()
	time.Sleep(mapping - margin)
	short.wantAlive(mapping)
	time.Sleep(time.Until(start.Add(mapping + margin)))
	long.wantSilence()
	short.wantAlive(mapping)
	connect(t, l, ln).exchange()

	if _, err := l.Server.Dial(t.Context(), "tcp4", netip.AddrPortFrom(l.Client.Addr,
		1).String()); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the server dials the client: %v, not unreachable", err)
	}
}

// wantAlive sends a byte to the server, which has to arrive unless this machine
// was too slow to keep the mapping.
func (p *pair) wantAlive(mapping time.Duration) {
	p.t.Helper()
	sent := time.Now()
	err := pass(p.client, p.server, time.Second)
	switch idle := time.Since(p.last); {
	case err == nil:
	case sent.Sub(p.last) >= mapping:
		p.t.Skipf("too slow a machine to judge: it took %s for a wait of less than %s", sent.Sub(p.last), mapping)
	default:
		p.t.Errorf("dead after at most %s without a packet: %v", idle, err)
	}
	p.last = sent
}

// TestDo proves where sockets and processes are, and that the machine's own
// network is left alone.
func TestDo(t *testing.T) {
	t.Parallel()
	before, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	l := Cable(t)
	home := namespaceID(t)
	wantHome := func() {
		if namespaceID(t) != home {
			t.Error("still inside")
		}
	}
	var out []byte
	l.Client.Do(func() {
		if namespaceID(t) == home {
			t.Error("outside")
		}
		out, err = exec.Command("cat", "/proc/self/net/dev").Output()
	})
	if err != nil || !strings.Contains(string(out), device+":") {
		t.Errorf("%v; a process inside sees the interfaces %s", err, out)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer wantHome()
		l.Client.Do(runtime.Goexit)
	}()
	<-done
	wantHome()
	after, err := net.Interfaces()
	if err != nil || len(after) != len(before) {
		t.Errorf("the machine has %d interfaces instead of %d (%v)", len(after), len(before), err)
	}
}

func namespaceID(t *testing.T) string {
	t.Helper()
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return id
}
