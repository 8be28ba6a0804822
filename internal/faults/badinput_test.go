package faults

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// incomplete is how long part of a frame may stay incomplete.
const incomplete = 10 * time.Second

// A badInput is what a peer does that is not how this protocol goes. ends is
// the reason for which the server then closes the connection, its word in
// heartwheel_closed_total.
type badInput struct {
	name string
	ends string
	do   func(t *testing.T, c *conn)
}

// refused is input that is answered with CLOSE and a code.
func refused(name string, input []byte, code codec.Code, ends string) badInput {
	return badInput{name, ends, func(t *testing.T, c *conn) {
		c.send(input)
		c.wantClose(code)
	}}
}

// accepted is input that costs nothing: an answer may come, and the connection
// works on. It is closed from here.
func accepted(name string, input []byte, answer func(codec.Frame) bool) badInput {
	return badInput{name, "peer_closed", func(t *testing.T, c *conn) {
		c.send(input)
		if answer != nil {
			if f := c.frame(); !answer(f) {
				t.Errorf("the answer is %s %q", f.Op, f.Payload)
			}
		}
		c.echo()
		_ = c.Close()
	}}
}

func hello(json string) []byte { return codec.AppendFrame(nil, codec.OpHello, []byte(json)) }

func isWelcome(f codec.Frame) bool { return f.Op == codec.OpWelcome }

func isNoGateway(f codec.Frame) bool {
	code, _, err := codec.ParseError(f.Payload)
	return f.Op == codec.OpError && err == nil && code == codec.CodeNoGateway
}

