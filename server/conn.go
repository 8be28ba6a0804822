package server

import (
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"heartwheel/codec"
	"heartwheel/internal/admission"
	"heartwheel/wheel"
)

// Errors of Conn's methods.
var (
	ErrClosed       = errors.New("server: connection is closed or closing")
	ErrSlowConsumer = errors.New("server: the peer reads too slowly; connection is being closed")
	ErrBusy         = errors.New("server: event loop has too many tasks waiting; try again later")
)

// netConn is the little that a session keeps of the engine's connection.
type netConn interface {
	Fd() int
	RemoteAddr() net.Addr
}

type connState uint8

const (
	stateNew        connState = iota // accepted, not on its loop yet
	statePaused                      // open, but no message is acted on
	stateOpen                        // messages flow
	stateFlushing                    // closing; the outbox goes out first, input is ignored
	stateTerminated                  // finished at the end of the current callback
	stateClosed                      // the close event has fired
)

type connFlags uint16

const (
	flagBegan       connFlags = 1 << iota // native: the first frame has come
	flagOpened                            // native: Handler.Open was called
	flagServerBeats                       // this side beats
	flagHandshake                         // no message counts before the handshake is over
	flagAverted                           // saved at its deadline by unread bytes, and no frame has come since
	flagAbort                             // close by reset
	flagUnread                            // paused, and the socket is not read
	flagPending                           // paused: HELLO is pending
	flagFull                              // paused: the outbox is nearly full
	flagEnded                             // the peer sends nothing more, see inputEnded
	flagAsked                             // a beat of this side has gone out since the last whole message
	flagRests                             // in engine.resting, and not read until it has left it
	flagLayered                           // bytes on the wire are not native frames as they are
	flagStarted                           // the protocol's Start was called
	flagAuth                              // paused: the client is being identified
)

// A Conn is one connection and its session. It belongs to one event loop:
// methods marked "Loop only" may be called in Handler callbacks and in
// functions given to Post, and nowhere else. A Conn is never reused, so a
// pointer to it identifies the connection for as long as it is kept.
//
// There may be a million of these: keep it at 96 bytes.
type Conn struct {
	timer wheel.Timer // first, so that a due timer leads to its Conn

	loop *loop   // static after construction
	sock netConn // set when the loop takes the socket
	ext  *ext    // nil for most connections
	id   uint64  // loop index and a number that is unique in the loop

	partialAt     uint32 // loop clock in ms: when the incomplete message, or the handshake, began; 0: none is
	beat, timeout uint32 // ms

	ticket admission.Ticket // 4 bytes; set before the loop takes the socket

	sentAt uint16 // where this side beats: when it last sent, in units of beatUnit
	flags  connFlags
	state  connState
	reason Reason
	edge   uint8 // index in loop.edges
	taken  bool  // set once, when the loop takes the socket
}

// ext is the part of a session that most sessions never have.
type ext struct {
	out     *outbox // nil: nothing waits
	value   any     // the handler's
	state   any     // the protocol's
	closeAt int64   // loop clock by which a flushing connection is cut off
	partial []byte  // the beginning of a message that has not arrived whole, or what a pause holds back
	edge    *edgeState

	fullSince int64 // loop clock: when the outbox became nearly full

	identity *Identity // who the client is; nil: not known
	expireAt int64     // loop clock: when that is no longer true; 0: never

	// The account's: see loop.hold.
	mem    int    // bytes that the connection holds
	holder int    // its place in account.holders, if mem > 0
	memAt  uint32 // loop clock in ms: when mem became positive
}

// partialOf returns what a stage of the edge has left.
func (x *ext) partialOf(s stage) *[]byte {
	if s == stageMessage {
		return &x.partial
	}
	return &x.edge.partial[s]
}

// held returns how many bytes are kept.
func (x *ext) held() int {
	n := len(x.partial)
	if x.edge != nil {
		n += len(x.edge.partial[stageWire]) + len(x.edge.partial[stagePlain])
	}
	return n
}

// watched reports whether the connection waits for its socket to become writable.
func (x *ext) watched() bool { return x.out != nil && x.out.watched }

// ensureOut returns the outbox.
func (x *ext) ensureOut() *outbox {
	if x.out == nil {
		x.out = new(outbox)
	}
	return x.out
}

// idle reports whether nothing waits to be sent, completed or ended.
func (x *ext) idle() bool { return x.out.len() == 0 && x.held() == 0 && x.expireAt == 0 }

// timerConn returns the Conn whose timer t is.
func timerConn(t *wheel.Timer) *Conn { return (*Conn)(unsafe.Pointer(t)) }

