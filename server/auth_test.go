package server

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/gorilla/websocket"

	"heartwheel/codec"
	"heartwheel/internal/auth"
)

// userHandler tells each client who it is, at once and whenever it sends something.
type userHandler struct{ Echo }

func (userHandler) Open(c *Conn) { _ = c.Send(codec.OpData, []byte(c.User())) }

func (userHandler) Frame(c *Conn, _ codec.Frame) error {
	return c.Send(codec.OpData, []byte(c.User()))
}

const authSecret = "0123456789abcdef0123456789abcdef"

func secretFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(authSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// tokenFor returns a token of a user that expires after d.
func tokenFor(t *testing.T, user string, d time.Duration) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "exp": float64(time.Now().Add(d).UnixMilli()) / 1e3,
	}).SignedString([]byte(authSecret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func helloWith(token string) []byte { return hello(codec.Hello{Token: token}) }

// wantFrame reads one frame of a kind and returns it.
func wantFrame(t *testing.T, r interface{ Read([]byte) (int, error) }, op codec.Op) codec.Frame {
	t.Helper()
	var b []byte
	one := make([]byte, 1)
	for {
		f, n, err := codec.Decode(b, codec.DefaultMaxFrame)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			if f.Op != op {
				t.Fatalf("%s %q, want %s", f.Op, f.Payload, op)
			}
			return f
		}
		if _, err := r.Read(one); err != nil {
			t.Fatalf("%v behind %q; want %s", err, b, op)
		}
		b = append(b, one...)
	}
}

func wantClose(t *testing.T, r interface{ Read([]byte) (int, error) }, code codec.Code) {
	t.Helper()
	f := wantFrame(t, r, codec.OpClose)
	if got, text, err := codec.ParseClose(f.Payload); err != nil || got != code {
		t.Errorf("closed with %d %q, %v; want %d", got, text, err, code)
	}
}

// With tokens HELLO is required and its token decides. Nothing reaches the handler
// before.
func TestTokens(t *testing.T) {
	const token = "vV1mTh9c8yq0n3Zf7RbW2Q"
	sum := sha256.Sum256([]byte(token))
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s auth0|7\n", hex.EncodeToString(sum[:])), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{Edge: Edge{Auth: Auth{Mode: "tokens", TokensFile: file}}}, userHandler{})
	c := dial(t, s)
	_, _ = c.Write(helloWith(token))
	wantFrame(t, c, codec.OpWelcome)
	if f := wantFrame(t, c, codec.OpData); string(f.Payload) != "auth0|7" {
		t.Errorf("the user is %q", f.Payload)
	}
	for _, first := range [][]byte{helloWith("another"), helloWith("")} {
		c = dial(t, s)
		_, _ = c.Write(append(first, data("x")...))
		wantClose(t, c, codec.CodeBadToken)
	}
	c = dial(t, s)
	_, _ = c.Write(data("x"))
	wantClose(t, c, codec.CodeProtocolError)
	_, m := get(s.OpsHandler(), "/metrics", "127.0.0.1:1")
	for _, want := range []string{
		`heartwheel_auth_total{result="accepted"} 1`, `heartwheel_auth_total{result="bad_token"} 2`,
		`heartwheel_closed_total{reason="bad_token"} 2`} {
		if !strings.Contains(m, want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

// A token that expires ends the connection, unless a new one of the same user comes in
// time.
func TestTokenExpires(t *testing.T) {
	s := start(t, Config{Edge: Edge{Auth: Auth{Mode: "jwt", SecretFile: secretFile(t)}}}, userHandler{})
	open := func(life time.Duration) (c interface {
		Read([]byte) (int, error)
		Write([]byte) (int, error)
	}, w codec.Welcome) {
		c = dial(t, s)
		_, _ = c.Write(helloWith(tokenFor(t, "u", life)))
		w, err := codec.ParseWelcome(wantFrame(t, c, codec.OpWelcome).Payload)
		if err != nil {
			t.Fatal(err)
		}
		wantFrame(t, c, codec.OpData)
		return c, w
	}
	c, w := open(time.Hour)
	if w.ExpiresMS < 3_000_000 || w.ExpiresMS > 3_600_000 {
		t.Errorf("an hour is %d ms", w.ExpiresMS)
	}
	_, _ = c.Write(codec.AppendConfig(nil, codec.Config{Token: tokenFor(t, "u", 2*time.Hour)}))
	cfg, err := codec.ParseConfig(wantFrame(t, c, codec.OpConfig).Payload)
	if err != nil || cfg.ExpiresMS < 7_000_000 {
		t.Errorf("after a new token of two hours: %d ms, %v", cfg.ExpiresMS, err)
	}
	_, _ = c.Write(codec.AppendConfig(nil, codec.Config{Token: tokenFor(t, "v", time.Hour)}))
	wantClose(t, c, codec.CodeBadToken)

	c = dial(t, s)
	_, _ = c.Write(helloWith(tokenFor(t, "u", -time.Hour)))
	wantClose(t, c, codec.CodeTokenExpired)
}

// A connection closes when its token expires, whatever it sends meanwhile.
func TestTokenExpiresInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil)
		c := r.open()
		identify := func(life time.Duration) {
			r.do(func() {
				r.loop.clock()
				r.loop.identified(c, Identity{User: "u", Expires: time.Now().Add(life)})
			})
		}
		identify(time.Minute)
		r.wait(30 * time.Second)
		identify(time.Minute) // a new one
		from := time.Now()
		for range 11 {
			r.wait(5 * time.Second)
			r.alive(c, "while its token is good")
			r.feed(c, beat)
		}
		r.wait(6 * time.Second)
		e := r.wantClose(c, TokenExpired, codec.CodeTokenExpired)
		within(t, "token expired", from, e.at, time.Minute)
	})
}

