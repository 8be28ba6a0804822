package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// answering is a Config.DialContext that leads to a server that answers each HTTP
// request with the same bytes, and then hangs up or is silent.
func answering(t *testing.T, answer string, hangUp bool) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			r := bufio.NewReader(theirs)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\r\n" {
					break
				}
			}
			_, _ = io.WriteString(theirs, answer)
			if !hangUp {
				_, _ = io.Copy(io.Discard, r)
			}
		}()
		return ours, nil
	}
}

// What a server may say to the request for a WebSocket: why, whether to try again, and
// when.
func TestUpgradeRefused(t *testing.T) {
	status := func(line string, header ...string) string {
		return "HTTP/1.1 " + line + "\r\n" + strings.Join(append(header, "Content-Length: 0\r\n"), "") + "\r\n"
	}
	const accepted = "HTTP/1.1 101 Switching Protocols\r\n"
	for name, c := range map[string]struct {
		url    string
		answer string
		hangUp bool
		takes  time.Duration // until the failure
		after  time.Duration // from then on, above the backoff
		final  bool
		words  string
	}{
		"401": {answer: status("401 Unauthorized"), final: true,
			words: "the server answered with HTTP 401 Unauthorized: it needs another token"},
		"403": {answer: status("403 Forbidden"), final: true,
			words: "HTTP 403 Forbidden: this client, or its origin, may not connect"},
		"404": {url: "ws://server:1/some/path", answer: status("404 Not Found"), final: true,
			words: "HTTP 404 Not Found: it has no WebSocket at /some/path; check the path"},
		"400": {answer: "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
			hangUp: true, final: true, words: "if it speaks TLS, use wss://"},
		"426": {answer: status("426 Upgrade Required"), final: true,
			words: "HTTP 426 Upgrade Required in place of a WebSocket; check the port and the path"},
		"200": {answer: status("200 OK"), final: true, words: "a web server answers there, and not with a WebSocket"},
		"302": {answer: status("302 Found", "Location: https://other/?token=s\r\n"), final: true,
			words: `HTTP 302 Found to "https://other/", which is not followed`},
		"429": {answer: status("429 Too Many Requests", "Retry-After: 7\r\n"), after: 7 * time.Second,
			words: "HTTP 429 Too Many Requests: it is overloaded or shutting down"},
		"503": {answer: status("503 Service Unavailable", "Retry-After: 3\r\n"), after: 3 * time.Second,
			words: "HTTP 503 Service Unavailable: it is overloaded"},
		"503 in HTTP/1.0": {answer: "HTTP/1.0 503 Service Unavailable\r\nRetry-After: 3\r\n\r\n", hangUp: true,
			after: 3 * time.Second, words: "HTTP 503 Service Unavailable: it is overloaded"},
		"503 with a date": {answer: status("503 Service Unavailable", "Retry-After: "+
			time.Date(2000, 1, 1, 0, 0, 9, 0, time.UTC).Format(http.TimeFormat)+"\r\n"), after: 9 * time.Second,
			words: "HTTP 503"},
		"503 for a week": {answer: status("503 Service Unavailable", "Retry-After: 604800\r\n"), after: maxWait,
			words: "HTTP 503"},
		"503 with nonsense": {answer: status("503 Service Unavailable", "Retry-After: soon\r\n"), words: "HTTP 503"},
		"502":               {answer: status("502 Bad Gateway"), words: "502 Bad Gateway: a proxy cannot reach"},

		"another key": {answer: accepted + "Upgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", final: true,
			words: "the server's WebSocket handshake is invalid: "},
		"an extension": {answer: accepted + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", final: true,
			words: "WebSocket handshake is invalid: unexpected extensions"},
		"no header": {answer: accepted + "\r\n", final: true, words: "WebSocket handshake is invalid"},
		"not HTTP":  {answer: "HTTP/is what I do\r\n\r\n", final: true, words: "not HTTP; check the port"},
		"SSH":       {answer: "SSH-2.0-OpenSSH_9.6\r\n", final: true, words: "another protocol; check the port"},
		"a TLS port": {answer: "\x15\x03\x01\x00\x02\x02\x46", hangUp: true, final: true,
			words: "the server speaks TLS; use wss://"},
		"a tcp port": {answer: "\x00\x00\x00\x03\x08\x0d\xad", hangUp: true, final: true,
			words: "the server speaks this protocol without WebSocket; use tcp://"},
		"a long header": {answer: accepted + strings.Repeat("X: y\r\n", maxResponse), final: true,
			words: "has a header over 16384 bytes"},
		"a long line": {answer: accepted + strings.Repeat("x", 2*maxResponse), final: true,
			words: "has a header over 16384 bytes"},
		"silence":   {takes: 10 * time.Second, words: "did not answer the WebSocket request in time"},
		"the end":   {hangUp: true, words: "closed the connection without giving a reason; check that"},
		"half":      {answer: accepted + "Upgrade: web", hangUp: true, words: "sent only part of its HTTP response"},
		"half line": {answer: "HTTP/1.1 1", takes: 10 * time.Second, words: "sent only part of its HTTP response"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { // whose clock begins in the year 2000
				r := newRig(t)
				if c.url == "" {
					c.url = "ws://server:1/"
				}
				r.cfg.DialContext, r.cfg.RetryDial = answering(t, c.answer, c.hangUp), true
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
				defer cancel()
				_, err := Dial(ctx, c.url, r.cfg)
				synctest.Wait()
				if c.final {
					checkError(t, err, true, c.words, "client: "+c.url+": ")
					return
				}
				e := r.states()[1]
				if e.time != c.takes || e.what.State != Waiting || e.what.In != c.after+250*time.Millisecond ||
					!strings.Contains(e.what.String(), c.words) {
					t.Errorf("at %s: %s; want %q, again after %s", e.time, e.what, c.words, c.after)
				}
			})
		})
	}
}

