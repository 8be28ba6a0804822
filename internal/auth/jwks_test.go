package auth

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// jwk returns a public key as a JWK, with more members in pairs of name and value.
func jwk(t testing.TB, kid string, public any, more ...any) map[string]any {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	var m map[string]any
	switch k := public.(type) {
	case *rsa.PublicKey:
		m = map[string]any{"kty": "RSA", "n": encode(k.N.Bytes()), "e": encode(big.NewInt(int64(k.E)).Bytes())}
	case interface{ Bytes() ([]byte, error) }: // *ecdsa.PublicKey
		b, err := k.Bytes() // 4, x, y
		if err != nil {
			t.Fatal(err)
		}
		m = map[string]any{"kty": "EC", "crv": "P-256", "x": encode(b[1:33]), "y": encode(b[33:])}
	case interface{ Equal(any) bool }:
		t.Fatalf("%T", k)
	default:
		m = map[string]any{"kty": "OKP", "crv": "Ed25519", "x": encode([]byte(fmt.Sprintf("%s", k)))}
	}
	m["kid"] = kid
	for i := 0; i < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

func jwksOf(keys ...map[string]any) []byte {
	b, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return b
}

// A provider answers for an identity provider, without a network.
type provider struct {
	mu      sync.Mutex
	body    []byte
	status  int           // 0: 200
	err     error         // in place of an answer
	delay   time.Duration // before the answer
	fetches int
}

func (p *provider) set(f func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.fetches++
	body, status, err, delay := p.body, p.status, p.err, p.delay
	p.mu.Unlock()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(delay):
	}
	if err != nil {
		return nil, err
	}
	if status == 0 {
		status = http.StatusOK
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{},
		Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

func TestParseJWKS(t *testing.T) {
	s := theSigner()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public := &s.rsa.PublicKey
	for _, c := range []struct {
		name  string
		key   map[string]any
		wrong string // empty: used
		alg   string
	}{
		{"RSA", jwk(t, "a", public), "", "RS256 RS384 RS512"},
		{"RSA of one algorithm", jwk(t, "a", public, "alg", "RS384", "use", "sig"), "", "RS384"},
		{"EC", jwk(t, "a", &s.ec.PublicKey, "alg", "ES256", "key_ops", []string{"verify"}), "", "ES256"},
		{"Ed25519", jwk(t, "a", s.ed.Public(), "alg", "EdDSA"), "", "EdDSA"},
		{"Ed25519 by its new name", jwk(t, "a", s.ed.Public(), "alg", "Ed25519"), "", "EdDSA"},
		{"certificate that is not looked at", jwk(t, "a", public, "x5c", []string{"!"}, "x5u", "http://x"), "",
			"RS256 RS384 RS512"},
		{"for encryption", jwk(t, "a", public, "use", "enc"), `its use is "enc"`, ""},
		{"to sign", jwk(t, "a", public, "key_ops", []string{"sign"}), "no verify", ""},
		{"secret", map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)}, "a secret", ""},
		{"private", jwk(t, "a", s.ed.Public(), "d", base64.RawURLEncoding.EncodeToString(s.ed.Seed())), "private", ""},
		{"short", jwk(t, "a", &weak.PublicKey), "1024 bits", ""},
		{"algorithm of another type", jwk(t, "a", public, "alg", "ES256"), `"ES256"`, ""},
		{"algorithm of a secret", jwk(t, "a", public, "alg", "HS256"), `"HS256"`, ""},
		{"PSS", jwk(t, "a", public, "alg", "PS256"), `"PS256"`, ""},
		{"unknown type", map[string]any{"kty": "AKP"}, "not known", ""},
		{"no point of the curve", jwk(t, "a", &s.ec.PublicKey, "x", "AAAA"), "broken", ""},
		{"X25519", jwk(t, "a", s.ed.Public(), "crv", "X25519"), "not supported", ""},
		{"number for a text", map[string]any{"kty": 7}, "not a JWK", ""},
	} {
		keys, ignored, err := parseJWKS(jwksOf(c.key, jwk(t, "good", public)))
		switch {
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.wrong == "" && (len(keys) != 2 || strings.Join(keys[0].methods(), " ") != c.alg):
			t.Errorf("%s: %v, not used: %v", c.name, keys, ignored)
		case c.wrong != "" && (len(keys) != 1 || len(ignored) != 1 || !strings.Contains(ignored[0].Error(), c.wrong)):
			t.Errorf("%s: %v, not used: %v", c.name, keys, ignored)
		}
	}
	// Keys with one kid are tried one after the other: not more than a few.
	var same []map[string]any
	for range maxSameID + 2 {
		same = append(same, jwk(t, "a", public))
	}
	if keys, ignored, err := parseJWKS(jwksOf(same...)); err != nil || len(keys) != maxSameID || len(ignored) != 2 {
		t.Errorf("%d keys, %v, %v", len(keys), ignored, err)
	}
	many := make([]map[string]any, maxKeys+1)
	for _, body := range []string{"", "<html>", "[]", "7", "{}", `{"keys":7}`, `{"keys":[]}`, `{"keys":[{}]}`,
		string(jwksOf(same[0])) + "x", string(jwksOf(many...))} {
		if keys, _, err := parseJWKS([]byte(body)); err == nil {
			t.Errorf("%.40s: %v", body, keys)
		}
	}
}

