package server

import (
	"fmt"
	"slices"
	"strings"

	"heartwheel/internal/address"
	"heartwheel/internal/admission"
	"heartwheel/internal/auth"
	"heartwheel/internal/edge/tlsedge"
	"heartwheel/internal/edge/websocket"
)

// An Edge is what stands between a socket and its sessions.
type Edge struct {
	// Certificates are those of tls and wss. The client's server name chooses; without
	// one, or with one that no certificate has, it is the first. The files are read
	// again when they change.
	Certificates []Certificate
	// ClientCA is the file of the authorities for certificates of clients, which must
	// have one then; empty: they are not asked for one.
	ClientCA string
	// ProxyFrom lists addresses and CIDR prefixes of load balancers that send a PROXY
	// protocol header, version 1 or 2, on each connection. If there are any, only
	// these may connect, and each connection is that of the address in its header.
	ProxyFrom []string
	// TrustedProxies lists addresses and CIDR prefixes of proxies that speak HTTP: over
	// ws and wss, a connection of theirs is that of the client that its X-Forwarded-For
	// or Forwarded names, which is the rightmost address that is not trusted. From
	// others these headers mean nothing.
	TrustedProxies []string
	// Origins are those of web pages that may connect over ws and wss beside pages of
	// the same host: HOST, HOST:PORT, SCHEME://HOST, SCHEME://HOST:PORT, *.DOMAIN for
	// every host below, or * for any.
	Origins []string
	Auth    Auth // who clients are
	// Framing is how clients of tcp and tls addresses tell messages apart, if they do
	// not speak the native protocol. ws and wss have none.
	Framing Framing
}

// A Certificate is the file of a certificate with its chain and that of its key, in
// PEM. They may be the same.
type Certificate struct{ Cert, Key string }

// A Listener is an address as in Config.Listen with an Edge of its own.
type Listener struct {
	Address string
	Edge
}

// maxAddresses is how many addresses there may be: what Conn.edge can tell apart.
const maxAddresses = 120

// An endpoint is all that one socket serves.
type endpoint struct {
	socket address.Address // its scheme is tcp, whatever is spoken, or unix
	scheme string
	paths  []path // one alone for tcp, tls and unix
	Edge
	field string // of the Config
}

// A path is one of an endpoint.
type path struct {
	path    string // empty but for ws and wss
	origins []string
	auth    Auth
	field   string // of the Config: where the address is
}

// prefix is that of the fields beside one that has an address.
func prefix(field string) string {
	return strings.TrimSuffix(strings.TrimSuffix(field, "Listen"), "Address")
}

func (p *path) prefix() string     { return prefix(p.field) }
func (e *endpoint) prefix() string { return prefix(e.field) }

// certificates lists the files of the certificates.
func (e *endpoint) certificates() string {
	var all []string
	for _, c := range e.Certificates {
		all = append(all, c.Cert)
	}
	return strings.Join(all, ",")
}

// url is the address of a path.
func (e *endpoint) url(p path) string { return e.scheme + "://" + e.socket.HostPort() + p.path }

// web reports whether connections begin with an HTTP request.
func (e *endpoint) web() bool { return e.scheme == address.WS || e.scheme == address.WSS }

// parseListen reads an address of Config.Listen.
func parseListen(text string) (address.Address, error) {
	return address.Parse(text, address.TCP, address.TLS, address.WS, address.WSS, address.Unix)
}

// socketOf returns the address of the socket for a.
func socketOf(a address.Address) address.Address {
	if a.Scheme == address.Unix {
		return a
	}
	a.Scheme, a.Path = address.TCP, ""
	return a
}

// ListenSockets returns the addresses of the sockets for Listen and Listeners, in
// their order, each once and as tcp://HOST:PORT or unix:///path: an address that is
// wrong has none. Several paths share a socket, except on port 0, where each address has its own.
func (c Config) ListenSockets() []string {
	return c.eachEndpoint(func(e *endpoint) string { return e.socket.String() })
}

// addresses returns all addresses of c, which is valid, in their canonical form.
func (c *Config) addresses() []string {
	all := slices.Clone(c.Listen)
	for _, l := range c.Listeners {
		all = append(all, l.Address)
	}
	for i, text := range all {
		a, _ := parseListen(text)
		all[i] = a.String()
	}
	return all
}

// Schemes returns what is spoken on the sockets of ListenSockets, in their order: tcp,
// tls, ws, wss or unix.
func (c Config) Schemes() []string {
	return c.eachEndpoint(func(e *endpoint) string { return e.scheme })
}

