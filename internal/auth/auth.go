// Package auth says who a client is: by a static token, a JSON Web Token, its TLS
// certificate, or the answer of an HTTP hook. An Authenticator checks off the event
// loops, with bounds on what it does at one time and on what waits.
//
// Of this module it imports codec.
package auth

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"heartwheel/codec"
)

// MaxUser is the longest user, in bytes.
const MaxUser = 255

// The reasons for a refusal: the code that the connection is closed with, and the
// text for the peer. An error of a check wraps one of them, or a *codec.Error of the
// hook, with the cause, which is for the log. It never has a part of the token.
var (
	// ErrBadToken is terminal for a client.
	ErrBadToken = &codec.Error{Code: codec.CodeBadToken, Text: "bad or missing token"}
	// ErrExpired is for a token that was good.
	ErrExpired = &codec.Error{Code: codec.CodeTokenExpired, Text: "token has expired"}
	// ErrUnavailable says nothing of the token: there was no time, or no answer of the
	// hook, or no keys yet. The client comes back.
	ErrUnavailable = &codec.Error{Code: codec.CodeOverloaded, Text: "authentication is not available now"}
)

// An Identity is what is known of a client.
type Identity struct {
	User     string          // UTF-8 without control characters, to MaxUser bytes; empty: anonymous
	Expires  time.Time       // zero: never
	Info     json.RawMessage // of the application, for others to see
	Data     json.RawMessage // of the application, for the client; from a hook only
	Channels []string        // to subscribe to at once
	Device   string
}

// A Request is what a client showed. Its strings, maps and slices must not change
// until the check is done, which keeps none of them.
type Request struct {
	Token       string            // empty: none
	Certificate *x509.Certificate // of the client, verified; nil: none

	// What follows is for the hook.
	Client                        string // session ID
	Transport, Protocol, Encoding string
	Name, Version                 string          // of the client's program
	Data                          json.RawMessage // of the client
	RemoteAddr                    netip.Addr
	Header                        http.Header // of the WebSocket request; else nil
}

// String leaves out what is secret.
func (r Request) String() string {
	return fmt.Sprintf("request of %s (%s), token of %d bytes", r.RemoteAddr, r.Transport, len(r.Token))
}

// Format prints String for every verb.
func (r Request) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// LogValue logs String.
func (r Request) LogValue() slog.Value { return slog.StringValue(r.String()) }

// MarshalText has JSON, and logs of what contains it, show String.
func (r Request) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// A refusal is an error of a check.
type refusal struct {
	code *codec.Error
	why  error
}

// Error is at most maxError bytes: causes may hold values of a peer's JSON.
func (r *refusal) Error() string {
	s := "auth: " + r.code.Text + ": " + r.why.Error()
	return s[:min(len(s), maxError)]
}

func (r *refusal) Unwrap() []error { return []error{r.code, r.why} }

const maxError = 200

// refuse returns an error of a check with its cause.
func refuse(code *codec.Error, why error) error { return &refusal{code, why} }

// ValidUser reports whether s can be a user: UTF-8 of 1 to MaxUser bytes without
// control characters, such as auth0|5f7c.
func ValidUser(s string) bool {
	return s != "" && len(s) <= MaxUser && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// identify returns whose certificate it is: its only URI, as SPIFFE has it, or else
// the common name of its subject.
func identify(c *x509.Certificate) (Identity, error) {
	if c == nil {
		return Identity{}, refuse(ErrBadToken, errors.New("no certificate"))
	}
	user := c.Subject.CommonName
	if len(c.URIs) == 1 {
		user = c.URIs[0].String()
	}
	if !ValidUser(user) {
		return Identity{}, refuse(ErrBadToken, errors.New("the certificate has neither one URI nor a common name"))
	}
	if !time.Now().Before(c.NotAfter) {
		return Identity{}, refuse(ErrExpired, fmt.Errorf("certificate of %q", user))
	}
	return Identity{User: user, Expires: c.NotAfter}, nil
}
