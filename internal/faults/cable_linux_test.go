package faults

import (
	"encoding/json"
	"errors"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heartwheel/internal/netlab"
)

// TestCablePulled pulls the cable between clients and two servers: the real
// command, whose clients do nothing but beat, and one that pushes data all the
// time, so that its sockets and outboxes are full and retransmissions run. Each
// connection is closed within the bound, by a reset, its close event comes
// before that, and nothing is left of it. A pushed one may end by its write stall,
// 0.8 T, before its idle timeout. Beside them, sockets that only the kernel watches
// over.
func TestCablePulled(t *testing.T) {
	t.Parallel()
	timeout := sized(3*time.Second, 3*time.Second, 7500*time.Millisecond)
	conns, alone := sized(10, 20, 200), sized(5*time.Second, 10*time.Second, 170*time.Second)
	beatEvery := timeout * 2 / 5
	lab := netlab.Cable(t)
	idle := startServerIn(t, lab.Server, exec.Command(binary(t), "serve", "--listen", listenOn(lab.Server),
		"--ops", "127.0.0.1:0", "--log-format", "json", "--beat", beatEvery.String(), "--timeout",
		timeout.String(), "--drain", "1s"))
	pushing := startServerIn(t, lab.Server, exec.Command(program(t, "pusher"), "-listen", listenOn(lab.Server),
		"-timeout", timeout.String(), "-outbox", "16777216")) // more than T fills
	watched := []*pulledServer{
		pullLater(t, lab, "idle", idle, conns, beatEvery),
		pullLater(t, lab, "pushing", pushing, conns, beatEvery),
	}
	watched[1].early = timeout*3/10 + tick
	kernels := kernelsAlone(t, lab)
	time.Sleep(beatEvery) // each has beaten again
	watched[1].clients.awaitData(64 << 10)
	for _, p := range watched {
		p.clients.underWay.Lock()
	}
	sent := pushing.metrics().value(bytesOut, `direction="out"`)
	pulled := time.Now()
	lab.Pull()
	for _, p := range watched {
		p.clients.underWay.Unlock()
	}
	// The first of them is due an interval before the last.
	time.Sleep(timeout - beatEvery - 2*tick)
	wantBacklog(t, pushing, conns, sent, pulled.Add(timeout-beatEvery))
	for _, p := range watched {
		p.judge(t, timeout)
	}
	wantCloseEvents(t, watched[1])
	if code := idle.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", idle.cmd.ProcessState)
	}

	time.Sleep(time.Until(pulled.Add(alone)))
	for _, k := range kernels {
		noticed := "not noticed within " + alone.String()
		if at := k.noticed.Load(); at != 0 {
			noticed = "noticed after " + time.Unix(0, at).Sub(pulled).Round(10*time.Millisecond).String()
			if size != long {
				t.Errorf("%s: %s, so that this was more than a pulled cable", k.name, noticed)
			}
		}
		figure(t, 6, "the kernel alone, %s: %s", k.name, noticed)
	}
}

// listenOn is the address of a listener on a free port of ns.
func listenOn(ns *netlab.Namespace) string {
	return "tcp://" + netip.AddrPortFrom(ns.Addr, 0).String()
}

