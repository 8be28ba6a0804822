package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A Signer makes JSON Web Tokens. It prints without its key.
type Signer struct {
	public Key // what verifies them; the secret itself
	sign   any // what the library signs with
}

// NewSigner returns a Signer with a secret.
func NewSigner(secret Key) (Signer, error) {
	if secret.Public != nil {
		return Signer{}, errors.New("auth: a public key signs nothing")
	}
	return Signer{secret, secret.Secret}, secret.validate()
}

// ReadSigner reads a private key in PEM: RSA, ECDSA or Ed25519, not encrypted.
func ReadSigner(file string) (Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return Signer{}, fmt.Errorf("auth: key: %w", err)
	}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return Signer{}, fmt.Errorf("auth: key: %s has no private key in PEM", file)
		}
		var private any
		switch block.Type {
		case "PRIVATE KEY":
			private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			private, err = x509.ParseECPrivateKey(block.Bytes)
		default: // such as EC PARAMETERS
			continue
		}
		s := Signer{sign: private}
		if err == nil {
			s.public, err = publicOf(private)
		}
		if err != nil {
			return Signer{}, fmt.Errorf("auth: key %s: %w", file, err)
		}
		return s, nil
	}
}

func publicOf(private any) (Key, error) {
	switch private.(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		k := Key{Public: private.(crypto.Signer).Public()}
		return k, k.validate()
	}
	return Key{}, fmt.Errorf("keys of type %T are not supported", private)
}

// Algorithm is that of its tokens: the first of its type of key.
func (s Signer) Algorithm() string { return s.public.methods()[0] }

// String tells the kind of key.
func (s Signer) String() string { return s.public.String() }

// Format prints String for every verb.
func (s Signer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// Claims are what a token says. Empty ones are left out.
type Claims struct {
	KeyID            string // kid of the header
	User             string
	Issuer, Audience string
	Issued, Expires  time.Time
	Device           string
	Channels         []string
	Info             json.RawMessage
}

// Sign returns a token.
func (s Signer) Sign(c Claims) (string, error) {
	switch {
	case !ValidUser(c.User):
		return "", fmt.Errorf("auth: user %.300q is not UTF-8 of 1 to %d bytes without controls", c.User, MaxUser)
	case c.Device != "" && !ValidUser(c.Device):
		return "", fmt.Errorf("auth: device %.300q is not UTF-8 of 1 to %d bytes without controls", c.Device, MaxUser)
	case !validChannels(c.Channels):
		return "", errors.New("auth: a channel name has 1 to 255 bytes")
	case c.Info != nil && !json.Valid(c.Info):
		return "", errors.New("auth: info is not JSON")
	}
	claims := jwt.MapClaims{"sub": c.User, "iat": c.Issued.Unix(), "exp": c.Expires.Unix()}
	for name, value := range map[string]string{"iss": c.Issuer, "aud": c.Audience, "device": c.Device} {
		if value != "" {
			claims[name] = value
		}
	}
	if len(c.Channels) > 0 {
		claims["channels"] = c.Channels
	}
	if c.Info != nil {
		claims["info"] = c.Info
	}
	token := jwt.NewWithClaims(jwt.GetSigningMethod(s.Algorithm()), claims)
	if c.KeyID != "" {
		token.Header["kid"] = c.KeyID
	}
	text, err := token.SignedString(s.sign)
	if err != nil {
		return "", fmt.Errorf("auth: %w", err)
	}
	return text, nil
}
