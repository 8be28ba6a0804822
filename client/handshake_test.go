package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// checkError checks the error of an attempt.
func checkError(t *testing.T, err error, final bool, words ...string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("%T %v, want an *Error", err, err)
	}
	words = append(words, map[bool]string{true: "(trying again would not help)",
		false: "(temporary: trying again can help)"}[final])
	if e.Final != final {
		t.Errorf("%v: Final is %t", err, e.Final)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestWrongURL(t *testing.T) {
	for url, words := range map[string]string{
		"":                          "not an address",
		"127.0.0.1:9000":            "not an address",
		"localhost":                 "not an address",
		"tcp://":                    "not an address",
		"tcp:127.0.0.1:9000":        "not an address",
		"tcp://a b:1":               "not an address",
		"http://127.0.0.1:9000":     `the scheme "http", which is not supported`,
		"wss://:9000/a":             "has no host; write wss://HOST:PORT/path, such as wss://",
		"ws://127.0.0.1:0":          "has the port 0, which is for listening; write ws://HOST:PORT/path",
		"ws://127.0.0.1:1/?token=s": "has a query or a fragment",
		"unix://run/a.sock":         "has no absolute path; write unix:///PATH",
		"tcp://127.0.0.1":           "has no port",
		"tcp://127.0.0.1:":          "has no port",
		"tcp://[::1]":               "has no port",
		"tcp://::1:9000":            "an IPv6 address without brackets",
		"tcp://:9000":               "has no host",
		"tcp://127.0.0.1:0":         "has the port 0",
		"tcp://127.0.0.1:65536":     `the port "65536", which is not a number`,
		"tcp://127.0.0.1:http":      `the port "http", which is not a number`,
		"tcp://u:p@127.0.0.1:1":     "more than a host and a port",
		"tcp://127.0.0.1:1/path":    "more than a host and a port",
		"tcp://127.0.0.1:1?a=b":     "more than a host and a port",
		"tcp://127.0.0.1:1#there":   "more than a host and a port",
		"tcp://127.0.0.1:1\x00":     "not an address",
		"tcp://%zz:1":               "not an address",
		"tls://127.0.0.1:1/\n:9000": "not an address",
		"tls://:1":                  "has no host; write tls://HOST:PORT, such as tls://",
	} {
		dialled := false
		c, err := Dial(t.Context(), url, Config{RetryDial: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				dialled = true
				return nil, errRefused
			}})
		if c != nil || dialled || !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v, %v, dialled %t", url, c, err, dialled)
			continue
		}
		shown, _, secret := strings.Cut(url, "?")
		if secret {
			shown += "?…"
			if strings.Contains(err.Error(), "token=s") {
				t.Errorf("%q gives a token away", err)
			}
		}
		checkError(t, err, true, words, "://", fmt.Sprintf("%q", shown))
	}
	for _, url := range []string{"tcp://127.0.0.1:9000", "tls://host.example:1", "tcp://[::1]:65535",
		"tcp://[fe80::1%25eth0]:1", "tcp://h:1/", "ws://h", "wss://h:1/a/b", "unix:///a"} {
		if _, err := parseURL(url); err != nil {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// welcomeJSON is a WELCOME with one part replaced.
func welcomeJSON(old, with string) []byte {
	const good = `{"v":1,"session":"s","beat_ms":10000,"timeout_ms":25000,"beats":"client",` +
		`"max_frame":65536,"min_beat_ms":0,"spread_ms":0,"time":""}`
	if !strings.Contains(good, old) {
		panic(old)
	}
	return codec.AppendFrame(nil, codec.OpWelcome, []byte(strings.Replace(good, old, with, 1)))
}

// badServers are the ways in which an attempt can fail: dialling, or the answer to
// HELLO. Without close the server is silent after that.
var badServers = []struct {
	name  string
	dial  error
	say   []byte
	close bool
	mute  bool
	takes time.Duration // from dialling to the failure
	final bool
	words string
}{
	{name: "refused", dial: &net.OpError{Op: "dial", Net: "tcp",
		Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, words: "connection refused: nothing listens there"},
	{name: "no such name", dial: &net.OpError{Op: "dial",
		Err: &net.DNSError{Err: "no such host", Name: "nowhere.example",
			IsNotFound: true}}, words: `the name "nowhere.example" has no address: check the spelling`},
	{name: "name server fails", dial: &net.OpError{Op: "dial",
		Err: &net.DNSError{Err: "server misbehaving", Name: "a.example",
			IsTemporary: true}}, words: `the name "a.example" could not be looked up: server misbehaving`},
	{name: "name server is silent", dial: &net.OpError{Op: "dial",
		Err: &net.DNSError{Err: "i/o timeout", Name: "a.example",
			IsTimeout: true}}, words: `the name "a.example" could not be looked up: i/o timeout`},
	{name: "unreachable", dial: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)},
		words: "network is unreachable"},
	{name: "dialling takes too long", dial: &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded},
		words: "no connection in time: the host does not answer"},
	{name: "descriptors", dial: &net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)},
		words: "too many open files"},

	{name: "TLS alert", say: []byte{0x15, 3, 1, 0, 2, 2, 40}, final: true, words: "the server speaks TLS; use tls://"},
	{name: "TLS handshake", say: []byte{0x16, 3, 1, 0, 2, 2, 40}, final: true,
		words: "the server speaks TLS; use tls://"},
	{name: "HTTP", say: []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), close: true, final: true,
		words: "a web server answers there; check the port"},
	{name: "SSH", say: []byte("SSH-2.0-OpenSSH_9.6\r\n"), final: true,
		words: "the server speaks another protocol; check the port"},
	{name: "Redis", say: []byte("-ERR unknown command\r\n"), final: true,
		words: "the server speaks another protocol; check the port"},
	{name: "MySQL", say: []byte{0x4a, 0, 0, 0, 10, '8', '.'}, final: true,
		words: "the server speaks another protocol; check the port"},
	{name: "a length above the limit", say: []byte{0, 0xff, 0xff, 0xff}, final: true,
		words: "first frame is not one of this protocol"},
	{name: "a reserved op", say: []byte{0, 0, 0, 1, 0x20}, final: true,
		words: "first frame is not one of this protocol"},
	{name: "DATA first", say: codec.AppendData(nil, []byte("hi")), final: true,
		words: "answered HELLO with data in place of WELCOME"},
	{name: "a beat first", say: codec.AppendBeat(nil), final: true,
		words: "answered HELLO with beat in place of WELCOME"},

	{name: "final CLOSE", say: codec.AppendClose(nil, codec.CodeBadToken, "who are you"), close: true, final: true,
		words: "the server said 3500 bad_token: who are you"},
	{name: "passing CLOSE", say: codec.AppendClose(nil, codec.CodeOverloaded, ""), close: true,
		words: "the server said 3020 overloaded"},
	{name: "broken CLOSE", say: codec.AppendFrame(nil, codec.OpClose, []byte{1}), final: true, words: "close"},
	{name: "final GOAWAY", say: codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeBanned, Reason: "go"}),
		final: true, words: "the server said 3513 banned: go"},
	{name: "passing GOAWAY", say: codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}),
		words: "the server said 3001 draining"},
	{name: "broken GOAWAY", say: codec.AppendFrame(nil, codec.OpGoaway, []byte("{}")), final: true, words: "code"},

	{name: "v 2", say: welcomeJSON(`"v":1`, `"v":2`), final: true, words: "v is 2, this client speaks version 1"},
	{name: "v negative", say: welcomeJSON(`"v":1`, `"v":-1`), final: true, words: "WELCOME is invalid"},
	{name: "beat 0", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":0`), final: true,
		words: "beat_ms is 0: it must lie between 10 and 86400000"},
	{name: "no beat", say: welcomeJSON(`"beat_ms":10000,`, ``), final: true, words: "beat_ms is 0"},
	{name: "beat negative", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":-1`), final: true, words: "beat_ms"},
	{name: "beat tiny", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":9`), final: true, words: "beat_ms is 9"},
	{name: "beat of a week", say: welcomeJSON(`"beat_ms":10000,"timeout_ms":25000`,
		`"beat_ms":604800000,"timeout_ms":6048000000`), final: true, words: "beat_ms is 604800000"},
	{name: "beat huge", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":9223372036854775807`), final: true,
		words: "beat_ms"},
	{name: "beat beyond 64 bits", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":1e30`), final: true, words: "beat_ms"},
	{name: "beat is text", say: welcomeJSON(`"beat_ms":10000`, `"beat_ms":"10s"`), final: true, words: "beat_ms"},
	{name: "timeout 0", say: welcomeJSON(`"timeout_ms":25000`, `"timeout_ms":0`), final: true,
		words: "timeout_ms is 0 with beat_ms 10000: it must be at least 1.5 times"},
	{name: "timeout negative", say: welcomeJSON(`"timeout_ms":25000`, `"timeout_ms":-5`), final: true,
		words: "timeout_ms"},
	{name: "beat longer than timeout", say: welcomeJSON(`"timeout_ms":25000`, `"timeout_ms":9000`), final: true,
		words: "timeout_ms is 9000"},
	{name: "timeout just too short", say: welcomeJSON(`"timeout_ms":25000`, `"timeout_ms":14999`), final: true,
		words: "timeout_ms is 14999"},
	{name: "timeout huge", say: welcomeJSON(`"timeout_ms":25000`, `"timeout_ms":9223372036854775807`), final: true,
		words: "timeout_ms"},
	{name: "session too long", say: welcomeJSON(`"session":"s"`, `"session":"`+strings.Repeat("s", 129)+`"`),
		final: true, words: "session is 129 bytes, at most 128 are allowed"},
	{name: "beats both", say: welcomeJSON(`"beats":"client"`, `"beats":"both"`), final: true, words: "beats"},
	{name: "max_frame 3", say: welcomeJSON(`"max_frame":65536`, `"max_frame":3`), final: true,
		words: "max_frame is 3: not even a PING fits"},
	{name: "max_frame negative", say: welcomeJSON(`"max_frame":65536`, `"max_frame":-65536`), final: true,
		words: "max_frame"},
	{name: "max_frame huge", say: welcomeJSON(`"max_frame":65536`, `"max_frame":16777216`), final: true,
		words: "max_frame"},
	{name: "min_beat_ms negative", say: welcomeJSON(`"min_beat_ms":0`, `"min_beat_ms":-1`), final: true,
		words: "min_beat_ms"},
	{name: "spread_ms negative", say: welcomeJSON(`"spread_ms":0`, `"spread_ms":-1`), final: true, words: "spread_ms"},
	{name: "spread_ms huge", say: welcomeJSON(`"spread_ms":0`, `"spread_ms":999999999999999999`), final: true,
		words: "spread_ms"},
	{name: "no JSON", say: codec.AppendFrame(nil, codec.OpWelcome, []byte("welcome!")), final: true,
		words: "the server's WELCOME is invalid"},
	{name: "half JSON", say: codec.AppendFrame(nil, codec.OpWelcome, []byte(`{"v":1,`)), final: true,
		words: "the server's WELCOME is invalid"},
	{name: "no content", say: codec.AppendFrame(nil, codec.OpWelcome, nil), final: true, words: "WELCOME is invalid"},
	{name: "an array", say: codec.AppendFrame(nil, codec.OpWelcome, []byte("[]")), final: true,
		words: "WELCOME is invalid"},
	{name: "too long", say: codec.AppendFrame(nil, codec.OpWelcome, bytes.Repeat([]byte{' '}, codec.MaxControl+1)),
		final: true, words: "first frame is not one of this protocol"},

	{name: "silent", mute: true, takes: 10 * time.Second,
		words: "the server accepted the connection but sent no WELCOME in time"},
	{name: "closes at once", close: true, words: "the server closed the connection without giving a reason"},
	{name: "half a WELCOME, then silent", say: welcomeJSON("1", "1")[:50], takes: 10 * time.Second,
		words: "sent only part of its WELCOME"},
	{name: "half a WELCOME, then closed", say: welcomeJSON("1", "1")[:50], close: true,
		words: "sent only part of its WELCOME"},
	{name: "a byte", say: []byte{0}, takes: 10 * time.Second, words: "sent only part of its WELCOME"},
}

// Each failure says what happened and whether trying again helps. Dial returns it; with
// RetryDial it retries temporary ones after the backoff.
func TestBadServers(t *testing.T) {
	for _, test := range badServers {
		for _, retry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/retry=%t", test.name, retry), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					r := newRig(t)
					r.cfg.RetryDial = retry
					r.refuse, r.mute = test.dial, test.mute
					if !test.mute {
						r.greet = func(p *peer) {
							if len(test.say) > 0 {
								p.write(test.say)
							}
							if test.close {
								p.hangUp()
							}
						}
					}
					const patience = 15 * time.Second
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					c, err := Dial(ctx, "tcp://server:1", r.cfg)
					if c != nil {
						t.Fatal("there is a client")
					}
					if retry && !test.final {
						if !errors.Is(err, context.DeadlineExceeded) || r.now() != patience {
							t.Errorf("at %s: %v", r.now(), err)
						}
						// Half of 0.5 s after the failure.
						second := test.takes + 250*time.Millisecond
						if d := r.dialTimes(); len(d) < 2 || d[1] != second {
							t.Errorf("dialled at %v, want again at %s", d, second)
						}
						e := r.states()[1].what
						if e.State != Waiting || e.In != 250*time.Millisecond ||
							!strings.Contains(e.String(), test.words) ||
							!strings.Contains(e.String(), "connecting again in 250ms") {
							t.Errorf("told %q", e)
						}
						synctest.Wait()
						return
					}
					if r.now() != test.takes || len(r.dialTimes()) != 1 {
						t.Errorf("ended at %s after %d attempts, want %s after one", r.now(), len(r.dialTimes()),
							test.takes)
					}
					checkError(t, err, test.final, test.words, "client: tcp://server:1: ")
				})
			})
		}
	}
}

