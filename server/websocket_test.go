package server

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"heartwheel/codec"
	"heartwheel/internal/testcert"
)

// edgeURLs returns a server's addresses with the schemes of its Config.
func edgeURLs(t *testing.T, cfg Config, h Handler) (s *Server, urls []string) {
	t.Helper()
	s = start(t, cfg, h)
	for i, a := range s.Addrs() {
		url, err := parseListen(cfg.Listen[i])
		if err != nil {
			t.Fatal(err)
		}
		url.Port = uint16(a.(*net.TCPAddr).Port)
		urls = append(urls, url.String())
	}
	return s, urls
}

func dialWS(t *testing.T, url string, tc *tls.Config) *websocket.Conn {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience, TLSClientConfig: tc}
	c, resp, err := d.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	return c
}

// secureConfig has a listener of each kind.
func secureConfig(t *testing.T) (Config, *tls.Config) {
	cfg, tc, _ := secureConfigOf(t)
	return cfg, tc
}

func secureConfigOf(t *testing.T) (Config, *tls.Config, *testcert.Authority) {
	ca := testcert.New(t)
	cert, key := ca.Issue(t, "server", "127.0.0.1", "localhost")
	return Config{
		Loops: 2, Listen: []string{"ws://127.0.0.1:0/chat", "wss://127.0.0.1:0/chat", "tls://127.0.0.1:0"},
		Edge: Edge{Certificates: []Certificate{{Cert: cert, Key: key}}},
	}, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}, ca
}

// A message is the body of one frame, an empty one the empty frame, text is DATA; a
// ping is answered; a close frame with its own code.
func TestWebSocket(t *testing.T) {
	cfg, tc := secureConfig(t)
	_, urls := edgeURLs(t, cfg, Echo{})
	for _, url := range urls[:2] {
		c := dialWS(t, url, tc)
		big := bytes.Repeat([]byte{7}, 60_000)
		for _, m := range []struct {
			kind       int
			body, want []byte
		}{
			{websocket.BinaryMessage, []byte("\x03hello"), []byte("\x03hello")},
			{websocket.TextMessage, []byte("text"), []byte("\x03text")},
			{websocket.TextMessage, nil, []byte("\x03")},
			{websocket.BinaryMessage, []byte("\x01ping"), []byte("\x02ping")},
			{websocket.BinaryMessage, append([]byte{3}, big...), append([]byte{3}, big...)},
		} {
			if err := c.WriteMessage(m.kind, m.body); err != nil {
				t.Fatal(err)
			}
			kind, got, err := c.ReadMessage()
			if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, m.want) {
				t.Fatalf("%s: %.20q is answered %d %.20q, %v", url, m.body, kind, got, err)
			}
		}
		pong := ""
		c.SetPongHandler(func(s string) error { pong = s; return io.EOF })
		_ = c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience))
		if _, _, err := c.ReadMessage(); err != io.EOF || pong != "are you there" {
			t.Fatalf("%s: ping is answered %q, %v", url, pong, err)
		}
		c = dialWS(t, url, tc)
		_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4321, "bye"))
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, 4321) {
			t.Errorf("%s: close is answered %v", url, err)
		}
		c = dialWS(t, url, tc)
		_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x05{}"))
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, int(codec.CodeProtocolError)) {
			t.Errorf("%s: WELCOME of a client is answered %v", url, err)
		}
	}
}

// What is no request for a WebSocket is answered in the words of HTTP.
func TestWebSocketRefusals(t *testing.T) {
	cfg, tc := secureConfig(t)
	cfg.RequireHello = true
	s, urls := edgeURLs(t, cfg, Echo{})
	client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: tc, DisableKeepAlives: true}}
	for _, url := range urls[:2] {
		base := strings.TrimSuffix(strings.Replace(url, "ws", "http", 1), "/chat")
		for path, want := range map[string]int{
			"/": 200, "/chat": 200, "/healthz": 200, "/readyz": 200, "/nothing": 404,
		} {
			resp, err := client.Get(base + path)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != want || len(body) == 0 {
				t.Errorf("%s%s: %d %q, want %d", base, path, resp.StatusCode, body, want)
			}
		}
	}
	c := dial(t, s)
	_, _ = c.Write([]byte{0, 0, 0, 0})
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("frames to a ws port are answered %q, %v", b, err)
	}
}

// The native stream over TLS, in records of any size; the end comes with close_notify.
func TestTLS(t *testing.T) {
	cfg, tc := secureConfig(t)
	_, urls := edgeURLs(t, cfg, Echo{})
	addr := strings.TrimPrefix(urls[2], "tls://")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		tc := tc.Clone()
		tc.MinVersion, tc.MaxVersion = version, version
		c, err := tls.Dial("tcp", addr, tc)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		for _, size := range []int{0, 1, 16 << 10, 60_000} {
			frame := codec.AppendFrame(nil, codec.OpData, bytes.Repeat([]byte{9}, size))
			for _, b := range [][]byte{frame[:3], frame[3:]} {
				if _, err := c.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, c, frame)
		}
		_, _ = c.Write(codec.AppendClose(nil, 3000, ""))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 { // without close_notify: unexpected EOF
			t.Errorf("version %#x ends with %q, %v", version, b, err)
		}
		_ = c.Close()
	}
}
