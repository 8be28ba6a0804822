package faults

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stormClients is how many clients dial at the same time.
const stormClients = 64

// storms are ways of connecting that leave nothing behind, as often as it goes.
var storms = []struct {
	name string
	do   func(c *net.TCPConn) error
}{
	{"reset", func(c *net.TCPConn) error {
		_ = c.SetLinger(0)
		return c.Close()
	}},
	{"reset with a beat on its way", func(c *net.TCPConn) error {
		_, _ = c.Write(beat)
		_ = c.SetLinger(0)
		return c.Close()
	}},
	{"half-close", func(c *net.TCPConn) error {
		if err := c.CloseWrite(); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(limit))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			return fmt.Errorf("after a half-close: read %d bytes, %v", n, err)
		}
		return c.Close()
	}},
	{"connect and close", func(c *net.TCPConn) error { return c.Close() }},
}

// TestStorms has clients connect and leave at full rate. Afterwards every
// connection is accounted for, and the server holds as many descriptors and
// goroutines as before.
func TestStorms(t *testing.T) {
	each := sized(300*time.Millisecond, 1200*time.Millisecond, 15*time.Second) // of four
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	good := startNeighbours(t, s.addr, 8)
	for _, storm := range storms {
		t.Run(storm.name, func(t *testing.T) {
			before, rest, lost := s.metrics(), s.atRest(s.pid()), backlogLosses(t, s)
			dialed := runStorm(t, s.addr, each, storm.do)
			var m metrics
			done := func(name string) float64 { return m.sum(name) - before.sum(name) }
			live, allowed := before.value("heartwheel_connections"), 0.0
			s.await("all have left", func(now metrics) bool {
				m = now
				missing := float64(dialed) - (now.value("heartwheel_accepted_total") -
					before.value("heartwheel_accepted_total") + done("heartwheel_refused_total"))
				ok := now.value("heartwheel_connections") == live && now.settled() && missing >= 0 && missing <= allowed
				allowed = lost() // of what the next look sees
				return ok
			})
			for reason := range m.by("heartwheel_closed_total") {
				if reason != "peer_closed" && reason != "peer_reset" {
					t.Errorf("some were closed for %s", reason)
				}
			}
			for reason := range m.by("heartwheel_refused_total") {
				if reason != "gone" {
					t.Errorf("some were refused as %s", reason)
				}
			}
			after := s.awaitResources(s.pid(), rest)
			s.check()
			figure(t, 14, "%s: %d in %s (%.0f/s): %v accepted, %v gone before their turn, %v closed, %v live; %d "+
				"descriptors before, %d after; %d goroutines before, %d after",
				storm.name, dialed, each, float64(dialed)/each.Seconds(),
				m.value("heartwheel_accepted_total")-before.value("heartwheel_accepted_total"),
				done("heartwheel_refused_total"),
				done("heartwheel_closed_total"), live, rest.files, after.files, rest.goroutines, after.goroutines)
		})
	}
	if err := good.stop(); err != nil {
		t.Errorf("a connection that behaved was affected: %v", err)
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
}

// runStorm dials at full rate for the time each, does to each connection what the
// storm does, and returns how many there were.
func runStorm(t *testing.T, addr string, each time.Duration, do func(*net.TCPConn) error) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), each)
	defer cancel()
	var dialed, source atomic.Int64
	var all sync.WaitGroup
	for range stormClients {
		all.Go(func() {
			d := net.Dialer{Timeout: limit, KeepAlive: -1, Control: portLater}
			for ctx.Err() == nil {
				// Ports whose connections have just ended are not free yet, so
				// sources take turns.
				n := source.Add(1)
				d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 78, byte(n/250%250), byte(1+n%250))}
				c, err := d.Dial("tcp", addr)
				if err == nil {
					dialed.Add(1)
					err = do(c.(*net.TCPConn))
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return dialed.Load()
}

// backlogLosses returns what tells how many connections at most the kernel took
// since and dropped before the server could see them: a client that is in may find
// the backlog full, and if it leaves before that changes it stays unknown. As long as
// connections made since wait in the backlog or are open the result is 0, as others
// may still appear.
func backlogLosses(t testing.TB, s *serverProcess) (lost func() float64) {
	t.Helper()
	overflows := func() float64 {
		text, err := os.ReadFile("/proc/net/netstat")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if i := slices.Index(names, "ListenOverflows"); i >= 0 && fields[0] == "TcpExt:" {
				n, err := strconv.ParseFloat(fields[i], 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			names = fields
		}
		t.Fatal("no ListenOverflows in /proc/net/netstat")
		return 0
	}
	s.metrics() // its connection is there from now on
	before, files := overflows(), openFiles(t, s.pid())
	return func() float64 {
		if backlog(t, s) > 0 || openFiles(t, s.pid()) > files {
			return 0
		}
		return overflows() - before
	}
}

// portLater has the kernel choose the port when it knows the destination.
func portLater(_, _ string, raw syscall.RawConn) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); cerr != nil {
		return cerr
	}
	return err
}