// ConnectTimeout counts from dialling, not from the last byte.
func TestConnectTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.cfg.ConnectTimeout = 1234 * time.Millisecond
		r.greet = func(p *peer) {
			for _, b := range welcomeJSON("1", "1") {
				p.write([]byte{b})
				time.Sleep(100 * time.Millisecond)
			}
		}
		_, err := Dial(t.Context(), "tcp://server:1", r.cfg)
		if r.now() != r.cfg.ConnectTimeout {
			t.Errorf("after %s", r.now())
		}
		checkError(t, err, false, "sent only part of its WELCOME")
		time.Sleep(time.Minute) // for the server to notice
	})
}

// A lateDeadline is overtaken by what ends the handshake.
type lateDeadline struct{ net.Conn }

func (l lateDeadline) SetWriteDeadline(t time.Time) error {
	time.Sleep(time.Millisecond)
	return l.Conn.SetWriteDeadline(t)
}

// A pipe whose other end does not even read HELLO.
func TestNewConnUnread(t *testing.T) {
	for _, early := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			nc, other := net.Pipe()
			defer other.Close()
			ctx, cancel := context.WithCancel(t.Context())
			if early {
				cancel()
			} else {
				time.AfterFunc(time.Second, cancel)
			}
			from := time.Now()
			_, err := NewConn(ctx, lateDeadline{nc}, Config{})
			if !errors.Is(err, context.Canceled) || time.Since(from) > time.Second {
				t.Errorf("after %s: %v", time.Since(from), err)
			}
			cancel()
		})
	}
}

