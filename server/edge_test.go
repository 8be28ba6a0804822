package server

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// lines is a protocol of lines that end in \n. An empty one is the answer to a
// beat of this side, which is "?". It uses what is exported only, as a protocol
// of another package would.
type lines struct{ h Handler }

const longestLine = 64 << 10

func (p lines) Start(s Session) {
	s.SetBeat(s.Beat(), s.Timeout(), ServerBeats)
	p.h.Open(s.Conn)
}

func (p lines) End(s Session, why Reason) { p.h.Close(s.Conn, why) }

func (p lines) Input(s Session, b []byte, _ bool) (used, need int, err error) {
	for s.Receiving() {
		n := bytes.IndexByte(b[used:], '\n')
		if n < 0 {
			if len(b)-used > longestLine {
				err = &codec.Error{Code: codec.CodeFrameTooLarge, Text: "line is too long"}
			}
			break
		}
		line := b[used : used+n]
		used += n + 1
		if len(line) == 0 {
			continue
		}
		if err := p.h.Frame(s.Conn, codec.Frame{Op: codec.OpData, Payload: line}); err != nil {
			return used, 0, err
		}
	}
	return used, 0, err
}

func (lines) AppendBeat(dst []byte, _ Session) []byte { return append(dst, "?\n"...) }

func (lines) AppendNotice(dst []byte, _ Session, n Notice) []byte {
	word := "soon"
	if n.Final {
		word = "end"
	}
	return fmt.Appendf(dst, "!%s %d %s\n", word, n.Code, n.Text)
}

// flipper is a transport of records: a length in two bytes, then that many bytes,
// each flipped by a key that depends on all bytes before it.
type flipper struct{ in, out byte }

func newFlipper() transport { return new(flipper) }

func (f *flipper) Need(in []byte) int {
	if len(in) < 2 {
		return 2
	}
	return 2 + int(binary.BigEndian.Uint16(in))
}

func (*flipper) Pending() bool                 { return false }
func (*flipper) AppendClose(dst []byte) []byte { return dst }
func (*flipper) Kept() int                     { return 0 }

func (f *flipper) Open(dst, in []byte) (plain []byte, used int, err error) {
	for len(in)-used >= 2 {
		n := int(binary.BigEndian.Uint16(in[used:]))
		if n == 0 {
			return dst, used, errors.New("empty record")
		}
		if len(in)-used-2 < n {
			break
		}
		for _, x := range in[used+2 : used+2+n] {
			dst = append(dst, x^f.in)
			f.in += x ^ f.in | 1
		}
		used += 2 + n
	}
	return dst, used, nil
}

func (f *flipper) Seal(dst, plain []byte) ([]byte, error) {
	for piece := range slices.Chunk(plain, sealSize) {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(piece)))
		for _, x := range piece {
			dst = append(dst, x^f.out)
			f.out += x | 1
		}
	}
	return dst, nil
}

// pieces is a framing: a byte that is 1 for the last piece of a message, three
// for the length of the piece, the piece.
type pieces struct{}

func newPieces() framing { return pieces{} }

func (pieces) Next(in []byte) (p []byte, k websocket.Kind, end bool, used int, err error) {
	n := pieces{}.Need(in)
	if len(in) < n {
		return nil, 0, false, 0, nil
	}
	return in[4:n], websocket.KindBinary, in[0] == 1, n, nil
}

func (pieces) Need(in []byte) int {
	if len(in) < 4 {
		return 4
	}
	return 4 + int(binary.BigEndian.Uint32(in)&0xFFFFFF)
}

func (pieces) Append(dst, message []byte, _ websocket.Kind) []byte {
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(message))|1<<24), message...)
}

// A tongue is an edge and how its peers speak.
type tongue struct {
	name   string
	edge   func(l *loop) edge
	data   func(s string) []byte // a message
	send   func(c *Conn, s string) error
	answer []byte                          // to a beat
	read   func(b []byte) ([]string, bool) // messages of this side, and whether nothing is left
	frame  bool                            // in pieces
	silent bool                            // it has no words for the end
}

