// Command gws is lxzan/gws as its README has it: a goroutine for each
// connection, SetDeadline for each message and ping.
package main

import (
	"net/http"
	"time"

	"github.com/lxzan/gws"

	"heartwheel/bench/peers/peer"
)

type handler struct {
	gws.BuiltinEventHandler
	timeout time.Duration
}

func (h *handler) OnOpen(c *gws.Conn) {
	peer.Conns.Add(1)
	h.alive(c)
}

func (h *handler) OnClose(*gws.Conn, error) { peer.Conns.Add(-1) }

func (h *handler) OnPing(c *gws.Conn, payload []byte) {
	h.alive(c)
	_ = c.WritePong(payload)
}

func (h *handler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	h.alive(c)
	_ = c.WriteMessage(m.Opcode, m.Bytes())
}

func (h *handler) alive(c *gws.Conn) { _ = c.SetDeadline(time.Now().Add(h.timeout)) }

func main() {
	o := peer.Start()
	ln, err := o.Listen()
	if err != nil {
		peer.Fail(err)
	}
	u := gws.NewUpgrader(&handler{timeout: o.Timeout}, &gws.ServerOption{ReadMaxPayloadSize: 1 + peer.MaxFrame})
	peer.Listening(ln.Addr().String())
	peer.Fail(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := u.Upgrade(w, r); err == nil {
			go c.ReadLoop() // so that the request can be collected
		}
	})))
}
