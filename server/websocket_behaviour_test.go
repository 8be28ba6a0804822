package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"heartwheel/codec"
)

// A behaviour is what a client sends and what has to come back. Unless it fails the
// connection, or is cut, a close frame with 1000 follows, and its answer.
type behaviour struct {
	name string
	wire []byte
	want []wsFrame
	code int // of the close frame that fails the connection; 0: it goes on
}

func echoed(s string) wsFrame { return wsFrame{wsBinary, "\x03" + s} }

// closing returns a close frame of a client, and closed one of the server.
func closing(code int, reason string) []byte {
	return masked(wsClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

func closed(code int) wsFrame {
	return wsFrame{wsClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))}
}

// fragments returns a message in fragments of n bytes.
func fragments(op byte, s string, n int) (b []byte) {
	for i := 0; i < len(s); i += n {
		first, end := byte(0), min(i+n, len(s))
		if i == 0 {
			first = op &^ wsFin
		}
		if end == len(s) {
			first |= wsFin
		}
		b = append(b, masked(first, s[i:end])...)
	}
	return b
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// behaviours restates those that the families 1 to 7 of the Autobahn test suite check,
// for bodies of native frames: a text is DATA, which is echoed as the body of DATA; a
// binary message has an op; the empty one is a beat, which has no answer.
func behaviours() (all []behaviour) {
	add := func(name string, code int, wire []byte, want ...wsFrame) {
		all = append(all, behaviour{name, wire, want, code})
	}
	full := strings.Repeat("a", 125)
	add("1.1.1 empty text", 0, masked(wsText, ""), echoed(""))
	add("1.2.1 empty binary", 0, masked(wsBinary, ""))
	for _, n := range []int{1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537} {
		s := strings.Repeat("*", n)
		add(fmt.Sprintf("1.1 text of %d", n), 0, masked(wsText, s), echoed(s))
		add(fmt.Sprintf("1.2 binary of %d", n), 0, masked(wsBinary, "\x03"+s[1:]), echoed(s[1:]))
	}
	for _, n := range []int{0, 1, 2, 64, 124, 125} {
		add(fmt.Sprintf("2 ping of %d", n), 0, masked(wsPing, full[:n]), wsFrame{wsPong, full[:n]})
	}
	add("2.3 ping of bytes", 0, masked(wsPing, "\x00\xff\xfe\xfd"), wsFrame{wsPong, "\x00\xff\xfe\xfd"})
	add("2.5 ping of 126", 1002, masked(wsPing, full+"a"))
	add("2.7 unasked pong", 0, masked(wsPong, ""))
	add("2.9 pong, then ping", 0, join(masked(wsPong, "x"), masked(wsPing, "y")), wsFrame{wsPong, "y"})
	add("2.10 ten pings", 0, bytes.Repeat(masked(wsPing, "p"), 10), slices.Repeat([]wsFrame{{wsPong, "p"}}, 10)...)
	for rsv := 1; rsv <= 7; rsv++ {
		bits := byte(rsv << 4)
		add(fmt.Sprintf("3 RSV %d of a text", rsv), 1002,
			join(masked(wsText, "x"), masked(wsText|bits, "y"), masked(wsPing, "")), echoed("x"))
		add(fmt.Sprintf("3 RSV %d of a ping", rsv), 1002, masked(wsPing|bits, "y"))
		add(fmt.Sprintf("3 RSV %d of a close", rsv), 1002, masked(wsClose|bits, ""))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("4 opcode %d", op), 1002, masked(wsFin|op, ""))
		add(fmt.Sprintf("4 opcode %d between others", op), 1002,
			join(masked(wsText, "x"), masked(wsFin|op, "y"), masked(wsPing, "")), echoed("x"))
	}
	p := wsFrame{wsPong, "p"}
	ping, first, more, last := masked(wsPing, "p"), masked(0x01, "1"), masked(0, "2"), masked(wsFin, "3")
	add("5.1 ping in fragments", 1002, join(masked(wsPing&^wsFin, "a"), masked(wsFin, "b")))
	add("5.2 pong in fragments", 1002, join(masked(wsPong&^wsFin, "a"), masked(wsFin, "b")))
	add("5.3 text in fragments", 0, join(first, last), echoed("13"))
	add("5.6 ping inside", 0, join(first, ping, last), p, echoed("13"))
	add("5.9 continuation of nothing", 1002, join(last, masked(wsText, "x")))
	add("5.12 and not the last", 1002, join(more, masked(wsText, "x")))
	add("5.15 continuation after the end", 1002, join(first, last, more, last), echoed("13"))
	add("5.18 message inside another", 1002, join(first, masked(wsText, "x")))
	add("5.18 binary inside text", 1002, join(first, masked(wsBinary, "\x03x")))
	add("5.19 fragments and pings", 0, join(first, more, ping, more, more, ping, last), p, p, echoed("12223"))
	add("6.1.1 empty fragments", 0, join(masked(0x01, ""), masked(0, ""), masked(wsFin, "")), echoed(""))
	add("6.1.3 middle", 0, join(masked(0x01, ""), masked(0, "middle"), masked(wsFin, "")), echoed("middle"))
	add("6 binary is not checked", 0, masked(wsBinary, "\x03\xff\xc0"), echoed("\xff\xc0"))
	add("7.1.2 two closes", 0, join(closing(1000, ""), closing(1001, "")))
	add("7.1.3 ping after close", 0, join(closing(1000, ""), ping))
	add("7.1.4 text after close", 0, join(closing(1000, ""), masked(wsText, "x")))
	add("7.1.5 close inside a message", 0, join(first, closing(1000, ""), last))
	big := strings.Repeat("x", 256<<10)
	add("7.1.6 large message, close, ping", 0, join(masked(wsText, big), closing(1000, ""), ping), echoed(big))
	add("7.1.6 bad frames after close", 0, join(closing(1000, ""), masked(0xFF, "x"), []byte("no frame at all")))
	add("7.3.2 close of a byte", 1002, masked(wsClose, "a"))
	add("7.3.4 close with a reason", 0, closing(1000, "hello"))
	add("7.3.5 longest reason", 0, closing(1000, strings.Repeat("*", 123)))
	add("7.3.6 too long a reason", 1002, closing(1000, strings.Repeat("*", 124)))
	add("7.5.1 bad reason", 1007, closing(1000, "κό\xed\xa0\x80"))
	add("close in fragments", 1002, join(masked(wsClose&^wsFin, "\x03\xe8"), masked(wsFin, "")))
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprintf("7.9 code %d", code), 1002, closing(code, ""))
		add(fmt.Sprintf("7.9 code %d with a reason", code), 1002, closing(code, "reason"))
	}
	add("not masked", 1002, []byte{wsText, 1, 'x'})
	add("length 125 in two bytes", 1002, []byte{wsBinary, 0xFE, 0, 125})
	add("length 65,535 in eight bytes", 1002, []byte{wsBinary, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF})
	add("length of 2⁶³", 1002, []byte{wsBinary, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0})
	add("too large, known at the length", 1009, []byte{wsBinary, 0xFF, 0, 0, 0, 0, 1, 0, 0, 0})
	add("too large in fragments", 1009,
		join(masked(0x02, "\x03"), masked(0, "b"), []byte{0x80, 0xFF, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFE}))
	add("unknown op", int(codec.CodeProtocolError), masked(wsBinary, "\x0f"))
	return all
}

