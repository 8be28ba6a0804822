// Command nbio-ws is the WebSocket of github.com/lesismal/nbio, package
// nbhttp/websocket, in its mode without a goroutine for each connection. Its
// KeepaliveTime is the deadline, which every message and every ping refreshes,
// except an empty message, which nbio drops.
//
// The handler does not block, so it runs in the poller, not in the pool of
// goroutines that is the default.
package main

import (
	"net"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"

	"heartwheel/bench/peers/peer"
)

func main() {
	o := peer.Start()
	logging.SetLevel(logging.LevelNone) // it would write to standard output

	u := websocket.NewUpgrader()
	u.KeepaliveTime = o.Timeout
	u.MessageLengthLimit = 1 + peer.MaxFrame
	u.OnOpen(func(*websocket.Conn) { peer.Conns.Add(1) })
	u.OnClose(func(*websocket.Conn, error) { peer.Conns.Add(-1) })
	u.OnMessage(func(c *websocket.Conn, kind websocket.MessageType, b []byte) { _ = c.WriteMessage(kind, b) })

	engine := nbhttp.NewEngine(nbhttp.Config{
		Network:                      "tcp",
		Addrs:                        []string{o.Addr},
		Listen:                       func(_, _ string) (net.Listener, error) { return o.Listen() },
		NPoller:                      o.Loops,
		KeepaliveTime:                o.Timeout,
		MaxWriteBufferSize:           6 * 1024 * 1024, // as in README.md
		MaxWebsocketFramePayloadSize: 1 + peer.MaxFrame,
		ReleaseWebsocketPayload:      true,
		SupportServerOnly:            true,
		ServerExecutor:               func(f func()) { f() },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = u.Upgrade(w, r, nil)
		}),
	})
	if err := engine.Start(); err != nil {
		peer.Fail(err)
	}
	peer.Listening(engine.AddrConfigs[0].Addr)
	select {}
}
