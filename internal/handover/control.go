package cli

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/server"
)

// The control socket joins a supervisor and a worker. A message is one byte:
const (
	orderConn  = 'c' // to the worker, with a descriptor: a connection for its ops handler
	orderDrain = 'd' // to the worker: drain and end
	orderGo    = 'g' // to the worker: its last figures are read, end
	wordLast   = 'l' // from the worker: it has drained and waits for orderGo
)

// lastPatience is how long a worker that has drained waits for its last figures
// to be read.
const lastPatience = 2 * time.Second

// An order to a worker is to drain and end.
type order struct {
	deserted bool // nobody gave it, but the supervisor has ended
}

// An underling is a worker's side of its control socket. When the socket ends,
// the supervisor has ended, however that came: it is the only one to hold the
// other side. It is a net.Listener for the connections that are passed.
// PR_SET_PDEATHSIG would not do as well: it goes by the thread that started the
// process (golang/go#27505).
type underling struct {
	// Static after newUnderling.
	index, count int
	loops        int    // unless the settings say
	ops          string // the supervisor's setting
	conn         *net.UnixConn
	conns        chan net.Conn
	orders       chan order    // the first one; later ones say the same
	dismissed    chan struct{} // closed at orderGo and at the end of the socket

	closeOnce sync.Once
	closed    chan struct{} // by Close, as a listener
}

// newUnderling takes up the control socket f. text is INDEX/COUNT/LOOPS/OPS.
func newUnderling(text string, f *os.File) (*underling, error) {
	parts := strings.SplitN(text, "/", 4)
	if len(parts) != 4 {
		return nil, errors.New("is not of the form INDEX/COUNT/LOOPS/OPS")
	}
	index, err1 := strconv.Atoi(parts[0])
	count, err2 := strconv.Atoi(parts[1])
	loops, err3 := strconv.Atoi(parts[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	conn, err := unixConn(f)
	if err != nil {
		return nil, err
	}
	return &underling{index: index, count: count, loops: loops, ops: parts[3], conn: conn,
		conns: make(chan net.Conn), orders: make(chan order, 1), dismissed: make(chan struct{}), closed: make(chan struct{})}, nil
}

func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if u, ok := c.(*net.UnixConn); ok {
		return u, nil
	}
	c.Close()
	return nil, errors.New("is not a Unix socket")
}

// accepts says whether a worker with these settings can take the place that the
// supervisor has for it. What it cannot change while it runs must be as it was.
func (u *underling) accepts(r *resolved, sockets []server.Socket, descriptors uint64) error {
	const fix = "cannot change while the supervisor runs; restart it, or set it back"
	var had []string
	for _, o := range sockets {
		had = append(had, o.Address)
	}
	want := r.WithDefaults().Listen
	if !slices.Equal(slices.Sorted(slices.Values(had)), slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("listen was %s and is now %s: it %s", strings.Join(had, ","), strings.Join(want, ","), fix)
	}
	if r.ops != u.ops {
		return fmt.Errorf("ops was %s and is now %s: it %s", u.ops, r.ops, fix)
	}
	n, err := decideWorkers(r, descriptors)
	if err != nil {
		return err
	}
	if n != u.count {
		return fmt.Errorf("workers was %d and is now %d: it %s", u.count, n, fix)
	}
	return nil
}

// begin starts to take orders.
func (u *underling) begin() { go u.read() }

func (u *underling) read() {
	what, rights := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	for {
		n, rightsLen, _, _, err := u.conn.ReadMsgUnix(what, rights)
		if err != nil || n == 0 {
			u.drain(order{deserted: true})
			u.dismiss()
			return
		}
		switch what[0] {
		case orderConn:
			u.take(rights[:rightsLen])
		case orderDrain:
			u.drain(order{})
		case orderGo:
			u.dismiss()
		}
	}
}

// take gives a connection that was passed to whoever accepts. Of what cannot be
// used the other side sees the end.
func (u *underling) take(rights []byte) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return
	}
	f := os.NewFile(uintptr(fds[0]), "ops")
	defer f.Close()
	c, err := unixConn(f)
	if err != nil {
		return
	}
	select {
	case u.conns <- c:
	case <-u.closed:
		c.Close()
	}
}

func (u *underling) drain(o order) {
	select {
	case u.orders <- o:
	default: // it has been said
	}
}

// dismiss is called by read alone.
func (u *underling) dismiss() {
	select {
	case <-u.dismissed:
	default:
		close(u.dismissed)
	}
}

// lastWords lets the supervisor read the last figures, while the ops handler
// still answers.
func (u *underling) lastWords() {
	if _, err := u.conn.Write([]byte{wordLast}); err != nil {
		return
	}
	select {
	case <-u.dismissed:
	case <-time.After(lastPatience):
	}
}

// Accept implements net.Listener.
func (u *underling) Accept() (net.Conn, error) {
	select {
	case c := <-u.conns:
		return c, nil
	case <-u.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Orders are taken on.
func (u *underling) Close() error {
	u.closeOnce.Do(func() { close(u.closed) })
	return nil
}

// Addr implements net.Listener.
func (u *underling) Addr() net.Addr { return u.conn.LocalAddr() }
