package server

import (
	"bytes"
	"errors"

	"heartwheel/codec"
	"heartwheel/internal/edge/websocket"
)

// ErrMessage is what Conn.Send returns if no frame of the listener's Framing can carry
// the message: it is too long, or has the delimiter in it.
var ErrMessage = errors.New("server: no frame of this listener's framing can carry the message")

// foreign is the protocol of a Framing, in front of a Handler: each message is DATA,
// but for the beat.
type foreign struct {
	*loop
	encoder                  cutter
	beat, answer, serverBeat []byte
}

// foreignEdge returns what the connections of a listener with that Framing speak.
func (l *loop) foreignEdge(f Framing) edge {
	c, shared := f.cutter(l.cfg.MaxFrame)
	var one framing = foreignFraming{c}
	e := edge{
		framing:  func() framing { return one },
		protocol: &foreign{l, c, f.Beat, f.Answer, f.ServerBeat},
		layered:  true,
	}
	if !shared {
		e.framing = func() framing {
			c, _ := f.cutter(l.cfg.MaxFrame)
			return foreignFraming{c}
		}
	}
	return e
}

// foreignFraming is a framing whose frames are messages, all of them.
type foreignFraming struct{ cutter }

func (f foreignFraming) Next(in []byte) (p []byte, k websocket.Kind, end bool, used int, err error) {
	p, end, used, err = f.cutter.Next(in)
	return p, websocket.KindBinary, end, used, err
}

// Append is for messages that are known to fit: beats.
func (f foreignFraming) Append(dst, p []byte, _ websocket.Kind) []byte {
	dst, _ = f.Encode(dst, p)
	return dst
}

func (f *foreign) Start(s Session) { native{f.loop}.Start(s) }

func (f *foreign) End(s Session, why Reason) { native{f.loop}.End(s, why) }

// Input acts on p, which is one message. Where this side beats, the client's beat is
// the answer to that, and not answered.
func (f *foreign) Input(s Session, p []byte, _ bool) (used, need int, err error) {
	if f.beat == nil || !bytes.Equal(p, f.beat) {
		f.stats.received(codec.OpData, len(p))
		native{f.loop}.handle(s.Conn, codec.Frame{Op: codec.OpData, Payload: p})
		return len(p), 0, nil
	}
	f.stats.received(codec.OpBeat, len(p))
	if !s.has(flagServerBeats) && (native{f.loop}).mayBeat(s.Conn) && f.answer != nil {
		_ = f.send(s.Conn, codec.OpBeat, f.answer) // if that fails, the connection is being closed
	}
	return len(p), 0, nil
}

func (f *foreign) AppendBeat(dst []byte, _ Session) []byte {
	f.stats.sent(codec.OpBeat)
	return append(dst, f.serverBeat...)
}

// AppendNotice says nothing: no framing has words for that.
func (f *foreign) AppendNotice(dst []byte, _ Session, _ Notice) []byte { return dst }

// send sends one message. A beat overtakes waiting data.
func (f *foreign) send(c *Conn, op codec.Op, message []byte) error {
	start := f.begin()
	out, ok := f.encoder.Encode(f.out, message)
	if !ok {
		return ErrMessage
	}
	f.out = out
	f.stats.sent(op)
	f.sentFramed(c, start, op == codec.OpBeat)
	return f.outcome(c)
}
