package server

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/auth"
)

// native is heartwheel's own protocol, version 1 (codec/SPEC.md), in front of a
// Handler.
type native struct{ *loop }

// nativeState is what few connections need: those with a beat floor or a HELLO
// that is pending.
type nativeState struct {
	arrival   uint32 // monotonic ms: the theoretical arrival time of the next beat, 0 before the first
	early     uint8  // beats in a row that came before it
	helloBeat int64  // the beat interval that the pending HELLO asks for, in ms
}

// state returns the nativeState of c, which it makes if there is none.
func (native) state(c *Conn) *nativeState {
	s, _ := Session{c}.State().(*nativeState)
	if s == nil {
		s = new(nativeState)
		Session{c}.SetState(s)
	}
	return s
}

// earlyMost is how many beats in a row may come too early.
const earlyMost = 2

func (n native) Start(s Session) {
	if n.cfg.Beats == ServerBeats {
		s.SetBeat(s.Beat(), s.Timeout(), ServerBeats)
	}
	if n.owesToken(s.Conn) && n.edges[s.edge].mode == auth.MTLS {
		n.identify(s.Conn, auth.Request{}, true, func() { n.openOrWait(s) })
		return
	}
	n.openOrWait(s)
}

// openOrWait calls the handler's Open, or waits for HELLO where one is required.
func (n native) openOrWait(s Session) {
	if n.cfg.RequireHello || n.owesToken(s.Conn) {
		s.ExpectHandshake()
		return
	}
	n.open(s.Conn)
}

// open calls the handler's Open.
func (n native) open(c *Conn) {
	c.flags |= flagOpened
	n.h.Open(c)
}

func (n native) End(s Session, why Reason) {
	delete(n.configs, s.Conn)
	if s.has(flagOpened) {
		n.h.Close(s.Conn, why)
	}
}

func (n native) AppendBeat(dst []byte, _ Session) []byte {
	n.stats.sent(codec.OpBeat)
	return codec.AppendBeat(dst)
}

// AppendNotice says it in CLOSE, or in GOAWAY if the client is to come back
// later.
func (n native) AppendNotice(dst []byte, _ Session, notice Notice) []byte {
	if notice.Final && !waits(notice.Reason) {
		n.stats.sent(codec.OpClose)
		return codec.AppendClose(dst, notice.Code, notice.Text)
	}
	n.stats.sent(codec.OpGoaway)
	return codec.AppendGoaway(dst, codec.Goaway{
		Code: notice.Code, Reason: notice.Text, AfterMS: notice.After.Milliseconds(),
	})
}

// waits reports whether the peer is to wait before it comes back.
func waits(r Reason) bool {
	return r == BeatTooOften || r == RateLimited || r == HelloLimit || r == Shed || r == AuthBusy
}

func (n native) Input(s Session, b []byte, _ bool) (used, need int, err error) {
	used, err = n.frames(s.Conn, b)
	if err == nil && used < len(b) && s.Receiving() {
		need, _ = codec.FrameSize(b[used:], n.cfg.MaxFrame)
		need = max(need, codec.HeaderSize)
	}
	return used, need, err
}

// frames acts on the whole frames in b and returns where they end. It decodes them
// where they lie.
func (l *loop) frames(c *Conn, b []byte) (used int, err error) {
	for used < len(b) && c.receiving() {
		f, size, err := codec.Decode(b[used:], l.cfg.MaxFrame)
		if err != nil {
			return used, err
		}
		if size == 0 {
			break
		}
		l.reading = b[used : used+size]
		used += size
		l.stats.received(f.Op, size)
		native{l}.frame(c, f)
	}
	return used, nil
}