// behaviourServer has the largest messages that there are.
func behaviourServer(t *testing.T) (s *Server, url string) {
	t.Helper()
	cfg := Config{Loops: 2, Listen: []string{"ws://127.0.0.1:0/"}, MaxFrame: codec.MaxFrameLimit, Outbox: 64 << 20}
	s, urls := edgeURLs(t, cfg, Echo{})
	t.Cleanup(func() {
		eventually(t, "all are closed", func() bool { return s.Stats().Connections == 0 })
		if st, ck := s.Stats(), s.Check(); st.InputBytes != 0 || st.OutboxBytes != 0 || !ck.OK {
			t.Errorf("in the end %d + %d bytes are kept; %+v", st.InputBytes, st.OutboxBytes, ck)
		}
	})
	return s, urls[0]
}

// run sends b in pieces, and wants the frames and then the end. An error of sending is
// that of a connection which the server has closed.
func (c *wsClient) run(name string, b []byte, piece int, want []wsFrame) {
	c.t.Helper()
	go func() {
		for p := range slices.Chunk(b, piece) {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	all, err := c.rest()
	for i, f := range all {
		if f.first == wsClose { // the code alone
			all[i].content = f.content[:min(2, len(f.content))]
		}
	}
	if err != io.EOF || !slices.Equal(all, want) {
		c.t.Fatalf("%s, in pieces of %d: got %.200q, %v; want %.200q", name, piece, all, err, want)
	}
	_ = c.Close()
}

// echo sends a message in pieces and wants its content back. It closes only then: what is
// not read 2 s after that may be lost, which a slow machine would be late for.
func (c *wsClient) echo(name string, b []byte, piece int, content string) {
	c.t.Helper()
	go func() {
		for p := range slices.Chunk(b, piece) {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	if f, err := c.next(); err != nil || f != echoed(content) {
		c.t.Fatalf("%s, in pieces of %d: got %.100q, %v", name, piece, f, err)
	}
	c.run(name, closing(1000, ""), 1<<30, []wsFrame{closed(1000)})
}

// TestWebSocketBehaviours runs each behaviour over a socket of its own, whole and in
// pieces of a byte, or of a few where it is large.
func TestWebSocketBehaviours(t *testing.T) {
	t.Parallel()
	_, url := behaviourServer(t)
	for _, b := range behaviours() {
		wire, want := b.wire, slices.Clone(b.want)
		if b.code != 0 {
			want = append(want, closed(b.code))
		} else {
			wire, want = join(wire, closing(1000, "")), append(want, closed(1000))
		}
		small := 1
		if len(wire) > 1000 {
			small = len(wire)/100 + 1
		}
		for _, piece := range []int{1 << 30, small} {
			openByHand(t, url, nil).run(b.name, wire, piece, want)
		}
	}
	for _, code := range []int{
		1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3999, 4000, 4999,
	} { // 7.7: the answer has the code
		openByHand(t, url, nil).run(fmt.Sprintf("code %d", code), closing(code, "why"), 1, []wsFrame{closed(code)})
	}
	openByHand(t, url, nil).run("7.3.1 empty close", masked(wsClose, ""), 1, []wsFrame{{wsClose, ""}})
}

// TestWebSocketUTF8 is family 6: valid text cut anywhere into fragments, and invalid
// text, which fails the connection as soon as its bytes tell.
func TestWebSocketUTF8(t *testing.T) {
	t.Parallel()
	_, url := behaviourServer(t)
	valid := []string{
		"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\u0080", "\u0800", "\U00010000", "\u007f", "\u07ff", "\uffff",
		"\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\ufdd0", "\U0001fffe",
	}
	var wire []byte
	var want []wsFrame
	for _, s := range valid {
		for cut := range len(s) + 1 {
			wire = join(wire, masked(0x01, s[:cut]), masked(wsPing, "p"), masked(wsFin, s[cut:]))
			want = append(want, wsFrame{wsPong, "p"}, echoed(s))
		}
		wire, want = join(wire, fragments(wsText, s, 1)), append(want, echoed(s))
	}
	wire, want = join(wire, closing(1000, "")), append(want, closed(1000))
	for _, piece := range []int{1, 7, 1 << 30} {
		openByHand(t, url, nil).run("valid text", wire, piece, want)
	}
	for _, bad := range []string{ // up to the byte that tells
		"\x80", "\xbf", "\xc0", "\xc1", "\xfe", "\xff", "\xf5", "\xf8", "\xfc", "\xc3\x28", "\xe0\x80", "\xe0\x9f",
		"\xed\xa0", "\xed\xbf", "\xf0\x80", "\xf0\x8f", "\xf4\x90", "\xe2\x28", "\xe2\x82\x28", "\xf0\x90\x28",
		"\xf0\x90\x8c\x28", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0", "\xc3\xc3",
	} {
		fail := []wsFrame{closed(1007)}
		for cut := range len(bad) { // in two fragments, of which the second goes on
			wire := join(masked(0x01, "κ"+bad[:cut]), masked(0, bad[cut:]+"xxxxxxxxxx"))
			openByHand(t, url, nil).run(fmt.Sprintf("% x cut at %d", bad, cut), wire[:len(wire)-10], 1<<30, fail)
		}
		wire := masked(wsText, "κ"+bad+strings.Repeat("x", 1000))
		openByHand(t, url, nil).run(fmt.Sprintf("% x, fail-fast", bad), wire[:8+2+len(bad)], 1, fail)
	}
	for _, cut := range []string{"\xce", "\xe2\x82", "\xf0\x90\x8c"} {
		fail := []wsFrame{closed(1007)}
		openByHand(t, url, nil).run("cut at the end", masked(wsText, "κ"+cut), 1, fail)
		openByHand(t, url, nil).run("cut at the end of fragments",
			join(masked(0x01, "κ"+cut), masked(wsFin, "")), 1, fail)
	}
}

// TestWebSocketSizes is families 9 and 10: large messages, whole, in fragments and in
// pieces, and many small ones.
func TestWebSocketSizes(t *testing.T) {
	_, url := behaviourServer(t)
	most := codec.MaxFrameLimit - 1 // beside the op
	content := strings.Repeat("0123456789abcdé", most/16+1)
	for _, size := range []int{64 << 10, 1 << 20, most} {
		s := content[:size]
		if s[size-1] == "é"[0] {
			s = s[:size-1] + "x"
		}
		openByHand(t, url, nil).echo(fmt.Sprintf("9 text of %d", size), masked(wsText, s), 1<<30, s)
		openByHand(t, url, nil).echo(fmt.Sprintf("9 binary of %d", size), masked(wsBinary, "\x03"+s), 1<<16, s)
		for _, n := range []int{64, 1300, 64 << 10} {
			if size/n > 20_000 {
				continue
			}
			openByHand(t, url, nil).echo(fmt.Sprintf("9, 10 text of %d in fragments of %d", size, n),
				fragments(wsText, s, n), 1<<20, s)
		}
	}
	s := content[:64<<10]
	for _, piece := range []int{64, 256, 2048} { // 9.5, 9.6
		openByHand(t, url, nil).run("9.5 text", join(masked(wsText, s), closing(1000, "")), piece,
			[]wsFrame{echoed(s), closed(1000)})
	}
	for _, size := range []int{0, 16, 64, 256, 1024, 4096, 16384} { // 9.7, 9.8
		c := openByHand(t, url, nil)
		c.send(bytes.Repeat(masked(wsBinary, "\x03"+content[:size]), 200))
		for range 200 {
			if f, err := c.next(); err != nil || f != echoed(content[:size]) {
				t.Fatalf("9.8, %d bytes: %.100q, %v", size, f, err)
			}
		}
	}
}

// TestWebSocketRandom: a stream of all that is allowed, in random pieces, has the
// answers that it has whole.
func TestWebSocketRandom(t *testing.T) {
	t.Parallel()
	_, url := behaviourServer(t)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		var wire []byte
		var want []wsFrame
		for n := range 50 {
			s := strings.Repeat("é", rng.IntN(300))
			wire = append(wire, fragments(wsText, s+fmt.Sprint(n), 1+rng.IntN(200))...)
			want = append(want, echoed(s+fmt.Sprint(n)))
			if rng.IntN(3) == 0 {
				wire, want = join(wire, masked(wsPing, fmt.Sprint(n))), append(want, wsFrame{wsPong, fmt.Sprint(n)})
			}
		}
		wire, want = join(wire, closing(1000, "")), append(want, closed(1000))
		openByHand(t, url, nil).run("random", wire, 1+rng.IntN(3000), want)
	}
}