// A WELCOME may come in any pieces, with other frames right behind it.
func TestWelcomeInPieces(t *testing.T) {
	for _, chunk := range []int{0, 1, 2, 3, 7, 100} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.chunk = chunk
			var want []byte
			r.greet = func(p *peer) {
				out := codec.AppendWelcome(nil, welcomed)
				for n := range 40 { // more than the first buffer holds
					out = codec.AppendData(out, bytes.Repeat([]byte{byte(n)}, n))
					want = append(want, bytes.Repeat([]byte{byte(n)}, n)...)
				}
				p.write(out)
			}
			c := r.connect()
			var got []byte
			for range 40 {
				var err error
				if got, err = c.Receive(t.Context(), got); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("chunks of %d: %d bytes, want %d", chunk, len(got), len(want))
			}
			if e := r.states()[1].what; e.Session != "s1" || e.Interval != 10*time.Second ||
				e.Timeout != 25*time.Second {
				t.Errorf("decided %+v", e)
			}
			c.Close()
		})
	}
}

// A WELCOME that ends at any byte is a temporary failure.
func TestWelcomeCut(t *testing.T) {
	whole := codec.AppendWelcome(nil, welcomed)
	for n := range whole {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.chunk = 1
			r.greet = func(p *peer) {
				if n > 0 {
					p.write(whole[:n])
				}
				p.hangUp()
			}
			_, err := Dial(t.Context(), "tcp://server:1", r.cfg)
			words := "only part"
			if n == 0 {
				words = "without giving a reason"
			}
			checkError(t, err, false, words)
		})
	}
}

