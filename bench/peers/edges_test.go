//go:build linux

package peers

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"heartwheel/bench/peers/peer"
)

// The servers of TLS and WebSocket, which the tests of a plain stream cannot speak to.
var (
	secure = []subject{{name: "goroutine-tls", dir: "goroutine", flags: []string{"-tls"}},
		{name: "nbio-tls", dir: "nbio", flags: []string{"-tls"}}}
	webSockets = []subject{{name: "gorilla"}, {name: "gws"}, {name: "nbio-ws", drops: true}}
)

func TestTLS(t *testing.T) {
	for _, b := range secure {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, b, timeout)
			c := tls.Client(dial(t, s), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
			var stream []byte
			for _, n := range sizes {
				echoed(t, c, frame(n), all)
				stream = append(stream, frame(n)...)
			}
			echoed(t, c, stream, all)
			if f := s.figures(t); f.Connections != 1 {
				t.Errorf("%d connections", f.Connections)
			}
			begin := time.Now()
			echoed(t, c, frame(100), func(int) int { return 1 }) // a record for each byte
			if _, err := io.Copy(io.Discard, c); err != nil {    // it is silent now
				t.Errorf("not closed in order: %v", err)
			}
			if silent := time.Since(begin); silent < timeout {
				t.Errorf("closed after %v", silent)
			}
		})
	}
}

// An echo of whatever messages, pongs, and no more than either keeps alive.
func TestWebSocket(t *testing.T) {
	for _, b := range webSockets {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, b, timeout)
			c, _, err := websocket.DefaultDialer.Dial("ws://"+s.addr, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, n := range sizes {
				if n == 0 && b.drops {
					continue
				}
				if err := c.WriteMessage(websocket.BinaryMessage, frame(n)[peer.Header:]); err != nil {
					t.Fatal(err)
				}
				kind, got, err := c.ReadMessage()
				if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(got, frame(n)[peer.Header:]) {
					t.Fatalf("%d bytes: kind %d, %d bytes, %v", n, kind, len(got), err)
				}
			}
			if f := s.figures(t); f.Connections != 1 {
				t.Errorf("%d connections", f.Connections)
			}
			var last time.Time
			pongs := 0
			c.SetPongHandler(func(text string) error {
				if pongs++; pongs < 4 && text == "stamp" {
					time.Sleep(timeout / 2) // nothing but pings for longer than the timeout
					last = time.Now()
					return c.WriteControl(websocket.PingMessage, []byte("stamp"), last.Add(limit))
				}
				return nil
			})
			if err := c.WriteControl(websocket.PingMessage, []byte("stamp"), time.Now().Add(limit)); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(limit))
			_, _, err = c.ReadMessage()
			if silent := time.Since(last); err == nil || pongs != 4 || silent < timeout-early || silent > limit/2 {
				t.Errorf("%d pongs, then closed after %v: %v", pongs, silent, err)
			}
		})
	}
}