func nativeEdge(l *loop) edge { return edge{protocol: native{l}, native: true} }
func bodiesEdge(l *loop) edge {
	return edge{
		framing:  func() framing { return websocket.NewFraming(l.cfg.MaxFrame) },
		protocol: nativeBodies{native{l}}, native: true, bodies: true, pings: true, layered: true,
	}
}
func linesEdge(l *loop) edge { return edge{protocol: lines{l.h}, layered: true} }

func readNative(b []byte) (all []string, whole bool) {
	for len(b) > 0 {
		f, n, err := codec.Decode(b, codec.MaxFrameLimit)
		if n == 0 || err != nil {
			return all, false
		}
		b = b[n:]
		switch f.Op {
		case codec.OpBeat:
			all = append(all, "beat")
		case codec.OpClose:
			all = append(all, "end")
		case codec.OpGoaway:
			all = append(all, "soon")
		default:
			all = append(all, string(f.Payload))
		}
	}
	return all, true
}

func readLines(b []byte) (all []string, whole bool) {
	for line := range bytes.SplitAfterSeq(b, []byte("\n")) {
		switch {
		case len(line) == 0:
		case line[len(line)-1] != '\n':
			return all, false
		case string(line) == "?\n":
			all = append(all, "beat")
		case line[0] == '!':
			all = append(all, string(bytes.Fields(line[1:])[0]))
		default:
			all = append(all, string(line[:len(line)-1]))
		}
	}
	return all, true
}

func line(s string) []byte { return append([]byte(s), '\n') }

func sendLine(c *Conn, s string) error { return Session{c}.SendMessage(line(s), false) }

func sendData(c *Conn, s string) error { return c.Send(codec.OpData, []byte(s)) }

var tongues = []tongue{
	{"native", nativeEdge, data, sendData, beat, readNative, false, false},
	{"native, flipped", func(l *loop) edge {
		return edge{protocol: native{l}, native: true}
	}, data, sendData, beat, readNative, false, false},
	{"native, framed", func(l *loop) edge {
		return edge{framing: newPieces, protocol: native{l}, native: true, layered: true}
	}, data, sendData, beat, readNative, true, false},
	{"lines", linesEdge, line, sendLine, line(""), readLines, false, false},
	{"lines, flipped", func(l *loop) edge {
		return edge{protocol: lines{l.h}, layered: true}
	}, line, sendLine, line(""), readLines, false, false},
	{"lines, framed and flipped", func(l *loop) edge {
		return edge{framing: newPieces, protocol: lines{l.h}, layered: true}
	}, line, sendLine, line(""), readLines, true, false},
	{"native over WebSocket", bodiesEdge, data, sendData, beat, readWS, false, false},
	{"native over TLS", func(l *loop) edge {
		return edge{protocol: native{l}, native: true}
	}, data, sendData, beat, readNative, false, false},
	{"native over WebSocket and TLS", bodiesEdge, data, sendData, beat, readWS, false, false},
	foreignTongue("length field", fleetLength, "\x16\x08\x00\x00pong"),
	foreignTongue("length field, flipped", fleetLength, "\x16\x08\x00\x00pong"),
	foreignTongue("fleet of lines", fleetLines, "pong\r\n"),
	foreignTongue("length field over TLS", fleetLength, "\x16\x08\x00\x00pong"),
	foreignTongue("fleet of lines, flipped", fleetLines, "pong\r\n"),
}

// Framings of fleets. The first has a byte before its length, one behind it, and
// counts the whole frame.
var (
	fleetLength = Framing{Kind: FramingLengthField, Offset: 1, Width: 2, Little: true, Adjust: -3, Strip: 4,
		Beat: []byte("pong"), ServerBeat: []byte("ping")}
	fleetLines = Framing{Kind: FramingLines, Beat: []byte("pong"), ServerBeat: []byte("ping")}
)

