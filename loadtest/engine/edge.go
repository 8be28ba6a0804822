package engine

import (
	"encoding/binary"
	"math/rand/v2"

	"heartwheel/codec"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// The words of Load.Scheme.
const (
	SchemeTCP = "tcp"
	SchemeTLS = "tls"
	SchemeWS  = "ws"
	SchemeWSS = "wss"
)

// HasTLS says whether the connections are encrypted.
func (l *Load) HasTLS() bool { return l.Scheme == SchemeTLS || l.Scheme == SchemeWSS }

// HasWebSocket says whether they are WebSockets.
func (l *Load) HasWebSocket() bool { return l.Scheme == SchemeWS || l.Scheme == SchemeWSS }

// NewTLS loads the files for the connections' TLS, or says what is wrong with them. It
// returns nil if they have none.
func (l *Load) NewTLS() (*tlsedge.Client, error) {
	if !l.HasTLS() {
		return nil, nil
	}
	return tlsedge.NewClient(tlsedge.ClientConfig{CA: l.CA, Insecure: l.Insecure, ServerName: l.ServerName,
		Certificate: tlsedge.Pair{Cert: l.Cert, Key: l.Key}, Timeout: l.ConnectTimeout})
}

// An edge turns the native frames that this package handles into the bytes of a
// connection and back: foreign frames, WebSocket, TLS. A load on plain TCP has none.
// It has no state of a connection. Not safe for concurrent use.
type edge struct {
	tls     bool
	ws      bool
	foreign *foreign // nil: native frames

	wire, sealed, plain []byte // what the methods return is in these
	none                link   // of all connections, where they need none
}

// A link is what a connection keeps for its edge.
type link struct {
	tls     *tlsedge.Transport // nil before its handshake
	ws      websocket.Framing
	message []byte // fragments of a message
}

// newEdge returns nil for plain TCP.
func newEdge(l *Load) *edge {
	e := &edge{tls: l.HasTLS(), ws: l.HasWebSocket(), foreign: newForeign(l)}
	if !e.tls && !e.ws && e.foreign == nil {
		return nil
	}
	return e
}

// hasLinks says whether each connection has a link.
func (e *edge) hasLinks() bool { return e.tls || e.ws }

func newLink() link { return link{ws: websocket.NewClientFraming(codec.MaxFrameLimit)} }

// encode returns the bytes that carry whole native frames, valid until the next call.
func (e *edge) encode(k *link, frames []byte) []byte {
	if !e.ws && e.foreign == nil {
		return e.seal(k, frames)
	}
	e.wire = e.wire[:0]
	for len(frames) > 0 {
		f, n, err := codec.Decode(frames, codec.MaxFrameLimit)
		if n == 0 {
			panic("engine: not a whole frame: " + err.Error())
		}
		if e.ws {
			e.wire = appendMessage(e.wire, f, frames[codec.HeaderSize:n])
		} else {
			e.wire = e.foreign.append(e.wire, f)
		}
		frames = frames[n:]
	}
	return e.seal(k, e.wire)
}

// seal returns the bytes that carry plain, and what TLS itself has to say, valid until
// the next call.
func (e *edge) seal(k *link, plain []byte) []byte {
	if k.tls == nil {
		return plain
	}
	e.sealed, _ = k.tls.Seal(e.sealed[:0], plain) // an error is that of an earlier end
	return e.sealed
}

// open returns the plaintext in the records that in begins with, valid until the next
// call, and how many bytes they took. The error is as that of tlsedge.Transport.Open.
func (e *edge) open(k *link, in []byte) (plain []byte, used int, err error) {
	e.plain, used, err = k.tls.Open(e.plain[:0], in)
	return e.plain, used, err
}

// next decodes the first native frame, or what stands for one, in plaintext, as
// codec.Decode does. Without whole, the n bytes are to be passed over.
func (e *edge) next(k *link, in []byte) (f codec.Frame, n int, whole bool, err error) {
	switch {
	case e.ws:
		return k.nextMessage(in)
	case e.foreign != nil:
		f, n, err = e.foreign.next(in)
	default:
		f, n, err = codec.Decode(in, codec.MaxFrameLimit)
	}
	return f, n, n > 0, err
}

// appendMessage appends a frame as a WebSocket message: its body. A beat is an empty
// one, PING and PONG are those of WebSocket.
func appendMessage(dst []byte, f codec.Frame, body []byte) []byte {
	kind := websocket.KindBinary
	switch f.Op {
	case codec.OpPing:
		kind, body = websocket.KindPing, f.Payload
	case codec.OpPong:
		kind, body = websocket.KindPong, f.Payload
	}
	return websocket.AppendMasked(dst, body, kind, newMask())
}

func newMask() (m [4]byte) {
	binary.NativeEndian.PutUint32(m[:], rand.Uint32())
	return m
}

// appendCloseAnswer appends the close frame that answers one with content p.
func appendCloseAnswer(dst, p []byte) []byte {
	return websocket.AppendMasked(dst, p[:min(len(p), 2)], websocket.KindClose, newMask())
}

// nextMessage is next for WebSocket: the reverse of appendMessage. A text is DATA, and
// a close frame is CLOSE, whose payload has the same form.
func (k *link) nextMessage(in []byte) (f codec.Frame, n int, whole bool, err error) {
	p, kind, end, n, err := k.ws.Next(in)
	if n == 0 || err != nil {
		return codec.Frame{}, 0, false, err
	}
	switch kind {
	case websocket.KindPing:
		return codec.Frame{Op: codec.OpPing, Payload: p}, n, true, nil
	case websocket.KindPong:
		return codec.Frame{Op: codec.OpPong, Payload: p}, n, true, nil
	case websocket.KindClose:
		return codec.Frame{Op: codec.OpClose, Payload: p}, n, true, nil
	case websocket.KindNone:
		return codec.Frame{}, n, false, nil
	}
	if !end || len(k.message) > 0 {
		if k.message = append(k.message, p...); !end {
			return codec.Frame{}, n, false, nil
		}
		p, k.message = k.message, nil
	}
	switch {
	case kind == websocket.KindText:
		return codec.Frame{Op: codec.OpData, Payload: p}, n, true, nil
	case len(p) == 0:
		return codec.Frame{Op: codec.OpBeat}, n, true, nil
	case p[0] == 0 || codec.Op(p[0]).String() == "invalid":
		return codec.Frame{}, 0, false, codec.ErrOp
	}
	return codec.Frame{Op: codec.Op(p[0]), Payload: p[1:]}, n, true, nil
}