// A server that was there before is expected back, whatever answers in its place.
func TestUpgradeRefusedLater(t *testing.T) {
	for code, want := range map[int]bool{401: true, 403: true, 404: false, 200: false, 503: false} {
		if err := (&httpError{status: code}); final(err, true) != want {
			t.Errorf("%d is final: %t", code, !want)
		}
	}
}

// The request names the path and the host as others write it, and holds no token.
func TestUpgradeRequest(t *testing.T) {
	for url, want := range map[string][2]string{
		"ws://server:1":              {"/", "server:1"},
		"ws://Server/live/v1":        {"/live/v1", "server"},
		"ws://server:443/":           {"/", "server:443"},
		"ws://[fe80::1%25lo]:8080/a": {"/a", "[fe80::1]:8080"},
		"ws://[::1]/a":               {"/a", "[::1]"},
	} {
		var got *http.Request
		var dialled string
		_, err := Dial(t.Context(), url, Config{Token: "secret", DialContext: func(
			_ context.Context, network, addr string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			dialled = network + " " + addr
			go func() {
				defer theirs.Close()
				got, _ = http.ReadRequest(bufio.NewReader(theirs))
			}()
			return ours, nil
		}})
		if err == nil || got == nil {
			t.Fatalf("%s: %v, %v", url, err, got)
		}
		if got.RequestURI != want[0] || got.Host != want[1] || !strings.HasPrefix(dialled, "tcp ") {
			t.Errorf("%s: asked for %s at %s, dialled %s", url, got.RequestURI, got.Host, dialled)
		}
		if text := fmt.Sprint(got); strings.Contains(text, "secret") {
			t.Errorf("%s: the token is in the request: %s", url, text)
		}
		if got.Header.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("asks for %s", got.Header.Get("Sec-WebSocket-Extensions"))
		}
	}
}

// The end of a context ends Dial at once in every phase; later there is nothing left.
func TestWebDialCancelled(t *testing.T) {
	for name, answer := range map[string]string{"the request": "", "half a response": "HTTP/1.1 101 Sw"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.cfg.DialContext = answering(t, answer, false)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := Dial(ctx, "ws://server:1/", r.cfg)
				if !errors.Is(err, context.DeadlineExceeded) || r.now() != time.Second {
					t.Errorf("after %s: %v", r.now(), err)
				}
			})
		})
	}
	rigScheme = "ws"
	defer func() { rigScheme = "tcp" }()
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.mute = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := Dial(ctx, "ws://server:1/", r.cfg); !errors.Is(err, context.DeadlineExceeded) ||
			r.now() != time.Second {
			t.Errorf("waiting for WELCOME: after %s: %v", r.now(), err)
		}
	})
}

// A ping is answered before WELCOME too, which may take a while.
func TestWebPingBeforeWelcome(t *testing.T) {
	rigScheme = "ws"
	defer func() { rigScheme = "tcp" }()
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.Beats = "server"
		pongs := 0
		r.greet = func(p *peer) {
			p.write(make([]byte, 4)) // an empty frame, for a ping
		}
		r.onFrame = func(p *peer, f codec.Frame) {
			if f.Op == codec.OpBeat {
				if pongs++; pongs == 1 {
					p.write(codec.AppendWelcome(nil, r.welcome))
				}
			}
		}
		c := r.connect()
		synctest.Wait()
		if pongs != 1 {
			t.Errorf("%d pongs", pongs)
		}
		c.Close()
	})
}

// A socket in the file system, and what is wrong with one.
func TestUnix(t *testing.T) {
	path := t.TempDir() + "/hw.sock"
	_, err := Dial(t.Context(), "unix://"+path, Config{})
	checkError(t, err, false, "client: unix://"+path+": no such socket: nothing listens there; check the path")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := serveTiny(t, ln, nil)
	var dialled sync.Map
	c, err := Dial(t.Context(), "unix://"+path, Config{DialContext: func(ctx context.Context, network, addr string,
	) (net.Conn, error) {
		dialled.Store(network+" "+addr, true)
		return dial(ctx, network, addr)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := dialled.Load("unix " + path); !ok {
		t.Errorf("dialled %v", &dialled)
	}
	if err := c.Send(t.Context(), []byte("here")); err != nil {
		t.Error(err)
	}
	if got, err := c.Receive(t.Context(), nil); err != nil || string(got) != "here" {
		t.Errorf("%q, %v", got, err)
	}
	c.mu.Lock()
	if c.follows("127.0.0.1:9") || c.follows(path) {
		t.Error("GOAWAY may lead elsewhere")
	}
	c.mu.Unlock()
	c.Close()
	s.stop()
	ln, err = net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = ln.Close()
	_, err = Dial(t.Context(), "unix://"+path, Config{})
	checkError(t, err, false, "connection refused: nothing listens there")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Error(err)
	}
}