func badInputs() []badInput {
	const protocol = "protocol_error"
	garbage := make([]byte, 100_000)
	rnd := rand.NewChaCha8([32]byte{1})
	_, _ = rnd.Read(garbage)
	garbage[0] = 0x99
	nested := func(n int) string { return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }

	return []badInput{
		refused("frame one byte too large", raw("00 01 00 01"), codec.CodeFrameTooLarge, "frame_too_large"),
		refused("largest frame there could be", raw("00 ff ff ff 03"), codec.CodeFrameTooLarge, "frame_too_large"),
		refused("length of 4 GiB", raw("ff ff ff ff"), codec.CodeProtocolError, protocol),
		refused("a foreign first byte", raw("01"), codec.CodeProtocolError, protocol),
		refused("garbage", garbage, codec.CodeProtocolError, protocol),
		refused("a beat, then garbage in the same packet", append(raw("00 00 00 02 40 00"), garbage...),
			codec.CodeProtocolError, protocol),

		refused("op 0x00", raw("00 00 00 01 00"), codec.CodeProtocolError, protocol),
		refused("op 0x0F, reserved", raw("00 00 00 01 0f"), codec.CodeProtocolError, protocol),
		refused("op 0x3F, reserved", raw("00 00 00 03 3f 01 02"), codec.CodeProtocolError, protocol),
		refused("op 0x80, invalid", raw("00 00 00 01 80"), codec.CodeProtocolError, protocol),
		refused("op 0xFF, invalid", raw("00 00 00 01 ff"), codec.CodeProtocolError, protocol),
		accepted("op 0x40, extension", raw("00 00 00 01 40"), nil),
		accepted("op 0x7F, extension", raw("00 00 00 05 7f 01 02 03 04"), nil),
		accepted("REQ without a gateway", codec.AppendReq(nil, 1, "subject", []byte("x")), isNoGateway),
		accepted("RES without a gateway", codec.AppendRes(nil, 1, 0, []byte("x")), isNoGateway),
		accepted("SUBSCRIBE without a gateway", codec.AppendSubscribe(nil, 1, "group"), isNoGateway),
		accepted("UNSUBSCRIBE without a gateway", codec.AppendUnsubscribe(nil, 1, "group"), isNoGateway),
		accepted("PUBLISH without a gateway", codec.AppendPublish(nil, "group", []byte("x")), isNoGateway),
		refused("WELCOME from a client", codec.AppendWelcome(nil, codec.Welcome{}), codec.CodeProtocolError, protocol),
		refused("GOAWAY from a client", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}),
			codec.CodeProtocolError, protocol),
		refused("ERROR from a client", codec.AppendError(nil, codec.CodeNotAllowed, "no"),
			codec.CodeProtocolError, protocol),
		refused("PING of 126 bytes", codec.AppendFrame(nil, codec.OpPing, make([]byte, 126)),
			codec.CodeProtocolError, protocol),
		refused("HELLO after a beat", append(bytes.Clone(raw("00 00 00 01 40")), hello(`{}`)...),
			codec.CodeProtocolError, protocol),

		refused("HELLO that is not JSON", hello(`hello`), codec.CodeProtocolError, protocol),
		refused("HELLO cut short", hello(`{"v":1`), codec.CodeProtocolError, protocol),
		refused("HELLO with something behind it", hello(`{"v":1}{}`), codec.CodeProtocolError, protocol),
		refused("HELLO as a list", hello(`[{"v":1}]`), codec.CodeProtocolError, protocol),
		refused("HELLO with a word for a number", hello(`{"beat_ms":"soon"}`), codec.CodeProtocolError, protocol),
		refused("HELLO with a number below zero", hello(`{"beat_ms":-1}`), codec.CodeProtocolError, protocol),
		refused("HELLO with a broken number", hello(`{"beat_ms":1.5}`), codec.CodeProtocolError, protocol),
		refused("HELLO with a number for a word", hello(`{"token":7}`), codec.CodeProtocolError, protocol),
		refused("HELLO with an unknown word", hello(`{"beats":"nobody"}`), codec.CodeProtocolError, protocol),
		refused("HELLO of version 2", hello(`{"v":2}`), codec.CodeBadVersion, "bad_version"),
		refused("CONFIG that is not JSON", codec.AppendFrame(nil, codec.OpConfig, []byte("{")),
			codec.CodeProtocolError, protocol),

		accepted("JSON bomb: nested in an unknown member", hello(nested(2000)), isWelcome),
		accepted("JSON bomb: a member 500 times", hello("{"+strings.Repeat(`"v":1,`, 500)+`"v":1}`), isWelcome),
		refused("JSON bomb: nested and larger than JSON may be", hello(nested(30_000)),
			codec.CodeProtocolError, protocol),
		refused("JSON bomb: nested and never closed", hello(strings.Repeat(`{"x":`, 800)),
			codec.CodeProtocolError, protocol),
		refused("JSON bomb: a number of a billion digits", hello(`{"beat_ms":1e999999999}`),
			codec.CodeProtocolError, protocol),
		refused("JSON bomb: a number of 4000 digits", hello(`{"beat_ms":`+strings.Repeat("9", 4000)+`}`),
			codec.CodeProtocolError, protocol),
		refused("JSON bomb: largest number", hello(`{"beat_ms":9223372036854775807}`),
			codec.CodeProtocolError, protocol),

		refused("HELLO that is not UTF-8", hello("{\"device\":\"\xff\xfe\"}"), codec.CodeProtocolError, protocol),
		refused("CLOSE with a reason that is not UTF-8", codec.AppendFrame(nil, codec.OpClose,
			[]byte("\x0b\xb8\xc3\x28")), codec.CodeProtocolError, protocol),
		refused("CLOSE with half a code", codec.AppendFrame(nil, codec.OpClose, []byte{0x0b}),
			codec.CodeProtocolError, protocol),
		accepted("DATA that is not UTF-8", codec.AppendData(nil, []byte("\xff\xfe\x00")), func(f codec.Frame) bool {
			return f.Op == codec.OpData && string(f.Payload) == "\xff\xfe\x00"
		}),

		{"TLS", protocol, tlsClient},
		{"HTTP", protocol, httpClient},
		{"byte at a time", "peer_closed", byteAtATime},
		{"half-close", "peer_closed", halfClose},
		{"reset", "peer_reset", func(t *testing.T, c *conn) { c.echo(); c.reset() }},
		{"reset with half a frame", "peer_reset", func(t *testing.T, c *conn) {
			c.echo()
			c.send(raw("00 00 00 05 03"))
			// The kernel may report a reset that comes while epoll looks at the data
			// as EPOLLHUP without EPOLLIN, which gnet takes for the end of the stream.
			time.Sleep(100 * time.Millisecond)
			c.reset()
		}},
		{"closed with half a frame", "peer_closed", func(t *testing.T, c *conn) {
			c.send(raw("00 00"))
			_ = c.Close()
		}},
	}
}