// The conversion above needs the timer to be the first field.
var _ [-int(unsafe.Offsetof(Conn{}.timer))]struct{}

// receiving reports whether the connection takes messages.
func (c *Conn) receiving() bool { return c.state == stateOpen }

// closing reports whether the connection takes nothing more to send.
func (c *Conn) closing() bool { return c.state > stateOpen }

func (c *Conn) has(f connFlags) bool { return c.flags&f != 0 }

// upgrading reports whether the HTTP request that a connection begins with has not
// been answered.
func (c *Conn) upgrading() bool { return c.ext != nil && c.ext.edge != nil && c.ext.edge.upgrading }

func (c *Conn) ensureExt() *ext {
	if c.ext == nil {
		c.ext = new(ext)
	}
	return c.ext
}

// dropExt gives ext back if nothing of it is in use.
func (c *Conn) dropExt() {
	x := c.ext
	if x.out.len() == 0 && !x.watched() {
		x.out = nil
	}
	if x.idle() && x.mem == 0 && !c.has(flagFull) &&
		x.out == nil && x.value == nil && x.state == nil && x.closeAt == 0 && x.edge == nil && x.identity == nil {
		c.ext = nil
	}
}

func (c *Conn) queued() int {
	if c.ext == nil {
		return 0
	}
	return c.ext.out.len()
}

// ID identifies the connection among all that any run of this server ever had.
// Safe for concurrent use.
func (c *Conn) ID() string { return fmt.Sprintf("%s-%012x", c.loop.boot, c.id) }

// RemoteAddr returns the peer's address, nil after the close event. Loop only.
func (c *Conn) RemoteAddr() net.Addr {
	if c.sock == nil {
		return nil
	}
	return c.sock.RemoteAddr()
}

// Beat returns the beat interval of this connection. Loop only.
func (c *Conn) Beat() time.Duration { return time.Duration(c.beat) * time.Millisecond }

// Timeout returns the idle timeout of this connection. Loop only.
func (c *Conn) Timeout() time.Duration { return time.Duration(c.timeout) * time.Millisecond }

// Value returns what SetValue stored. Loop only.
func (c *Conn) Value() any {
	if c.ext == nil {
		return nil
	}
	return c.ext.value
}

// SetValue stores something of the handler's with the connection. Loop only.
func (c *Conn) SetValue(v any) { c.ensureExt().value = v }

// isNative reports whether the connection speaks the native protocol, on whatever
// edge.
func (c *Conn) isNative() bool { return c.loop.edges[c.edge].native }

// Send sends one frame of the native protocol. payload is copied. On a listener with a
// Framing it sends DATA as one message, and fails with ErrMessage if no frame can carry
// that; other ops fail with errors.ErrUnsupported there. What the socket does not take
// waits in the outbox, control frames (every op but DATA, REQ, RES and PUBLISH) first;
// when the outbox is full the connection is closed as slow_consumer and
// ErrSlowConsumer returned. In Handler.Frame, answers may take it to twice its
// bound: no further message of the connection is acted on before it has drained.
// Loop only.
func (c *Conn) Send(op codec.Op, payload []byte) error {
	if c.closing() {
		return ErrClosed
	}
	return native{c.loop}.send(c, op, payload)
}

// Write sends frames made by the codec package: one or more, whole. They are
// copied. It panics if they are not whole. Loop only.
func (c *Conn) Write(frames []byte) error {
	if c.closing() {
		return ErrClosed
	}
	return native{c.loop}.write(c, frames)
}

// Close sends CLOSE with the code and the reason, after everything that was
// sent before, and closes the connection. It waits at most 2 s for a slow peer. Later calls do nothing. Loop only.
func (c *Conn) Close(code codec.Code, reason string) {
	c.loop.close(c, Application, code, reason)
}

// AnswerHello answers a HELLO for which Hello returned ErrHelloPending, as
// Hello's own result would have. Only the first answer counts, and none after the
// connection has closed. It fails as Post does, and may then be tried again. Safe
// for concurrent use.
func (c *Conn) AnswerHello(err error) error {
	return c.Post(func(c *Conn) { native{c.loop}.answerHello(c, err) })
}

// Post runs f on the connection's loop, soon and in the order of the calls,
// unless the connection has closed by then. It fails with ErrClosed when the
// server has stopped and with ErrBusy when the loop has 65,536 tasks waiting.
// Safe for concurrent use.
func (c *Conn) Post(f func(*Conn)) error { return c.loop.mail.post(task{conn: c, f: f}) }
