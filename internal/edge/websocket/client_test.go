package websocket

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// serveEcho is a server of one goroutine a connection that echoes messages, for
// real clients.
func serveEcho(t *testing.T) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	u := newUpgrader(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(u, c)
		}
	}()
	return l.Addr().String()
}

func echo(u *Upgrader, c net.Conn) {
	defer c.Close()
	var in, message []byte
	var f *Framing
	b := make([]byte, 1000)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		in = append(in, b[:n]...)
		if f == nil {
			r, used, a := u.Read(in)
			if a != nil {
				_, _ = c.Write(a.Bytes)
				return
			}
			if r == nil {
				continue
			}
			_, _ = c.Write(r.AppendAccept(nil))
			f, in = NewFraming(1<<20), in[used:]
		}
		for len(in) > 0 {
			p, k, end, used, err := f.Next(in)
			if err != nil {
				_, _ = c.Write(f.AppendClose(nil, CloseCode(err), err.Error()))
				return
			}
			if used == 0 {
				break
			}
			switch k {
			case KindPing:
				_, _ = c.Write(f.Append(nil, p, KindPong))
			case KindClose:
				_, _ = c.Write(f.AppendCloseAnswer(nil, p))
				return
			case KindText, KindBinary:
				if message = append(message, p...); end {
					_, _ = c.Write(f.Append(nil, message, k))
					message = message[:0]
				}
			}
			in = slices.Clone(in[used:])
		}
	}
}

func TestGorilla(t *testing.T) {
	t.Parallel()
	d := gorilla.Dialer{Subprotocols: []string{"chat"}, EnableCompression: true, WriteBufferSize: 700}
	c, r, err := d.Dial("ws://"+serveEcho(t)+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Subprotocol() != "chat" || r.Header.Get("Sec-Websocket-Extensions") != "" {
		t.Errorf("response %v", r.Header)
	}
	pong := ""
	c.SetPongHandler(func(s string) error { pong = s; return nil })
	for _, size := range []int{0, 1, 125, 126, 65535, 65536, 300_000} { // the larger in fragments
		for _, kind := range []int{gorilla.TextMessage, gorilla.BinaryMessage} {
			want := bytes.Repeat([]byte("é"), size/2+1)[:size&^1]
			w, err := c.NextWriter(kind)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(want)
			_ = c.WriteControl(gorilla.PingMessage, []byte("p"), time.Time{})
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if k, got, err := c.ReadMessage(); err != nil || k != kind || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: got %d, %d bytes, %v", size, k, len(got), err)
			}
		}
	}
	if pong != "p" {
		t.Errorf("pong %q", pong)
	}
	_ = c.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(4100, "bye"), time.Time{})
	if _, _, err := c.ReadMessage(); !gorilla.IsCloseError(err, 4100) {
		t.Errorf("after close: %v", err)
	}
	bad, _, err := gorilla.DefaultDialer.Dial("ws://"+serveEcho(t)+"/chat", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	_ = bad.WriteMessage(gorilla.TextMessage, []byte("\xff"))
	if _, _, err := bad.ReadMessage(); !gorilla.IsCloseError(err, 1007) {
		t.Errorf("after invalid UTF-8: %v", err)
	}
}

func TestCoder(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	options := &coder.DialOptions{CompressionMode: coder.CompressionContextTakeover}
	c, _, err := coder.Dial(ctx, "ws://"+serveEcho(t)+"/open", options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(-1)
	for _, size := range []int{0, 1, 65536, 200_000} {
		want := []byte(strings.Repeat("x", size))
		if err := c.Write(ctx, coder.MessageBinary, want); err != nil {
			t.Fatal(err)
		}
		if k, got, err := c.Read(ctx); err != nil || k != coder.MessageBinary || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: got %v, %d bytes, %v", size, k, len(got), err)
		}
	}
	if err := c.Close(4001, "bye"); err != nil {
		t.Errorf("close: %v", err)
	}
	large, _, err := coder.Dial(ctx, "ws://"+serveEcho(t)+"/open", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = large.CloseNow() }()
	_ = large.Write(ctx, coder.MessageBinary, make([]byte, 1<<20+1))
	var end coder.CloseError
	if _, _, err := large.Read(ctx); !errors.As(err, &end) || end.Code != 1009 {
		t.Errorf("a message over the limit: %v", err)
	}
}