// A logBuffer is written while it is read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// jwksConfig is for a JWK set that p holds.
func jwksConfig(p *provider, log *logBuffer) Config {
	c := Config{Mode: JWT, JWKS: "https://id.example/keys", transport: p, Workers: 2, Queue: 10}
	if log != nil {
		c.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	return c
}

// TestJWKSRotation: a new key is fetched with its first token, and an old one is no
// longer good after that. A known key costs no fetch.
func TestJWKSRotation(t *testing.T) {
	old, next := theSigner(), otherSigner()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: jwksOf(jwk(t, "1", &old.rsa.PublicKey)), delay: 10 * time.Millisecond}
		a := newAuthenticator(t, jwksConfig(p, nil))
		first := sign(t, jwt.SigningMethodRS256, old.rsa, "1", good("exp", time.Now().Add(time.Hour).Unix()))
		second := sign(t, jwt.SigningMethodRS256, next.rsa, "2", good("exp", time.Now().Add(time.Hour).Unix()))
		for range 3 {
			if id, err := ask(t, a, Request{Token: first}); err != nil || id.User == "" {
				t.Errorf("first key: %+v, %v", id, err)
			}
		}
		time.Sleep(DefaultJWKSCooldown)
		p.set(func(p *provider) { p.body = jwksOf(jwk(t, "2", &next.rsa.PublicKey)) })
		if id, err := ask(t, a, Request{Token: second}); err != nil || id.User == "" {
			t.Errorf("second key: %+v, %v", id, err)
		}
		if _, err := ask(t, a, Request{Token: first}); !errors.Is(err, ErrBadToken) {
			t.Errorf("first key after the rotation: %v", err)
		}
		if n := p.count(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}
		time.Sleep(DefaultJWKSInterval + time.Second)
		if n := p.count(); n != 3 {
			t.Errorf("%d fetches after the interval, want 3", n)
		}
	})
}

// TestJWKSStorm: tokens with forged key IDs cause one fetch in a cool-down, hold up no
// worker while it runs, and are all refused.
func TestJWKSStorm(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: jwksOf(jwk(t, "1", &s.ec.PublicKey)), delay: time.Second}
		c := jwksConfig(p, nil)
		c.Queue = 5
		a := newAuthenticator(t, c)
		until := good("exp", time.Now().Add(time.Hour).Unix())
		honest := sign(t, jwt.SigningMethodES256, s.ec, "1", until)
		before := runtime.NumGoroutine()
		time.Sleep(DefaultJWKSCooldown)
		start, answered, terminal, taken := time.Now(), 0, 0, 0
		var mu sync.Mutex
		for i := 0; time.Since(start) < 3*DefaultJWKSCooldown-time.Second; i++ {
			forged := sign(t, jwt.SigningMethodES256, s.ec, fmt.Sprintf("forged-%d", i), until)
			if a.Check(Request{Token: forged}, func(_ Identity, err error) {
				mu.Lock()
				defer mu.Unlock()
				answered++
				if errors.Is(err, ErrBadToken) {
					terminal++
				} else if !errors.Is(err, ErrUnavailable) { // more than are parked
					t.Error(err)
				}
			}) {
				taken++
			}
			synctest.Wait()
			if n := runtime.NumGoroutine(); n > before+2 {
				t.Fatalf("%d goroutines and %d before", n, before)
			}
			asked := time.Now()
			if id, err := ask(t, a, Request{Token: honest}); err != nil || id.User == "" || time.Since(asked) > 0 {
				t.Fatalf("honest: %v after %s", err, time.Since(asked))
			}
			time.Sleep(150 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if n := p.count() - 1; n != 3 {
			t.Errorf("%d fetches in 3 cool-downs", n)
		}
		mu.Lock()
		defer mu.Unlock()
		if answered != taken || terminal < taken*9/10 || terminal == taken {
			t.Errorf("%d taken, %d answered, %d of them terminally", taken, answered, terminal)
		}
	})
}