func (c Config) eachEndpoint(text func(e *endpoint) string) []string {
	c = c.WithDefaults()
	ends, _ := c.endpoints()
	all := make([]string, len(ends))
	for i := range ends {
		all[i] = text(&ends[i])
	}
	return all
}

// endpoints groups the addresses of c by their sockets, and says what is wrong with
// them.
func (c *Config) endpoints() (all []endpoint, errs []error) {
	wrong := func(field, value, want string, args ...any) {
		errs = append(errs, &FieldError{field, value, fmt.Sprintf(want, args...)})
	}
	add := func(field, text string, edge Edge) {
		a, err := parseListen(text)
		if err != nil {
			wrong(field, text, "%s", err)
			return
		}
		socket := socketOf(a)
		i := slices.IndexFunc(all, func(e endpoint) bool {
			return e.socket == socket && (a.Port != 0 || a.Scheme == address.Unix)
		})
		if i < 0 {
			i = len(all)
			all = append(all, endpoint{socket: socket, scheme: a.Scheme, Edge: edge, field: field})
		} else if why := all[i].conflict(a, edge); why != "" {
			wrong(field, text, "%s", why)
			return
		}
		p := path{path: a.Path, origins: edge.Origins, auth: edge.Auth, field: field}
		if a.Scheme == address.Unix { // the path is the socket's
			p.path = ""
		}
		all[i].paths = append(all[i].paths, p)
	}
	for _, text := range c.Listen {
		add("Listen", text, c.Edge)
	}
	for i, l := range c.Listeners {
		add(fmt.Sprintf("Listeners[%d].Address", i), l.Address, l.Edge)
	}
	if n := len(c.Listen) + len(c.Listeners); n > maxAddresses {
		wrong("Listen", fmt.Sprint(n, " addresses"), "must be at most %d", maxAddresses)
	}
	return all, errs
}

// conflict returns why e cannot serve a too; empty: it can.
func (e *endpoint) conflict(a address.Address, edge Edge) string {
	switch {
	case a.Scheme != e.scheme:
		return fmt.Sprintf("is the address of %s://%s too; give it another port", e.scheme, e.socket.HostPort())
	case !e.web() || slices.ContainsFunc(e.paths, func(p path) bool { return p.path == a.Path }):
		return "is given twice; give it once"
	case !slices.Equal(e.Certificates, edge.Certificates) || e.ClientCA != edge.ClientCA ||
		!slices.Equal(e.ProxyFrom, edge.ProxyFrom) || !slices.Equal(e.TrustedProxies, edge.TrustedProxies):
		return "has other certificates or load balancers than another path of its port; they are the port's"
	}
	return ""
}

// foreign reports whether the clients of e do not speak the native protocol.
func (e *endpoint) foreign() bool { return !e.web() && e.Framing.foreign() }

// secure reports whether e begins with a TLS handshake.
func (e *endpoint) secure() bool { return e.scheme == address.TLS || e.scheme == address.WSS }

// validateEdges judges the addresses and what belongs to them, files excepted.
func (c *Config) validateEdges() (errs []error) {
	ends, errs := c.endpoints()
	if len(errs) == 0 {
		errs = c.validateUse(ends)
	}
	for _, e := range ends {
		wrong := func(field, value, want string) {
			errs = append(errs, &FieldError{e.prefix() + field, value, want})
		}
		if e.secure() && len(e.Certificates) == 0 {
			wrong("Certificates", "", fmt.Sprintf("must have one for %s://%s", e.scheme, e.socket.HostPort()))
		}
		if e.scheme == address.Unix && len(e.ProxyFrom) > 0 {
			wrong("ProxyFrom", e.ProxyFrom[0], fmt.Sprintf("cannot hold for %s, whose clients have no address; "+
				"give it to the other addresses, as Config.Listeners", e.socket))
		}
		for _, text := range e.ProxyFrom {
			if _, err := admission.ParsePrefix(text); err != nil {
				wrong("ProxyFrom", text, err.Error())
			}
		}
		for _, text := range e.TrustedProxies {
			if _, err := admission.ParsePrefix(text); err != nil {
				wrong("TrustedProxies", text, err.Error())
			}
		}
		for _, p := range e.paths {
			wrong := func(field, value, want string) {
				errs = append(errs, &FieldError{p.prefix() + field, value, want})
			}
			if set := p.auth.set(); p.auth.off() && len(set) > 0 {
				wrong("Auth", p.auth.Mode, "must be the mode that these settings are for: "+strings.Join(set, ", "))
			}
			if p.auth.Mode == string(auth.MTLS) && (e.ClientCA == "" || !e.secure()) {
				wrong("Auth", p.auth.Mode, fmt.Sprintf(
					"needs a Config.ClientCA, and tls or wss in place of %s://%s", e.scheme, e.socket.HostPort()))
			}
			for _, text := range p.origins {
				if _, err := websocket.New(websocket.Config{Paths: map[string]websocket.Path{
					"/": {Origins: []string{text}}}}); err != nil {
					wrong("Origins", text, err.Error())
				}
			}
		}
		if _, err := e.upgrader(nil); err != nil && len(errs) == 0 {
			wrong("Address", e.socket.String(), err.Error())
		}
	}
	return append(errs, c.validateFramings()...)
}

