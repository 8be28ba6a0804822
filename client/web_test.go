package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"

	"heartwheel/codec"
)

// What holds over TCP holds over a WebSocket: the times of beats, what counts as life,
// reconnects, GOAWAY and codes. A server that beats does so by pings.
func TestOverWebSocket(t *testing.T) {
	rigScheme = "ws"
	defer func() { rigScheme = "tcp" }()
	for name, test := range map[string]func(*testing.T){
		"BeatTimes": TestBeatTimes, "TrafficReplacesBeats": TestTrafficReplacesBeats,
		"SendingIsNoProofOfLife": TestSendingIsNoProofOfLife, "SilentServerIsDead": TestSilentServerIsDead,
		"AnyByteIsAnAnswer": TestAnyByteIsAnAnswer, "SilentServerWithShortBeats": TestSilentServerWithShortBeats,
		"ServerBeats": TestServerBeats, "Config": TestConfig, "Answers": TestAnswers,
		"BeatRoundTrip": TestBeatRoundTrip, "ReconnectDelays": TestReconnectDelays, "Goaway": TestGoaway,
		"GoawayHost": TestGoawayHost, "GoawayThenClosed": TestGoawayThenClosed,
		"GoawayWithoutTime": TestGoawayWithoutTime, "GoawayForEver": TestGoawayForEver,
		"RefusedWithGoaway": TestRefusedWithGoaway, "FinalCodes": TestFinalCodes, "States": TestStates,
		"SessionBesideToken": TestSessionBesideToken, "TokenFunc": TestTokenFunc, "Refresh": TestRefresh,
		"Request":     TestRequest,
		"ErrorFrames": TestErrorFrames, "Receive": TestReceive, "ReceiveBufferFull": TestReceiveBufferFull,
		"SlowCallback": TestSlowCallback, "SendOrder": TestSendOrder, "CloseAtAnyMoment": TestCloseAtAnyMoment,
		"CloseWhileSendWaits": TestCloseWhileSendWaits, "WelcomeInPieces": TestWelcomeInPieces,
		"LossInWords": TestLossInWords,
	} {
		t.Run(name, test)
	}
}

// frame is a frame of a server.
func frame(op ws.OpCode, fin bool, content string) []byte {
	return ws.MustCompileFrame(ws.NewFrame(op, fin, []byte(content)))
}

// body is a frame of ours without its length.
func body(b []byte) string { return string(b[codec.HeaderSize:]) }

