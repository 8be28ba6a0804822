package faults

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/codec"
)

// beat is the empty frame.
var beat = []byte{0, 0, 0, 0}

// A conn is one connection of a test that looks at every frame. Its methods
// that end in Err return what is wrong, the others fail the test.
type conn struct {
	*net.TCPConn
	tls *tls.Conn // around it; nil: none
	t   testing.TB
	buf []byte // received, not decoded yet
}

var echoes atomic.Uint64

// dial connects. The test's end closes the connection with a reset, if it is
// still open.
func dial(t testing.TB, addr string) *conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		t.Fatal(err)
	}
	c := &conn{TCPConn: nc.(*net.TCPConn), t: t}
	t.Cleanup(c.reset)
	return c
}

func (c *conn) Read(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(b)
	}
	return c.TCPConn.Read(b)
}

func (c *conn) Write(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Write(b)
	}
	return c.TCPConn.Write(b)
}

// reset closes the connection by a reset.
func (c *conn) reset() {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (c *conn) send(b []byte) {
	c.t.Helper()
	if err := c.sendErr(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *conn) sendErr(b []byte) error {
	_ = c.SetWriteDeadline(time.Now().Add(limit))
	_, err := c.Write(b)
	return err
}

// frameErr returns the next frame, whose payload is valid until the next call.
func (c *conn) frameErr() (codec.Frame, error) {
	for {
		f, n, err := codec.Decode(c.buf, codec.MaxFrameLimit)
		if err != nil {
			return f, err
		}
		if n > 0 {
			c.buf = c.buf[n:]
			return f, nil
		}
		_ = c.SetReadDeadline(time.Now().Add(limit))
		chunk := make([]byte, 4096)
		n, err = c.Read(chunk)
		c.buf = append(bytes.Clone(c.buf), chunk[:n]...)
		if err != nil && n == 0 {
			if err == io.EOF && len(c.buf) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return codec.Frame{}, err
		}
	}
}

func (c *conn) frame() codec.Frame {
	c.t.Helper()
	f, err := c.frameErr()
	if err != nil {
		c.t.Fatal(err)
	}
	return f
}

// echoErr sends DATA of its own and a beat, and wants both back.
func (c *conn) echoErr() error {
	text := fmt.Sprintf("echo %d", echoes.Add(1))
	if err := c.sendErr(append(codec.AppendData(nil, []byte(text)), beat...)); err != nil {
		return err
	}
	f, err := c.frameErr()
	if err != nil {
		return err
	}
	if f.Op != codec.OpData || string(f.Payload) != text {
		return fmt.Errorf("got %s %q back for the data %q", f.Op, f.Payload, text)
	}
	if f, err = c.frameErr(); err != nil {
		return err
	}
	if f.Op != codec.OpBeat {
		return fmt.Errorf("got %s %q back for a beat", f.Op, f.Payload)
	}
	return nil
}

func (c *conn) echo() {
	c.t.Helper()
	if err := c.echoErr(); err != nil {
		c.t.Fatal(err)
	}
}

// wantClose wants CLOSE with a code as the next frame, then the end of the
// stream. It returns the text.
func (c *conn) wantClose(code codec.Code) string {
	c.t.Helper()
	f := c.frame()
	if f.Op != codec.OpClose {
		c.t.Fatalf("got %s %q, not close %d", f.Op, f.Payload, code)
	}
	got, text, err := codec.ParseClose(f.Payload)
	if err != nil || got != code {
		c.t.Fatalf("got close %d %q %v, not %d", got, text, err, code)
	}
	if text == "" {
		c.t.Errorf("close %d says nothing", code)
	}
	c.wantEnd()
	return text
}

// wantGoaway wants GOAWAY with a code as the next frame, then the end.
func (c *conn) wantGoaway(code codec.Code) {
	c.t.Helper()
	f := c.frame()
	if f.Op != codec.OpGoaway {
		c.t.Fatalf("got %s %q, not goaway %d", f.Op, f.Payload, code)
	}
	g, err := codec.ParseGoaway(f.Payload)
	if err != nil || g.Code != code {
		c.t.Fatalf("got goaway %+v %v, not %d", g, err, code)
	}
	c.wantEnd()
}

// wantEnd wants nothing more, but an orderly end.
func (c *conn) wantEnd() {
	c.t.Helper()
	if f, err := c.frameErr(); err != io.EOF {
		c.t.Fatalf("got %s %q %v, not the end", f.Op, f.Payload, err)
	}
}

// neighbours are connections that behave, beside others that do not. Each
// sends data and a beat all the time and wants both back.
type neighbours struct {
	conns []*conn
	quit  chan struct{}
	done  chan error // one for each
}

func startNeighbours(t testing.TB, addr string, n int) *neighbours {
	t.Helper()
	nb := &neighbours{quit: make(chan struct{}), done: make(chan error, n)}
	for range n {
		c := dial(t, addr)
		c.echo()
		nb.conns = append(nb.conns, c)
	}
	for _, c := range nb.conns {
		go func() {
			for {
				select {
				case <-nb.quit:
					nb.done <- nil
					return
				case <-time.After(50 * time.Millisecond):
				}
				if err := c.echoErr(); err != nil {
					nb.done <- err
					return
				}
			}
		}()
	}
	return nb
}

// stop ends them, and says what went wrong with any of them. Their connections
// stay open.
func (nb *neighbours) stop() error {
	close(nb.quit)
	var errs []error
	for range nb.conns {
		errs = append(errs, <-nb.done)
	}
	return errors.Join(errs...)
}

// raw is bytes written by hand, as in "00 00 00 01 0f".
func raw(hex string) []byte {
	var b []byte
	for _, field := range strings.Fields(hex) {
		var v byte
		if _, err := fmt.Sscanf(field, "%02x", &v); err != nil {
			panic(err)
		}
		b = append(b, v)
	}
	return b
}
