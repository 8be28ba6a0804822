package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/auth"
)

// An Auth says how the clients of a listener are identified.
type Auth struct {
	// Mode is none, tokens, jwt, mtls or hook; empty: none. Except with mtls a client
	// sends its token in HELLO, which is required then, or in the request for a
	// WebSocket. With mtls its certificate says who it is: see ClientCA.
	Mode string
	// TokensFile has the users of static tokens: a line for each with the SHA-256 of a
	// token in hex, a space and the user.
	TokensFile string
	// SecretFile and KeyFiles verify JSON Web Tokens: a secret of 32 bytes or more, and
	// public keys in PEM.
	SecretFile string
	KeyFiles   []string
	// JWKS is the URL of a JWK set with more keys: https, or http to this machine.
	JWKS string
	// Issuer and Audience are what a token's iss must be, and its aud must have; empty:
	// any.
	Issuer, Audience string
	Leeway           time.Duration // for clocks that differ
	// Hook is the URL of an HTTP server that says who a client is: https, or http to a
	// private address. HookHeaders are the headers of a request for a WebSocket that it
	// gets. See docs/auth.md.
	Hook        string
	HookHeaders []string
}

// off reports whether clients are not identified.
func (a *Auth) off() bool { return a.Mode == "" || a.Mode == string(auth.None) }

// hookCookies reports whether a hook gets cookies.
func (a *Auth) hookCookies() bool {
	return slices.ContainsFunc(a.HookHeaders, func(name string) bool { return strings.EqualFold(name, "Cookie") })
}

// set lists the fields beside Mode that are set, as errors write them.
func (a *Auth) set() (all []string) {
	v := reflect.ValueOf(*a)
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; name != "Mode" && !v.Field(i).IsZero() {
			all = append(all, "Config."+name)
		}
	}
	return all
}