// startServerIn is startCommand inside a namespace.
func startServerIn(t testing.TB, ns *netlab.Namespace, cmd *exec.Cmd) (s *serverProcess) {
	t.Helper()
	ns.Do(func() { s = startCommand(t, cmd) })
	transport := &http.Transport{DialContext: ns.Dial}
	s.http = &http.Client{Timeout: limit, Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	return s
}

// A pulledServer is a server whose clients all vanish.
type pulledServer struct {
	name    string
	s       *serverProcess
	clients *beatClients
	sockets *socketWatch
	delays  *watcher

	// How long before the idle timeout a connection may be closed as slow_consumer:
	// its write stall began up to an eighth of itself before the cable was pulled.
	early time.Duration
}

// rightly reports whether a connection may be closed for that reason.
func (p *pulledServer) rightly(reason string) bool {
	return reason == "idle_timeout" || reason == "slow_consumer" && p.early > 0
}

func pullLater(t *testing.T, lab *netlab.Lab, name string, s *serverProcess, conns int,
	every time.Duration) *pulledServer {
	t.Helper()
	p := &pulledServer{name: name, s: s, delays: watch(t, s),
		clients: startBeatClients(t, lab.Client, s.addr, conns, every)}
	p.sockets = watchSockets(t, s)
	return p
}

// judge waits until all connections are closed, and holds that and what the
// server says against the promise.
func (p *pulledServer) judge(t *testing.T, timeout time.Duration) {
	t.Helper()
	p.sockets.await(len(p.clients.all), timeout+limit)
	m := p.s.metrics() // at once: there is nothing to wait for
	p.sockets.stop()
	n := float64(len(p.clients.all))
	all, closed := 0.0, m.by("heartwheel_closed_total")
	for reason, n := range closed {
		if all += n; !p.rightly(reason) {
			t.Errorf("%s: closed as %s", p.name, reason)
		}
	}
	if all != n {
		t.Errorf("%s: the server has closed %v, not %v", p.name, closed, n)
	}
	for _, none := range []string{"heartwheel_connections", "heartwheel_outbox_bytes",
		"heartwheel_handler_panics_total"} {
		if v := m.value(none); v != 0 {
			t.Errorf("%s: %s is %v", p.name, none, v)
		}
	}
	p.s.check()
	ds := judge(t, &fleetReport{Silent: p.clients.silences(p.sockets), early: p.early}, p.delays.stop(),
		p.clients.all[0].every, timeout, nil)
	checkLateness(t, m, ds)
	figure(t, 6, "cable pulled, %s, T %s: %d of %d closed (%v), %s after T (bound %s)",
		p.name, timeout, len(ds), len(p.clients.all), closed, spread(ds, lateBy), spread(ds, bound))
}

const bytesOut = "heartwheel_bytes_total"

// wantBacklog wants each connection to retransmit, and more than the sockets
// take to wait in the server, unless that could not push (sent is what it had
// sent before the pull) or the first connection is due by now.
func wantBacklog(t *testing.T, s *serverProcess, conns int, sent float64, due time.Time) {
	t.Helper()
	sockets, err := tcpTable(s.pid(), netip.MustParseAddrPort(s.addr).Port())
	for err == nil && len(sockets) < conns && time.Now().Before(due) { // a table read in parts may leave one out
		sockets, err = tcpTable(s.pid(), netip.MustParseAddrPort(s.addr).Port())
	}
	if err != nil {
		t.Fatal(err)
	}
	m := s.metrics()
	pushed := m.value(bytesOut, `direction="out"`) - sent
	if late := time.Since(due); late > 0 || pushed < float64(conns*256<<10) {
		t.Logf("the backlog is not judged: this machine was slow (%s late, %.0f KiB pushed)", late, pushed/1024)
		return
	}
	retransmitting, least, queued := 0, int64(math.MaxInt64), int64(0)
	for _, socket := range sockets {
		if socket.state == established && socket.retransmits > 0 {
			retransmitting++
		}
		least = min(least, socket.retransmits)
		queued += socket.unsent
	}
	waiting := m.value("heartwheel_outbox_bytes")
	if retransmitting != conns || !(waiting > 0) {
		t.Errorf("%d of %d connections retransmit and %v bytes wait in the outbox: this is no server that pushes",
			retransmitting, conns, waiting)
	}
	figure(t, 6, "before that: all %d pushed connections at their retransmission %d or more, %d KiB in the "+
		"sockets, %.0f KiB in the outboxes",
		retransmitting, least, queued>>10, waiting/1024)
}

// wantCloseEvents wants one close event for each connection, in the handler,
// before its socket was seen closed, and not before its time.
func wantCloseEvents(t *testing.T, p *pulledServer) {
	t.Helper()
	var lines []logLine // what was written may not have been read here yet
	for end := time.Now().Add(limit); len(lines) < len(p.clients.all) &&
		time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		lines = slices.DeleteFunc(p.s.logLines(), func(l logLine) bool { return l.msg != "close event" })
	}
	events := map[string]int64{}
	for _, line := range lines {
		var e struct {
			Reason string
			At     int64
		}
		if err := json.Unmarshal([]byte(line.text), &e); err != nil {
			t.Fatal(err)
		}
		if _, again := events[line.addr]; again || !p.rightly(e.Reason) {
			t.Errorf("close event %s, again: %v", line.text, again)
		}
		events[line.addr] = e.At
	}
	if len(events) != len(p.clients.all) {
		t.Errorf("%d close events for %d connections", len(events), len(p.clients.all))
	}
	least := time.Duration(math.MaxInt64)
	for _, b := range p.clients.all {
		at, closed := events[b.conn.LocalAddr().String()], p.sockets.closed(b.port)
		if at > closed.Seen {
			t.Errorf("a close event came %s after its socket was closed", time.Duration(at-closed.Seen))
		}
		least = min(least, time.Duration(closed.Seen-at))
	}
	figure(t, 6, "cable pulled, %s: %d close events, each %s or more before its socket was seen closed",
		p.name, len(events), least.Round(100*time.Microsecond))
}