// A certificate or a token may be good for longer than a time.Duration is: RFC 5280 has
// the end of 9999 for those that do not expire.
func TestTokenOfCenturies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil)
		c := r.open()
		r.wait(time.Second)
		r.do(func() {
			r.loop.clock()
			r.loop.identified(c, Identity{User: "u", Expires: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)})
			w := codec.AppendWelcome(nil, codec.Welcome{ExpiresMS: r.loop.expiresMS(c)})
			if got, err := codec.ParseWelcome(w[codec.HeaderSize+1:]); err != nil || got.ExpiresMS < 1e11 {
				t.Errorf("a client reads that it expires in %d ms, %v", got.ExpiresMS, err)
			}
		})
		r.wait(time.Second)
		r.feed(c, beat)
		r.wait(time.Second)
		r.alive(c, "with a token until 9999")
	})
}

// A token in the request for a WebSocket makes HELLO unnecessary. A bad one is refused
// with a close code, which pages of a browser can see.
func TestTokenInRequest(t *testing.T) {
	cfg, tc := secureConfig(t)
	cfg.Auth = Auth{Mode: "jwt", SecretFile: secretFile(t)}
	_, urls := edgeURLs(t, cfg, userHandler{})
	good := tokenFor(t, "u", time.Hour)
	for _, url := range urls[:2] {
		for _, how := range []string{"header", "query", "subprotocol", "cookie", "hello"} {
			for token, want := range map[string]codec.Code{
				good: 0, good + "x": codec.CodeBadToken, tokenFor(t, "u", -time.Hour): codec.CodeTokenExpired,
			} {
				d := websocket.Dialer{HandshakeTimeout: patience, TLSClientConfig: tc}
				header, query := http.Header{}, ""
				switch how {
				case "header":
					header.Set("Authorization", "Bearer "+token)
				case "query":
					query = "?token=" + token
				case "subprotocol":
					d.Subprotocols = []string{"heartwheel", auth.SubprotocolPrefix + token}
				case "cookie":
					header.Set("Cookie", "token="+token)
				}
				c, resp, err := d.Dial(url+query, header)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				_ = resp.Body.Close()
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if how == "hello" {
					_ = c.WriteMessage(websocket.BinaryMessage, helloWith(token)[codec.HeaderSize:])
				}
				_, got, err := c.ReadMessage()
				if how == "hello" && want == 0 {
					_, got, err = c.ReadMessage() // behind WELCOME
				}
				ok := websocket.IsCloseError(err, int(want))
				if want == 0 {
					ok = err == nil && string(got) == "\x03u"
				}
				if !ok {
					t.Errorf("%s: %q, %v; want %d", how, got, err, want)
				}
				_ = c.Close()
			}
		}
	}
}

