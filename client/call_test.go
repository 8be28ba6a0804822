package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// blockingCalls are all calls that can block, each in a situation where it does.
var blockingCalls = map[string]func(t *testing.T, ctx context.Context, cfg func(*Config)) error{
	"Dial": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		r := newRig(t)
		r.mute = true
		cfg(&r.cfg)
		r.cfg.ConnectTimeout = time.Hour
		c, err := Dial(ctx, "tcp://server:1", r.cfg)
		if c != nil {
			t.Error("a client beside an error")
		}
		return err
	},
	"NewConn": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		r := newRig(t)
		r.mute = true
		nc, _ := r.dial(ctx, "", "")
		cfg(&r.cfg)
		r.cfg.ConnectTimeout = time.Hour
		_, err := NewConn(ctx, nc, r.cfg)
		return err
	},
	"Send while disconnected": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		c := waitingClient(t, cfg)
		defer c.Close()
		return c.Send(ctx, []byte("x"))
	},
	"Send to a full buffer": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		r := newRig(t)
		cfg(&r.cfg)
		r.cfg.SendBuffer = 100
		read := make(chan struct{})
		defer close(read)
		r.onFrame = func(_ *peer, f codec.Frame) {
			if f.Op == codec.OpData {
				<-read // the server does not
			}
		}
		c := r.connect()
		defer c.Close()
		for range 3 { // the first is read, the second in writing, the third waits
			if err := c.Send(t.Context(), make([]byte, 90)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		err := c.Send(ctx, make([]byte, 90))
		r.peer().hangUp()
		return err
	},
	"Request": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		c := connectedClient(t, cfg)
		defer c.Close()
		_, err := c.Request(ctx, "subject", nil)
		return err
	},
	"Receive": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		c := connectedClient(t, cfg)
		defer c.Close()
		_, err := c.Receive(ctx, nil)
		return err
	},
	"Beat": func(t *testing.T, ctx context.Context, cfg func(*Config)) error {
		r := newRig(t)
		cfg(&r.cfg)
		c := r.connect()
		defer c.Close()
		r.peer().setSilent(true)
		_, err := c.Beat(ctx)
		return err
	},
}

func connectedClient(t *testing.T, cfg func(*Config)) *Client {
	r := newRig(t)
	cfg(&r.cfg)
	return r.connect()
}

// waitingClient has lost its server.
func waitingClient(t *testing.T, cfg func(*Config)) *Client {
	r := newRig(t)
	cfg(&r.cfg)
	c := r.connect()
	r.setRefuse(errRefused)
	r.peer().hangUp()
	synctest.Wait()
	return c
}

// While a call blocks, OnHeartbeat runs every HeartbeatRate. The call ends at the
// moment its context does.
func TestHeartbeatAndCancel(t *testing.T) {
	for name, call := range blockingCalls {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var beats []time.Duration
				var from time.Time
				// Not guarded: it runs in this goroutine, which -race checks.
				onHeartbeat := func() { beats = append(beats, time.Since(from)) }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(950*time.Millisecond, cancel)
				from = time.Now()
				err := call(t, ctx, func(c *Config) {
					c.OnHeartbeat = onHeartbeat
					c.HeartbeatRate = 250 * time.Millisecond
				})
				if took := time.Since(from); took != 950*time.Millisecond {
					t.Errorf("ended after %s, cancelled after 950ms", took)
				}
				if !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
				wantTimes(t, "heartbeats", beats, 0.25, 0.5, 0.75)
			})
		})
	}
}

// An OnHeartbeat that cancels the context ends the call (Synapse's StopFlag).
func TestHeartbeatCancels(t *testing.T) {
	for name, call := range blockingCalls {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				from := time.Now()
				err := call(t, ctx, func(c *Config) { c.OnHeartbeat = cancel })
				if took := time.Since(from); took != 100*time.Millisecond || !errors.Is(err, context.Canceled) {
					t.Errorf("ended after %s with %v", took, err)
				}
			})
		})
	}
}

// A call whose context has already ended sends nothing.
func TestEndedContext(t *testing.T) {
	for name, call := range blockingCalls {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				if err := call(t, ctx, func(*Config) {}); !errors.Is(err, context.Canceled) {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

// Close ends every blocked call, and OnHeartbeat may call it.
func TestCloseEndsCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		ends := make(chan error, 3)
		go func() { _, err := c.Receive(t.Context(), nil); ends <- err }()
		go func() { _, err := c.Request(t.Context(), "x", nil); ends <- err }()
		synctest.Wait()
		c.Close()
		for range 2 {
			if err := <-ends; !errors.Is(err, ErrClosed) {
				t.Errorf("error %v", err)
			}
		}
		if err := c.Send(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Close: %v", err)
		}
		c.Close() // again
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		var c *Client
		r.cfg.OnHeartbeat = func() {
			if c != nil {
				c.Close()
			}
		}
		c = r.connect()
		if _, err := c.Receive(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("error %v", err)
		}
	})
}

func TestRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.onFrame = func(p *peer, f codec.Frame) {
			if f.Op != codec.OpReq {
				return
			}
			id, subject, body, _ := codec.ParseReq(f.Payload)
			switch string(subject) {
			case "echo":
				p.write(codec.AppendRes(nil, id+1000, 0, []byte("unexpected")))
				p.write(codec.AppendRes(nil, id, 0, body))
				p.write(codec.AppendRes(nil, id, 0, []byte("again")))
			case "status":
				p.write(codec.AppendRes(nil, id, 9, body))
			case "error":
				p.write(codec.AppendError(nil, codec.CodeNotFound, "no such subject"))
			case "lose":
				p.hangUp()
			}
		}
		c := r.connect()
		body, err := c.Request(t.Context(), "echo", []byte("hello"))
		if err != nil || string(body) != "hello" {
			t.Errorf("echo: %q, %v", body, err)
		}
		var status *StatusError
		if _, err := c.Request(t.Context(), "status", []byte("why")); !errors.As(err, &status) ||
			status.Status != 9 || string(status.Body) != "why" {
			t.Errorf("status: %v", err)
		}
		var code *CodeError
		if _, err := c.Request(t.Context(), "error", nil); !errors.As(err, &code) || code.Code != codec.CodeNotFound {
			t.Errorf("error: %v", err)
		}
		if _, err := c.Request(t.Context(), "lose", nil); !errors.Is(err, ErrLost) {
			t.Errorf("lost: %v", err)
		}
		if _, err := c.Request(t.Context(), string(make([]byte, 256)), nil); err == nil {
			t.Error("a subject of 256 bytes was accepted")
		}
		if _, err := c.Request(t.Context(), "x", make([]byte, 65536)); !errors.Is(err, ErrFrameTooLarge) {
			t.Errorf("too large: %v", err)
		}
		c.Close()
	})
}

// An ERROR names no request: without a gateway all fail, otherwise the only one.
func TestErrorFrames(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		var told []codec.Code
		r.cfg.OnError = func(e *CodeError) { told = append(told, e.Code) }
		c := r.connect()
		ends := make(chan error, 2)
		for range 2 {
			go func() { _, err := c.Request(t.Context(), "x", nil); ends <- err }()
		}
		synctest.Wait()
		r.peer().write(codec.AppendError(nil, codec.CodeNotAllowed, ""))
		synctest.Wait()
		if !slices.Equal(told, []codec.Code{codec.CodeNotAllowed}) || len(ends) != 0 {
			t.Errorf("OnError was told %v, %d requests ended", told, len(ends))
		}
		r.peer().write(codec.AppendError(nil, codec.CodeNoGateway, ""))
		for range 2 {
			var code *CodeError
			if err := <-ends; !errors.As(err, &code) || code.Code != codec.CodeNoGateway {
				t.Errorf("error %v", err)
			}
		}
		if len(told) != 1 {
			t.Errorf("OnError was told %v", told)
		}
		c.Close()
	})
}

// Messages arrive in order, at one or several receivers, including those from before
// the connection was lost.
func TestReceive(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		const n = 500
		for i := range n {
			r.peer().write(codec.AppendData(nil, fmt.Appendf(nil, "message %d", i)))
		}
		r.peer().write(codec.AppendClose(nil, codec.CodeKicked, ""))
		<-c.Done()
		dst := []byte("> ")
		for i := range n {
			msg, err := c.Receive(t.Context(), dst)
			if want := fmt.Sprintf("> message %d", i); err != nil || string(msg) != want {
				t.Fatalf("%q, %v, want %q", msg, err, want)
			}
		}
		if _, err := c.Receive(t.Context(), nil); err == nil {
			t.Error("one message too many")
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		got := make(chan string, 10)
		for range 3 {
			go func() {
				for {
					msg, err := c.Receive(t.Context(), nil)
					if err != nil {
						return
					}
					got <- string(msg)
				}
			}()
		}
		synctest.Wait()
		for i := range 6 {
			r.peer().write(codec.AppendData(nil, []byte{byte(i)}))
		}
		synctest.Wait()
		if len(got) != 6 {
			t.Errorf("%d of 6 messages were received", len(got))
		}
		c.Close()
	})
}

