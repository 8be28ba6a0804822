package auth

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestReadTokens(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	read := func(text string) (map[string]string, error) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadTokens(file)
	}
	token, line, err := NewToken("auth0|5f7c")
	if err != nil || len(token) < 26 {
		t.Fatalf("%q, %v", token, err)
	}
	tokens, err := read("# devices\n\n" + line + "\r\n\t" + strings.ToUpper(hashOf(static)) + "\t pump 7 \n")
	if err != nil || len(tokens) != 2 || tokens[hashOf(static)] != "pump 7" {
		t.Fatalf("%v, %v", tokens, err)
	}
	a := newAuthenticator(t, Config{Mode: Tokens, Tokens: tokens})
	if id, err := ask(t, a, Request{Token: token}); id.User != "auth0|5f7c" {
		t.Errorf("%+v, %v", id, err)
	}
	_, err = read("hunter2 pump\n" + line + "\n" + hashOf("x") + "\n" + hashOf("x")[1:] + " y\n" + line + "\n" +
		hashOf("z") + " a\u0001b\n")
	want := []string{":1: it does not begin with", ":3: there is no user", ":4: it does not begin",
		":5: it has the hash of line 2", ":6: there is no user"}
	for i, l := range strings.Split(fmt.Sprint(err), "\n") {
		if i >= len(want) || !strings.Contains(l, file+want[i]) || strings.Contains(l, "hunter2") {
			t.Errorf("line %d: %s", i, l)
		}
	}
	for _, text := range []string{"", "# none\n", strings.Repeat("x", 1<<20)} {
		if tokens, err := read(text); err == nil {
			t.Errorf("%.10q: %v", text, tokens)
		}
	}
	if _, err := ReadTokens(file + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	for _, user := range []string{"", "a\n", " a", strings.Repeat("x", 256)} {
		if _, _, err := NewToken(user); err == nil {
			t.Errorf("%q", user)
		}
	}
}

func TestExposed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode           os.FileMode
		secret, public string
	}{
		{0o600, "", ""}, {0o640, "", ""}, {0o644, "read by every user (mode 0644)", ""},
		{0o660, "changed by other users", "changed by other users"}, {0o602, "changed", "changed"},
	} {
		if err := os.Chmod(file, c.mode); err != nil {
			t.Fatal(err)
		}
		for secret, want := range map[bool]string{true: c.secret, false: c.public} {
			if got := Exposed(file, secret); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("%o, secret %t: %q", c.mode, secret, got)
			}
		}
	}
	if got := Exposed(file+"x", true) + Exposed(os.DevNull, true); got != "" {
		t.Error(got)
	}
}

// TestSign: a token of each type of key is good for what verifies it.
func TestSign(t *testing.T) {
	s := theSigner()
	dir := t.TempDir()
	file := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		name = filepath.Join(dir, name)
		// As openssl ecparam -genkey writes it, with another block in front.
		b := append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS"}),
			pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ecDER, ecErr := x509.MarshalECPrivateKey(s.ec)
	edDER, edErr := x509.MarshalPKCS8PrivateKey(s.ed)
	for _, c := range []struct {
		alg, file string
		key       Key
	}{
		{"HS256", "", Key{Secret: secret}},
		{"RS256", file("rsa", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(s.rsa), nil), Key{Public: s.rsa.Public()}},
		{"ES256", file("ec", "EC PRIVATE KEY", ecDER, ecErr), Key{Public: s.ec.Public()}},
		{"EdDSA", file("ed", "PRIVATE KEY", edDER, edErr), Key{Public: s.ed.Public()}},
	} {
		signer, err := NewSigner(c.key)
		if c.file != "" {
			if err == nil {
				t.Errorf("%s: a public key signs", c.alg)
			}
			signer, err = ReadSigner(c.file)
		}
		if err != nil || signer.Algorithm() != c.alg ||
			strings.Contains(fmt.Sprintf("%v%+v%#v%s", signer, signer, signer, signer), string(secret)) {
			t.Fatalf("%s: %v", c.alg, err)
		}
		c.key.ID = "k1"
		token, err := signer.Sign(Claims{KeyID: "k1", User: "u", Issuer: "i", Audience: "a", Issued: time.Now(),
			Expires: time.Now().Add(time.Hour), Device: "d", Channels: []string{"x"}, Info: json.RawMessage(`{"n":1}`)})
		if err != nil {
			t.Fatal(err)
		}
		a := newAuthenticator(t, Config{Mode: JWT, Keys: []Key{c.key}, Issuer: "i", Audience: "a"})
		id, err := ask(t, a, Request{Token: token})
		if err != nil || id.User != "u" || id.Device != "d" || len(id.Channels) != 1 || string(id.Info) != `{"n":1}` ||
			time.Until(id.Expires) < 59*time.Minute {
			t.Errorf("%s: %+v, %v", c.alg, id, err)
		}
	}
	signer, _ := NewSigner(Key{Secret: secret})
	for _, bad := range []Claims{{}, {User: "u", Device: "\n"}, {User: "u", Channels: []string{""}},
		{User: "u", Info: json.RawMessage("{")}} {
		if token, err := signer.Sign(bad); err == nil {
			t.Errorf("%+v: %s", bad, token)
		}
	}
	if _, err := NewSigner(Key{Secret: []byte("short")}); err == nil {
		t.Error("a short secret signs")
	}
	for _, bad := range []string{dir + "/none", file("public", "PUBLIC KEY", nil, nil),
		file("broken", "PRIVATE KEY", nil, nil)} {
		if _, err := ReadSigner(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