// TestJWKSOutage: the keys stay when a fetch fails; that is counted, and logged once.
// A key that may be new is no reason to turn a client away for good.
func TestJWKSOutage(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		p := &provider{body: jwksOf(jwk(t, "1", &s.ec.PublicKey))}
		a := newAuthenticator(t, jwksConfig(p, &log))
		until := good("exp", time.Now().Add(24*time.Hour).Unix())
		known := sign(t, jwt.SigningMethodES256, s.ec, "1", until)
		unknown := sign(t, jwt.SigningMethodES256, s.ec, "2", until)
		p.set(func(p *provider) { p.err = errors.New("connection refused") })
		time.Sleep(DefaultJWKSInterval + 5*time.Minute)
		if id, err := ask(t, a, Request{Token: known}); err != nil || id.User == "" {
			t.Errorf("known key: %v", err)
		}
		for range 3 {
			if _, err := ask(t, a, Request{Token: unknown}); !errors.Is(err, ErrUnavailable) {
				t.Errorf("unknown key: %v", err)
			}
		}
		st := a.Stats()
		if st.JWKSFailures < 10 || st.JWKSFailures > 20 || strings.Count(log.String(), "JWK set fails") != 1 {
			t.Errorf("%+v\n%s", st, log.String())
		}
		p.set(func(p *provider) { p.err = nil })
		time.Sleep(DefaultJWKSCooldown)
		if strings.Count(log.String(), "works again") != 1 {
			t.Errorf("log:\n%s", log.String())
		}
		if _, err := ask(t, a, Request{Token: unknown}); !errors.Is(err, ErrBadToken) {
			t.Errorf("unknown key after the outage: %v", err)
		}
	})
}

// TestJWKSStart: without an answer it starts, and tokens come in once there is one.
// With another answer than a JWK set it does not start; a reload needs the set.
func TestJWKSStart(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		p := &provider{status: http.StatusBadGateway}
		a := newAuthenticator(t, jwksConfig(p, &log))
		token := sign(t, jwt.SigningMethodES256, s.ec, "1", good("exp", time.Now().Add(time.Hour).Unix()))
		hs := sign(t, jwt.SigningMethodHS256, secret, "1", good("exp", time.Now().Add(time.Hour).Unix()))
		if _, err := ask(t, a, Request{Token: token}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("before: %v", err)
		}
		if _, err := ask(t, a, Request{Token: hs}); !errors.Is(err, ErrBadToken) {
			t.Errorf("of a secret: %v", err)
		}
		if !strings.Contains(log.String(), "Bad Gateway") {
			t.Errorf("log: %s", log.String())
		}
		p.set(func(p *provider) { p.status, p.body = 0, jwksOf(jwk(t, "1", &s.ec.PublicKey)) })
		time.Sleep(2 * time.Second)
		if id, err := ask(t, a, Request{Token: token}); err != nil || id.User == "" {
			t.Errorf("after: %v", err)
		}
		if strings.Count(log.String(), "works again") != 1 {
			t.Errorf("log: %s", log.String())
		}
		for _, bad := range []*provider{
			{body: []byte("<html>")}, {body: jwksOf()}, {status: http.StatusNotFound}, {body: make([]byte, 5<<20)},
		} {
			if _, err := NewAuthenticator(jwksConfig(bad, nil)); err == nil ||
				!strings.Contains(err.Error(), "id.example") {
				t.Errorf("%d %.10q: %v", bad.status, bad.body, err)
			}
		}
		for _, bad := range []*provider{{body: []byte("<html>")}, {err: errors.New("refused")}, {delay: time.Hour}} {
			c := jwksConfig(bad, nil)
			c.JWKS += "/other"
			if err := a.Reload(c); err == nil {
				t.Error("reloaded")
			}
		}
		fetches := p.count()
		c := jwksConfig(p, nil)
		c.Issuer = "https://id.example"
		if err := a.Reload(c); err != nil || p.count() != fetches {
			t.Errorf("same set: %v, %d fetches", err, p.count()-fetches)
		}
		if id, err := ask(t, a, Request{Token: token}); err != nil || id.User == "" {
			t.Errorf("after the reloads: %v", err)
		}
	})
}