// An application that does not receive stops the server, which is not found dead for it.
func TestReceiveBufferFull(t *testing.T) {
	for _, beats := range []string{"client", "server"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.welcome.Beats = beats
			r.cfg.ReceiveBuffer = 100
			c := r.connect()
			for i := range 10 {
				r.peer().write(codec.AppendData(nil, append(make([]byte, 500), byte(i))))
			}
			time.Sleep(time.Hour)
			if c.State() != Connected {
				t.Fatalf("beats %s: %s after %v", beats, c.State(), r.last())
			}
			c.in.mu.Lock()
			if n := len(c.in.buf); n != 4+501 { // one is taken, whatever its size
				t.Errorf("%d bytes are buffered", n)
			}
			c.in.mu.Unlock()
			// It keeps beating.
			if n := len(r.peer().times(codec.OpBeat)); n < 300 {
				t.Errorf("beats %s: %d empty frames in an hour", beats, n)
			}
			for i := range 10 {
				msg, err := c.Receive(t.Context(), nil)
				if err != nil || len(msg) != 501 || msg[500] != byte(i) {
					t.Errorf("message %d: %d bytes, %v", i, len(msg), err)
				}
			}
			// Afterwards the server's deadline applies again.
			r.peer().setSilent(true)
			time.Sleep(time.Minute)
			if e := r.last(); c.State() == Connected && len(r.dialTimes()) == 1 {
				t.Errorf("beats %s: a dead server was not noticed: %v", beats, e)
			}
			c.Close()
		})
	}
}

// The time of a slow callback does not count against the server either.
func TestSlowCallback(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		var got []string
		r.cfg.OnData = func(b []byte) {
			time.Sleep(time.Minute)
			got = append(got, string(b))
		}
		c := r.connect()
		r.peer().write(codec.AppendData(nil, []byte("one")))
		r.peer().write(codec.AppendData(nil, []byte("two")))
		time.Sleep(3 * time.Minute)
		if len(r.dialTimes()) != 1 || !slices.Equal(got, []string{"one", "two"}) {
			t.Errorf("%d dials, got %v", len(r.dialTimes()), got)
		}
		c.Close()
	})
}

// A server that reads nothing for 10 s is dead; one that reads slowly is not.
func TestWriteStall(t *testing.T) {
	for _, test := range []struct {
		name  string
		pause time.Duration // between reads of 4 kB
		dead  bool
	}{
		{"slow", 9 * time.Second, false},
		{"stalled", 11 * time.Second, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				c := r.connect()
				p := r.peer()
				big := false
				r.onFrame = func(_ *peer, f codec.Frame) {
					if string(f.Payload) == "slow down" {
						big = true
						buf := make([]byte, 4096)
						for {
							time.Sleep(test.pause)
							if _, err := p.nc.Read(buf); err != nil {
								return
							}
						}
					}
				}
				_ = c.Send(t.Context(), []byte("slow down"))
				synctest.Wait()
				_ = c.Send(t.Context(), make([]byte, 65000))
				synctest.Wait()
				from := r.now()
				time.Sleep(50 * time.Second)
				if !big {
					t.Fatal("the server was never slow")
				}
				if dead := c.State() != Connected || len(r.dialTimes()) > 1; dead != test.dead {
					t.Errorf("dead: %t, want %t: %v", dead, test.dead, r.last())
				}
				for _, e := range r.states() {
					if e.what.State == Waiting && (!errors.Is(e.what.Err, ErrStalled) ||
						e.time != from+10*time.Second) {
						t.Errorf("lost after %s: %v", e.time-from, e.what.Err)
					}
				}
				c.Close()
				time.Sleep(2 * test.pause) // for the server to notice
			})
		})
	}
}

// Frames that could not be sent are reported lost, once.
func TestSendOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.SendBuffer = 1000
		c := r.connect()
		for i := range 100 {
			if err := c.Send(t.Context(), fmt.Appendf(nil, "%03d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Send(t.Context(), make([]byte, 5000)); err != nil { // more than the buffer
			t.Error(err)
		}
		c.Close()       // writes the rest first
		synctest.Wait() // for the peer to read it
		fs := r.peer().frames(codec.OpData)
		if len(fs) != 101 {
			t.Fatalf("%d frames came", len(fs))
		}
		for i, f := range fs[:100] {
			if string(f.Payload) != fmt.Sprintf("%03d", i) {
				t.Errorf("frame %d is %q", i, f.Payload)
			}
		}
	})
}
