package server

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

// header2 is a PROXY header of version 2 for TCP over IPv4.
func header2(source, destination string) []byte {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x21, 0x11, 0, 12)
	from, _ := net.ResolveTCPAddr("tcp", source)
	to, _ := net.ResolveTCPAddr("tcp", destination)
	b = append(append(b, from.IP.To4()...), to.IP.To4()...)
	b = binary.BigEndian.AppendUint16(b, uint16(from.Port))
	return binary.BigEndian.AppendUint16(b, uint16(to.Port))
}

// addrHandler answers each frame with the address of its peer.
type addrHandler struct{ Echo }

func (addrHandler) Frame(c *Conn, _ codec.Frame) error {
	return c.Send(codec.OpData, []byte(c.RemoteAddr().String()))
}

// The address of a connection is that of its header, however the header is cut and
// whatever comes with it. LOCAL and UNKNOWN keep the socket's.
func TestProxyFrom(t *testing.T) {
	s := start(t, Config{Loops: 1, Edge: Edge{ProxyFrom: []string{"127.0.0.0/8"}}}, addrHandler{})
	local := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), 0x20, 0, 0, 0)
	for _, test := range []struct{ name, header, want string }{
		{"version 1", "PROXY TCP4 192.0.2.1 192.0.2.9 4711 9000\r\n", "192.0.2.1:4711"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::9 4711 9000\r\n", "[2001:db8::7]:4711"},
		{"version 2", string(header2("192.0.2.3:1234", "192.0.2.9:9000")), "192.0.2.3:1234"},
		{"version 1, UNKNOWN", "PROXY UNKNOWN\r\n", ""},
		{"version 2, LOCAL", string(local), ""},
	} {
		for cut := range len(test.header) + 1 {
			if cut > 1 && cut < len(test.header)-1 && cut%9 != 0 && testing.Short() {
				continue
			}
			c := dial(t, s)
			want := test.want
			if want == "" {
				want = c.LocalAddr().String()
			}
			_, _ = io.WriteString(c, test.header[:cut])
			if cut%8 == 1 {
				time.Sleep(time.Millisecond) // so that the parts arrive as such, as a rule
			}
			if _, err := c.Write(append([]byte(test.header[cut:]), data("who am I")...)); err != nil {
				t.Fatal(err)
			}
			f, err := nextFrame(c)
			if err != nil || string(f.Payload) != want {
				t.Fatalf("%s, cut at %d: %q %v, want %s", test.name, cut, f.Payload, err, want)
			}
			_ = c.Close()
		}
	}
	if check := s.Check(); len(check.Problems) > 0 {
		t.Error(check.Problems)
	}
}

// Limits and bans see the address of the header.
func TestProxyAddressIsLimited(t *testing.T) {
	s := start(t, Config{Loops: 1, Edge: Edge{ProxyFrom: []string{"127.0.0.1"}}, AddressMax: 1,
		Ban: []string{"192.0.2.66"}},
		addrHandler{})
	first := dial(t, s)
	_, _ = first.Write(append(header2("192.0.2.1:1", "192.0.2.9:9000"), data("?")...))
	if f, err := nextFrame(first); err != nil || string(f.Payload) != "192.0.2.1:1" {
		t.Fatalf("%q %v", f.Payload, err)
	}
	for source, code := range map[string]codec.Code{
		"192.0.2.1:2": codec.CodeOverloaded, "192.0.2.66:1": codec.CodeBanned, "192.0.2.2:1": 0,
	} {
		c := dial(t, s)
		_, _ = c.Write(append(header2(source, "192.0.2.9:9000"), data("?")...))
		f, err := nextFrame(c)
		if err != nil {
			t.Fatal(source, err)
		}
		if code == 0 {
			if string(f.Payload) != source {
				t.Errorf("%s: %s %q", source, f.Op, f.Payload)
			}
			continue
		}
		if g, err := codec.ParseGoaway(f.Payload); f.Op != codec.OpGoaway || err != nil || g.Code != code {
			t.Errorf("%s: %s %q, want GOAWAY %d", source, f.Op, f.Payload, code)
		}
	}
	_ = first.Close()
	eventually(t, "the address is free again", func() bool {
		c := dial(t, s)
		_, _ = c.Write(append(header2("192.0.2.1:3", "192.0.2.9:9000"), data("?")...))
		f, err := nextFrame(c)
		return err == nil && f.Op == codec.OpData
	})
}

// Who is no load balancer is reset, and so is one that sends no header, or a bad one.
// Each is counted and logged.
func TestProxyRefusals(t *testing.T) {
	var log syncBuffer
	s := start(t, Config{Loops: 1, Edge: Edge{ProxyFrom: []string{"127.0.0.2/32"}},
		Logger: logTo(&log, slog.LevelInfo)}, Echo{})
	wantReset := func(from, send string, cause admission.Cause, line string) {
		t.Helper()
		before := s.admission.Refused(cause)
		c, err := dialAs(s, from)
		if err == nil {
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, send)
			_, err = c.Read(make([]byte, 100))
		}
		if !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("%q from %s: %v, want a reset", send, from, err)
		}
		eventually(t, "it is counted", func() bool { return s.admission.Refused(cause) == before+1 })
		if l := log.lines(line); len(l) == 0 {
			t.Errorf("no line says %s: %q", line, log.lines())
		}
	}
	wantReset("127.0.0.1", "PROXY UNKNOWN\r\n", admission.NoProxy, "reason=no_proxy")
	wantReset("127.0.0.2", string(data("no header")), admission.ProxyHeader, "no PROXY header")
	s.proxyLog.last.Store(0)
	wantReset("127.0.0.2", "PROXY TCP4 1.2.3.4\r\n", admission.ProxyHeader, "malformed")
	s.proxyLog.last.Store(0)
	wantReset("127.0.0.2", "PROXY TCP4 "+strings.Repeat("1", 200), admission.ProxyHeader, "PROXY header")
	if n := s.admission.Connections(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// A drain does not wait for headers.
func TestProxyHeaderNeverComes(t *testing.T) {
	s, stop := startUntil(t, Config{Loops: 1, Edge: Edge{ProxyFrom: []string{"127.0.0.1"}}}, Echo{})
	for i := range 20 {
		c := dial(t, s)
		_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.1"[:i])
	}
	eventually(t, "all are waited for", func() bool { return s.admission.Connections() == 20 })
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took >= prefaceTime {
		t.Errorf("the drain took %s", took)
	}
	if n := s.admission.Connections(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// A preface that has been ended stays so if its handshake begins just then.
func TestEndedBeforeHandshake(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := newTLSServer(t)
	for _, how := range []string{"crowded", "drain"} {
		p := prefaces{most: 1}
		f := p.add(c.(*net.TCPConn))
		if how == "drain" {
			p.end()
		} else {
			p.add(peer.(*net.TCPConn))
		}
		ended := make(chan error, 1)
		go func() {
			_, err := s.Handshake(endableConn{c.(*net.TCPConn), &p, f})
			ended <- err
		}()
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a handshake without a peer")
			}
		case <-time.After(3 * time.Second): // its own limit is 5 s
			t.Errorf("%s: it has not ended", how)
			<-ended
		}
	}
}
