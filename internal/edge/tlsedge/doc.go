// Package tlsedge is TLS for connections of an event loop, by crypto/tls as it is.
//
// Server.Handshake does the handshake on a socket, in the goroutine of its caller.
// The Transport that it returns turns records into plaintext and back on the loop,
// without I/O. Between the two nothing is lost, as no read goes beyond the current
// record: what follows the handshake is still in the socket.
//
// crypto/tls keeps its state over a read that ends with a temporary net.Error, which
// the Transport uses for "no more records". A handshake cannot be interrupted like
// that, which is why it has a goroutine.
//
// Client.Handshake is the client's side of it, for the load tester.
//
// Of this module it imports codec.
package tlsedge