// A token in HELLO, behind one in the request, is of the same user: the handler knows
// that one already.
func TestTokenOfAnotherUserInHello(t *testing.T) {
	cfg, _ := secureConfig(t)
	cfg.Auth = Auth{Mode: "jwt", SecretFile: secretFile(t)}
	_, urls := edgeURLs(t, cfg, userHandler{})
	for user, want := range map[string]codec.Code{"u": 0, "v": codec.CodeBadToken} {
		c, resp, err := websocket.DefaultDialer.Dial(urls[0]+"?token="+tokenFor(t, "u", time.Hour), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, got, err := c.ReadMessage(); err != nil || string(got) != "\x03u" {
			t.Fatalf("%q, %v", got, err)
		}
		_ = c.WriteMessage(websocket.BinaryMessage, helloWith(tokenFor(t, user, time.Hour))[codec.HeaderSize:])
		_, got, err := c.ReadMessage()
		if ok := websocket.IsCloseError(err, int(want)); ok != (want != 0) {
			t.Errorf("HELLO of %s: %q, %v", user, got, err)
		}
		_ = c.Close()
	}
}

// The JWK sets of all paths are fetched at the same time: what does not answer holds a start
// up for one time limit, not for one a path.
func TestSetsAreFetchedTogether(t *testing.T) {
	var asked, late atomic.Int32
	all := make(chan struct{})
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 3 {
			close(all)
		}
		select {
		case <-all:
		case <-r.Context().Done():
			late.Add(1)
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer keys.Close()
	cfg := Config{Logger: slog.New(slog.DiscardHandler)}
	for i, address := range []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0/a", "ws://127.0.0.1:0/b"} {
		cfg.Listeners = append(cfg.Listeners, Listener{address, Edge{
			Auth: Auth{Mode: "jwt", JWKS: keys.URL, Audience: fmt.Sprint(i)},
		}})
	}
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if n := late.Load(); n > 0 {
		t.Errorf("%d fetches waited for others", n)
	}
}

// Addresses whose clients are identified alike share what does so, and a reload keeps it
// where it stays the same. A new JWK set that cannot be had changes nothing.
func TestAuthIsShared(t *testing.T) {
	jwt := Auth{Mode: "jwt", SecretFile: secretFile(t)}
	cfg := Config{
		Listen: []string{"tcp://127.0.0.1:0", "ws://127.0.0.1:0/a", "ws://127.0.0.1:0/b"}, Edge: Edge{Auth: jwt},
	}
	s := start(t, cfg, userHandler{})
	of := func() []*auth.Authenticator { return slices.Concat(s.inForce.Load().auths...) }
	was := of()
	if len(was) != 3 || len(distinct([][]*auth.Authenticator{was})) != 1 {
		t.Fatalf("alike: %v", was)
	}
	nowhere := httptest.NewServer(http.NotFoundHandler())
	defer nowhere.Close()
	cfg.Auth = Auth{Mode: "jwt", JWKS: nowhere.URL}
	if err := s.Reload(cfg); err == nil || !slices.Equal(of(), was) {
		t.Errorf("a JWK set that is not there: %v, %v; want %v", err, of(), was)
	}
	cfg.Listen, cfg.Auth = cfg.Listen[:1], jwt
	cfg.Listeners = []Listener{{"ws://127.0.0.1:0/a", Edge{Auth: jwt}}, {"ws://127.0.0.1:0/b", Edge{}}}
	if err := s.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if now := of(); now[0] != was[0] || now[1] != was[0] || now[2] != nil {
		t.Errorf("after a reload: %v; were %v", now, was)
	}
}

// With a hook a request with a cookie is checked at once where the hook gets cookies, and
// not where they are for something else.
func TestHookCookie(t *testing.T) {
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Cookie") == "session=1":
			_, _ = w.Write([]byte(`{"result": {"user": "cookie"}}`))
		case r.Header.Get("Authorization") == "Bearer t":
			_, _ = w.Write([]byte(`{"result": {"user": "token"}}`))
		default:
			_, _ = w.Write([]byte(`{"error": {"code": 1000}}`))
		}
	}))
	defer hook.Close()
	for user, headers := range map[string][]string{"cookie": {"X-Other", "cookie"}, "token": {"X-Other"}} {
		cfg, _ := secureConfig(t)
		cfg.Auth = Auth{Mode: "hook", Hook: hook.URL, HookHeaders: headers}
		_, urls := edgeURLs(t, cfg, userHandler{})
		c, resp, err := websocket.DefaultDialer.Dial(urls[0], http.Header{"Cookie": {"session=1"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if user == "token" {
			_ = c.WriteMessage(websocket.BinaryMessage, helloWith("t")[codec.HeaderSize:])
			_, _, _ = c.ReadMessage() // WELCOME
		}
		if _, got, err := c.ReadMessage(); err != nil || string(got) != "\x03"+user {
			t.Errorf("with %v the user is %q, %v", headers, got, err)
		}
		_ = c.Close()
	}
}

// A certificate says who the client is, at once.
func TestClientCertificate(t *testing.T) {
	cfg, tc, ca := secureConfigOf(t)
	cfg.ClientCA, cfg.Auth = ca.File, Auth{Mode: "mtls"}
	_, urls := edgeURLs(t, Config{Listen: cfg.Listen[1:], Edge: cfg.Edge}, userHandler{})
	cert, key := ca.Issue(t, "device-7", "device-7.example")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	tc.Certificates = []tls.Certificate{pair}
	c := dialWS(t, urls[0], tc)
	if _, got, err := c.ReadMessage(); err != nil || string(got[1:]) == "" {
		t.Errorf("the user is %q, %v", got, err)
	}
}
