package auth

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A Mode is how clients are identified.
type Mode string

// The modes.
const (
	None   Mode = "none"   // not at all: all are anonymous
	Tokens Mode = "tokens" // static tokens
	JWT    Mode = "jwt"    // JSON Web Tokens
	MTLS   Mode = "mtls"   // client certificates
	Hook   Mode = "hook"   // an HTTP server of the operator
)

// Modes lists them.
var Modes = []Mode{None, Tokens, JWT, MTLS, Hook}

// Defaults and limits.
const (
	DefaultMaxToken = 8 << 10 // bytes
	DefaultTimeout  = 3 * time.Second
	DefaultQueue    = 1024

	DefaultHookCalls = 64

	DefaultJWKSInterval = 10 * time.Minute
	DefaultJWKSCooldown = 30 * time.Second

	minSecret = 32 // bytes
)

// A Config configures an Authenticator. It prints without secrets.
type Config struct {
	// Mode is how clients are identified; empty: None. Fields of another mode must not
	// be set.
	Mode Mode

	// Tokens are the users of static tokens, by the SHA-256 of a token in hex.
	// Tokens must be random, of 128 bits or more: a fast hash protects no words.
	Tokens map[string]string

	// Keys verify JSON Web Tokens.
	Keys []Key
	// JWKS is the URL of a JWK set with more keys: https, or http to this machine. A
	// proxy of the environment is used.
	JWKS string
	// JWKSInterval is the time between two fetches; 0: DefaultJWKSInterval.
	JWKSInterval time.Duration
	// JWKSCooldown is the least time between two fetches for the sake of key IDs that
	// are not known; 0: DefaultJWKSCooldown.
	JWKSCooldown time.Duration
	// Issuer and Audience are what iss must be, and aud must have; empty: any.
	Issuer, Audience string
	// Leeway is for clocks that differ.
	Leeway time.Duration

	// HookURL is what says who a client is: https, or http to a private address.
	HookURL string
	// HookHeaders are the headers of a WebSocket request that are passed on.
	HookHeaders []string

	// MaxToken is the longest token, in bytes; 0: DefaultMaxToken.
	MaxToken int
	// Timeout bounds a check with the time that it waits for its turn, a call of the
	// hook and a fetch of the JWK set; 0: DefaultTimeout.
	Timeout time.Duration
	// Workers is how many checks run at one time; 0: DefaultHookCalls with a hook, else
	// one for each processor.
	Workers int
	// Queue is how many checks wait; 0: DefaultQueue.
	Queue int

	Logger *slog.Logger // nil: none

	transport http.RoundTripper // in place of the network, for tests
}

// String tells the mode and how much there is of what is secret.
func (c Config) String() string {
	return fmt.Sprintf("mode %s, %d tokens, %d keys", c.Mode, len(c.Tokens), len(c.Keys))
}

// Format prints String for every verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(c.String())) }

// LogValue logs String.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText has JSON, and logs of what contains it, show String.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Validate returns everything that is wrong with c. It does no I/O.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults returns c with its defaults, or everything that is wrong with it.
func (c Config) withDefaults() (Config, error) {
	if c.Mode == "" {
		c.Mode = None
	}
	workers := runtime.GOMAXPROCS(0)
	if c.Mode == Hook {
		workers = DefaultHookCalls
	}
	wrong := []error{
		bounded(&c.MaxToken, "MaxToken", DefaultMaxToken, 16, 1<<20),
		bounded(&c.Workers, "Workers", workers, 1, 4096),
		bounded(&c.Queue, "Queue", DefaultQueue, 1, 1<<20),
		bounded(&c.Timeout, "Timeout", DefaultTimeout, 10*time.Millisecond, time.Minute),
		bounded(&c.JWKSInterval, "JWKSInterval", DefaultJWKSInterval, time.Second, 24*time.Hour),
		bounded(&c.JWKSCooldown, "JWKSCooldown", DefaultJWKSCooldown, time.Second, time.Hour),
	}
	report := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf("auth: "+format, args...)) }
	if c.Leeway < 0 || c.Leeway > 10*time.Minute {
		report("Leeway of %s: use 0 to 10m", c.Leeway)
	}
	if !slices.Contains(Modes, c.Mode) {
		report("there is no mode %q", string(c.Mode))
	}
	for _, f := range []struct {
		name string
		set  bool
		mode Mode
	}{
		{"Tokens", len(c.Tokens) > 0, Tokens}, {"Keys", len(c.Keys) > 0, JWT}, {"JWKS", c.JWKS != "", JWT},
		{"Issuer", c.Issuer != "", JWT}, {"Audience", c.Audience != "", JWT}, {"Leeway", c.Leeway != 0, JWT},
		{"HookURL", c.HookURL != "", Hook}, {"HookHeaders", len(c.HookHeaders) > 0, Hook},
	} {
		if f.set && f.mode != c.Mode {
			report("%s is for mode %s, and the mode is %s", f.name, string(f.mode), string(c.Mode))
		}
	}
	switch {
	case c.Mode == Tokens && len(c.Tokens) == 0:
		report("mode tokens needs a token")
	case c.Mode == JWT && len(c.Keys) == 0 && c.JWKS == "":
		report("mode jwt needs a key, a secret or a JWK set")
	}
	switch {
	case c.Mode == Hook && c.HookURL == "":
		report("mode hook needs a URL")
	case c.HookURL != "":
		_, err := parseEndpoint("HookURL", c.HookURL, private, hookWhere)
		wrong = append(wrong, err, checkHeaders(c.HookHeaders))
	}
	if c.JWKS != "" {
		_, err := parseEndpoint("JWKS", c.JWKS, loopback, "this machine")
		wrong = append(wrong, err)
	}
	_, err := c.tokenTable()
	wrong = append(wrong, err)
	for _, key := range c.Keys {
		wrong = append(wrong, key.validate())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, errors.Join(wrong...)
}

// bounded sets *v to byDefault if it is zero, and says if it is out of range.
func bounded[T int | time.Duration](v *T, name string, byDefault, least, most T) error {
	if *v == 0 {
		*v = byDefault
	}
	if *v < least || *v > most {
		return fmt.Errorf("auth: %s of %v: use %v to %v", name, *v, least, most)
	}
	return nil
}

// tokenTable returns the users of Tokens by hash, or everything that is wrong.
func (c Config) tokenTable() (map[[sha256.Size]byte]string, error) {
	table := make(map[[sha256.Size]byte]string, len(c.Tokens))
	var wrong []error
	for hash, user := range c.Tokens {
		b, err := hex.DecodeString(hash)
		if err != nil || len(b) != sha256.Size {
			wrong = append(wrong, fmt.Errorf("auth: the hash for user %.300q is no SHA-256 in hex", user))
			continue
		}
		if !ValidUser(user) {
			wrong = append(wrong, fmt.Errorf("auth: user %.300q is not UTF-8 of 1 to %d bytes without controls",
				user, MaxUser))
		}
		table[[sha256.Size]byte(b)] = user
	}
	slices.SortFunc(wrong, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return table, errors.Join(wrong...)
}