// foreignTongue is that of a fleet, whose clients answer a beat with these bytes.
func foreignTongue(name string, f Framing, answer string) tongue {
	cut := func() cutter { c, _ := f.cutter(codec.DefaultMaxFrame); return c }
	return tongue{name: name, edge: func(l *loop) edge { return l.foreignEdge(f) },
		data: func(s string) []byte {
			b, ok := cut().Encode(nil, []byte(s))
			if !ok {
				panic("no frame can carry that")
			}
			return b
		},
		send: sendData, answer: []byte(answer),
		read: func(b []byte) (all []string, whole bool) {
			for len(b) > 0 {
				p, _, n, err := cut().Next(b)
				if n == 0 || err != nil {
					return all, false
				}
				if b = b[n:]; string(p) == "ping" {
					p = []byte("beat")
				}
				all = append(all, string(p))
			}
			return all, true
		},
		silent: true}
}

func (t *tongue) bodies() bool { return strings.Contains(t.name, "WebSocket") }
func (t *tongue) secure() bool { return strings.Contains(t.name, "TLS") }

// An edgeRig is a rig whose connections speak a tongue.
type edgeRig struct {
	*rig
	tongue
	flips     map[*Conn]*flipper // of the peers
	cutFrames bool               // peers send each message in two frames
	peers     map[*Conn]*tlsPeer
	last      *tlsPeer // of the transport that was made last
}

// open opens a connection.
func (r *edgeRig) open() *Conn {
	c := r.rig.open()
	r.peers[c] = r.last
	return c
}

// onEachEdge runs f for each tongue, in a bubble.
func onEachEdge(t *testing.T, cfg Config, f func(t *testing.T, r *edgeRig)) {
	for _, to := range tongues {
		t.Run(to.name, func(t *testing.T) {
			var secure *tlsedge.Server
			if to.secure() {
				secure = newTLSServer(t)
			}
			synctest.Test(t, func(t *testing.T) {
				cfg.Beats = ServerBeats
				r := &edgeRig{
					rig: newRig(t, cfg, nil), tongue: to, flips: map[*Conn]*flipper{}, peers: map[*Conn]*tlsPeer{},
				}
				r.do(func() {
					if secure != nil {
						r.rig.transport = func() (tr transport) {
							tr, r.last = handshake(t, secure, &tls.Config{InsecureSkipVerify: true})
							return tr
						}
					}
					if strings.Contains(to.name, "flipped") {
						r.rig.transport = newFlipper
					}
					if to.name != "native" { // that is there
						r.loop.edges = append(r.loop.edges, to.edge(r.loop))
						r.rig.edge = 1
					}
				})
				f(t, r)
			})
		})
	}
}

// wire returns what a peer sends for plaintext.
func (r *edgeRig) wire(c *Conn, plain []byte) []byte {
	if r.frame && !r.cutFrames {
		plain = pieces{}.Append(nil, plain, 0)
	} else if r.frame {
		half := len(plain) / 2
		framed := binary.BigEndian.AppendUint32(nil, uint32(half))
		framed = append(framed, plain[:half]...)
		plain = pieces{}.Append(framed, plain[half:], 0)
	}
	if r.bodies() {
		plain = wsBodies(plain, r.cutFrames)
	}
	if !r.flipped() {
		return bytes.Clone(plain)
	}
	if p := r.peers[c]; p != nil {
		return p.seal(r.t, plain)
	}
	f := r.flips[c]
	if f == nil {
		f = new(flipper)
		r.flips[c] = f
	}
	b, _ := f.Seal(nil, plain)
	return b
}

// flipped reports whether the connections have a transport.
func (r *edgeRig) flipped() bool { return r.rig.transport != nil }

