//go:build linux

package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"heartwheel/bench/peers/peer"
)

// limit is how long a test waits for something that has to happen. It is only
// ever waited for in full when a test fails.
const limit = 30 * time.Second

func dial(t *testing.T, s *server) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// frame returns a frame of n bytes. Its first one makes it DATA, which
// heartwheel echoes as it is.
func frame(n int) []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, peer.Header+n), uint32(n))
	for i := range n {
		b = append(b, byte(3+i*i))
	}
	return b
}

// window is how much may be on its way: less than heartwheel's outbox holds, so
// that a slow machine makes no peer a slow consumer, and more than any frame.
const window = 192 << 10

// echoed writes b in pieces of what size says, and reads it back meanwhile.
func echoed(t *testing.T, c net.Conn, b []byte, size func(left int) int) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	read := make(chan int) // bytes that have come back
	go func() {
		for sent, back := 0, 0; ; {
			for sent < len(b) && sent-back < window {
				n, err := c.Write(b[sent : sent+size(min(len(b)-sent, window))])
				if err != nil {
					t.Errorf("write: %v", err)
				}
				if sent += n; err != nil {
					sent = len(b)
				}
			}
			n, ok := <-read
			if !ok {
				return
			}
			back += n
		}
	}()
	defer close(read)
	got := make([]byte, len(b))
	for back := 0; back < len(b); {
		n, err := c.Read(got[back:])
		if back += n; err != nil {
			t.Fatalf("after %d of %d bytes: %v", back, len(b), err)
		}
		read <- n
	}
	if at := differs(got, b); at >= 0 {
		t.Fatalf("byte %d of %d differs", at, len(b))
	}
}

// differs returns the first index at which two slices of one length differ, or
// -1.
func differs(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

func all(left int) int { return left }

// sizes has the edges of the header, of bufio's buffers, of the event loops' read
// buffers and of what is accepted.
var sizes = []int{0, 1, 2, 3, 4, 5, 16, 507, 508, 509, 512, 1 << 10, 4091, 4092, 4093, 4096,
	16 << 10, 65531, 65532, 65533, peer.MaxFrame - 1, peer.MaxFrame}

func TestEcho(t *testing.T) {
	each(t, func(t *testing.T, b subject) {
		s := start(t, b, time.Minute)
		t.Run("size", func(t *testing.T) {
			c := dial(t, s)
			for _, n := range sizes {
				echoed(t, c, frame(n), all)
			}
		})
		t.Run("byte by byte", func(t *testing.T) {
			c := dial(t, s)
			for _, n := range []int{0, 1, 5, 600} {
				echoed(t, c, frame(n), func(int) int { return 1 })
			}
		})
		t.Run("pieces", func(t *testing.T) {
			c := dial(t, s)
			rng := rand.New(rand.NewPCG(1, 2))
			var stream []byte
			for range 3 {
				for _, n := range sizes {
					stream = append(stream, frame(n)...)
				}
			}
			echoed(t, c, stream, func(left int) int { return min(left, 1+rng.IntN(9000)) })
		})
		t.Run("many in one write", func(t *testing.T) {
			c := dial(t, s)
			var stream []byte
			for i := range 2000 {
				stream = append(stream, frame(i%40)...)
			}
			echoed(t, c, stream, all)
		})
	})
}

// A peer that reads late gets everything: what a socket does not take has to
// wait somewhere. heartwheel bounds that, and has tests of its own for it.
func TestEchoToLateReader(t *testing.T) {
	each(t, func(t *testing.T, b subject) {
		if b.real {
			t.Skip("it closes slow consumers")
		}
		s := start(t, b, time.Minute)
		c := dial(t, s)
		_ = c.SetDeadline(time.Now().Add(limit))
		_ = c.SetReadBuffer(16 << 10)
		stream := bytes.Repeat(frame(40_000), 150) // 6 MB, in frames that end within a read; nbio closes at 6 MiB
		wrote := make(chan error, 1)
		go func() {
			_, err := c.Write(stream)
			wrote <- err
		}()
		select {
		case err := <-wrote:
			wrote <- err
		case <-time.After(300 * time.Millisecond): // the server waits for us to read
		}
		// What waits must not be in a buffer that serves others, too.
		echoed(t, dial(t, s), bytes.Repeat(frame(1000), 100), all)
		got := make([]byte, len(stream))
		if n, err := io.ReadFull(c, got); err != nil {
			t.Fatalf("after %d of %d bytes: %v", n, len(stream), err)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
		if at := differs(got, stream); at >= 0 {
			t.Errorf("byte %d differs", at)
		}
	})
}

// What is echoed must not wait for what is still to come.
func TestEchoBeforeTheNextIsWhole(t *testing.T) {
	each(t, func(t *testing.T, b subject) {
		c := dial(t, start(t, b, time.Minute))
		_ = c.SetDeadline(time.Now().Add(limit))
		for _, cut := range []int{1, 3, 4, 5, 3000, 50_000} { // bytes of the next frame
			first, next := frame(7), frame(peer.MaxFrame)
			if _, err := c.Write(append(bytes.Clone(first), next[:cut]...)); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(first))
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatalf("with %d bytes of the next frame behind it: %v", cut, err)
			}
			if _, err := c.Write(next[cut:]); err != nil {
				t.Fatal(err)
			}
			got = make([]byte, len(next))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, next) {
				t.Fatalf("a frame cut at %d: %v", cut, err)
			}
		}
	})
}

func TestTooLongIsClosed(t *testing.T) {
	each(t, func(t *testing.T, b subject) {
		s := start(t, b, time.Minute)
		c := dial(t, s)
		_ = c.SetDeadline(time.Now().Add(limit))
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, peer.MaxFrame+1)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the connection is still open")
		}
		echoed(t, dial(t, s), frame(5), all) // the others are served
	})
}

func TestFigures(t *testing.T) {
	each(t, func(t *testing.T, b subject) {
		if b.real {
			t.Skip("it has metrics")
		}
		s := start(t, b, time.Minute)
		for range 3 {
			echoed(t, dial(t, s), frame(0), all) // an answer proves that it is open
		}
		for range 2 {
			f := s.figures(t)
			if f.Connections != 3 {
				t.Errorf("%d connections, want 3", f.Connections)
			}
			if f.HeapLive == 0 || f.HeapInUse == 0 || f.Sys < f.HeapLive || f.Goroutines == 0 {
				t.Errorf("that cannot be: %+v", f)
			}
			if f.GCCount != 0 {
				t.Errorf("%d collections, but there was no reason for one: the forced ones count", f.GCCount)
			}
		}
	})
}

// A server that cannot listen says so and ends.
func TestCannotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() }) // when the parallel ones have ended
	each(t, func(t *testing.T, b subject) {
		if b.real {
			t.Skip("its own tests have that")
		}
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		out, err := exec.CommandContext(ctx, b.binary(), "-addr", taken.Addr().String()).CombinedOutput()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 ||
			!bytes.Contains(out, []byte("in use")) {
			t.Errorf("%v: %s", err, out)
		}
	})
}