// TestBadInput feeds one server with everything that is not its protocol. Each
// case ends as codec/SPEC.md says, nothing else is affected, and the server's
// counters know of each case and of nothing else.
func TestBadInput(t *testing.T) {
	t.Parallel()
	s := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	good := startNeighbours(t, s.addr, 8)
	before := s.metrics()
	want := map[string]float64{}
	t.Run("cases", func(t *testing.T) {
		want["incomplete"] = float64(len(unfinished))
		t.Run("never completed", func(t *testing.T) {
			t.Parallel()
			neverCompleted(t, s.addr)
		})
		for _, bad := range badInputs() {
			want[bad.ends]++
			t.Run(bad.name, func(t *testing.T) {
				t.Parallel()
				bad.do(t, dial(t, s.addr))
			})
		}
	})
	total := 0.0
	for _, n := range want {
		total += n
	}
	m := s.await("all bad ones are closed", func(m metrics) bool { return m.sum("heartwheel_closed_total") >= total })
	got := m.by("heartwheel_closed_total")
	for reason := range got {
		if _, ok := want[reason]; !ok {
			want[reason] = 0
		}
	}
	for reason, n := range want {
		if got[reason] != n {
			t.Errorf("%v connections were closed for %s, not %v", got[reason], reason, n)
		}
	}
	if n := m.value("heartwheel_connections"); n != float64(len(good.conns)) {
		t.Errorf("%v connections are open, not %d", n, len(good.conns))
	}
	if n := m.value("heartwheel_accepted_total"); n != float64(len(good.conns))+total {
		t.Errorf("%v connections were accepted, not %v", n, float64(len(good.conns))+total)
	}
	for _, none := range []string{"heartwheel_handler_panics_total", "heartwheel_accept_errors_total",
		"heartwheel_outbox_bytes"} {
		if v := m.value(none); v != 0 {
			t.Errorf("%s is %v", none, v)
		}
	}
	if refused := m.by("heartwheel_refused_total"); len(refused) != 0 {
		t.Errorf("the server refused %v", refused)
	}
	if err := good.stop(); err != nil {
		t.Errorf("a connection that behaved was affected: %v", err)
	}
	for _, c := range good.conns {
		c.echo()
	}
	s.check()
	for _, line := range s.logLines() {
		if strings.Contains(line.text, `"level":"ERROR"`) || line.msg == "" {
			t.Errorf("the log says: %s", line.text)
		}
	}
	for _, name := range []string{"process_resident_memory_bytes", "go_goroutines"} {
		t.Logf("%s: %.0f before, %.0f after", name, before.value(name), m.value(name))
	}
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
}

// unfinished is input that begins a frame and does not complete it.
var unfinished = []struct {
	name    string
	input   []byte
	dribble bool // one byte more now and then
}{
	{"one byte of a header", raw("00"), false},
	{"a header", raw("00 00 00 05"), false},
	{"all but one byte", raw("00 00 00 05 03 61 62 63"), false},
	{"a whole frame and half a one", raw("00 00 00 01 40 00 00 00 02 03"), false},
	{"a frame that gets longer and never done", raw("00 00 ff ff 03"), true},
}

