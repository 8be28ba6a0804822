package server

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// duplicate is another descriptor of the socket of ln, as a process gets it
// from the one before it.
func duplicate(t *testing.T, ln syscall.Conn) StreamListener {
	t.Helper()
	var fd int
	if err := control(ln, func(old int) (err error) {
		fd, err = unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return fileListener(t, fd)
}

func fileListener(t *testing.T, fd int) StreamListener {
	t.Helper()
	f := os.NewFile(uintptr(fd), "socket")
	defer func() { _ = f.Close() }()
	again, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return again.(StreamListener)
}

func isOpen(ln syscall.Conn) bool { return control(ln, func(int) error { return nil }) == nil }

// The second server gets the sockets of the first. What waits in the backlog,
// which nobody has accepted, is served by the second; what the first has
// accepted is served by the first until its drain closes it.
func TestSocketsGoOn(t *testing.T) {
	first, stopFirst := startUntil(t, Config{}, Echo{})
	before := dial(t, first)
	_, _ = before.Write(codec.AppendBeat(nil))
	expect(t, before, codec.AppendBeat(nil))

	given := Socket{"tcp://127.0.0.1:0", duplicate(t, first.Sockets()[0].Listener)}
	extra, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	unwanted := Socket{"tcp://127.0.0.1:7", extra.(*net.TCPListener)}
	cfg := Config{Listen: []string{given.Address, given.Address}, Sockets: []Socket{unwanted, given},
		Logger: slog.New(slog.DiscardHandler)}
	second, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	addrs := second.Addrs()
	if addrs[0].String() != first.Addrs()[0].String() || addrs[1].String() == addrs[0].String() {
		t.Errorf("it listens on %v, not on %v and another", addrs, first.Addrs()[0])
	}
	if isOpen(unwanted.Listener) {
		t.Error("the socket that nothing asks for is open")
	}
	if got := second.Sockets(); len(got) != 2 || got[0].Address != given.Address ||
		got[0].Listener.Addr().String() != addrs[0].String() {
		t.Errorf("sockets to go on: %v", got)
	}

	ended := make(chan error, 1)
	go func() { ended <- stopFirst() }()
	eventually(t, "the first does not accept", func() bool { return !isOpen(first.Sockets()[0].Listener) })
	waiting := dial(t, second) // nobody accepts yet
	_, _ = waiting.Write(codec.AppendBeat(nil))
	stopSecond := run(second)
	<-second.Accepting()
	expect(t, waiting, codec.AppendBeat(nil))
	if err := <-ended; err != nil {
		t.Errorf("Run of the first returned %v", err)
	}
	if st := first.Stats(); st.Accepted != 1 || st.Closed["draining"] != 1 || st.Connections != 0 {
		t.Errorf("the first ended with %+v", st)
	}
	_, _ = waiting.Write(codec.AppendBeat(nil))
	expect(t, waiting, codec.AppendBeat(nil))
	_ = waiting.Close()
	if err := stopSecond(); err != nil {
		t.Errorf("Run of the second returned %v", err)
	}
	if st := second.Stats(); st.Accepted != 1 {
		t.Errorf("the second ended with %+v", st)
	}
}

// What is accepted from a given socket gets the same options.
func TestOptionsOfAGivenSocket(t *testing.T) {
	ln, err := listen(&Server{log: slog.New(slog.DiscardHandler)}, anyPort)
	if err != nil {
		t.Fatal(err)
	}
	again, err := adopt(&Server{log: ln.s.log}, Socket{ln.address, duplicate(t, ln.StreamListener)}, anyPort)
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close() // which does not end the socket
	defer func() { _ = again.Close() }()
	wantOptionsOf(t, again)
}

func TestWrongSockets(t *testing.T) {
	mptcp := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 262) // IPPROTO_MPTCP of Linux
		if err == nil {
			err = errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1))
		}
		if err != nil {
			t.Skipf("no multipath TCP here: %v", err)
		}
		return fd
	}
	deaf := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	for name, socket := range map[string]func() int{"not listening": deaf, "multipath": mptcp} {
		t.Run(name, func(t *testing.T) {
			given := Socket{"tcp://127.0.0.1:0", fileListener(t, socket())}
			_, err := New(Config{Listen: []string{given.Address}, Sockets: []Socket{given}}, Echo{})
			if err == nil {
				t.Fatal("it was taken")
			}
			t.Log(err)
			if isOpen(given.Listener) {
				t.Error("it is still open")
			}
		})
	}
}

// New closes what it was given when it fails, before it has looked at it too.
func TestFailedNewClosesSockets(t *testing.T) {
	for name, cfg := range map[string]Config{
		"settings": {MaxFrame: 1},
		"address":  {Listen: []string{"tcp://127.0.0.1:0", "tcp://192.0.2.1:1"}},
	} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Sockets = []Socket{{"tcp://127.0.0.1:0", ln.(*net.TCPListener)}}
		cfg.Logger = slog.New(slog.DiscardHandler)
		if _, err := New(cfg, Echo{}); err == nil {
			t.Errorf("%s: it was made", name)
		}
		if isOpen(cfg.Sockets[0].Listener) {
			t.Errorf("%s: the socket is open", name)
		}
	}
}

// What the first server has accepted, but not given to a loop yet, when it
// stops accepting is served by it; the rest of the backlog by the second.
func TestNothingIsLostBetweenAcceptAndEnroll(t *testing.T) {
	first, stopFirst := startUntil(t, Config{Loops: 1, Drain: 2 * time.Second}, Echo{})
	<-first.Accepting()
	given := Socket{"tcp://127.0.0.1:0", duplicate(t, first.Sockets()[0].Listener)}
	second, err := New(Config{Listen: []string{given.Address}, Sockets: []Socket{given},
		Logger: slog.New(slog.DiscardHandler)}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	if err := first.loops[0].mail.postOwn(func() { <-release }); err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	const inHand = enteringMost + acceptors
	for range inHand + 4 {
		c := dial(t, first)
		_, _ = c.Write(codec.AppendBeat(nil))
		conns = append(conns, c)
	}
	eventually(t, "as many are on their way as can be, and every acceptor has one",
		func() bool { return first.admission.Connections() == inHand })
	ended := make(chan error, 1)
	go func() { ended <- stopFirst() }()
	eventually(t, "the first does not accept", func() bool { return !isOpen(first.Sockets()[0].Listener) })
	stopSecond := run(second)
	eventually(t, "the second has the rest", func() bool { return second.Stats().Accepted == 4 })
	close(release)
	for i, c := range conns {
		f := readFrame(t, c)
		for f.Op == codec.OpGoaway { // the drain of the first may come before
			f = readFrame(t, c)
		}
		if f.Op != codec.OpBeat {
			t.Errorf("connection %d got %s, not its answer", i, f.Op)
		}
		_ = c.Close()
	}
	if err := errors.Join(<-ended, stopSecond()); err != nil {
		t.Error(err)
	}
	if a, b := first.Stats().Accepted, second.Stats().Accepted; a != inHand || b != 4 {
		t.Errorf("the first served %d, the second %d; want %d and 4", a, b, inHand)
	}
}