// TestJWKSReloadParked: checks that wait for a fetch of the old set are checked with
// the new one, and at Close they end.
func TestJWKSReloadParked(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		p := &provider{body: jwksOf(jwk(t, "1", &s.ec.PublicKey))}
		a := newAuthenticator(t, jwksConfig(p, nil))
		time.Sleep(DefaultJWKSCooldown)
		p.set(func(p *provider) { p.delay = time.Hour })
		token := sign(t, jwt.SigningMethodES256, s.ec, "2", good("exp", time.Now().Add(time.Hour).Unix()))
		var results []error
		done := func(_ Identity, err error) { results = append(results, err) }
		a.Check(Request{Token: token}, done)
		synctest.Wait()
		c := jwksConfig(&provider{body: jwksOf(jwk(t, "2", &s.ec.PublicKey))}, nil)
		c.JWKS += "/new"
		old := a.state.Load().jwks
		if err := a.Reload(c); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if parked, again, _ := old.unknown(&check{}, old.list.Load(), "2"); parked || !again {
			t.Error("parked in a set that is not in use")
		}
		if len(results) != 1 || results[0] != nil {
			t.Fatalf("after a reload: %v", results)
		}
		slow := jwksConfig(p, nil)
		p.set(func(p *provider) { p.delay = 0 })
		if err := a.Reload(slow); err != nil {
			t.Fatal(err)
		}
		time.Sleep(DefaultJWKSCooldown)
		p.set(func(p *provider) { p.delay = time.Hour })
		a.Check(Request{Token: token}, done)
		synctest.Wait()
		a.Close()
		if len(results) != 2 || !errors.Is(results[1], ErrUnavailable) {
			t.Errorf("after Close: %v", results)
		}
	})
}

// TestJWKSOverHTTP: what servers do to a fetch.
func TestJWKSOverHTTP(t *testing.T) {
	s := theSigner()
	body := jwksOf(jwk(t, "1", &s.ec.PublicKey))
	keys := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) })
	elsewhere := httptest.NewServer(keys)
	defer elsewhere.Close()
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.Handle("/keys", keys)
	mux.Handle("/moved", http.RedirectHandler("/keys", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/elsewhere", http.RedirectHandler(elsewhere.URL, http.StatusFound))
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 64<<10); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	token := sign(t, jwt.SigningMethodES256, s.ec, "1", good())
	for _, c := range []struct {
		path  string
		wrong string // in the error or, where it starts all the same, in the log
		start bool
	}{
		{"/keys", "", true},
		{"/moved", "", true},
		{"/loop", "too many redirects", false},
		{"/elsewhere", "redirects to http://127.0.0.1", false},
		{"/slow", "no answer in time", true},
		{"/endless", "longer than 1048576 bytes", false},
		{"/none?token=hidden", "404", false},
	} {
		var log logBuffer
		config := Config{Mode: JWT, JWKS: server.URL + c.path, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Timeout: time.Minute}
		if c.path == "/slow" {
			config.Timeout = 50 * time.Millisecond
		}
		a, err := NewAuthenticator(config)
		said := fmt.Sprint(err, log.String())
		if (err == nil) != c.start || !strings.Contains(said, c.wrong) || strings.Contains(said, "hidden") {
			t.Errorf("%s: %s", c.path, said)
		}
		if err != nil {
			continue
		}
		if _, err := ask(t, a, Request{Token: token}); (err == nil) != (c.wrong == "") {
			t.Errorf("%s: %v", c.path, err)
		}
		a.Close()
	}
	for _, bad := range []string{"", "keys", "ftp://id.example/keys", "http://id.example:x/", "http://192.0.2.1/keys",
		"https://u:p@id.example/keys", "https:///keys"} {
		_, err := NewAuthenticator(Config{Mode: JWT, JWKS: bad})
		if err == nil || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestPlainHTTP: http goes to addresses that are allowed for it, and nowhere else,
// whatever a name leads to.
func TestPlainHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	get := func(url string) error {
		e, err := parseEndpoint("X", url, loopback, "this machine")
		if err != nil {
			return err
		}
		// The name leads to loopback, and loopback is not allowed.
		elsewhere := func(a netip.Addr) bool { return !loopback(a) }
		transport := newTransport(e, elsewhere, "another machine", 1, time.Minute)
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get(url)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	err := get(strings.Replace(server.URL, "127.0.0.1", "localhost", 1))
	if !errors.As(err, new(mistake)) || !strings.Contains(err.Error(), "http is for another machine") {
		t.Errorf("got %v", err)
	}
}

// FuzzJWKS: no body has a panic, and each key that is used is for its algorithms.
func FuzzJWKS(f *testing.F) {
	s := theSigner()
	f.Add(jwksOf(jwk(f, "1", &s.rsa.PublicKey, "use", "sig", "alg", "RS256"), jwk(f, "2", &s.ec.PublicKey)))
	f.Add(jwksOf(jwk(f, "1", s.ed.Public()), map[string]any{"kty": "oct", "k": "AAAA"}))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA","x5c":["AA"]}]}`))
	digest := sha256.Sum256(nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, _, err := parseJWKS(body)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if k.Public == nil || k.Secret != nil || k.validate() != nil {
				t.Errorf("%+v", k)
			}
			for _, alg := range k.methods() {
				if jwt.GetSigningMethod(alg).Verify("x", digest[:], k.verifier()) == nil {
					t.Error("verified")
				}
			}
		}
	})
}