// neverCompleted leaves frames incomplete: each costs its connection, not
// before its time, and more bytes buy no more time.
func neverCompleted(t *testing.T, addr string) {
	quit := make(chan struct{})
	defer close(quit)
	var conns []*conn
	var starts []time.Time
	for _, u := range unfinished {
		c := dial(t, addr)
		conns, starts = append(conns, c), append(starts, time.Now())
		c.send(u.input)
		if u.dribble {
			go func() {
				for c.sendErr([]byte{1}) == nil {
					select {
					case <-quit:
						return
					case <-time.After(200 * time.Millisecond):
					}
				}
			}()
		}
	}
	for i, c := range conns {
		f := c.frame()
		took := time.Since(starts[i])
		code, _, err := codec.ParseClose(f.Payload)
		if f.Op != codec.OpClose || err != nil || code != codec.CodeIncomplete {
			t.Errorf("%s: got %s %q, not close %d", unfinished[i].name, f.Op, f.Payload, codec.CodeIncomplete)
		}
		if took < incomplete {
			t.Errorf("%s: closed after %s, before %s were over", unfinished[i].name, took, incomplete)
		}
		// A byte that comes after the close resets the connection.
		if _, err := c.frameErr(); err != io.EOF && !(unfinished[i].dribble && errors.Is(err, syscall.ECONNRESET)) {
			t.Errorf("%s: %v, not the end", unfinished[i].name, err)
		}
	}
}

// tlsClient speaks TLS to it. What comes back is CLOSE, which a TLS client
// reports at once as no TLS, with the first bytes.
func tlsClient(t *testing.T, c *conn) {
	_ = c.SetDeadline(time.Now().Add(limit))
	err := tls.Client(c, &tls.Config{ServerName: "localhost"}).Handshake()
	var header tls.RecordHeaderError
	if !errors.As(err, &header) {
		t.Fatalf("%v", err)
	}
	if got := header.RecordHeader; !bytes.Equal(got[:3], []byte{0, 0, 0}) || got[4] != byte(codec.OpClose) {
		t.Errorf("the answer begins with % x, which is not CLOSE", got)
	}
}

// httpClient sends it an HTTP request. The client gets an error at once.
func httpClient(t *testing.T, c *conn) {
	client := http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return c, nil },
	}}
	resp, err := client.Get("http://" + c.RemoteAddr().String() + "/")
	if err == nil {
		resp.Body.Close()
		t.Fatalf("got %s", resp.Status)
	}
	if !strings.Contains(err.Error(), "malformed HTTP") {
		t.Error(err)
	}
}

// byteAtATime sends every kind of frame in packets of one byte.
func byteAtATime(t *testing.T, c *conn) {
	input := hello(`{"device":"slow"}`)
	input = codec.AppendPing(input, []byte("ping"))
	input = append(input, beat...)
	input = codec.AppendData(input, []byte("data"))
	for i := range input { // Go sends each at once: no delay is the default
		c.send(input[i : i+1])
		time.Sleep(time.Millisecond)
	}
	var got []string
	for range 4 {
		f := c.frame()
		text := f.Op.String()
		if f.Op != codec.OpWelcome {
			text += " " + string(f.Payload)
		}
		got = append(got, strings.TrimSpace(text))
	}
	if text := strings.Join(got, ", "); text != "welcome, pong ping, beat, data data" {
		t.Errorf("got %s", text)
	}
	c.echo()
	_ = c.Close()
}

// halfClose ends its own half: what it sent before is answered, then the
// server closes too.
func halfClose(t *testing.T, c *conn) {
	c.send(codec.AppendData(nil, []byte("last words")))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if f := c.frame(); f.Op != codec.OpData || string(f.Payload) != "last words" {
		t.Errorf("got %s %q", f.Op, f.Payload)
	}
	c.wantEnd()
}

// TestPortTaken starts a second server on the port of the first.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := startServer(t, binary(t))
	c := dial(t, s.addr)
	c.echo()
	for flag, addr := range map[string]string{"--listen": "tcp://" + s.addr, "--ops": s.ops} {
		cmd := exec.Command(binary(t), serverArgs(flag, addr)...)
		if flag == "--listen" {
			cmd.Args = []string{cmd.Args[0], "serve", "--listen", addr, "--ops", "off"}
		}
		cmd.Env = ordinaryEnv()
		var stderr strings.Builder
		cmd.Stderr = &stderr
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%s %s: %v, not exit 1", flag, addr, err)
		}
		text := stderr.String()
		for _, part := range []string{strings.TrimPrefix(addr, "tcp://"), "another process has this port", flag} {
			if !strings.Contains(text, part) {
				t.Errorf("%s %s: nothing of %q in %s", flag, addr, part, text)
			}
		}
	}
	c.echo()
	s.check()
}
