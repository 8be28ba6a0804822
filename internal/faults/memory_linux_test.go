package faults

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// A dialPool dials from many goroutines at once. Some connections are admitted,
// and stay; the others have to get GOAWAY 3020.
type dialPool struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	admitted []*conn // guarded by mu
	refused  int     // guarded by mu
	wrong    []error // guarded by mu
}

// dialers is how many dial at once.
const dialers = 64

// dial makes n attempts. It ends early when stop says so.
func (p *dialPool) dial(n int, stop func() bool) {
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range dialers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && !stop() {
				p.one()
			}
		})
	}
	wg.Wait()
}

// one is one attempt. A newcomer says a beat and looks what comes back.
func (p *dialPool) one() {
	var c *conn
	rejected := false
	nc, err := net.DialTimeout("tcp", p.addr, limit)
	if err == nil {
		c = &conn{TCPConn: nc.(*net.TCPConn), t: p.t}
		if rejected, err = isRejected(c); err != nil || rejected {
			c.reset()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err != nil:
		p.wrong = append(p.wrong, err)
	case rejected:
		p.refused++
	default:
		p.admitted = append(p.admitted, c)
	}
}

// isRejected reports whether a newcomer is refused as the protocol has it. The
// error is anything but that and the answer to a beat.
func isRejected(c *conn) (bool, error) {
	if err := c.sendErr(beat); err != nil {
		return false, err
	}
	f, err := c.frameErr()
	if err != nil || f.Op == codec.OpBeat {
		return false, err
	}
	g, err := codec.ParseGoaway(f.Payload)
	if err != nil || f.Op != codec.OpGoaway || g.Code != codec.CodeOverloaded || g.AfterMS <= 0 {
		return false, fmt.Errorf("got %s %q: %v", f.Op, f.Payload, err)
	}
	if f, err = c.frameErr(); err != io.EOF {
		return false, fmt.Errorf("got %s %q %v after goaway, not the end", f.Op, f.Payload, err)
	}
	return true, nil
}

// leave resets the first n.
func (p *dialPool) leave(n int) {
	for _, c := range p.admitted[:n] {
		c.reset()
	}
	p.admitted = p.admitted[n:]
}

// newDialPool makes one, whose connections the test's end resets.
func newDialPool(t *testing.T, addr string) *dialPool {
	p := &dialPool{t: t, addr: addr}
	t.Cleanup(func() { p.leave(len(p.admitted)) })
	return p
}

// echo wants every admitted connection to be served, and returns how many are not.
func (p *dialPool) echo() (lost int) {
	p.t.Helper()
	for _, c := range p.admitted {
		if err := c.echoErr(); err != nil {
			if lost++; lost <= 5 {
				p.t.Errorf("an admitted connection is not served: %v", err)
			}
		}
	}
	return lost
}

func never() bool { return false }

// memoryServer starts a server in a memory cgroup of its own.
func memoryServer(t *testing.T, limit int64, args ...string) (*serverProcess, *cgroup) {
	t.Helper()
	group := newCgroup(t, "memory")
	if limit > 0 {
		group.set("memory.limit_in_bytes", limit)
	}
	args = append([]string{"--timeout", "10m"}, args...)
	return startCommand(t, command([]*cgroup{group}, binary(t), serverArgs(args...)...)), group
}

// used is what the kernel counts of a server, in bytes.
func used(group *cgroup) int64 {
	return group.value("memory.usage_in_bytes", "") - group.value("memory.stat", "total_inactive_file")
}

// TestMemoryLimit is case 15: in a memory cgroup of 1.2 × what conns
// connections need, far more dial. The kernel never has to kill: newcomers get
// GOAWAY 3020, and every admitted connection is served to the end.
//
// In a cgroup of version 1 the kernel's part of a connection is in the figures
// as far as its slab objects are (inode, dentry, file, epoll item), but not the
// TCP socket itself, and not what waits in socket buffers.
func TestMemoryLimit(t *testing.T) {
	conns := sized(2500, 5000, 7000) // the fewer, the more of the limit is the garbage of refusing
	s, group := memoryServer(t, 0)
	empty := used(group)
	p := newDialPool(t, s.addr)
	p.dial(conns, never)
	p.echo()
	need := used(group)
	if len(p.admitted) != conns {
		t.Fatalf("%d of %d were admitted without a limit: %v", len(p.admitted), conns, p.wrong)
	}
	figure(t, 15, "%d connections need %d kB in the cgroup (%d kB without any): %d B each, %d "+
		"kB in all of it the kernel's",
		conns, need>>10, empty>>10, (need-empty)/int64(conns), group.value("memory.kmem.usage_in_bytes", "")>>10)
	p.leave(conns)
	s.stop(syscall.SIGKILL)

	limit := need * 6 / 5
	s, group = memoryServer(t, limit)
	p = newDialPool(t, s.addr)
	start := time.Now()
	full := dialUntilFull(p, s, conns)
	figure(t, 15, "limit %d kB: %d admitted and %d refused within %s, then it was full", limit>>10, len(p.admitted),
		p.refused, time.Since(start).Round(time.Millisecond))
	if !full {
		t.Fatalf("the server never said that it is full; it says\n%s", s.metrics().ours())
	}
	if len(p.admitted) < conns*9/10 {
		t.Errorf("only %d were admitted where %d have room", len(p.admitted), conns)
	}
	// Once it is full, a herd changes nothing.
	p.dial(conns, never)
	lost := p.echo()
	for _, err := range p.wrong[:min(len(p.wrong), 5)] {
		t.Errorf("neither admitted nor refused with 3020: %v", err)
	}
	m := s.metrics()
	s.check()
	if kills := group.value("memory.oom_control", "oom_kill"); kills != 0 {
		t.Errorf("the kernel killed %d times", kills)
	}
	if got := m.by("heartwheel_refused_total"); len(got) != 1 || got["memory"] != float64(p.refused) || p.refused == 0 {
		t.Errorf("the server refused %v, not just %d for memory", got, p.refused)
	}
	if got := m.value("heartwheel_connections"); got != float64(len(p.admitted)) ||
		m.sum("heartwheel_closed_total") != 0 {
		t.Errorf("%v connections are open and %v were closed, not %d and none", got,
			m.by("heartwheel_closed_total"), len(p.admitted))
	}
	if got := m.value("heartwheel_memory_limit_bytes"); got != float64(group.value("memory.limit_in_bytes", "")) {
		t.Errorf("the server takes its limit for %v", got)
	}
	figure(t, 15, "after %d more dials: %d admitted, %d refused, %d lost; used %d kB (%.0f %%), most ever with file "+
		"cache %d kB, oom_kill %d, limit hit %d times",
		conns, len(p.admitted), p.refused, lost, used(group)>>10, 100*float64(used(group))/float64(limit),
		group.value("memory.max_usage_in_bytes", "")>>10, group.value("memory.oom_control", "oom_kill"),
		group.value("memory.failcnt", ""))

	roomAgain(t, p, s)
	if size == long {
		withoutLadder(t, limit, conns)
	}
}

// dialUntilFull dials until the server refuses every connection, and reports
// whether it did.
func dialUntilFull(p *dialPool, s *serverProcess, conns int) bool {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		p.dial(conns/20, never)
		if status, body, err := s.get("/readyz"); err == nil && status == http.StatusServiceUnavailable {
			if !strings.Contains(body, "memory is short") {
				p.t.Errorf("/readyz says %q", body)
			}
			return true
		}
	}
	return false
}

// roomAgain: when some leave there is room again.
func roomAgain(t *testing.T, p *dialPool, s *serverProcess) {
	t.Helper()
	half := len(p.admitted) / 2
	p.leave(half)
	start := time.Now()
	s.await("it takes newcomers again", func(m metrics) bool { return m.value("heartwheel_ready") == 1 })
	figure(t, 15, "%d left; newcomers are taken again after %s", half, time.Since(start).Round(time.Millisecond))
	before := len(p.admitted)
	for end := time.Now().Add(limit); len(p.admitted) < before+10; {
		p.dial(dialers, never)
		if time.Now().After(end) {
			t.Fatal("no connection is admitted again")
		}
	}
	p.echo()
	s.check()
}

// withoutLadder shows what the same dials do to a server that watches nothing.
func withoutLadder(t *testing.T, limit int64, conns int) {
	t.Helper()
	s, group := memoryServer(t, limit, "--memory-limit", "off")
	p := newDialPool(t, s.addr)
	p.dial(2*conns, func() bool { return group.value("memory.oom_control", "oom_kill") > 0 })
	figure(t, 15, "for comparison, with memory-limit off: killed %d times after %d were admitted",
		group.value("memory.oom_control", "oom_kill"), len(p.admitted))
}
