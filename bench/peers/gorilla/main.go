// Command gorilla is gorilla/websocket: a goroutine for each connection,
// SetReadDeadline for each message and ping.
//
// Buffers are as its documentation has them for many connections: 1 KiB for
// reading, and a pool of those for writing. The goroutine is one of its own, so
// that the request and the stack of net/http are given back.
package main

import (
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"heartwheel/bench/peers/peer"
)

func main() {
	o := peer.Start()
	ln, err := o.Listen()
	if err != nil {
		peer.Fail(err)
	}
	u := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024, WriteBufferPool: &sync.Pool{}}
	peer.Listening(ln.Addr().String())
	peer.Fail(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := u.Upgrade(w, r, nil); err == nil {
			go serve(c, o.Timeout)
		}
	})))
}

func serve(c *websocket.Conn, timeout time.Duration) {
	peer.Conns.Add(1)
	defer peer.Conns.Add(-1)
	defer c.Close()
	c.SetReadLimit(1 + peer.MaxFrame)
	pong := c.PingHandler()
	c.SetPingHandler(func(text string) error {
		if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		return pong(text)
	})
	for {
		if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return
		}
		kind, b, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, b) != nil {
			return
		}
	}
}
