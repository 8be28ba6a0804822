package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"heartwheel/codec"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// A signer has a key of each type.
type signer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

// makeSigner takes a tenth of a second and more.
func makeSigner() (s signer) {
	var errs [3]error
	s.rsa, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	s.ec, errs[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, s.ed, errs[2] = ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(errs[:]...); err != nil {
		panic(err)
	}
	return s
}

// Two signers.
var theSigner, otherSigner = sync.OnceValue(makeSigner), sync.OnceValue(makeSigner)

// config is for JSON Web Tokens of the signer.
func (s signer) config() Config {
	return Config{
		Mode: JWT,
		Keys: []Key{
			{Secret: secret}, {ID: "r", Public: &s.rsa.PublicKey}, {Public: &s.ec.PublicKey}, {Public: s.ed.Public()},
		},
		Issuer: "https://id.example", Audience: "gateway", Leeway: 5 * time.Second,
	}
}

func newTokenChecker(t testing.TB, c Config) *checker {
	t.Helper()
	c, err := c.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	k, err := newChecker(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// good returns the claims of a good token, changed by pairs of name and value; nil
// removes one.
func good(change ...any) jwt.MapClaims {
	c := jwt.MapClaims{
		"sub": "auth0|5f7c", "iss": "https://id.example", "aud": []string{"other", "gateway"},
		"exp": time.Now().Add(time.Minute).Unix(),
	}
	for i := 0; i < len(change); i += 2 {
		if c[change[i].(string)] = change[i+1]; change[i+1] == nil {
			delete(c, change[i].(string))
		}
	}
	return c
}

func sign(t testing.TB, m jwt.SigningMethod, key any, kid string, c jwt.Claims) string {
	t.Helper()
	token := jwt.NewWithClaims(m, c)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := theSigner()
	k := newTokenChecker(t, s.config())
	der, _ := x509.MarshalPKIXPublicKey(&s.rsa.PublicKey)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	other := otherSigner()
	hs := func(change ...any) string { return sign(t, jwt.SigningMethodHS256, secret, "", good(change...)) }
	now := time.Now().Unix()
	parts := strings.Split(hs(), ".")
	encode := base64.RawURLEncoding.EncodeToString
	withCrit := jwt.NewWithClaims(jwt.SigningMethodHS256, good())
	withCrit.Header["crit"] = []string{"b64"}
	critical, err := withCrit.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token string
		want        error
	}{
		{"HS256", hs(), nil},
		{"HS512", sign(t, jwt.SigningMethodHS512, secret, "any", good()), nil},
		{"RS256", sign(t, jwt.SigningMethodRS256, s.rsa, "r", good()), nil},
		{"ES256", sign(t, jwt.SigningMethodES256, s.ec, "", good()), nil},
		{"EdDSA", sign(t, jwt.SigningMethodEdDSA, s.ed, "", good()), nil},
		{"audience as text", hs("aud", "gateway"), nil},
		{"expired within the leeway", hs("exp", now-2), nil},
		{"user of 255 bytes", hs("sub", strings.Repeat("é", 127)+"x"), nil},

		{"none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", good()), ErrBadToken},
		{"None", encode([]byte(`{"alg":"None"}`)) + "." + parts[1] + ".", ErrBadToken},
		{"public key as secret", sign(t, jwt.SigningMethodHS256, asPEM, "r", good()), ErrBadToken},
		{"DER of the public key as secret", sign(t, jwt.SigningMethodHS256, der, "r", good()), ErrBadToken},
		{"PS256", sign(t, jwt.SigningMethodPS256, s.rsa, "r", good()), ErrBadToken},
		{"another key", sign(t, jwt.SigningMethodRS256, other.rsa, "r", good()), ErrBadToken},
		{"forged kid", sign(t, jwt.SigningMethodRS256, other.rsa, "../../dev/null", good()), ErrBadToken},
		{"no kid for a key that has one", sign(t, jwt.SigningMethodRS256, s.rsa, "", good()), ErrBadToken},
		{"another's signature", parts[0] + "." + encode([]byte(`{"sub":"admin"}`)) + "." + parts[2], ErrBadToken},
		{"no signature", parts[0] + "." + parts[1] + ".", ErrBadToken},
		{"expired", hs("exp", now-60), ErrExpired},
		{"expired, of another audience", hs("exp", now-60, "aud", "x"), ErrBadToken},
		{"expired, by another key", sign(t, jwt.SigningMethodES256, other.ec, "", good("exp", now-60)), ErrBadToken},
		{"never expires", hs("exp", nil), ErrBadToken},
		{"expires at a text", hs("exp", "tomorrow"), ErrBadToken},
		{"not yet", hs("nbf", now+60), ErrBadToken},
		{"wrong aud", hs("aud", "x"), ErrBadToken},
		{"no aud", hs("aud", nil), ErrBadToken},
		{"wrong iss", hs("iss", "https://evil.example"), ErrBadToken},
		{"no user", hs("sub", nil), ErrBadToken},
		{"user is a number", hs("sub", 7), ErrBadToken},
		{"user of 256 bytes", hs("sub", strings.Repeat("x", 256)), ErrBadToken},
		{"user with a line", hs("sub", "a\nb"), ErrBadToken},
		{"user with C1", hs("sub", "a\u0085b"), ErrBadToken},
		{"empty channel", hs("channels", []string{""}), ErrBadToken},
		{"long channel", hs("channels", []string{strings.Repeat("x", codec.MaxSubject+1)}), ErrBadToken},
		{"critical extension", critical, ErrBadToken},
		{"long text for a time", hs("exp", strings.Repeat("9", 5000)), ErrBadToken},
		{"empty", "", ErrBadToken},
		{"not known", "nothing", ErrBadToken},
		{"dots", "..", ErrBadToken},
		{"1 MB", strings.Repeat("a", 1<<20), ErrBadToken},
		{"1 MB of claims", hs("info", strings.Repeat("a", 1<<20)), ErrBadToken},
		{"1 MB of dots", strings.Repeat(".", 1<<20), ErrBadToken},
	} {
		id, err := k.check(c.token, nil)
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || ValidUser(id.User) != (err == nil) {
			t.Errorf("%s: %+v, %v", c.name, id, err)
		}
		var e *codec.Error
		if err != nil && (!errors.As(err, &e) || len(err.Error()) > 200) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	id, err := k.check(hs("info", map[string]int{"n": 1}, "channels", []string{"a", "b"}, "device", "phone"), nil)
	if err != nil || id.User != "auth0|5f7c" || string(id.Info) != `{"n":1}` || len(id.Channels) != 2 ||
		id.Device != "phone" || time.Until(id.Expires) > time.Minute+5*time.Second {
		t.Errorf("got %+v, %v", id, err)
	}
}

// TestExpiry: a token expires to the second, with the leeway.
func TestExpiry(t *testing.T) {
	s := theSigner()
	synctest.Test(t, func(t *testing.T) {
		k := newTokenChecker(t, s.config())
		token := sign(t, jwt.SigningMethodHS256, secret, "", good())
		time.Sleep(65*time.Second - time.Nanosecond)
		if id, err := k.check(token, nil); err != nil || time.Until(id.Expires) != time.Nanosecond {
			t.Errorf("before: %+v, %v", id, err)
		}
		time.Sleep(time.Nanosecond)
		if _, err := k.check(token, nil); !errors.Is(err, ErrExpired) {
			t.Errorf("after: %v", err)
		}
	})
}

func TestFiles(t *testing.T) {
	s := theSigner()
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	der, _ := x509.MarshalPKIXPublicKey(s.ed.Public())
	private, _ := x509.MarshalPKCS8PrivateKey(s.ed)
	if k, err := ReadKey(file("ed", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))); err != nil ||
		k.methods()[0] != "EdDSA" {
		t.Errorf("%+v, %v", k, err)
	}
	k, err := ReadSecret(file("secret", []byte(string(secret)+"\r\n")))
	if err != nil || string(k.Secret) != string(secret) {
		t.Errorf("%v", err)
	}
	for name, b := range map[string][]byte{
		"text": []byte("hello"), "private": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"broken": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der[1:]}),
	} {
		if _, err := ReadKey(file(name, b)); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := ReadSecret(filepath.Join(dir, "text")); err == nil || strings.Contains(err.Error(), "hello") {
			t.Errorf("short secret: %v", err)
		}
	}
}

// FuzzToken: no token but the good one gets in, and none has a panic.
func FuzzToken(f *testing.F) {
	k := newTokenChecker(f, theSigner().config())
	token := sign(f, jwt.SigningMethodHS256, secret, "", good("exp", int64(1)<<40))
	f.Add(token)
	f.Add("..")
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + ".e30.")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := k.check(s, nil); (err == nil) != (s == token) || err != nil && id.User != "" {
			t.Errorf("%q: %+v, %v", s, id, err)
		}
	})
}