// On any input, welcome does not panic, reads no byte after the frame, and gives the same
// result however much has arrived.
func FuzzWelcome(f *testing.F) {
	for _, s := range badServers {
		f.Add(s.say)
	}
	f.Add(codec.AppendWelcome(nil, welcomed))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		w, n, err := welcome(b)
		switch {
		case w == nil && n != 0, w != nil && (err != nil || n < 5 || n > len(b)):
			t.Fatalf("%v, %d, %v", w, n, err)
		case w != nil && checkWelcome(w) != nil:
			t.Fatalf("%+v was accepted", w)
		}
		var cut *codec.Welcome
		var cutErr error
		for i := 1; i <= len(b) && cut == nil && cutErr == nil; i++ {
			cut, _, cutErr = welcome(b[:i])
		}
		if (cut == nil) != (w == nil) || (cutErr == nil) != (err == nil) || cut != nil && *cut != *w {
			t.Fatalf("whole %v, %v; in pieces %v, %v", w, err, cut, cutErr)
		}
	})
}

// A closed port.
func TestClosedPort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "tcp://" + ln.Addr().String()
	_ = ln.Close()
	_, err = Dial(t.Context(), url, Config{})
	checkError(t, err, false, url, "connection refused: nothing listens there")
}

func TestTLS(t *testing.T) {
	cert, pool := certificate(t, "127.0.0.1")
	trusting := &tls.Config{RootCAs: pool}
	good := startTiny(t, cert, nil)
	c, err := Dial(t.Context(), "tls://"+good.addr(), Config{TLS: trusting})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), []byte("through TLS")); err != nil {
		t.Error(err)
	}
	if got, err := c.Receive(t.Context(), nil); err != nil || string(got) != "through TLS" {
		t.Errorf("%q, %v", got, err)
	}
	if rtt, err := c.Beat(t.Context()); err != nil || rtt <= 0 {
		t.Errorf("beat %s, %v", rtt, err)
	}
	c.Close()

	other, otherPool := certificate(t, "other.example")
	elsewhere := startTiny(t, other, nil)
	plain := startTiny(t, nil, nil)
	for _, test := range []struct {
		name, url string
		cfg       *tls.Config
		final     bool
		words     string
	}{
		{"unknown authority", "tls://" + good.addr(), nil, true, "certificate"},
		{"wrong name", "tls://" + elsewhere.addr(), &tls.Config{RootCAs: otherPool}, true, "certificate"},
		{"TLS of a plain server", "tls://" + plain.addr(), trusting, true, "the server does not speak TLS; use tcp://"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := Dial(t.Context(), test.url, Config{TLS: test.cfg, RetryDial: true})
			checkError(t, err, test.final, test.words)
		})
	}
	// Go's TLS server answers nothing to another protocol.
	_, err = Dial(t.Context(), "tcp://"+good.addr(), Config{})
	checkError(t, err, false, "check that", "speaks this protocol")
	// The server name can be set.
	c, err = Dial(t.Context(), "tls://"+elsewhere.addr(),
		Config{TLS: &tls.Config{RootCAs: otherPool, ServerName: "other.example"}})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// A server that does not even speak TLS, or stops in the middle of it.
func TestTLSSilent(t *testing.T) {
	done := make(chan struct{})
	silent := startTiny(t, nil, func(net.Conn) { <-done })
	defer close(done)
	_, err := Dial(t.Context(), "tls://"+silent.addr(), Config{ConnectTimeout: 50 * time.Millisecond})
	checkError(t, err, false, "in time")
	gone := startTiny(t, nil, func(nc net.Conn) {
		_, _ = io.ReadFull(nc, make([]byte, 5))
		_ = nc.Close()
	})
	_, err = Dial(t.Context(), "tls://"+gone.addr(), Config{})
	checkError(t, err, false, "check that", "speaks this protocol")
}