// A kernelAlone is a connection whose server has nothing but the kernel to
// tell it that the peer is gone.
type kernelAlone struct {
	name    string
	noticed atomic.Int64 // Unix time in ns; 0: not yet
}

// kernelsAlone makes connections with Go's keep-alive and with the system's,
// idle ones and ones on which the server pushes.
func kernelsAlone(t *testing.T, lab *netlab.Lab) []*kernelAlone {
	t.Helper()
	var all []*kernelAlone
	for name, config := range map[string]net.KeepAliveConfig{
		"Go's keep-alive (15 s, then 9 × 15 s)":        {},
		"the system's keep-alive (2 h, then 9 × 75 s)": {Enable: true, Idle: -1, Interval: -1, Count: -1},
	} {
		for _, push := range []bool{false, true} {
			k := &kernelAlone{name: name + ", idle"}
			if push {
				k.name = name + ", pushing"
			}
			k.start(t, lab, net.ListenConfig{KeepAliveConfig: config}, push)
			all = append(all, k)
		}
	}
	return all
}

func (k *kernelAlone) start(t *testing.T, lab *netlab.Lab, config net.ListenConfig, push bool) {
	t.Helper()
	config.SetMultipathTCP(false) // plain TCP on both sides, as in the servers beside it
	var ln net.Listener
	lab.Server.Do(func() {
		var err error
		if ln, err = config.Listen(t.Context(), "tcp4", netip.AddrPortFrom(lab.Server.Addr, 0).String()); err != nil {
			t.Fatal(err)
		}
	})
	defer ln.Close()
	client, err := lab.Client.Dial(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	t.Cleanup(func() {
		for _, c := range []net.Conn{client, conn} {
			_ = c.(*net.TCPConn).SetLinger(0)
			_ = c.Close()
			<-done
		}
	})
	go func() { // the client reads
		defer func() { done <- struct{}{} }()
		for b := make([]byte, 64<<10); ; {
			if _, err := client.Read(b); err != nil {
				return
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		err := error(nil)
		for b := make([]byte, 4096); err == nil; {
			if push {
				_, err = conn.Write(b)
				time.Sleep(10 * time.Millisecond)
			} else {
				_, err = conn.Read(b)
			}
		}
		if !errors.Is(err, net.ErrClosed) {
			k.noticed.Store(time.Now().UnixNano())
		}
	}()
}
