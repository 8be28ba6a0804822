// Package websocket is RFC 6455 as state machines without I/O. Upgrader reads the HTTP
// request that begins a connection, Framing reads and writes the frames after it. Of
// the client's side, which the load tester has, there are ClientRequest and
// NewClientFraming.
//
// Extensions are declined: permessage-deflate costs a connection more memory than
// everything else it has.
//
// Of this module it imports codec.
package websocket
