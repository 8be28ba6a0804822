// Package auth checks tokens: static ones, and JSON Web Tokens. A check does no I/O.
//
// Of this module it imports codec.
package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"

	"heartwheel/codec"
)

// Limits, in bytes.
const (
	MaxUser         = 255
	DefaultMaxToken = 8 << 10
	minSecret       = 32
)

// The errors of Check: the code that the connection is closed with. They never have
// a part of the token.
var (
	ErrBadToken = &codec.Error{Code: codec.CodeBadToken, Text: "auth: bad or missing token"}
	ErrExpired  = &codec.Error{Code: codec.CodeTokenExpired, Text: "auth: token has expired"}
)

// An Identity is what a token says of its bearer.
type Identity struct {
	User     string          // UTF-8 without control characters, 1 to MaxUser bytes
	Expires  time.Time       // zero: never
	Info     json.RawMessage // claim info: of the application
	Channels []string        // claim channels: to subscribe to at once
	Device   string          // claim device
}

// A Config configures a Checker.
type Config struct {
	// Tokens are the users of static tokens, by the SHA-256 of a token in hex.
	// Tokens must be random, of 128 bits or more: a fast hash protects no words.
	Tokens map[string]string
	// Keys verify JSON Web Tokens.
	Keys []Key
	// Issuer and Audience are what iss must be, and aud must have; empty: any.
	Issuer, Audience string
	// Leeway is for clocks that differ.
	Leeway time.Duration
	// MaxToken is the longest token; 0: DefaultMaxToken.
	MaxToken int
}

// A Checker checks tokens. Safe for concurrent use.
type Checker struct {
	tokens map[[sha256.Size]byte]string
	keys   []Key
	parser *jwt.Parser
	max    int
}

// New returns a Checker, or everything that is wrong with c.
func New(c Config) (*Checker, error) {
	k := &Checker{tokens: map[[sha256.Size]byte]string{}, keys: c.Keys, max: c.MaxToken}
	if k.max == 0 {
		k.max = DefaultMaxToken
	}
	var wrong []error
	for hash, user := range c.Tokens {
		b, err := hex.DecodeString(hash)
		if err != nil || len(b) != sha256.Size {
			wrong = append(wrong, fmt.Errorf("auth: the hash for user %q is no SHA-256 in hex", user))
			continue
		}
		if !ValidUser(user) {
			wrong = append(wrong, fmt.Errorf("auth: user %.300q is not UTF-8 of 1 to %d bytes without controls",
				user, MaxUser))
		}
		k.tokens[[sha256.Size]byte(b)] = user
	}
	var methods []string
	for _, key := range c.Keys {
		if err := key.validate(); err != nil {
			wrong = append(wrong, err)
			continue
		}
		methods = append(methods, key.methods()...)
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(c.Leeway), jwt.WithStrictDecoding(),
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	k.parser = jwt.NewParser(options...)
	return k, nil
}

// claims are those of RFC 7519 and, named as Centrifugo names them, ours.
type claims struct {
	jwt.RegisteredClaims
	Info     json.RawMessage `json:"info"`
	Channels []string        `json:"channels"`
	Device   string          `json:"device"`
}

// Check returns whose token it is. The error is ErrExpired for a token that was
// good, ErrBadToken for any other, each wrapped with the reason, which is for the log.
func (k *Checker) Check(token string) (Identity, error) {
	if token == "" || len(token) > k.max {
		return Identity{}, refuse(ErrBadToken, fmt.Errorf("%d bytes", len(token)))
	}
	// The timing of a map tells of the hash only, which does not lead to a token.
	if user, ok := k.tokens[sha256.Sum256([]byte(token))]; ok {
		return Identity{User: user}, nil
	}
	if len(k.keys) == 0 || strings.Count(token, ".") != 2 {
		return Identity{}, refuse(ErrBadToken, errors.New("not known"))
	}
	var c claims
	_, err := k.parser.ParseWithClaims(token, &c, k.keyFor)
	// The signature is checked before the claims, of which all errors are joined.
	expired := errors.Is(err, jwt.ErrTokenExpired)
	for _, other := range []error{jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer, jwt.ErrTokenNotValidYet,
		jwt.ErrTokenUsedBeforeIssued, jwt.ErrTokenRequiredClaimMissing} {
		expired = expired && !errors.Is(err, other)
	}
	switch {
	case expired:
		return Identity{}, refuse(ErrExpired, err)
	case err != nil:
		return Identity{}, refuse(ErrBadToken, err)
	case !ValidUser(c.Subject):
		return Identity{}, refuse(ErrBadToken, errors.New("sub is no user"))
	case c.Device != "" && !ValidUser(c.Device):
		return Identity{}, refuse(ErrBadToken, errors.New("device is no name"))
	case slices.ContainsFunc(c.Channels, func(s string) bool { return s == "" || len(s) > codec.MaxSubject }):
		return Identity{}, refuse(ErrBadToken, errors.New("channels has a bad name"))
	}
	return Identity{c.Subject, c.ExpiresAt.Time, c.Info, c.Channels, c.Device}, nil
}

// keyFor returns the keys that may have signed a token: those for its algorithm and,
// where a key has an ID, for its kid.
func (k *Checker) keyFor(t *jwt.Token) (any, error) {
	kid, _ := t.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, key := range k.keys {
		if slices.Contains(key.methods(), t.Method.Alg()) && (key.ID == "" || key.ID == kid) {
			set.Keys = append(set.Keys, key.verifier())
		}
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("no key for its algorithm and kid")
	}
	return set, nil
}

// refuse returns one of the errors of Check with its reason.
func refuse(e *codec.Error, why error) error { return fmt.Errorf("%w: %w", e, why) }

// ValidUser reports whether s can be a user: UTF-8 of 1 to MaxUser bytes without
// control characters, such as auth0|5f7c.
func ValidUser(s string) bool {
	return s != "" && len(s) <= MaxUser && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