// messages returns what was sent to c, which must be whole unless part.
func (r *edgeRig) messages(c *Conn, part bool) []string {
	r.t.Helper()
	var b []byte
	r.do(func() { b = bytes.Clone(r.sock(c).out) })
	if p := r.peers[c]; p != nil {
		plain, whole := p.open(b)
		if !part && !whole || p.ended != nil && p.ended != io.EOF {
			r.t.Fatalf("%d bytes were sent, whole records: %v, %v", len(b), whole, p.ended)
		}
		b = plain
	} else if r.flipped() {
		plain, used, err := new(flipper).Open(nil, b)
		if err != nil || !part && used < len(b) {
			r.t.Fatalf("% x was sent, of which %d bytes are records: %v", b, used, err)
		}
		b = plain
	}
	if r.frame {
		var plain []byte
		for len(b) > 0 {
			p, _, end, n, _ := pieces{}.Next(b)
			if n == 0 {
				break
			}
			if _, whole := r.tongue.read(p); !whole || !end {
				r.t.Fatalf("a frame has % x", p)
			}
			plain, b = append(plain, p...), b[n:]
		}
		if len(b) > 0 && !part {
			r.t.Fatalf("% x was sent behind the last frame", b)
		}
		b = plain
	}
	all, whole := r.tongue.read(b)
	if !whole && !part {
		r.t.Fatalf("%q was sent, the last of it not whole", b)
	}
	return all
}

func (r *edgeRig) want(c *Conn, want ...string) {
	r.t.Helper()
	if r.silent {
		want = slices.DeleteFunc(want, func(s string) bool { return s == "soon" || s == "end" })
	}
	if got := r.messages(c, false); !slices.Equal(got, want) {
		r.t.Fatalf("sent %q, want %q", got, want)
	}
}

// say has the peer send messages.
func (r *edgeRig) say(c *Conn, plain ...[]byte) { r.feed(c, r.wire(c, bytes.Join(plain, nil))) }

// wantEnd is that of the rig, and one in order ends with close_notify over TLS.
func (r *edgeRig) wantEnd(c *Conn, why Reason, abort bool) ending {
	r.t.Helper()
	e := r.rig.wantEnd(c, why, abort)
	if p := r.peers[c]; p != nil && !abort {
		if r.messages(c, false); p.ended != io.EOF {
			r.t.Errorf("the last record is not close_notify: %v", p.ended)
		}
	}
	return e
}

func (r *edgeRig) heard() (all []string) {
	r.do(func() {
		for _, g := range r.rec.got {
			all = append(all, g.payload)
		}
	})
	return all
}

// T runs from the last whole message, to the millisecond; parts and what this
// side sends do not move it. Meanwhile it beats after each H of its own silence.
func TestEdgeDeadline(t *testing.T) {
	const h, idle = 3 * time.Second, 7500 * time.Millisecond
	onEachEdge(t, profile(t, "fast"), func(t *testing.T, r *edgeRig) {
		r.wait(77 * time.Millisecond)
		c := r.open()
		r.wait(2 * time.Second)
		r.say(c, r.data("hi"))
		r.wait(h + slack)
		r.say(c, r.answer)
		from := time.Now()
		r.wait(h + slack) // the second beat has not been answered, and is not repeated before H
		r.want(c, "beat", "beat")
		r.do(func() { _ = r.send(c, "push") })
		last := r.wire(c, r.data("part"))
		r.feed(c, last[:len(last)-1])
		r.wait(idle)
		within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, idle)
		r.want(c, "beat", "beat", "push", "beat")
		if got := r.heard(); !slices.Equal(got, []string{"hi"}) {
			t.Errorf("heard %q", got)
		}
	})
}

// What has reached this machine and is not read saves a peer at its deadline.
func TestEdgeUnread(t *testing.T) {
	const idle = 7500 * time.Millisecond
	onEachEdge(t, profile(t, "fast"), func(t *testing.T, r *edgeRig) {
		c := r.open()
		r.wait(7 * time.Second)
		hold(r.rig, c, r.wire(c, r.data("late")))
		r.wait(time.Second)
		r.alive(c, "with a message unread")
		r.do(func() { r.rig.read(c) })
		from := time.Now()
		r.wait(idle - time.Millisecond)
		part := r.wire(c, r.data("part"))
		hold(r.rig, c, part[:len(part)-1])
		r.wait(slack)
		r.alive(c, "with part of a message unread")
		r.do(func() { r.rig.read(c) })
		r.wait(slack)
		if e := r.wantEnd(c, IdleTimeout, true); e.at.Sub(from) < idle {
			t.Errorf("closed after %v", e.at.Sub(from))
		}
	})
}

