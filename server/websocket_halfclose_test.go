package server

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

// Over sockets: many messages, then the end, in each way that there is; the answers
// are read later, all of them, and then an end in order.
func TestEdgeHalfCloseOverSockets(t *testing.T) {
	t.Parallel()
	cfg, tc := secureConfig(t)
	s, urls := edgeURLs(t, cfg, Echo{})
	ws, wss, raw := urls[0], urls[1], urls[2]
	const messages = 120
	body := strings.Repeat("x", 1000)
	frames := bytes.Repeat(masked(wsBinary, "\x03"+body), messages)
	native := bytes.Repeat(data(body), messages)
	tcp := func(c net.Conn) *net.TCPConn {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		return c.(*net.TCPConn)
	}
	fin := func(c net.Conn) { _ = tcp(c).CloseWrite() }
	for name, tt := range map[string]struct {
		url string
		end func(c net.Conn)
	}{
		"ws, FIN":                 {ws, fin},
		"ws, close frame":         {ws, func(c net.Conn) { _, _ = c.Write(masked(wsClose, "\x10\xe1bye")) }},
		"ws, close frame and FIN": {ws, func(c net.Conn) { _, _ = c.Write(masked(wsClose, "\x10\xe1bye")); fin(c) }},
		"wss, FIN":                {wss, fin},
		"wss, close_notify":       {wss, func(c net.Conn) { _ = c.(*tls.Conn).CloseWrite() }},
		"wss, close frame, close_notify, FIN": {wss, func(c net.Conn) {
			_, _ = c.Write(masked(wsClose, "\x10\xe1bye"))
			_ = c.(*tls.Conn).CloseWrite()
			fin(c)
		}},
		"tls, FIN":                  {raw, fin},
		"tls, close_notify":         {raw, func(c net.Conn) { _ = c.(*tls.Conn).CloseWrite() }},
		"tls, close_notify and FIN": {raw, func(c net.Conn) { _ = c.(*tls.Conn).CloseWrite(); fin(c) }},
		"tls, CLOSE": {raw, func(c net.Conn) {
			_, _ = c.Write(codec.AppendClose(nil, codec.CodePeerClosed, ""))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var c net.Conn
			var w *wsClient
			in := native
			if tt.url == raw {
				c = dialByHand(t, raw, tc)
			} else {
				w = openByHand(t, tt.url, tc)
				c, in = w.Conn, frames
			}
			_ = tcp(c).SetReadBuffer(16 << 10)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				_, _ = c.Write(in)
				tt.end(c)
			}()
			select {
			case <-sent:
			case <-time.After(100 * time.Millisecond): // it has to be read from
			}
			if w == nil {
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, native) {
					t.Errorf("%d bytes of %d came back, %v", len(got), len(native), err)
				}
				<-sent
				return
			}
			all, err := w.rest()
			closing := wsFrame{wsClose, "\x10\xe1"}
			if strings.Contains(name, "frame") {
				if len(all) == 0 || all[len(all)-1] != closing {
					t.Errorf("the last of %d frames is not the answer to the close frame", len(all))
				}
				all = all[:max(0, len(all)-1)]
			}
			if err != io.EOF || len(all) != messages ||
				slices.ContainsFunc(all, func(f wsFrame) bool {
					return f.first != wsBinary || f.content != "\x03"+body
				}) {
				t.Errorf("%d messages of %d came back, %v", len(all), messages, err)
			}
			<-sent
		})
	}
	t.Cleanup(func() {
		eventually(t, "all are closed", func() bool { return s.Stats().Connections == 0 })
		if st := s.Stats(); st.InputBytes != 0 || st.OutboxBytes != 0 || st.Closed["peer_closed"] != 10 {
			t.Errorf("in the end %d + %d bytes are kept; closed %v", st.InputBytes, st.OutboxBytes, st.Closed)
		}
		if ck := s.Check(); !ck.OK {
			t.Errorf("check: %+v", ck)
		}
	})
}

// A server that ends a connection says so in the last frame, and over TLS in the last
// record, before FIN, also to a peer that goes on sending.
func TestEdgeEndsInOrder(t *testing.T) {
	t.Parallel()
	cfg, tc := secureConfig(t)
	h := &hooks{frame: func(c *Conn, f codec.Frame) error {
		c.Close(4600, string(f.Payload))
		return nil
	}}
	_, urls := edgeURLs(t, cfg, h)
	for _, url := range urls[:2] {
		for range 20 {
			w := openByHand(t, url, tc)
			w.send(masked(wsBinary, "\x03why"))
			go func() { _, _ = w.Write(masked(wsBinary, strings.Repeat("\x03", 5000))) }()
			if all, err := w.rest(); err != io.EOF || len(all) != 1 || all[0] != (wsFrame{wsClose, "\x11\xf8why"}) {
				t.Fatalf("%s: got %q, %v", url, all, err)
			}
		}
	}
	c := dialByHand(t, urls[2], tc)
	_, _ = c.Write(data("why"))
	if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, codec.AppendClose(nil, 4600, "why")) {
		t.Errorf("%q, %v", b, err)
	}
}