// frame acts on one frame of an open connection.
func (n native) frame(c *Conn, f codec.Frame) {
	first := !c.has(flagBegan)
	c.flags |= flagBegan
	if c.has(flagHandshake) && f.Op != codec.OpHello {
		n.close(c, ProtocolError, codec.CodeProtocolError, "the first frame must be HELLO, not "+f.Op.String())
		return
	}
	switch f.Op {
	case codec.OpBeat:
		// Where this side beats, an empty frame is the answer to its own.
		if !c.has(flagServerBeats) && n.mayBeat(c) {
			_ = n.send(c, codec.OpBeat, nil)
		}
	case codec.OpPing:
		if n.mayBeat(c) {
			_ = n.send(c, codec.OpPong, f.Payload)
		}
	case codec.OpPong:
	case codec.OpHello:
		if !first {
			n.close(c, ProtocolError, codec.CodeProtocolError, "HELLO must be the first frame")
			return
		}
		n.onHello(c, f.Payload)
	case codec.OpConfig:
		n.onConfig(c, f.Payload)
	case codec.OpClose:
		if _, _, err := codec.ParseClose(f.Payload); err != nil {
			n.refuse(c, err)
			return
		}
		c.state, c.reason = stateFlushing, PeerClosed
	case codec.OpWelcome, codec.OpGoaway, codec.OpError:
		n.close(c, ProtocolError, codec.CodeProtocolError, f.Op.String()+" is for servers to send")
	default:
		n.handle(c, f)
	}
}

// handle gives a frame to the handler and acts on its error, which other protocols
// cannot say.
func (n native) handle(c *Conn, f codec.Frame) {
	err := n.h.Frame(c, f)
	if err == nil || c.closing() {
		return
	}
	var e *codec.Error
	if errors.As(err, &e) && e.Code >= 4000 && e.Code < 4500 {
		if c.isNative() {
			n.tell(c, func(b []byte) []byte { return codec.AppendError(b, e.Code, e.Text) })
		}
		return
	}
	n.connLog.failed.log(n.log, slog.LevelError, faultLogEvery, "handler failed; its connection is closed",
		func() []any { return []any{"conn", c.ID(), "op", f.Op.String(), "error", err} })
	n.close(c, Internal, codec.CodeInternalError, "internal error")
}

// mayBeat counts beats that come too early in a row, and ends the connection at
// one too many.
//
// It is the generic cell rate algorithm (ITU-T I.371) on the monotonic clock. A
// peer that was silent may make up for it, by no more than the idle timeout: what
// a stall of the network or of this process has held up comes all at once.
func (n native) mayBeat(c *Conn) bool {
	if n.cfg.BeatFloor == 0 || c.id&(1<<40-1) <= n.floorAfter {
		return true
	}
	f := n.state(c)
	floor, now := uint32(n.cfg.BeatFloor.Milliseconds()), uint32(n.mono()/1e6)|1
	if behind := now - f.arrival; f.arrival == 0 || behind >= floor {
		slack := uint32(0)
		if f.arrival != 0 {
			slack = min(behind-floor, c.timeout)
		}
		f.early, f.arrival = 0, (now-slack)|1
		return true
	}
	f.arrival = now
	if f.early++; f.early <= earlyMost {
		return true
	}
	n.end(c, Notice{Reason: BeatTooOften, Code: codec.CodeBeatTooOften, Text: "beating too often", After: n.cfg.Spread})
	return false
}

// onHello acts on HELLO.
func (n native) onHello(c *Conn, body []byte) {
	h, err := codec.ParseHello(body)
	if err != nil {
		n.refuse(c, err)
		return
	}
	if h.V != codec.Version {
		n.close(c, BadVersion, codec.CodeBadVersion, "this server speaks version 1")
		return
	}
	switch h.Beats {
	case "":
	case "client":
		c.flags &^= flagServerBeats
	case "server":
		c.flags |= flagServerBeats
	default:
		n.close(c, ProtocolError, codec.CodeProtocolError, "HELLO: beats must be client or server")
		return
	}
	if n.authenticator(c) == nil || h.Token == "" && !n.owesToken(c) {
		n.askHandler(c, h)
		return
	}
	n.identify(c, auth.Request{Token: h.Token}, true, func() { n.askHandler(c, h) })
}

// askHandler has the handler look at HELLO.
func (n native) askHandler(c *Conn, h codec.Hello) {
	var err error
	if n.hello != nil {
		err = n.hello.Hello(c, h)
		if err == ErrHelloPending && !c.closing() {
			n.state(c).helloBeat = h.BeatMS
			Session{c}.ExpectHandshake()
			n.pause(c, flagPending)
			return
		}
	}
	n.welcome(c, h.BeatMS, err)
}