// An incomplete message has 10 s, on whatever stage it is incomplete.
func TestEdgeIncomplete(t *testing.T) {
	onEachEdge(t, Config{}, func(t *testing.T, r *edgeRig) {
		c := r.open()
		b := r.wire(c, r.data("message"))
		for i := range b { // completed: no matter
			r.feed(c, b[i:i+1])
			r.wait(10 * time.Millisecond)
			r.check()
		}
		if n := r.stats().inputBytes; n != 0 {
			t.Errorf("%d bytes are kept", n)
		}
		r.wait(11 * time.Second)
		r.alive(c, "after a message that was completed")
		from := time.Now()
		b = r.wire(c, r.data("another"))
		r.feed(c, b[:1])
		r.wait(9 * time.Second)
		r.feed(c, b[1:len(b)-1])
		r.wait(2 * time.Second)
		within(t, "closed", from, r.wantEnd(c, Incomplete, false).at, 10*time.Second)
		if n := r.stats().inputBytes; n != 0 {
			t.Errorf("%d bytes are kept of a closed connection", n)
		}
		all := r.messages(c, false)
		if !r.silent && all[len(all)-1] != "end" {
			t.Errorf("sent %q", all)
		}
	})
}

// A beat overtakes waiting messages, but never one that is half on the wire.
func TestEdgeOvertaking(t *testing.T) {
	onEachEdge(t, profile(t, "fast"), func(t *testing.T, r *edgeRig) {
		c := r.open()
		r.do(func() { r.sock(c).room = 3 })
		posted(t, r.rig, c, func(c *Conn) { _ = r.send(c, "one") })
		posted(t, r.rig, c, func(c *Conn) { _ = r.send(c, "two"); _ = r.send(c, "three") })
		want := []string{"one", "beat", "two", "three"}
		if r.loop.edges[r.rig.edge].native { // it knows more that overtakes
			posted(t, r.rig, c, func(c *Conn) { _ = c.Send(codec.OpPong, []byte("pong")) })
			want = slices.Insert(want, 1, "pong")
		}
		r.wait(3*time.Second + slack)
		if n := r.stats().outboxBytes; n < 10 {
			t.Fatalf("%d bytes wait", n)
		}
		for range 200 {
			r.do(func() { r.writable(c, 1) })
			r.messages(c, true)
			r.check()
		}
		r.want(c, want...)
		noBytesWait(t, r.rig)
		r.say(c, r.answer)
		r.alive(c, "a slow but honest reader")
	})
}

// The end comes after everything that was sent before it.
func TestEdgeEndIsLast(t *testing.T) {
	onEachEdge(t, Config{}, func(t *testing.T, r *edgeRig) {
		c := r.open()
		fill(r.rig, c)
		posted(t, r.rig, c, func(c *Conn) {
			_ = r.send(c, "one")
			_ = r.send(c, "two")
			c.Close(codec.CodeKicked, "bye")
			if err := r.send(c, "late"); !errors.Is(err, ErrClosed) {
				t.Errorf("a send after Close: %v", err)
			}
		})
		r.wait(time.Second)
		r.alive(c, "with messages to send")
		r.say(c, r.data("ignored"))
		r.do(func() { r.writable(c, -1) })
		r.wantEnd(c, Application, false)
		r.want(c, "one", "two", "end")
		if got := r.heard(); len(got) != 0 {
			t.Errorf("heard %q", got)
		}
		noBytesWait(t, r.rig)
	})
}

