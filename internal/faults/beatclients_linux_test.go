package faults

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/netlab"
)

// beatClients are connections from inside a namespace that beat, and read
// everything else that comes. Each waits for the answer to a beat before it sends the next.
type beatClients struct {
	t   testing.TB
	all []*beatClient

	// Held for reading while a beat or its answer may be under way. Holding
	// it for writing means that each beat sent was answered.
	underWay sync.RWMutex
	wg       sync.WaitGroup
	quit     chan struct{}
}

// A beatClient is one of them.
type beatClient struct {
	conn  *net.TCPConn
	port  int // ours, by which the server's side knows it
	every time.Duration
	in    *bufio.Reader

	mu       sync.Mutex
	beats    int           // answered ones
	lastBeat int64         // before the last of those was written (monotonic)
	answered int64         // after its answer was read
	longest  time.Duration // the longest from before one beat was written until after the next was
	data     int           // bytes of DATA read
	ended    error         // what ended it, other than us
}

// startBeatClients connects n of them, one after the other over the first beat
// interval, and returns when each has had an answer.
func startBeatClients(t testing.TB, ns *netlab.Namespace, addr string, n int, every time.Duration) *beatClients {
	t.Helper()
	bs := &beatClients{t: t, quit: make(chan struct{})}
	t.Cleanup(bs.stop)
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		nc, err := ns.Dial(ctx, "tcp4", addr)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		b := &beatClient{conn: nc.(*net.TCPConn), port: nc.LocalAddr().(*net.TCPAddr).Port, every: every,
			in: bufio.NewReaderSize(nc, 16<<10)}
		bs.all = append(bs.all, b)
		if err := b.conn.SetKeepAlive(false); err != nil { // beats alone are to keep it
			t.Fatal(err)
		}
		if err := b.beat(); err != nil {
			t.Fatal(err)
		}
		bs.wg.Add(1)
		go bs.run(b)
		time.Sleep(every / time.Duration(n))
	}
	return bs
}

func (bs *beatClients) run(b *beatClient) {
	defer bs.wg.Done()
	for {
		err := b.drain(time.Now().Add(b.every))
		if err == nil {
			bs.underWay.RLock()
			err = b.beat()
			bs.underWay.RUnlock()
		}
		if err != nil {
			b.mu.Lock()
			b.ended = err
			b.mu.Unlock()
			return
		}
		select {
		case <-bs.quit:
			return
		default:
		}
	}
}

// stop ends all beating and closes the connections by a reset.
func (bs *beatClients) stop() {
	select {
	case <-bs.quit:
		return
	default:
	}
	close(bs.quit)
	for _, b := range bs.all {
		_ = b.conn.SetLinger(0)
		_ = b.conn.Close()
	}
	bs.wg.Wait()
}

// beat sends a beat and reads until its answer.
func (b *beatClient) beat() error {
	start := monotonic()
	if _, err := b.conn.Write(beat); err != nil {
		return err
	}
	b.wrote(monotonic())
	_ = b.conn.SetReadDeadline(time.Time{}) // no limit: closing ends it
	for {
		op, size, err := b.next()
		if err != nil {
			return err
		}
		if op == codec.OpBeat {
			break
		}
		b.took(size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats++
	b.lastBeat, b.answered = start, monotonic()
	return nil
}

func (b *beatClient) wrote(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.beats > 0 {
		b.longest = max(b.longest, time.Duration(now-b.lastBeat))
	}
}

// drain reads until a moment.
func (b *beatClient) drain(until time.Time) error {
	_ = b.conn.SetReadDeadline(until)
	for {
		op, size, err := b.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case err != nil:
			return err
		case op != codec.OpData:
			return fmt.Errorf("got %s, which nothing asked for", op)
		}
		b.took(size)
	}
}

func (b *beatClient) took(size int) {
	b.mu.Lock()
	b.data += size
	b.mu.Unlock()
}

// next reads a frame and returns its op and size. A deadline loses nothing.
func (b *beatClient) next() (codec.Op, int, error) {
	head, err := b.in.Peek(codec.HeaderSize)
	if err != nil {
		return 0, 0, err
	}
	size, err := codec.FrameSize(head, codec.DefaultMaxFrame)
	if err != nil {
		return 0, 0, err
	}
	if head, err = b.in.Peek(min(size, codec.HeaderSize+1)); err != nil {
		return 0, 0, err
	}
	op := codec.OpBeat
	if len(head) > codec.HeaderSize {
		op = codec.Op(head[codec.HeaderSize])
	}
	if _, err = b.in.Peek(size); err == nil {
		_, err = b.in.Discard(size)
	}
	return op, size, err
}

// awaitData waits until each has read n bytes of DATA.
func (bs *beatClients) awaitData(n int) {
	bs.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		least := n
		for _, b := range bs.all {
			b.mu.Lock()
			least = min(least, b.data)
			b.mu.Unlock()
		}
		if least >= n {
			return
		}
		if time.Now().After(end) {
			bs.t.Fatalf("only %d bytes of data have come after %s", least, limit)
		}
	}
}

// silences returns what is known of each client that is to be found dead, in
// order: when its last beat that arrived was sent and answered.
func (bs *beatClients) silences(sockets *socketWatch) []silence {
	var all []silence
	for _, b := range bs.all {
		b.mu.Lock()
		s := sockets.closed(b.port)
		s.LastBeat, s.Answered = b.lastBeat, b.answered
		if b.ended != nil {
			bs.t.Errorf("a client that was to hear nothing more got: %v", b.ended)
		}
		b.mu.Unlock()
		all = append(all, s)
	}
	return all
}