// answerHello answers a HELLO that is pending.
func (n native) answerHello(c *Conn, err error) {
	if !c.has(flagPending) || c.state != statePaused {
		return // it is answered
	}
	beatMS := n.state(c).helloBeat
	if n.cfg.BeatFloor == 0 {
		Session{c}.SetState(nil)
	}
	n.welcome(c, beatMS, err)
	n.resume(c, flagPending)
}

// welcome answers HELLO with WELCOME, or closes the connection for err.
func (n native) welcome(c *Conn, beatMS int64, err error) {
	if c.closing() {
		return
	}
	if err != nil {
		code, text := codec.CodeBadToken, "HELLO refused"
		var e *codec.Error
		if errors.As(err, &e) {
			code, text = e.Code, e.Text
		}
		n.close(c, BadToken, code, text)
		return
	}
	Session{c}.Established()
	n.negotiate(c, beatMS)
	beats := ClientBeats
	if c.has(flagServerBeats) {
		beats = ServerBeats
	}
	w := codec.Welcome{
		V: codec.Version, Session: c.ID(), BeatMS: int64(c.beat), TimeoutMS: int64(c.timeout), Beats: beats.String(),
		MaxFrame: n.cfg.MaxFrame, MinBeatMS: n.cfg.BeatFloor.Milliseconds(), SpreadMS: n.cfg.Spread.Milliseconds(),
		Time: time.Now().UTC().Format(time.RFC3339), ExpiresMS: n.expiresMS(c),
	}
	n.tell(c, func(b []byte) []byte { return codec.AppendWelcome(b, w) })
	if !c.has(flagOpened) && !c.closing() {
		n.open(c)
	}
}

// A client may send configBurst CONFIG frames at once, and one each configEvery
// (codec/SPEC.md, CONFIG). One costs about as much as a hundred beats.
const (
	configBurst = 20
	configEvery = time.Second
)

// mayConfig counts a CONFIG, and ends the connection at one too many. As in
// mayBeat it is the generic cell rate algorithm, whose state is kept by the loop:
// few connections send CONFIG, and seldom, so that most states are out of date.
func (n native) mayConfig(c *Conn) bool {
	now := n.mono()
	at := max(n.configs[c], now)
	if at-now >= int64(configBurst*configEvery) {
		n.end(c, Notice{Reason: RateLimited, Code: codec.CodeRateLimited, Text: "too many CONFIG", After: n.cfg.Spread})
		return false
	}
	n.forgetConfigs(now)
	n.configs[c] = at + int64(configEvery)
	return true
}

// forgetConfigs looks at two states, and forgets those that are out of date. With
// one more for each CONFIG, few are kept that are.
func (n native) forgetConfigs(now int64) {
	looked := 0
	for c, at := range n.configs {
		if at <= now {
			delete(n.configs, c)
		}
		if looked++; looked == 2 {
			return
		}
	}
}

// onConfig answers a client's wish with what was decided.
func (n native) onConfig(c *Conn, body []byte) {
	if !n.mayConfig(c) {
		return
	}
	wish, err := codec.ParseConfig(body)
	if err != nil {
		n.refuse(c, err)
		return
	}
	if wish.BeatMS != 0 { // none: it only asks which values are in force
		n.negotiate(c, wish.BeatMS)
	}
	if wish.Token == "" || n.authenticator(c) == nil {
		n.answerConfig(c)
		return
	}
	n.identify(c, auth.Request{Token: wish.Token}, false, func() { n.answerConfig(c) })
}

// answerConfig says which values are in force.
func (n native) answerConfig(c *Conn) {
	n.tell(c, func(b []byte) []byte {
		return codec.AppendConfig(b, codec.Config{
			BeatMS: int64(c.beat), TimeoutMS: int64(c.timeout), ExpiresMS: n.expiresMS(c),
		})
	})
}

