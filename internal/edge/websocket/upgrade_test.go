package websocket

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// example is the request of RFC 6455, 1.2, with what browsers and proxies add.
const example = "GET /chat?token=a%20b HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Origin: http://server.example.com\r\n" +
	"Sec-WebSocket-Protocol: superchat, chat\r\n" +
	"Sec-WebSocket-Protocol: other\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
	"Cookie: session=c\r\n" +
	"Sec-WebSocket-Version: 13\r\n\r\n"

func newUpgrader(t *testing.T) *Upgrader {
	t.Helper()
	u, err := New(Config{
		Paths: map[string]Path{
			"/chat": {Subprotocols: []string{"chat", "superchat"}},
			"/open": {Origins: []string{"*"}},
			"/list": {Origins: []string{"a.example",
				"b.example:8443", "https://c.example", "*.d.example", "http://[::1]:80"}},
		},
		Health: map[string]func() bool{
			"/healthz": func() bool { return true },
			"/readyz":  func() bool { return false },
		},
		MaxHeaderBytes: 2048,
		MaxHeaders:     20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestUpgrade(t *testing.T) {
	u := newUpgrader(t)
	in := example + "\x81\x80"
	for n := range len(example) {
		if r, used, a := u.Read([]byte(in[:n])); r != nil || used != 0 || a != nil {
			t.Fatalf("%d bytes: %v, %d, %v", n, r, used, a)
		}
	}
	for n := len(example); n <= len(in); n++ {
		b := []byte(in[:n])
		r, used, a := u.Read(b)
		if a != nil || used != len(example) {
			t.Fatalf("%d bytes: used %d, %+v", n, used, a)
		}
		clear(b)
		cookie, err := r.HTTP.Cookie("session")
		if err != nil || cookie.Value != "c" || r.Path != "/chat" || r.HTTP.URL.Query().Get("token") != "a b" {
			t.Errorf("got %+v", r)
		}
		if !slices.Equal(r.Offered, []string{"superchat", "chat", "other"}) {
			t.Errorf("offered %q", r.Offered)
		}
		want := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
			"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: superchat\r\n\r\n"
		if got := string(r.AppendAccept(nil)); got != want {
			t.Errorf("got %q\nwant %q", got, want)
		}
	}
}

// TestRefused checks the answer to each request, and that it is the same byte by
// byte, as soon as it is known.
func TestRefused(t *testing.T) {
	u := newUpgrader(t)
	edit := func(oldnew ...string) string { return strings.NewReplacer(oldnew...).Replace(example) }
	plain := func(request string) string { return request + " HTTP/1.1\r\nHost: h\r\n\r\n" }
	for _, c := range []struct {
		name, in string
		status   int // 101: accepted; 0: no answer
		want     string
	}{
		{"as it is", example, 101, ""},
		{"no origin", edit("Origin", "X-Origin"), 101, ""},
		{"tokens in capitals", edit("websocket\r\n", "WebSocket\r\n", "Upgrade\r\n", "UPGRADE\r\n"), 101, ""},
		{"Connection in two lines", edit("keep-alive, Upgrade", "keep-alive\r\nConnection: Upgrade"), 101, ""},
		{"no subprotocol of ours", edit("superchat, chat", "x"), 101, ""},
		{"another origin", edit("http://server", "http://evil"), 403, "origin"},
		{"another port", edit("http://server.example.com", "http://server.example.com:8080"), 403, "origin"},
		{"the port of the scheme", edit("http://server.example.com", "http://Server.example.com:80"), 101, ""},
		{"origin null", edit("http://server.example.com", "null"), 403, "origin"},
		{"two origins", edit("Origin:", "Origin: http://server.example.com\r\nOrigin:"), 403, "origin"},
		{"version 8", edit("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13\r\n"},
		{"no version", edit("Sec-WebSocket-Version", "X"), 426, "Sec-WebSocket-Version: 13\r\n"},
		{"no key", edit("Sec-WebSocket-Key", "X"), 400, "16 bytes"},
		{"short key", edit("dGhlIHNhbXBsZSBub25jZQ==", "dGhl"), 400, "16 bytes"},
		{"key not in base64", edit("dGhlIHNhbXBsZSBub25jZQ==", "????IHNhbXBsZSBub25jZQ=="), 400, "16 bytes"},
		{"two keys", edit("Sec-WebSocket-Key", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Key"), 400, "16 bytes"},
		{"no Connection", edit("Connection", "X"), 400, "proxy"},
		{"HTTP/1.0", edit("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1"},
		{"POST", edit("GET", "POST"), 405, "Allow: GET\r\n"},
		{"another path", edit("/chat", "/other"), 404, "no such path"},
		{"no host", edit("Host", "X"), 400, "Host"},
		{"two hosts", edit("Host:", "Host: x\r\nHOST:"), 400, "Host"},
		{"a body", edit("Cookie", "Content-Length: 5\r\nCookie"), 400, "body"},
		{"a chunked body", edit("Cookie", "Transfer-Encoding: chunked\r\nCookie"), 400, "body"},
		{"bare LF", edit("Cookie: session=c\r\n", "Cookie: session=c\n"), 400, "CR LF"},
		{"two bare LF", edit("Cookie: session=c\r\n", "Cookie: session=c\n\n"), 400, "CR LF"},
		{"no header line", edit("Cookie:", "Cookie"), 400, "malformed"},
		{"control byte in a value", edit("session=c", "session=\x01"), 400, "malformed"},
		{"folded line", edit("Cookie: ", "Cookie:\r\n "), 101, ""},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"},
		{"too many lines", edit("Cookie", strings.Repeat("X: y\r\n", 11)+"Cookie"), 431, "more than 20"},
		{"as many lines as may be", edit("Cookie", strings.Repeat("X: y\r\n", 10)+"Cookie"), 101, ""},
		{"too many bytes", edit("session=c", strings.Repeat("x", 2048)), 431, "over 2048 bytes"},
		{"an endless first line", "GET /" + strings.Repeat("x", 4000), 431, "over 2048 bytes"},
		{"TLS", "\x16\x03\x01", 0, "wss"},
		{"native frames", "\x00\x00\x00\x00", 0, "native"},
		{"no HTTP", "hello\r\n", 400, "not an HTTP request"},
		{"plain", plain("GET /chat"), 200, "This is a WebSocket endpoint"},
		{"plain at the root", plain("GET /"), 200, "This is a WebSocket endpoint"},
		{"plain elsewhere", plain("GET /favicon.ico"), 404, "no such path"},
		{"plain POST", plain("POST /"), 405, "Allow: GET, HEAD\r\n"},
		{"HEAD", plain("HEAD /"), 200, "Content-Length: 63\r\n"},
		{"healthy", plain("GET /healthz"), 200, "ok\n"},
		{"healthy by HTTP/1.0 without host", "HEAD /healthz HTTP/1.0\r\n\r\n", 200, "Content-Length: 3\r\n"},
		{"unhealthy", plain("GET /readyz"), 503, "unhealthy\n"},
		{"h2c", edit("Upgrade: websocket", "Upgrade: h2c"), 200, "This is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, used, a := u.Read([]byte(c.in))
			status, got := 101, ""
			if a != nil {
				status, got = a.Status, string(a.Bytes)
				if a.Bytes == nil {
					got = a.Why
				} else if !strings.HasPrefix(got, fmt.Sprintf("HTTP/1.1 %d %s\r\n", status, http.StatusText(status))) ||
					!strings.Contains(got, "\r\nConnection: close\r\n") {
					t.Errorf("answer %q", got)
				}
			}
			if status != c.status || !strings.Contains(got, c.want) || a == nil && used != len(c.in) {
				t.Fatalf("got %d %q, %d bytes", status, got, used)
			}
			for n := range len(c.in) {
				if r, _, early := u.Read([]byte(c.in[:n])); early != nil {
					if a == nil || early.Status != a.Status || string(early.Bytes) != string(a.Bytes) {
						t.Errorf("after %d bytes: %+v, then %+v", n, early, a)
					}
					break
				} else if r != nil {
					t.Fatalf("a request after %d bytes", n)
				}
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	u := newUpgrader(t)
	for _, c := range []struct {
		path, origin string
		ok           bool
	}{
		{"/open", "http://any.example", true}, {"/open", "null", true},
		{"/list", "http://a.example", true}, {"/list", "https://a.example:9", true},
		{"/list", "http://xa.example", false},
		{"/list", "https://b.example:8443", true}, {"/list", "https://b.example", false},
		{"/list", "https://c.example", true}, {"/list", "https://c.example:443", true},
		{"/list", "http://c.example", false},
		{"/list", "https://c.example:444", false}, {"/list", "http://x.y.d.example", true},
		{"/list", "http://d.example", false},
		{"/list", "http://evild.example", false}, {"/list", "http://[::1]", true}, {"/list", "null", false},
		{"/list", "http://a.example.evil", false}, {"/list", "", false}, {"/list", "file://", false},
	} {
		in := strings.NewReplacer("/chat", c.path, "http://server.example.com", c.origin).Replace(example)
		if _, _, a := u.Read([]byte(in)); (a == nil) != c.ok || a != nil && a.Status != 403 {
			t.Errorf("%s from %q: %+v", c.path, c.origin, a)
		}
	}
}

func TestConfig(t *testing.T) {
	_, err := New(Config{
		Paths: map[string]Path{
			"chat": {}, "/x": {},
			"/y": {
				Origins:      []string{"http://", "a b", "a.*", "://x", "a/b", ""},
				Subprotocols: []string{"a b", ""},
			},
		},
		Health: map[string]func() bool{"/x": nil, "z": nil},
	})
	if err == nil {
		t.Fatal("no error")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != 11 {
		t.Errorf("%d errors: %v", n, err)
	}
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "no path") {
		t.Errorf("no path: %v", err)
	}
}

func TestRefuse(t *testing.T) {
	a := Refuse(http.StatusTooManyRequests, "too many\r\nX: y", 1500*time.Millisecond)
	got := string(a.Bytes)
	if !strings.Contains(got, "\r\nRetry-After: 2\r\n") || !strings.HasSuffix(got, "\r\n\r\ntoo many  X: y\n") {
		t.Errorf("got %q", got)
	}
}
