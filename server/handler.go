package server

import (
	"errors"

	"heartwheel/codec"
)

// A Handler is the application behind the connections. All calls for one
// connection come from its event loop, one after the other: they must not
// block, and they may use the Conn's loop-only methods. A panic in a callback
// costs that one connection, which is closed as internal_error.
type Handler interface {
	// Open is called once, before any frame: when the connection was
	// accepted, or after its HELLO where that is required.
	Open(c *Conn)

	// Frame is called for DATA, REQ, RES, SUBSCRIBE, UNSUBSCRIBE, PUBLISH and extension
	// frames. f.Payload is valid until Frame returns and must not be changed. A *codec.Error with a
	// code from 4000 to 4499 is sent to the peer as ERROR, if its listener has no Framing,
	// and the connection stays; any other error closes the connection as internal_error.
	Frame(c *Conn, f codec.Frame) error

	// Close is called exactly once for each Open, after which nothing more is
	// called for c. It must not send.
	Close(c *Conn, why Reason)
}

// ErrHelloPending is what Hello returns if Conn.AnswerHello will answer.
var ErrHelloPending = errors.New("server: HELLO will be answered later")

// A HelloHandler is a Handler that looks at HELLO, to check a token for
// example. Hello is called before WELCOME is sent. A *codec.Error closes the
// connection with its code and text, any other error with 3500. The strings in
// h may be kept.
//
// A check that would block returns ErrHelloPending and goes on elsewhere: until
// Conn.AnswerHello is called nothing of the connection is acted on. If that is
// not within 10 s, counted as for a required HELLO or else from the HELLO on, the
// connection is closed as internal_error.
type HelloHandler interface {
	Hello(c *Conn, h codec.Hello) error
}

// Echo is the built-in handler: it returns each DATA frame to its sender, and
// answers REQ to PUBLISH with ERROR 4001, as there is no gateway behind it.
type Echo struct{}

var errNoGateway = &codec.Error{Code: codec.CodeNoGateway, Text: "no gateway"}

func (Echo) Open(*Conn) {}

func (Echo) Frame(c *Conn, f codec.Frame) error {
	switch {
	case f.Op == codec.OpData:
		_ = c.Send(codec.OpData, f.Payload) // if that fails, c is being closed and has its reason
		return nil
	case f.Op.Extension():
		return nil
	}
	return errNoGateway
}

func (Echo) Close(*Conn, Reason) {}