// load reads the files of a and reports everything that is wrong.
func (a *Auth) load(cfg *Config) (c auth.Config, err error) {
	if a.off() {
		return c, nil
	}
	c = auth.Config{
		Mode: auth.Mode(a.Mode), JWKS: a.JWKS, Issuer: a.Issuer, Audience: a.Audience, Leeway: a.Leeway,
		HookURL: a.Hook, HookHeaders: a.HookHeaders, Logger: cfg.Logger,
	}
	var errs []error
	if a.TokensFile != "" {
		c.Tokens, err = auth.ReadTokens(a.TokensFile)
		errs = append(errs, err)
	}
	if a.SecretFile != "" {
		key, err := auth.ReadSecret(a.SecretFile)
		c.Keys, errs = append(c.Keys, key), append(errs, err)
	}
	for _, file := range a.KeyFiles {
		key, err := auth.ReadKey(file)
		c.Keys, errs = append(c.Keys, key), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// An Identity is what is known of a client.
type Identity = auth.Identity

// User returns who the client is; empty: it is anonymous. Loop only.
func (c *Conn) User() string { return c.Identity().User }

// Identity returns what is known of the client. Loop only.
func (c *Conn) Identity() Identity {
	if c.ext == nil || c.ext.identity == nil {
		return Identity{}
	}
	return *c.ext.identity
}

// errAuthBusy: too many checks wait.
var errAuthBusy = &codec.Error{Code: codec.CodeOverloaded, Text: "too many clients are being identified"}

// authenticator returns what identifies the client of c; nil: nothing does.
func (l *loop) authenticator(c *Conn) *auth.Authenticator { return l.edges[c.edge].auth }

// owesToken reports whether a client must say who it is before anything else.
func (l *loop) owesToken(c *Conn) bool {
	return l.authenticator(c) != nil && (c.ext == nil || c.ext.identity == nil)
}

// identify has r checked, stores who c is, and calls then in a callback of c: now or
// later, unless c has closed by then. It closes c if the check refuses it; the user of a
// connection does not change. With pause the input of c waits for all that.
func (l *loop) identify(c *Conn, r auth.Request, pause bool, then func()) {
	r.Client, r.Transport, r.Protocol = c.ID(), c.transportName(), "heartwheel"
	if a := ipOf(c.RemoteAddr()); a != netip.IPv6Unspecified() {
		r.RemoteAddr = a
	}
	r.Certificate = certificateOf(c)
	a := l.authenticator(c)
	if id, ok, err := a.CheckNow(r); ok {
		l.checked(c, id, err, then)
		return
	}
	if pause {
		Session{c}.ExpectHandshake()
		l.pause(c, flagAuth)
	}
	done := func(id Identity, err error) {
		_ = l.mail.postOwn(func() { // it fails for a loop that has ended
			l.do(task{c, func(c *Conn) {
				if pause {
					Session{c}.Established()
				}
				l.checked(c, id, err, then)
				if pause {
					l.resume(c, flagAuth)
				}
			}})
		})
	}
	if !a.Check(r, done) {
		l.refuseToken(c, errAuthBusy)
	}
}

// checked acts on the result of a check.
func (l *loop) checked(c *Conn, id Identity, err error, then func()) {
	switch {
	case err != nil:
		l.refuseToken(c, err)
	case c.ext != nil && c.ext.identity != nil && id.User != c.User():
		l.close(c, BadToken, codec.CodeBadToken, "token of another user")
	default:
		l.identified(c, id)
		then()
	}
}

// transportName is how a hook knows what c comes over.
func (c *Conn) transportName() string {
	switch e := &c.loop.edges[c.edge]; {
	case e.bodies:
		return "websocket"
	case c.ext != nil && c.ext.edge != nil && c.ext.edge.transport != nil:
		return "tls"
	}
	return "tcp"
}

// expiryMost is when a token expires at the latest: codec/SPEC.md has no longer times.
const expiryMost = 10 * 365 * 24 * time.Hour

// identified stores who c is.
func (l *loop) identified(c *Conn, id Identity) {
	x := c.ensureExt()
	x.identity, x.expireAt = &id, 0
	if !id.Expires.IsZero() {
		x.expireAt = l.now + int64(min(max(1, time.Until(id.Expires)), expiryMost))
	}
	l.recheck(c)
}

// expiresMS returns how long the token of c is still good, in ms; 0: it does not expire.
func (l *loop) expiresMS(c *Conn) int64 {
	if c.ext == nil || c.ext.expireAt == 0 {
		return 0
	}
	return max(1, (c.ext.expireAt-l.now)/1e6)
}

// refuseToken closes c for the error of a check.
func (l *loop) refuseToken(c *Conn, err error) {
	n := Notice{Reason: BadToken, Code: codec.CodeBadToken, Text: "token refused", cause: err}
	var e *codec.Error
	if errors.As(err, &e) {
		n.Code, n.Text = e.Code, e.Text
	}
	switch n.Code {
	case codec.CodeTokenExpired:
		n.Reason = TokenExpired
	case codec.CodeOverloaded:
		n.Reason, n.After = AuthBusy, l.cfg.Spread
	}
	l.end(c, n)
}

// certificateOf returns the certificate of the client of c, if it has one.
func certificateOf(c *Conn) *x509.Certificate {
	if c.ext == nil || c.ext.edge == nil {
		return nil
	}
	t, ok := c.ext.edge.transport.(interface{ State() tls.ConnectionState })
	if !ok {
		return nil
	}
	if all := t.State().PeerCertificates; len(all) > 0 {
		return all[0]
	}
	return nil
}

// tokenCookie is the cookie of a request for a WebSocket that may have the token.
const tokenCookie = "token"

// An authGroup is all paths whose clients are identified alike, by one Authenticator.
type authGroup struct {
	auth   Auth
	config auth.Config // what its files had
	url    string      // of one path
	a      *auth.Authenticator
	kept   bool // a was in force before
	err    error
}

// makeAuths makes what identifies the clients of each path of ends; nil: nothing does.
// configs are those of the paths. Where was, which may be nil, has an Authenticator for
// the same Auth, that is kept and has its files again. JWK sets that are new are fetched:
// all at the same time, 3 s at most. After an error nothing has changed.
func makeAuths(ends []endpoint, configs [][]auth.Config, was *inForce) ([][]*auth.Authenticator, error) {
	var groups []*authGroup
	groupOf := func(a Auth) *authGroup {
		i := slices.IndexFunc(groups, func(g *authGroup) bool { return reflect.DeepEqual(g.auth, a) })
		if i < 0 {
			return nil
		}
		return groups[i]
	}
	for i, e := range ends {
		for j, p := range e.paths {
			if !p.auth.off() && groupOf(p.auth) == nil {
				a := was.authenticator(p.auth)
				groups = append(groups,
					&authGroup{auth: p.auth, config: configs[i][j], url: e.url(p), a: a, kept: a != nil})
			}
		}
	}
	var made sync.WaitGroup
	for _, g := range groups {
		made.Go(g.make)
	}
	made.Wait()
	var errs []error
	for _, g := range groups {
		if g.err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", g.url, g.err))
		}
	}
	if len(errs) > 0 {
		for _, g := range groups {
			if !g.kept && g.a != nil {
				g.a.Close()
			}
		}
		return nil, errors.Join(errs...)
	}
	all := make([][]*auth.Authenticator, len(ends))
	for i, e := range ends {
		for _, p := range e.paths {
			var a *auth.Authenticator
			if g := groupOf(p.auth); g != nil {
				a = g.a
			}
			all[i] = append(all[i], a)
		}
	}
	return all, nil
}

// make makes the Authenticator of g, or gives it what its files have now.
func (g *authGroup) make() {
	if g.kept {
		g.err = g.a.Reload(g.config)
	} else {
		g.a, g.err = auth.NewAuthenticator(g.config)
	}
	if g.err == nil {
		g.auth.warnExposed(g.config.Logger)
	}
}

// warnExposed warns of files that others can change, or read if they are secret.
func (a *Auth) warnExposed(log *slog.Logger) {
	warn := func(file string, secret bool) {
		if exposed := auth.Exposed(file, secret); exposed != "" {
			log.Warn("a file that identifies clients is not safe", "file", file, "fix", exposed)
		}
	}
	warn(a.TokensFile, false)
	warn(a.SecretFile, true)
	for _, file := range a.KeyFiles {
		warn(file, false)
	}
}

// authenticator returns the one in f for this Auth; nil: there is none.
func (f *inForce) authenticator(a Auth) *auth.Authenticator {
	if f == nil || f.auths == nil {
		return nil
	}
	for i, e := range f.ends {
		for j, p := range e.paths {
			if f.auths[i][j] != nil && reflect.DeepEqual(p.auth, a) {
				return f.auths[i][j]
			}
		}
	}
	return nil
}

// distinct returns each Authenticator of all once.
func distinct(all [][]*auth.Authenticator) map[*auth.Authenticator]bool {
	set := map[*auth.Authenticator]bool{}
	for _, a := range slices.Concat(all...) {
		if a != nil {
			set[a] = true
		}
	}
	return set
}

// closeAuths closes those of all that are not in but.
func closeAuths(all, but [][]*auth.Authenticator) {
	used := distinct(but)
	for a := range distinct(all) {
		if !used[a] {
			a.Close()
		}
	}
}

// authStats sums up the figures of what identifies clients; false: nothing does.
func (s *Server) authStats() (sum auth.Stats, ok bool) {
	sum.Refused = map[string]uint64{}
	for a := range distinct(s.inForce.Load().auths) {
		st := a.Stats()
		ok = true
		sum.Accepted += st.Accepted
		sum.Overloaded += st.Overloaded
		sum.Waiting += st.Waiting + st.Running
		sum.JWKSFailures += st.JWKSFailures
		sum.HookFailures += st.HookFailures
		for word, n := range st.Refused {
			sum.Refused[word] += n
		}
	}
	return sum, ok
}
