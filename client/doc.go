// Package client keeps a connection to a heartwheel server alive: it beats,
// detects a dead server, reconnects, and calls back while a call blocks. The
// protocol is in codec/SPEC.md.
//
//	c, err := client.Dial(ctx, "tcp://127.0.0.1:9000", client.Config{})
//	if err != nil {
//		return err
//	}
//	defer c.Close()
//	err = c.Send(ctx, []byte("hello"))
//	reply, err := c.Receive(ctx, nil)
//
// # Addresses
//
// tcp:// and unix:// carry the protocol as it is, tls:// over TLS. With ws:// and wss://
// a binary message of a WebSocket is a frame without its length, and an empty one a beat.
// A ping of the server is answered by the reading goroutine and is a beat of a server
// that beats. A close frame with a code from 3000 on is a CLOSE with that code. Other
// codes are those of RFC 6455, such as proxies send: 1002, 1003 and 1007 to 1010 blame
// this client and end it, the others are a lost connection. HTTP statuses in place of a
// WebSocket: 401, 403, redirects and what no heartwheel server answers end the client,
// 408, 425, 429 and 500 on are temporary, and Retry-After is waited for, for at most an
// hour.
//
// # Two clocks
//
// The last frame sent says when to beat next: after H of sending nothing, where
// H is the interval that the server decides. Any frame replaces a beat. The last
// byte received says whether the server is alive; sending never proves that. A
// server that has been silent for H is asked with a beat. If no byte arrives
// within 10 s after the kernel took that beat, the server is dead: the connection
// is reset, and a new one is made.
//
// # Reconnecting
//
// The first delay after a loss is spread over the window that the server named
// in WELCOME, so that its clients do not all return at once. Further delays grow
// from 0.5 s to 30 s with full jitter, until a connection has lasted 30 s.
// GOAWAY's after_ms is followed, and its addr if that is on Dial's host or one of
// Config.RedirectHosts; scheme and path stay those of Dial, and a socket is never left for
// another address. Config.Token is sent to Dial's host only; Config.TokenFunc is called with
// the address of each attempt, and should return a new token after code 3005, which ends a
// client with Config.Token. Codes 3500 to 3999 and 4500 to 4999 end the client.
//
// Delivery is at most once: a lost connection loses what it had not delivered,
// and pending Requests fail with ErrLost.
//
// # Tokens that expire
//
// Where the server says when the token expires, Config.TokenFunc is asked for another after
// 0.7 to 0.8 of that time, in a goroutine of its own, and CONFIG sends it: the connection
// stays. After an error it is asked again, 1 s later and then up to 30 s, until the token
// has expired. Then the server ends the connection with 3005 and the client reconnects
// with a new one.
//
// # Blocking calls
//
// While a call blocks, Config.OnHeartbeat is called every Config.HeartbeatRate in
// the caller's goroutine, so that a single-threaded user interface can repaint. A
// call returns as soon as its context ends. The idea and both names come from the
// Synapse library for Pascal.
//
// # Concurrency and ownership
//
// The methods of Client and Conn are safe for concurrent use. They copy the slices
// they are given before they return; slices that they return belong to the caller.
// The payload passed to Config.OnData is valid only during the call.
//
// # Errors
//
// Dial and NewConn return an *Error, which says whether trying again can help, or
// an error that matches ErrConfig, or the context's. Calls return ErrClosed after
// Close, an error that matches ErrLost when the connection ended under them, or the
// context's error. A code from the server is a *CodeError.
//
// # Cost
//
// An idle connection has one goroutine, which reads. Beats and received frames
// allocate nothing, over a WebSocket neither, whatever its fragments.
package client