// closeFrame is a close frame with a code.
func closeFrame(code uint16, reason string) []byte {
	return frame(ws.OpClose, true, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// goodWeb is what a server may send, and goodFrames the frames of ours in it.
func goodWeb() (web, frames []byte) {
	data := codec.AppendData(nil, bytes.Repeat([]byte("fragments "), 30))
	whole := body(data)
	for _, part := range [][]byte{
		frame(ws.OpBinary, true, ""), frame(ws.OpPing, true, ""),
		frame(ws.OpBinary, true, body(codec.AppendData(nil, []byte("one")))),
		frame(ws.OpBinary, false, whole[:1]), frame(ws.OpPing, true, strings.Repeat("p", 125)),
		frame(ws.OpContinuation, false, ""), frame(ws.OpContinuation, false, whole[1:200]),
		frame(ws.OpPong, true, "unasked"), frame(ws.OpContinuation, true, whole[200:]),
		frame(ws.OpBinary, false, ""), frame(ws.OpContinuation, true, ""),
		frame(ws.OpBinary, true, body(codec.AppendData(nil, make([]byte, 200)))),
		closeFrame(3001, "so"), []byte("ignored"),
	} {
		web = append(web, part...)
	}
	frames = append(codec.AppendData(codec.AppendBeat(nil), []byte("one")), data...)
	frames = codec.AppendData(codec.AppendBeat(frames), make([]byte, 200))
	return web, codec.AppendClose(frames, 3001, "so")
}

// unweb returns the frames in pieces of a WebSocket, and what follows them. It reads
// size bytes at once.
func unweb(size, limit int, pieces ...[]byte) (frames []byte, err error) {
	w := newWebConn(&script{pieces: pieces}, nil, limit)
	for b := make([]byte, size); ; {
		n, err := w.Read(b)
		frames = append(frames, b[:n]...)
		if err != nil {
			return frames, err
		}
	}
}

// A server's bytes may come in any pieces and be read in any sizes.
func TestWebInPieces(t *testing.T) {
	web, want := goodWeb()
	for _, size := range []int{1, 3, 4, 100, 128, 5000} {
		for _, piece := range []int{1, 2, 3, 5, 127, 128, 129, len(web)} {
			got, err := unweb(size, codec.DefaultMaxFrame, slices.Collect(slices.Chunk(bytes.Clone(web), piece))...)
			if !bytes.Equal(got, want) || err != io.EOF {
				t.Errorf("pieces of %d, reads of %d: %d bytes, %v; want %d", piece, size, len(got), err, len(want))
			}
		}
	}
}

// A connection that ends at any byte has delivered all frames before that, and is lost.
func TestWebCut(t *testing.T) {
	web, want := goodWeb()
	web = web[:len(web)-len("ignored")]
	most := 0
	for n := range web {
		got, err := unweb(128, codec.DefaultMaxFrame, bytes.Clone(web[:n]))
		if !bytes.HasPrefix(want, got) || err != io.EOF || len(got) < most {
			t.Fatalf("%d of %d bytes: %q, %v", n, len(web), got, err)
		}
		most = len(got)
	}
	for _, cut := range []int{1, 5, 60} {
		if _, err := readWeb(Config{}, web[:cut]); err == nil ||
			err.Error() != "the server closed the connection without giving a reason" || final(err, true) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

// readWeb has a connection read pieces of a WebSocket, and returns the error that ended
// it.
func readWeb(cfg Config, pieces ...[]byte) (*script, error) {
	s := &script{pieces: pieces}
	cfg = cfg.withDefaults()
	w := welcomed
	c := newConn(newWebConn(s, nil, cfg.MaxFrame), &cfg, &w)
	c.wait, c.in = &waiter{}, &inbox{limit: cfg.ReceiveBuffer}
	c.read(nil)
	<-c.Done()
	return s, c.Err()
}

// What RFC 6455 or a limit forbids ends the connection, before anything is kept of it.
func TestWebRefused(t *testing.T) {
	const limit = 8192
	for name, c := range map[string]struct {
		wire  []byte
		words string
	}{
		"masked":           {ws.MustCompileFrame(ws.MaskFrame(ws.NewBinaryFrame([]byte("x")))), "must be not masked"},
		"reserved bit":     {[]byte{0xC2, 0}, "non-zero rsv bits"},
		"reserved opcode":  {[]byte{0x83, 0}, "reserved"},
		"reserved control": {[]byte{0x8B, 0}, "reserved"},
		"text":             {frame(ws.OpText, true, "hi"), "text message"},
		"long ping":        {[]byte{0x89, 126, 0, 126}, "control"},
		"split ping":       {[]byte{0x09, 0}, "control frame is not final"},
		"continuation":     {frame(ws.OpContinuation, true, "x"), "unexpected continuation"},
		"interleaved": {append(frame(ws.OpBinary, false, "\x03"), frame(ws.OpBinary, true, "\x03")...),
			"unexpected non-continuation"},
		"length in 2 bytes":  {[]byte{0x82, 126, 0, 125}, "not in its shortest form"},
		"length in 8 bytes":  {[]byte{0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF}, "not in its shortest form"},
		"length of 64 bits":  {[]byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, "most significant bit"},
		"length of 63 bits":  {[]byte{0x82, 127, 0x7F, 0, 0, 0, 0, 0, 0, 0}, "larger than the limit"},
		"a MiB":              {[]byte{0x82, 127, 0, 0, 0, 0, 0, 0x10, 0, 0}, "larger than the limit"},
		"just too long":      {[]byte{0x82, 126, 0x20, 0x01}, "larger than the limit"},
		"a fragment of a MB": {[]byte{0x02, 127, 0, 0, 0, 0, 0, 0x10, 0, 0}, "larger than the limit"},
		"fragments": {append(frame(ws.OpBinary, false, "\x03"+strings.Repeat("x", limit-1)), 0x00, 1),
			"larger than the limit"},
		"an op": {frame(ws.OpBinary, true, "\x20"), "op is not one of"},
		"an op, fragmented": {append(frame(ws.OpBinary, false, "\x20"), frame(ws.OpContinuation, true, "")...),
			"op is not one of"},
		"close of a byte":  {[]byte{0x88, 1, 3}, "close frame of one byte"},
		"close with 999":   {closeFrame(999, ""), "the code 999"},
		"close with 1005":  {closeFrame(1005, ""), "the code 1005"},
		"close with 2999":  {closeFrame(2999, ""), "the code 2999"},
		"close with 5000":  {closeFrame(5000, ""), "the code 5000"},
		"close, not UTF-8": {closeFrame(3000, "\xff"), "utf8"},
	} {
		for _, piece := range []int{1, len(c.wire)} {
			s, err := readWeb(Config{MaxFrame: limit}, append(slices.Collect(slices.Chunk(bytes.Clone(c.wire), piece)),
				make([]byte, 1000))...)
			if err == nil || !strings.Contains(err.Error(), "the server sent an invalid ") ||
				!strings.Contains(strings.ToLower(err.Error()), c.words) {
				t.Errorf("%s: %v, want %q", name, err, c.words)
			}
			var frame *webError
			if errors.As(err, &frame) && (!final(err, false) || final(err, true)) {
				t.Errorf("%s: final is %t at first, %t later", name, final(err, false), final(err, true))
			}
			if slices.Max(s.asked) > largeBuffer {
				t.Errorf("%s: read with room for %d bytes", name, slices.Max(s.asked))
			}
		}
	}
}

// A close frame with a code of ours is CLOSE; RFC 6455's own codes, which proxies send,
// are the loss of a connection unless they blame this client.
func TestWebClose(t *testing.T) {
	for _, c := range []struct {
		wire   []byte
		words  string
		code   codec.Code
		final  bool
		answer string // content of the close frame in return
	}{
		{closeFrame(3001, "bye"), "the server said 3001 draining: bye", 3001, false, "\x0b\xb9"},
		{closeFrame(3503, ""), "the server said 3503 kicked", 3503, true, "\x0d\xaf"},
		{closeFrame(4999, "own"), "the server said 4999 unknown: own", 4999, true, "\x13\x87"},
		{frame(ws.OpClose, true, ""), "the server closed the connection without giving a reason", 0, false, ""},
		{closeFrame(1000, ""), "code 1000 (normal closure)", 0, false, "\x03\xe8"},
		{closeFrame(1001, "gone"), "code 1001 (going away): gone", 0, false, "\x03\xe9"},
		{closeFrame(1002, ""), "code 1002 (protocol error)", 0, true, "\x03\xea"},
		{closeFrame(1009, ""), "code 1009 (message too big)", 0, true, "\x03\xf1"},
		{closeFrame(1012, ""), "code 1012 (service restart)", 0, false, "\x03\xf4"},
	} {
		s, err := readWeb(Config{}, c.wire)
		var code *CodeError
		if err == nil || !strings.Contains(err.Error(), c.words) || final(err, true) != c.final ||
			errors.As(err, &code) != (c.code != 0) || code != nil && code.Code != c.code {
			t.Errorf("%q: %v, final %t", c.wire, err, final(err, true))
		}
		f, err := readFrame(bytes.NewReader(s.wrote))
		if f = ws.UnmaskFrame(f); err != nil || f.Header.OpCode != ws.OpClose || string(f.Payload) != c.answer {
			t.Errorf("%q was answered with %+v, %v", c.wire, f, err)
		}
	}
}

// FuzzWebRead: how the stream is cut, and how much is read at once, changes nothing.
func FuzzWebRead(f *testing.F) {
	web, _ := goodWeb()
	f.Add(web, uint16(1))
	f.Add(append(frame(ws.OpBinary, false, "a"), 0x00, 126, 0, 1), uint16(3))
	f.Add([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0, 3}, uint16(2))
	f.Fuzz(func(t *testing.T, web []byte, piece uint16) {
		const limit = 5000
		whole, wholeErr := unweb(8192, limit, bytes.Clone(web))
		size := int(piece)%300 + 1
		pieces := slices.Collect(slices.Chunk(bytes.Clone(web), size))
		got, err := unweb(size, limit, pieces...)
		if !bytes.Equal(got, whole) || fmt.Sprint(err) != fmt.Sprint(wholeErr) {
			t.Fatalf("whole %q, %v; in pieces of %d %q, %v", whole, wholeErr, size, got, err)
		}
		if len(got) > 4*len(web)+codec.HeaderSize {
			t.Fatalf("%d bytes of %d", len(got), len(web))
		}
	})
}

// What is written, of any size, is what another implementation reads.
func TestWebWrite(t *testing.T) {
	s := &script{}
	w := newWebConn(s, nil, 0)
	var b []byte
	for _, n := range []int{0, 1, 124, 125, 126, 30_000, 65_534, 65_535, 100_000} {
		b = codec.AppendData(b, bytes.Repeat([]byte{byte(n)}, n))
	}
	b = appendPong(codec.AppendBeat(b), []byte("pong"))
	b = codec.AppendClose(b, 3000, "bye")
	if n, err := w.Write(b); n != len(b) || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	var got []byte
	masks := map[[4]byte]bool{}
	for in := bytes.NewReader(s.wrote); in.Len() > 0; {
		f, err := readFrame(in)
		if err != nil || ws.CheckHeader(f.Header, ws.StateServerSide) != nil || !f.Header.Fin {
			t.Fatalf("%+v, %v", f.Header, err)
		}
		masks[f.Header.Mask] = true
		switch f = ws.UnmaskFrame(f); f.Header.OpCode {
		case ws.OpBinary:
			got = append(binary.BigEndian.AppendUint32(got, uint32(len(f.Payload))), f.Payload...)
		case ws.OpPong:
			got = appendPong(got, f.Payload)
		case ws.OpClose:
			got = codec.AppendFrame(got, codec.OpClose, f.Payload)
		}
	}
	if !bytes.Equal(got, b) {
		t.Errorf("%d bytes were read, %d written", len(got), len(b))
	}
	if len(masks) < 10 {
		t.Errorf("%d masks for 12 frames", len(masks))
	}
}
