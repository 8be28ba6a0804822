// Package epoll is the lowest layer of this module's load clients: many
// non-blocking TCP connections on one thread, without a goroutine and without
// Go's network poller.
//
// A [Poller] reports which sockets are ready, a [Dialer] begins connections from
// several source addresses in turn, [Read] and [Write] are the bare system calls,
// and [Monotonic] is the clock. Who owns a connection, what is sent on it and
// when is the caller's.
//
// All but Monotonic is for Linux. It imports nothing of this module.
package epoll