// negotiate gives c the beat interval that it asks for, in ms and 0 for none, as
// far as the settings allow, and the timeout that belongs to it.
func (n native) negotiate(c *Conn, beatMS int64) {
	beat, timeout := n.cfg.decide(time.Duration(beatMS) * time.Millisecond)
	n.setBeat(c, beat, timeout)
}

// send sends one frame. payload is copied.
func (n native) send(c *Conn, op codec.Op, payload []byte) error {
	if n.returns(c, op, payload) {
		return n.outcome(c)
	}
	if !c.isNative() {
		if f, ok := n.protocol(c).(*foreign); ok && op == codec.OpData {
			return f.send(c, op, payload)
		}
		return errors.ErrUnsupported
	}
	start := n.begin()
	n.out = codec.AppendFrame(n.out, op, payload)
	n.stats.sent(op)
	return n.sent(c, start, false)
}

// returns takes a frame that goes back to its sender as it came, behind nothing
// but others of that kind: those are written from where they were read, which
// saves the copy.
func (n native) returns(c *Conn, op codec.Op, payload []byte) bool {
	f, size := n.reading, len(n.back)
	switch {
	case c != n.cur || len(payload) == 0 || len(f) != codec.HeaderSize+1+len(payload):
		return false
	case f[codec.HeaderSize] != byte(op) || &f[codec.HeaderSize+1] != &payload[0]:
		return false // not the frame as it came
	case len(n.out) > 0 || c.queued() > 0:
		return false // others go out first
	case size == 0:
		if c.has(flagLayered) {
			return false // it has to be framed or sealed
		}
		n.back = f
	case size+len(f) <= cap(n.back) && &n.back[:size+1][size] == &f[0]:
		n.back = n.back[:size+len(f)]
	default:
		return false // one between them did not go back
	}
	n.stats.sent(op)
	n.stats.bytesOut += uint64(len(f))
	if c.has(flagServerBeats) {
		n.sending(c)
	}
	if len(n.back) >= n.collect {
		n.flush(c)
	}
	return true
}

// tell sends frames of the protocol's own, which appendTo makes. If that fails,
// c is closed and has its reason.
func (n native) tell(c *Conn, appendTo func([]byte) []byte) {
	start := n.begin()
	n.out = appendTo(n.out)
	n.sentFrames(c, start)
}

// write sends whole frames, which are copied. It panics if they are not whole:
// behind part of a frame the peer could tell nothing apart.
func (n native) write(c *Conn, frames []byte) error {
	if !c.isNative() {
		return errors.ErrUnsupported
	}
	if !whole(frames) {
		panic("server: Write of bytes that are not whole frames")
	}
	start := n.begin()
	n.out = append(n.out, frames...)
	return n.sentFrames(c, start)
}

// sentFrames counts the frames that were just appended to out for c, and sends
// them.
func (n native) sentFrames(c *Conn, start int) error {
	for b := n.out[start:]; len(b) > 0; b = b[frameLen(b):] {
		n.stats.sent(frameOp(b))
	}
	return n.sent(c, start, false)
}

// whole reports whether b is frames and nothing else.
func whole(b []byte) bool {
	for len(b) > 0 {
		size, err := codec.FrameSize(b, codec.MaxFrameLimit)
		if err != nil || size == 0 || size > len(b) {
			return false
		}
		b = b[size:]
	}
	return true
}

// frameLen returns the length of the first of whole frames, header included.
func frameLen(frames []byte) int {
	return codec.HeaderSize + int(binary.BigEndian.Uint32(frames))
}

// frameOp returns the op of the first of whole frames.
func frameOp(frames []byte) codec.Op {
	if frameLen(frames) == codec.HeaderSize {
		return codec.OpBeat
	}
	return codec.Op(frames[codec.HeaderSize])
}

// overtakes says whether a frame goes out before waiting data. CLOSE does not:
// it comes after all that was sent before it.
func overtakes(op codec.Op) bool {
	switch op {
	case codec.OpData, codec.OpReq, codec.OpRes, codec.OpPublish, codec.OpClose:
		return false
	}
	return !op.Extension()
}
