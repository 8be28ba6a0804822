package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"heartwheel/codec"
)

const static = "3f1c6c0e9f7b4b0e8a51"

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func newAuthenticator(t testing.TB, c Config) *Authenticator {
	t.Helper()
	if c.Timeout == 0 && c.transport == nil {
		c.Timeout = time.Minute // of a slow machine
	}
	a, err := NewAuthenticator(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

// ask is CheckNow or, if that does not answer, Check.
func ask(t testing.TB, a *Authenticator, r Request) (Identity, error) {
	t.Helper()
	id, ok, err := a.CheckNow(r)
	if ok {
		return id, err
	}
	type result struct {
		id  Identity
		err error
	}
	got := make(chan result, 2)
	if !a.Check(r, func(id Identity, err error) { got <- result{id, err} }) {
		return Identity{}, ErrUnavailable
	}
	g := <-got
	return g.id, g.err
}

func TestModes(t *testing.T) {
	s := theSigner()
	spiffe, _ := url.Parse("spiffe://example.org/device/7")
	certificate := func(name string, left time.Duration, uris ...*url.URL) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, URIs: uris, NotAfter: time.Now().Add(left)}
	}
	jwtConfig := s.config()
	rs := sign(t, jwt.SigningMethodRS256, s.rsa, "r", good())
	hs := sign(t, jwt.SigningMethodHS256, secret, "", good())
	secretOnly := Config{Mode: JWT, Keys: []Key{{Secret: secret}}}
	for _, c := range []struct {
		name   string
		config Config
		r      Request
		inline bool
		user   string
		want   error
	}{
		{"none", Config{}, Request{Token: "x"}, true, "", nil},
		{"token", Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "device|7"}},
			Request{Token: static}, true, "device|7", nil},
		{"another token", Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "device|7"}},
			Request{Token: static + "x"}, true, "", ErrBadToken},
		{"no token", Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "device|7"}},
			Request{}, true, "", ErrBadToken},
		{"RS256", jwtConfig, Request{Token: rs}, false, "auth0|5f7c", nil},
		{"no RS256", jwtConfig, Request{Token: rs + "x"}, false, "", ErrBadToken},
		{"HS256 beside public keys", jwtConfig, Request{Token: hs}, false, "auth0|5f7c", nil},
		{"HS256", secretOnly, Request{Token: hs}, true, "auth0|5f7c", nil},
		{"long HS256", secretOnly, Request{Token: sign(t, jwt.SigningMethodHS256, secret, "",
			good("info", strings.Repeat("x", maxInline)))}, false, "auth0|5f7c", nil},
		{"no JWT", jwtConfig, Request{}, true, "", ErrBadToken},
		{"certificate", Config{Mode: MTLS}, Request{Certificate: certificate("pump", time.Hour)}, true, "pump", nil},
		{"certificate with a URI", Config{Mode: MTLS}, Request{Certificate: certificate("pump", time.Hour, spiffe)},
			true, "spiffe://example.org/device/7", nil},
		{"certificate with two", Config{Mode: MTLS},
			Request{Certificate: certificate("pump", time.Hour, spiffe, spiffe)}, true, "pump", nil},
		{"expired certificate", Config{Mode: MTLS}, Request{Certificate: certificate("pump", 0)}, true, "", ErrExpired},
		{"certificate of no user", Config{Mode: MTLS}, Request{Certificate: certificate("", time.Hour)}, true, "",
			ErrBadToken},
		{"no certificate", Config{Mode: MTLS}, Request{Token: static}, true, "", ErrBadToken},
	} {
		a := newAuthenticator(t, c.config)
		_, inline, _ := a.CheckNow(c.r)
		id, err := ask(t, a, c.r)
		if inline != c.inline || id.User != c.user || !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: inline %t, %+v, %v", c.name, inline, id, err)
		}
	}
}

// TestConfigErrors: all that is wrong is said, and nothing that is secret.
func TestConfigErrors(t *testing.T) {
	_, err := NewAuthenticator(Config{
		Mode: JWT, Issuer: "x", Leeway: time.Hour, Workers: -1, Queue: 1 << 30, Timeout: time.Hour,
		Tokens: map[string]string{"xyz": "a", strings.Repeat("00", 32): "a\n"},
		Keys: []Key{
			{Secret: []byte("short")}, {Public: "x"}, {Secret: secret, Public: theSigner().ed.Public()},
			{Secret: secret, Algorithm: "RS256"},
		},
	})
	want := []string{"Workers", "Queue", "Timeout", "Leeway", "Tokens is for mode tokens", `hash for user "a"`,
		`user "a\n" is not`, "5 bytes is too short", "type string", "either a secret or public", `"RS256"`}
	for _, w := range want {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in: %v", w, err)
		}
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != len(want) {
		t.Errorf("%d lines, want %d:\n%v", len(lines), len(want), err)
	}
	for _, c := range []Config{{Mode: "jwd"}, {Mode: Tokens}, {Mode: JWT}, {Keys: []Key{{Secret: secret}}}} {
		if _, err := NewAuthenticator(c); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// TestReload: bad input changes nothing, and a reload needs no restart.
func TestReload(t *testing.T) {
	a := newAuthenticator(t, Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "old"}})
	if err := a.Reload(Config{Mode: Tokens, Tokens: map[string]string{"x": "new"}}); err == nil {
		t.Error("taken")
	}
	if id, err := ask(t, a, Request{Token: static}); id.User != "old" {
		t.Errorf("%+v, %v", id, err)
	}
	if err := a.Reload(Config{Mode: JWT, Keys: []Key{{Secret: secret}}}); err != nil {
		t.Error(err)
	}
	if id, err := ask(t, a, Request{Token: static}); !errors.Is(err, ErrBadToken) {
		t.Errorf("%+v, %v", id, err)
	}
	a.Close()
	if err := a.Reload(Config{}); err == nil {
		t.Error("reloaded when closed")
	}
}

