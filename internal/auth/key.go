package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// A Key verifies tokens with the algorithms of its type and no other, so that a
// public key is never taken for a secret.
type Key struct {
	ID     string // the kid of its tokens; empty: any
	Secret []byte // HS256, HS384, HS512
	// Public is an *rsa.PublicKey for RS256, RS384 and RS512, an *ecdsa.PublicKey for
	// the ES of its curve, or an ed25519.PublicKey for EdDSA.
	Public crypto.PublicKey
	// Algorithm is the only one of these, such as RS256; empty: all of them.
	Algorithm string
}

// String tells the kind of key.
func (k Key) String() string {
	if k.Public == nil {
		return fmt.Sprintf("secret of %d bytes", len(k.Secret))
	}
	return fmt.Sprintf("%T", k.Public)
}

// Format prints String for every verb.
func (k Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(k.String())) }

// LogValue logs String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalText has JSON, and logs of what contains it, show String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// methods returns the algorithms of the key.
func (k Key) methods() []string {
	all := k.typeMethods()
	if k.Algorithm == "" {
		return all
	}
	if i := slices.Index(all, k.Algorithm); i >= 0 {
		return all[i : i+1]
	}
	return nil
}

var (
	hsMethods = []string{"HS256", "HS384", "HS512"}
	rsMethods = []string{"RS256", "RS384", "RS512"}
)

func (k Key) typeMethods() []string {
	switch p := k.Public.(type) {
	case nil:
		return hsMethods
	case *rsa.PublicKey:
		return rsMethods
	case *ecdsa.PublicKey:
		switch p.Curve.Params().BitSize {
		case 256:
			return []string{"ES256"}
		case 384:
			return []string{"ES384"}
		case 521:
			return []string{"ES512"}
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}
	}
	return nil
}

func (k Key) verifier() jwt.VerificationKey {
	if k.Public == nil {
		return k.Secret
	}
	return k.Public
}

func (k Key) validate() error {
	switch p, isRSA := k.Public.(*rsa.PublicKey); {
	case k.Public == nil && len(k.Secret) < minSecret:
		return fmt.Errorf("auth: a secret of %d bytes is too short: use %d random ones", len(k.Secret), minSecret)
	case k.Public != nil && k.Secret != nil:
		return errors.New("auth: a key is either a secret or public")
	case isRSA && (p.N.BitLen() < 2048 || p.N.BitLen() > 8192): // a longer one takes milliseconds
		return fmt.Errorf("auth: an RSA key of %d bits: use 2048 to 8192", p.N.BitLen())
	case len(k.typeMethods()) > 0 && len(k.methods()) == 0:
		return fmt.Errorf("auth: a key for %q: it can be for %s", k.Algorithm, strings.Join(k.typeMethods(), ", "))
	case len(k.methods()) == 0:
		return fmt.Errorf("auth: keys of type %T, or of this curve, are not supported", k.Public)
	}
	return nil
}

// ReadSecret reads a secret from a file. A line end at its end does not count.
func ReadSecret(file string) (Key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("auth: secret: %w", err)
	}
	k := Key{Secret: bytes.TrimRight(b, "\r\n")}
	if err := k.validate(); err != nil {
		return Key{}, fmt.Errorf("%w (%s)", err, file)
	}
	return k, nil
}

// ReadKey reads a public key, or the one of a certificate, in PEM.
func ReadKey(file string) (Key, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Key{}, fmt.Errorf("auth: key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return Key{}, fmt.Errorf("auth: key: %s is not in PEM", file)
	}
	var k Key
	switch block.Type {
	case "PUBLIC KEY":
		k.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		k.Public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			k.Public = c.PublicKey
		}
	default:
		err = fmt.Errorf("it has a %s in place of a public key", block.Type)
	}
	if err == nil {
		err = k.validate()
	}
	if err != nil {
		return Key{}, fmt.Errorf("auth: key %s: %w", file, err)
	}
	return k, nil
}