// A peer that takes nothing is closed when its outbox is full, or at its stall.
func TestEdgeSlowConsumer(t *testing.T) {
	onEachEdge(t, Config{MaxFrame: 1024, Outbox: 4096, WriteStall: 5 * time.Second}, func(t *testing.T, r *edgeRig) {
		full, stalled, reads := r.open(), r.open(), r.open()
		for _, c := range []*Conn{full, stalled, reads} {
			r.do(func() { r.sock(c).room = 100 })
			posted(t, r.rig, c, func(c *Conn) { _ = r.send(c, string(make([]byte, 900))) })
		}
		from := time.Now()
		r.check()
		posted(t, r.rig, full, func(c *Conn) {
			var err error
			for n := 0; err == nil && n < 10; n++ {
				err = r.send(c, string(make([]byte, 900)))
			}
			if !errors.Is(err, ErrSlowConsumer) {
				t.Errorf("a full outbox: %v", err)
			}
		})
		r.wantEnd(full, SlowConsumer, true)
		r.wait(4 * time.Second)
		r.do(func() { r.writable(reads, -1) })
		r.wait(2 * time.Second)
		endedIn(t, r.wantEnd(stalled, SlowConsumer, true), from, 5*time.Second)
		r.alive(reads, "one that has read all")
		noBytesWait(t, r.rig)
	})
}

// A drain announces itself, then ends.
func TestEdgeDrain(t *testing.T) {
	onEachEdge(t, Config{Beat: time.Minute, Drain: 20 * time.Second}, func(t *testing.T, r *edgeRig) {
		var all []*Conn
		for range 20 {
			all = append(all, r.open())
		}
		r.do(r.loop.startDrain)
		r.wait(20*time.Second + tick)
		for _, c := range all {
			r.wantEnd(c, Draining, false)
			r.want(c, "soon", "end")
		}
	})
}

// A panic costs the connection that it happened for.
func TestEdgePanic(t *testing.T) {
	onEachEdge(t, Config{}, func(t *testing.T, r *edgeRig) {
		c, other := r.open(), r.open()
		r.rec.onFrame = func(c *Conn, f codec.Frame) error {
			if string(f.Payload) == "panic" {
				_ = r.send(c, "before")
				_ = r.send(other, "to another")
				panic("as asked")
			}
			return r.send(c, string(f.Payload))
		}
		r.say(c, r.data("panic"), r.data("never seen"))
		r.wantEnd(c, Internal, false)
		r.want(c, "before", "end")
		r.say(other, r.data("hi"))
		r.want(other, "to another", "hi")
		r.alive(other, "another's panic")
		r.check()
	})
}

// However what arrives is cut, and however little the socket takes, what comes of
// it is the same.
func TestEdgeCuts(t *testing.T) {
	onEachEdge(t, Config{Outbox: 1 << 20}, func(t *testing.T, r *edgeRig) {
		r.cutFrames = true
		r.rec.onFrame = func(c *Conn, f codec.Frame) error { return r.send(c, string(f.Payload)) }
		rng := rand.New(rand.NewPCG(1, 2))
		for round := range 40 {
			c := r.open()
			r.do(func() { r.sock(c).room = 0 })
			var in []byte
			var want []string
			most := []int{3, 50, 5000, 100_000}[round%4]
			for n := range 1 + rng.IntN(8) {
				s := fmt.Sprintf("%d %0*d", n, rng.IntN(100), 1)
				if most >= 5000 && rng.IntN(10) == 0 {
					s = fmt.Sprintf("%d %0*d", n, 40_000, 1)
				}
				want = append(want, s)
				in = append(in, r.wire(c, r.data(s))...)
			}
			for len(in) > 0 {
				n := min(1+rng.IntN(most), len(in))
				r.feed(c, in[:n])
				in = in[n:]
				if rng.IntN(2) == 0 {
					r.do(func() { r.writable(c, rng.IntN(most)) })
				}
			}
			r.do(func() { r.writable(c, -1) })
			r.want(c, want...)
			r.check()
			r.do(func() { r.loop.lost(c, PeerClosed) })
		}
	})
}

// What the native protocol alone can send is refused on others.
func TestEdgeSendIsNative(t *testing.T) {
	onEachEdge(t, Config{}, func(t *testing.T, r *edgeRig) {
		if r.loop.edges[r.rig.edge].native {
			t.Skip("it is native")
		}
		if r.silent {
			t.Skip("TestForeignSend says what it can send")
		}
		c := r.open()
		r.do(func() {
			if err := c.Send(codec.OpData, nil); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Send: %v", err)
			}
			if err := c.Write(beat); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Write: %v", err)
			}
		})
		r.want(c)
	})
}
