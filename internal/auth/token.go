package auth

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"heartwheel/codec"
)

// algorithms are all that keys may have. Each key is for its own.
var algorithms = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA",
}

// A checker checks tokens without I/O. Safe for concurrent use.
type checker struct {
	tokens map[[sha256.Size]byte]string
	keys   []Key
	parser *jwt.Parser
	max    int
	leeway time.Duration
}

// newChecker returns a checker for a valid configuration.
func newChecker(c Config) (*checker, error) {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms), jwt.WithExpirationRequired(), jwt.WithLeeway(c.Leeway),
		jwt.WithStrictDecoding(),
	}
	if c.Issuer != "" {
		options = append(options, jwt.WithIssuer(c.Issuer))
	}
	if c.Audience != "" {
		options = append(options, jwt.WithAudience(c.Audience))
	}
	tokens, err := c.tokenTable()
	parser := jwt.NewParser(options...)
	return &checker{tokens: tokens, keys: c.Keys, parser: parser, max: c.MaxToken, leeway: c.Leeway}, err
}

// claims are those of RFC 7519 and, named as Centrifugo names them, ours.
type claims struct {
	jwt.RegisteredClaims
	Info     json.RawMessage `json:"info"`
	Channels []string        `json:"channels"`
	Device   string          `json:"device"`
}

// check returns whose token it is. Keys are more that may have signed it. The error
// wraps ErrExpired for a token that was good, ErrBadToken for any other.
func (k *checker) check(token string, keys []Key) (Identity, error) {
	if token == "" || len(token) > k.max {
		return Identity{}, refuse(ErrBadToken, fmt.Errorf("%d bytes", len(token)))
	}
	if len(k.tokens) > 0 {
		// The timing of a map tells of the hash only, which does not lead to a token.
		if user, ok := k.tokens[sha256.Sum256([]byte(token))]; ok {
			return Identity{User: user}, nil
		}
		return Identity{}, refuse(ErrBadToken, errors.New("not known"))
	}
	if strings.Count(token, ".") != 2 {
		return Identity{}, refuse(ErrBadToken, errors.New("not a JSON Web Token"))
	}
	var c claims
	_, err := k.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		return keyFor(t, k.keys, keys)
	})
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
	case !validChannels(c.Channels):
		return Identity{}, refuse(ErrBadToken, errors.New("channels has a bad name"))
	}
	// With the leeway, as the token is good until then.
	return Identity{User: c.Subject, Expires: c.ExpiresAt.Add(k.leeway), Info: given(c.Info), Channels: c.Channels,
		Device: c.Device}, nil
}

// keyFor returns the keys that may have signed a token: those for its algorithm and,
// where a key has an ID, for its kid.
func keyFor(t *jwt.Token, lists ...[]Key) (any, error) {
	if _, ok := t.Header["crit"]; ok { // RFC 7515, 4.1.11: extensions that must be understood
		return nil, errors.New("it has critical extensions")
	}
	kid, _ := t.Header["kid"].(string)
	var set jwt.VerificationKeySet
	for _, keys := range lists {
		for _, key := range keys {
			if slices.Contains(key.methods(), t.Method.Alg()) && (key.ID == "" || key.ID == kid) {
				set.Keys = append(set.Keys, key.verifier())
			}
		}
	}
	if len(set.Keys) == 0 {
		if strings.HasPrefix(t.Method.Alg(), "HS") { // not of a JWK set
			return nil, errors.New("no secret for it")
		}
		return nil, &noKeyError{kid}
	}
	return set, nil
}

func validChannels(names []string) bool {
	return !slices.ContainsFunc(names, func(s string) bool { return s == "" || len(s) > codec.MaxSubject })
}
