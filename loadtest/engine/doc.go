// Package engine generates the load of a load test: event loops that connect,
// beat, echo and make connections fail as a [Load] says, and measure what the
// server does. [Start] runs them in this process or in worker processes, which
// call [Worker]. A [Generator] takes orders and sends messages: ticks, events and
// at the end the [Result] of each loop.
//
// A connection has no goroutine, but for its TLS handshake. A loop is one thread with
// one epoll instance, and all of its state belongs to it: only orders and messages
// cross. Functions are safe for concurrent use; values are not, unless they say so.
//
// The engine judges what happened to one connection, not the run, and knows
// nothing of reports. It imports codec, packages of internal/edge, internal/epoll,
// internal/timerslack and internal/wording.
package engine
