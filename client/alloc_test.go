package client

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"heartwheel/codec"
)

// A quietWire is a net.Conn in memory that allocates nothing. Reads take from in; each
// write leaves a token in wrote.
type quietWire struct {
	net.Conn
	in    chan []byte
	wrote chan struct{}
	ended chan struct{}
}

func (q *quietWire) Read(b []byte) (int, error) {
	select {
	case in := <-q.in:
		return copy(b, in), nil
	case <-q.ended:
		return 0, net.ErrClosed
	}
}

func (q *quietWire) Write(b []byte) (int, error) {
	q.wrote <- struct{}{}
	return len(b), nil
}

func (q *quietWire) Close() error                     { close(q.ended); return nil }
func (q *quietWire) SetWriteDeadline(time.Time) error { return nil }

// quiet makes a connection over a quietWire. It must write nothing but what the
// test takes.
func quiet(t *testing.T, cfg Config, w codec.Welcome) (*Conn, *quietWire) {
	t.Helper()
	q := &quietWire{in: make(chan []byte), wrote: make(chan struct{}), ended: make(chan struct{})}
	cfg = cfg.withDefaults()
	nc := net.Conn(progressConn{q})
	if rigScheme == "ws" {
		nc = newWebConn(nc, nil, cfg.MaxFrame)
	}
	c := newConn(nc, &cfg, &w)
	c.wait, c.in = &waiter{}, &inbox{limit: cfg.ReceiveBuffer}
	c.start(nil)
	t.Cleanup(func() {
		go func() {
			for {
				select {
				case <-q.wrote:
				case <-c.Done():
					return
				}
			}
		}()
		c.Close()
	})
	return c, q
}

// wire returns a frame as rigScheme has it.
func wire(b []byte) []byte {
	if rigScheme == "ws" {
		return ws.MustCompileFrame(ws.NewBinaryFrame(b[codec.HeaderSize:]))
	}
	return b
}

// Nor do a beat and frames over a WebSocket, where pings are the beats of a server.
func TestWebAllocs(t *testing.T) {
	rigScheme = "ws"
	defer func() { rigScheme = "tcp" }()
	t.Run("beat", TestBeatAllocs)
	t.Run("receive", TestReceiveAllocs)
	t.Run("fragments", func(t *testing.T) {
		w := welcomed
		w.BeatMS, w.TimeoutMS = 3600_000, 3*3600_000
		got := make(chan struct{}, 1)
		_, q := quiet(t, Config{OnData: func([]byte) { got <- struct{}{} }}, w)
		in := append(frame(ws.OpBinary, false, "\x03in "), frame(ws.OpContinuation, true, "two")...)
		n := testing.AllocsPerRun(1000, func() {
			q.in <- in
			<-got
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

// A beat and its answer allocate nothing, whichever side beats.
func TestBeatAllocs(t *testing.T) {
	answer := wire(codec.AppendBeat(nil))
	t.Run("client", func(t *testing.T) {
		w := welcomed
		w.BeatMS, w.TimeoutMS = 10, 60_000
		c, q := quiet(t, Config{}, w)
		n := testing.AllocsPerRun(50, func() {
			<-q.wrote
			q.in <- answer
		})
		if b := c.Beats(); b.Sent < 50 || b.Answered < 50 {
			t.Fatalf("only %+v", b)
		}
		if n != 0 {
			t.Errorf("%v allocations per beat", n)
		}
	})
	t.Run("server", func(t *testing.T) {
		w := welcomed
		w.Beats, w.BeatMS, w.TimeoutMS = "server", 3600_000, 3*3600_000
		c, q := quiet(t, Config{}, w)
		if rigScheme == "ws" {
			answer = ws.CompiledPing
		}
		n := testing.AllocsPerRun(1000, func() {
			q.in <- answer
			<-q.wrote
		})
		if b := c.Beats(); b.Sent < 1000 {
			t.Fatalf("only %+v", b)
		}
		if n != 0 {
			t.Errorf("%v allocations per beat", n)
		}
	})
}

// Neither does a frame that is received, of any size that fits the buffers.
func TestReceiveAllocs(t *testing.T) {
	w := welcomed
	w.BeatMS, w.TimeoutMS = 3600_000, 3*3600_000
	one := wire(codec.AppendData(nil, make([]byte, 16)))
	many := []byte(nil)
	for range 5 {
		many = append(many, one...)
	}
	for name, in := range map[string][]byte{"one": one, "many": many,
		"ping": wire(codec.AppendPing(nil, []byte("12345678")))} {
		t.Run("OnData/"+name, func(t *testing.T) {
			got := make(chan struct{}, 8)
			_, q := quiet(t, Config{OnData: func([]byte) { got <- struct{}{} }}, w)
			n := testing.AllocsPerRun(1000, func() {
				q.in <- in
				if name == "ping" {
					<-q.wrote
					return
				}
				for range len(in) / len(one) {
					<-got
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
	for name, frames := range map[string]int{"one": 1, "many": 5} {
		t.Run("Receive/"+name, func(t *testing.T) {
			c, q := quiet(t, Config{}, w)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			dst := make([]byte, 0, 16)
			n := testing.AllocsPerRun(1000, func() {
				if frames == 1 {
					q.in <- one
				} else {
					q.in <- many
				}
				for range frames {
					if got, err := c.Receive(ctx, dst); err != nil || len(got) != 16 {
						t.Errorf("%d bytes, %v", len(got), err)
					}
				}
			})
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