// TestBounds: with workers busy, checks wait in the queue, then are not taken; each
// that is taken is done once, in time, and nothing remains of it.
func TestBounds(t *testing.T) {
	s := theSigner()
	token := sign(t, jwt.SigningMethodES256, s.ec, "", good("exp", time.Now().Add(24*365*200*time.Hour).Unix()))
	synctest.Test(t, func(t *testing.T) {
		const workers, queue = 3, 10
		a := newAuthenticator(t, Config{
			Mode: JWT, Keys: []Key{{Public: &s.ec.PublicKey}}, Workers: workers, Queue: queue, Timeout: time.Second,
		})
		var (
			mu      sync.Mutex
			results = map[string]int{}
			block   = make(chan struct{})
			atOnce  int
			taken   int
		)
		before := runtime.NumGoroutine()
		for range 100 {
			ok := a.Check(Request{Token: token}, func(id Identity, err error) {
				mu.Lock()
				atOnce++
				if id.User == "" {
					results[fmt.Sprint(errors.Is(err, ErrUnavailable))]++
				} else {
					results[id.User]++
				}
				mu.Unlock()
				<-block
			})
			if ok {
				taken++
			}
			synctest.Wait()
		}
		st := a.Stats()
		if taken != workers+queue || st.Overloaded != 100-workers-queue || st.Waiting != queue ||
			st.Running != workers || atOnce != workers || runtime.NumGoroutine() > before+workers {
			t.Errorf("%d taken, %d at once, %+v", taken, atOnce, st)
		}
		time.Sleep(2 * time.Second)
		close(block)
		synctest.Wait()
		if results["auth0|5f7c"] != workers || results["true"] != queue {
			t.Errorf("got %v", results)
		}
		st = a.Stats()
		if st.Waiting != 0 || st.Running != 0 || st.Accepted != workers || st.Refused["overloaded"] != queue ||
			runtime.NumGoroutine() > before {
			t.Errorf("%+v, %d goroutines and %d before", st, runtime.NumGoroutine(), before)
		}
	})
}

// TestClose: checks that wait are done, and no others taken.
func TestClose(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(t, Config{Mode: JWT, Keys: []Key{{Public: &s.ec.PublicKey}}, Workers: 1})
		block, done := make(chan struct{}), 0
		for i := range 5 {
			if !a.Check(Request{Token: "a.b.c"}, func(_ Identity, err error) {
				<-block
				if done++; i > 0 && !errors.Is(err, ErrUnavailable) {
					t.Errorf("%d: %v", i, err)
				}
			}) {
				t.Fatal("not taken")
			}
			synctest.Wait()
		}
		go a.Close()
		synctest.Wait()
		close(block)
		a.Close()
		if done != 5 || a.Check(Request{}, nil) {
			t.Errorf("%d done, or taken when closed", done)
		}
	})
}

// TestSecretsDoNotPrint: not with any verb, and not in a log.
func TestSecretsDoNotPrint(t *testing.T) {
	k := Key{Secret: secret}
	c := Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "u"}, Keys: []Key{k}}
	r := Request{Token: static, Header: map[string][]string{"Authorization": {"Bearer " + static}},
		Data: json.RawMessage(`"` + static + `"`)}
	for _, v := range []any{k, &k, c, &c, r, &r, []Key{k}, struct{ C Config }{c}} {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("json", "v", v)
		text := log.String()
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			text += fmt.Sprintf(verb, v)
		}
		for _, hidden := range []string{static, hex.EncodeToString([]byte(static)), hashOf(static), string(secret),
			hex.EncodeToString(secret), strings.ToLower(base64.StdEncoding.EncodeToString(secret)),
			strings.Trim(fmt.Sprint(secret), "[]")} {
			if strings.Contains(strings.ToLower(text), hidden) {
				t.Errorf("%T prints %q:\n%s", v, hidden, text)
			}
		}
	}
}

// TestErrorCodes: the server finds the code in every error.
func TestErrorCodes(t *testing.T) {
	for code, e := range map[codec.Code]*codec.Error{
		codec.CodeBadToken: ErrBadToken, codec.CodeTokenExpired: ErrExpired, codec.CodeOverloaded: ErrUnavailable,
	} {
		var got *codec.Error
		cause := errors.New("cause")
		if err := refuse(e, cause); !errors.As(err, &got) || got.Code != code || !errors.Is(err, cause) {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// BenchmarkCheck is what a check takes of a loop or a worker.
func BenchmarkCheck(b *testing.B) {
	s := theSigner()
	long := time.Now().Add(time.Hour).Unix()
	hs := func(n int) string {
		return sign(b, jwt.SigningMethodHS256, secret, "", good("exp", long, "info", strings.Repeat("x", n)))
	}
	jwtConfig := s.config()
	for _, c := range []struct {
		name, token string
		config      Config
	}{
		{"static", static, Config{Mode: Tokens, Tokens: map[string]string{hashOf(static): "u"}}},
		{"HS256", hs(0), jwtConfig},
		{"HS256/1KiB", hs(512), jwtConfig},
		{"HS256/8KiB", hs(5800), jwtConfig},
		{"RS256", sign(b, jwt.SigningMethodRS256, s.rsa, "r", good("exp", long)), jwtConfig},
		{"ES256", sign(b, jwt.SigningMethodES256, s.ec, "", good("exp", long)), jwtConfig},
		{"EdDSA", sign(b, jwt.SigningMethodEdDSA, s.ed, "", good("exp", long)), jwtConfig},
	} {
		b.Run(c.name, func(b *testing.B) {
			k := newTokenChecker(b, c.config)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.check(c.token, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