// validateUse reports settings of c for tls and wss, or ws and wss, where no address has
// those.
func (c *Config) validateUse(ends []endpoint) (errs []error) {
	idle := func(field, value, schemes string) {
		if value != "" {
			errs = append(errs, &FieldError{field, value, "has no meaning, as no address is " + schemes})
		}
	}
	if !slices.ContainsFunc(ends, func(e endpoint) bool { return e.secure() }) {
		idle("ClientCA", c.ClientCA, "tls or wss")
	}
	if !slices.ContainsFunc(ends, func(e endpoint) bool { return e.web() }) {
		idle("Origins", strings.Join(c.Origins, ","), "ws or wss")
		idle("TrustedProxies", strings.Join(c.TrustedProxies, ","), "ws or wss")
	}
	return errs
}

// upgrader returns what reads the HTTP requests of e; nil if none come.
func (e *endpoint) upgrader(ready func() bool) (*websocket.Upgrader, error) {
	if !e.web() {
		return nil, nil
	}
	cfg := websocket.Config{Paths: map[string]websocket.Path{}, Health: map[string]func() bool{
		"/healthz": func() bool { return true }, "/readyz": ready,
	}}
	for _, p := range e.paths {
		delete(cfg.Health, p.path)
		cfg.Paths[p.path] = websocket.Path{Origins: p.origins, Subprotocols: []string{subprotocol}}
	}
	return websocket.New(cfg)
}

// tls returns the configuration of e's TLS.
func (e *endpoint) tls() tlsedge.Config {
	t := tlsedge.Config{ClientCA: e.ClientCA}
	for _, c := range e.Certificates {
		t.Certificates = append(t.Certificates, tlsedge.Pair{Cert: c.Cert, Key: c.Key})
	}
	if e.scheme == address.WSS {
		t.ALPN = []string{"http/1.1"}
	}
	return t
}

// subprotocol is the native protocol's name in a request for a WebSocket.
const subprotocol = "heartwheel"

// setEdges makes what connections speak, and returns its index in l.edges for each
// endpoint. The first is plain native.
func (l *loop) setEdges(f *inForce) []uint8 {
	index := make([]uint8, len(f.ends))
	add := func(e edge) uint8 {
		l.edges = append(l.edges, e)
		return uint8(len(l.edges) - 1)
	}
	for i, e := range f.ends {
		if !e.web() {
			one := edge{protocol: native{l}, native: true}
			if e.Framing.foreign() {
				one = l.foreignEdge(e.Framing)
			}
			one.end = i
			index[i] = add(one)
			continue
		}
		u := &upgrade{Upgrader: f.upgraders[i], edges: map[string]uint8{}}
		for j, p := range e.paths {
			u.edges[p.path] = add(edge{
				end: i, path: j, framing: func() framing { return websocket.NewFraming(l.cfg.MaxFrame) },
				protocol: nativeBodies{native{l}}, native: true, bodies: true, pings: true, layered: true,
			})
		}
		index[i] = add(edge{end: i, upgrade: u, protocol: nativeBodies{native{l}}, native: true, layered: true})
	}
	l.useEdges(f)
	return index
}

// useEdges takes from f what a reload changes.
func (l *loop) useEdges(f *inForce) {
	for i := 1; i < len(l.edges); i++ {
		e := &l.edges[i]
		if e.upgrade != nil {
			e.upgrade.Upgrader, e.upgrade.trusted = f.upgraders[e.end], f.trusted[e.end]
		} else if f.auths != nil {
			a := &f.ends[e.end].paths[e.path].auth
			e.auth, e.mode, e.cookies = f.auths[e.end][e.path], auth.Mode(a.Mode), a.hookCookies()
		}
	}
}
