package server

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

func dialUnix(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialTimeout("unix", path, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.UnixConn)
}

// peerHandler echoes, and notes the address of who connects.
type peerHandler struct {
	Echo
	addrs chan net.Addr
}

func (h peerHandler) Open(c *Conn) { h.addrs <- c.RemoteAddr() }

// A unix socket has the native stream. Its clients have no address, so that the limits
// by address leave them out, and bans too.
func TestUnix(t *testing.T) {
	path := socketPath(t)
	var log bytes.Buffer
	h := peerHandler{addrs: make(chan net.Addr, 8)}
	s, stop := startUntil(t, Config{Loops: 2, Listen: []string{"unix://" + path}, MaxConnections: 3, AddressMax: 1,
		AddressRate: 1, FlapLimit: 1, Ban: []string{"::/0"}, RequireHello: false,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}, h)
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if a := s.Addrs()[0]; a.String() != path || a.Network() != "unix" {
		t.Errorf("it listens on %v", a)
	}
	var conns []net.Conn
	for range 3 {
		c := dialUnix(t, path)
		frame := codec.AppendFrame(nil, codec.OpData, bytes.Repeat([]byte{9}, 60_000))
		_, _ = c.Write(frame)
		expect(t, c, frame)
		if a := <-h.addrs; a == nil || a.Network() != "unix" {
			t.Errorf("the handler sees the address %v", a)
		}
		conns = append(conns, c)
	}
	if b, err := io.ReadAll(dialUnix(t, path)); err != nil || !bytes.Contains(b, []byte("connection limit")) {
		t.Errorf("one too many is told %q, %v", b, err)
	}
	_, _ = conns[0].Write(codec.AppendClose(nil, 3000, "")) // and it goes
	if _, err := io.ReadAll(conns[0]); err != nil {
		t.Error(err)
	}
	if c := s.Check(); !c.OK {
		t.Error(c.Problems)
	}
	stop()
	for _, c := range conns[1:] {
		if b, _ := io.ReadAll(c); !bytes.Contains(b, []byte("going away")) {
			t.Errorf("a drain tells %q", b)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	for _, want := range []string{"connection opened", "connection closed", "connection refused"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

// A peer that goes silent is dead after its timeout, and one that has sent its last byte
// still gets its answers.
func TestUnixLiveness(t *testing.T) {
	path := socketPath(t)
	const timeout = 200 * time.Millisecond
	start(t, Config{Listen: []string{"unix://" + path}, Beat: 100 * time.Millisecond, Timeout: timeout}, Echo{})
	from := time.Now()
	silent := dialUnix(t, path)
	if b, err := io.ReadAll(silent); err != nil || len(b) > 0 {
		t.Errorf("a silent peer gets %q, %v", b, err)
	}
	if after := time.Since(from); after < timeout {
		t.Errorf("it was closed after %s", after)
	}
	half := dialUnix(t, path)
	frame := codec.AppendFrame(nil, codec.OpData, bytes.Repeat([]byte{9}, 50_000))
	_, _ = half.Write(frame)
	_ = half.CloseWrite()
	if b, err := io.ReadAll(half); err != nil || !bytes.Equal(b, frame) {
		t.Errorf("after its end a peer gets %d bytes, %v; want %d", len(b), err, len(frame))
	}
}

// The file of a server that has crashed is replaced; a socket that answers, and a file
// that is none, are not.
func TestUnixStaleFile(t *testing.T) {
	path := socketPath(t)
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	cfg := Config{Listen: []string{"unix://" + path}, Logger: slog.New(slog.DiscardHandler)}
	_, err = New(cfg, Echo{})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path+": another process listens there") {
		t.Errorf("beside another it says %v", err)
	}
	_ = stale.Close()
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	s.Sockets()[0].Listener.(*net.UnixListener).SetUnlinkOnClose(false) // another process goes on with it
	_ = s.Close()
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	_ = os.Remove(path)
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = New(cfg, Echo{}); err == nil || !strings.Contains(err.Error(), "is a file that is not a socket") {
		t.Errorf("over a file it says %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("the file is %q, %v", b, err)
	}
}

// A socket that is given is used, and one of another kind is not.
func TestUnixSocketGoesOn(t *testing.T) {
	path := socketPath(t)
	cfg := Config{Listen: []string{"unix://" + path}}
	first, stop := startUntil(t, cfg, Echo{})
	ln := first.Sockets()[0].Listener.(*net.UnixListener)
	cfg.Sockets = []Socket{{cfg.Listen[0], duplicate(t, ln)}}
	start(t, cfg, Echo{})
	ln.SetUnlinkOnClose(false)
	stop()
	c := dialUnix(t, path)
	_, _ = c.Write(codec.AppendBeat(nil))
	expect(t, c, codec.AppendBeat(nil))

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Sockets = []Socket{{cfg.Listen[0], tcp.(*net.TCPListener)}}
	if _, err := New(cfg, Echo{}); err == nil || !strings.Contains(err.Error(), "it is not a unix socket but tcp") {
		t.Errorf("a TCP socket for it: %v", err)
	}
}

func TestUnixConfig(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Listen: []string{"unix:///a", "unix:///a"}}, `Config.Listen "unix:///a": is given twice`},
		{Config{Listen: []string{"unix:///a"}, Edge: Edge{ProxyFrom: []string{"10.0.0.1"}}},
			`Config.ProxyFrom "10.0.0.1": cannot hold for unix:///a`},
	} {
		if err := tc.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v: %v, want %s", tc.cfg.Listen, err, tc.want)
		}
	}
	cfg := Config{Listen: []string{"unix:///a", "tcp://:1", "unix:///b"}}
	if got := strings.Join(cfg.ListenSockets(), " "); got != "unix:///a tcp://:1 unix:///b" || cfg.Validate() != nil {
		t.Errorf("the sockets are %s, %v", got, cfg.Validate())
	}
}
