package faults

import (
	"net"
	"os/exec"
	"syscall"
	"testing"

	"heartwheel/codec"
)

// panics says how a client has each callback panic, on a connection that it
// makes from source. All but Close end with CLOSE 3004.
var panics = []struct {
	callback, source string
	ask              []byte
	ends             string
}{
	{"Open", "127.66.0.1", nil, "internal_error"},
	{"Hello", "", hello(`{"device":"hello"}`), "internal_error"},
	{"Frame", "", codec.AppendData(nil, []byte("frame")), "internal_error"},
	{"posted function", "", codec.AppendData(nil, []byte("post")), "internal_error"},
	{"Close", "", codec.AppendData(nil, []byte("close")), "peer_closed"},
}

// TestHandlerPanics has every callback panic, many times: each costs the one
// connection it belongs to, is counted, and affects no other.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	rounds := sized(5, 20, 1000)
	s := startCommand(t, exec.Command(program(t, "panics")))
	good := startNeighbours(t, s.addr, 8)
	want := map[string]float64{}
	for range rounds {
		for _, p := range panics {
			want[p.ends]++
			d := net.Dialer{Timeout: limit}
			if p.source != "" {
				d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(p.source)}
			}
			nc, err := d.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			c := &conn{TCPConn: nc.(*net.TCPConn), t: t}
			if p.ask != nil {
				c.send(p.ask)
			}
			if p.ends == "internal_error" {
				c.wantClose(codec.CodeInternalError)
			} else if f := c.frame(); f.Op != codec.OpData { // it is echoed first
				t.Errorf("%s: got %s", p.callback, f.Op)
			}
			_ = c.Close()
		}
	}
	total := float64(rounds * len(panics))
	m := s.await("all are closed", func(m metrics) bool { return m.sum("heartwheel_closed_total") >= total })
	got := m.by("heartwheel_closed_total")
	for reason, n := range want {
		if got[reason] != n {
			t.Errorf("%v connections were closed for %s, not %v", got[reason], reason, n)
		}
	}
	if n := m.sum("heartwheel_closed_total"); n != total {
		t.Errorf("%v connections were closed, not %v", n, total)
	}
	counted := m.value("heartwheel_handler_panics_total")
	if counted != total {
		t.Errorf("%v panics are counted, not %v", counted, total)
	}
	if n := m.value("heartwheel_connections"); n != float64(len(good.conns)) {
		t.Errorf("%v connections are open, not %d", n, len(good.conns))
	}
	err := good.stop()
	if err != nil {
		t.Errorf("a connection that behaved was affected: %v", err)
	}
	for _, c := range good.conns {
		c.echo()
	}
	s.check()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 11, "%d panics in each of %d callbacks: %v connections lost, %v counted, %d neighbours unaffected, alive",
		rounds, len(panics), got["internal_error"]+got["peer_closed"], counted, len(good.conns))
}
