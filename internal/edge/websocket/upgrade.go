package websocket

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// Bounds of a request, unless the Config has others.
const (
	DefaultMaxHeaderBytes = 8 << 10
	DefaultMaxHeaders     = 64
)

// A Config configures an Upgrader.
type Config struct {
	// Paths are those of the listener, each beginning with a slash.
	Paths map[string]Path
	// Health are paths for the health checks of load balancers: 200 while the
	// function returns true, else 503. It must not block.
	Health map[string]func() bool
	// Page is what a plain request for one of Paths, or for /, gets with status
	// 200; empty: one line that says what listens here.
	Page string
	// MaxHeaderBytes bounds the request with its header; 0: DefaultMaxHeaderBytes.
	MaxHeaderBytes int
	// MaxHeaders bounds the header's lines; 0: DefaultMaxHeaders.
	MaxHeaders int
}

// A Path is where WebSocket connections are accepted.
type Path struct {
	// Origins are pages that may connect beside those of the same host: HOST,
	// HOST:PORT, SCHEME://HOST, SCHEME://HOST:PORT, *.DOMAIN for every host below,
	// or * for any. Programs that are not browsers send no origin and are accepted.
	Origins []string
	// Subprotocols are those spoken here. The client's first of them is chosen.
	Subprotocols []string
}

// An Upgrader reads the HTTP request that begins a connection. Safe for concurrent
// use.
type Upgrader struct {
	c       Config
	origins map[string][]origin // by path
}

// New returns an Upgrader, or everything that is wrong with c.
func New(c Config) (*Upgrader, error) {
	var wrong []error
	origins := map[string][]origin{}
	if len(c.Paths) == 0 {
		wrong = append(wrong, errors.New("websocket: no path"))
	}
	for _, path := range slices.Sorted(maps.Keys(c.Paths)) {
		if !strings.HasPrefix(path, "/") {
			wrong = append(wrong, fmt.Errorf("websocket: path %q does not begin with /", path))
		}
		if _, both := c.Health[path]; both {
			wrong = append(wrong, fmt.Errorf("websocket: path %s is one for health checks too", path))
		}
		for _, s := range c.Paths[path].Origins {
			o, err := parseOrigin(s)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("websocket: path %s: %w", path, err))
			}
			origins[path] = append(origins[path], o)
		}
		for _, name := range c.Paths[path].Subprotocols {
			if !isToken(name) {
				wrong = append(wrong, fmt.Errorf("websocket: path %s: %q is no name of a subprotocol", path, name))
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(c.Health)) {
		if !strings.HasPrefix(path, "/") {
			wrong = append(wrong, fmt.Errorf("websocket: health path %q does not begin with /", path))
		}
	}
	if c.Page == "" {
		c.Page = "This is a WebSocket endpoint. Connect with a WebSocket client.\n"
	}
	if c.MaxHeaderBytes == 0 {
		c.MaxHeaderBytes = DefaultMaxHeaderBytes
	}
	if c.MaxHeaders == 0 {
		c.MaxHeaders = DefaultMaxHeaders
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return &Upgrader{c, origins}, nil
}

// A Request asks for a WebSocket connection, correctly and from an origin that may.
type Request struct {
	// HTTP has what authentication looks at: URL.Query, Header, Cookies. It has no
	// body and shares nothing with the bytes it was read from.
	HTTP *http.Request
	// Path is the one of Config.Paths.
	Path string
	// Subprotocol is what was chosen, empty for none; Offered is all that the
	// client named, of which one may be a token.
	Subprotocol string
	Offered     []string
}

// Read reads the request that in begins with. While it is not whole, all results
// are zero. A Request took used bytes, what follows are frames, and AppendAccept is
// what to send. An Answer is for anything else: send its bytes, then close.
//
// Read keeps no part of in.
func (u *Upgrader) Read(in []byte) (r *Request, used int, a *Answer) {
	if a := foreign(in); a != nil {
		return nil, 0, a
	}
	head := in[:min(len(in), u.c.MaxHeaderBytes)]
	end := bytes.Index(head, []byte("\r\n\r\n"))
	if end >= 0 {
		head = head[:end+len("\r\n")]
	}
	switch {
	case bytes.Count(head, []byte("\n")) > 1+u.c.MaxHeaders:
		return nil, 0, Refuse(http.StatusRequestHeaderFieldsTooLarge,
			fmt.Sprintf("more than %d header lines", u.c.MaxHeaders), 0)
	case end < 0 && len(in) >= u.c.MaxHeaderBytes:
		return nil, 0, Refuse(http.StatusRequestHeaderFieldsTooLarge,
			fmt.Sprintf("request header over %d bytes", u.c.MaxHeaderBytes), 0)
	case end < 0:
		return nil, 0, nil
	}
	head = in[:end+len("\r\n\r\n")]
	// A line that ends otherwise could end the header elsewhere for net/http.
	if bytes.Count(head, []byte("\n")) != bytes.Count(head, []byte("\r\n")) {
		return nil, 0, Refuse(http.StatusBadRequest, "a header line does not end with CR LF", 0)
	}
	h, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(head)))
	if err != nil {
		return nil, 0, Refuse(http.StatusBadRequest, err.Error(), 0)
	}
	switch hosts := bytes.Count(bytes.ToLower(head), []byte("\nhost:")); {
	case h.ProtoMajor != 1:
		return nil, 0, Refuse(http.StatusHTTPVersionNotSupported, "HTTP/1.1 is spoken here", 0)
	case h.ContentLength != 0:
		return nil, 0, Refuse(http.StatusBadRequest, "a request with a body", 0)
	case hosts > 1 || hosts == 0 && h.ProtoAtLeast(1, 1):
		return nil, 0, Refuse(http.StatusBadRequest, "not one Host", 0)
	}
	h.Body = http.NoBody
	if r, a = u.check(h); a != nil {
		return nil, 0, a
	}
	return r, len(head), nil
}

// check decides what a request is and gets.
func (u *Upgrader) check(h *http.Request) (*Request, *Answer) {
	if !hasToken(h.Header["Upgrade"], "websocket") {
		return nil, u.plain(h)
	}
	path, known := u.c.Paths[h.URL.Path]
	key := h.Header["Sec-Websocket-Key"]
	var refused *Answer
	switch {
	case !known:
		refused = Refuse(http.StatusNotFound, "no such path", 0)
	case h.Method != http.MethodGet:
		refused = refuseMethod("GET")
	case !h.ProtoAtLeast(1, 1):
		refused = Refuse(http.StatusBadRequest, "an upgrade needs HTTP/1.1", 0)
	case !hasToken(h.Header["Connection"], "upgrade"):
		refused = Refuse(http.StatusBadRequest, "Upgrade without Connection: Upgrade, as a proxy may send", 0)
	case len(h.Header["Sec-Websocket-Version"]) != 1 || h.Header.Get("Sec-Websocket-Version") != "13":
		refused = refuse(http.StatusUpgradeRequired, "WebSocket version is not 13",
			"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", 0)
	case len(key) != 1 || !validKey(key[0]):
		refused = Refuse(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64", 0)
	case !allowed(h, u.origins[h.URL.Path]):
		refused = Refuse(http.StatusForbidden, "origin is not allowed", 0)
	}
	if refused != nil {
		return nil, refused
	}
	r := &Request{HTTP: h, Path: h.URL.Path, Offered: tokens(h.Header["Sec-Websocket-Protocol"])}
	for _, name := range r.Offered {
		if slices.Contains(path.Subprotocols, name) {
			r.Subprotocol = name
			break
		}
	}
	return r, nil
}

// plain answers a request without upgrade.
func (u *Upgrader) plain(h *http.Request) *Answer {
	healthy, isHealth := u.c.Health[h.URL.Path]
	_, known := u.c.Paths[h.URL.Path]
	head := h.Method == http.MethodHead
	switch {
	case !isHealth && !known && h.URL.Path != "/":
		return Refuse(http.StatusNotFound, "no such path", 0)
	case h.Method != http.MethodGet && !head:
		return refuseMethod("GET, HEAD")
	case isHealth && healthy():
		return answer(http.StatusOK, "healthy", "", "ok\n", head)
	case isHealth:
		return answer(http.StatusServiceUnavailable, "unhealthy", "", "unhealthy\n", head)
	}
	return answer(http.StatusOK, "not an upgrade", "", u.c.Page, head)
}

// magic is appended to the key before it is hashed: RFC 6455, 1.3.
const magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// AppendAccept appends the response that accepts the request. It does not name any
// extension, which declines all.
func (r *Request) AppendAccept(dst []byte) []byte {
	sum := sha1.Sum([]byte(r.HTTP.Header.Get("Sec-Websocket-Key") + magic))
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: "...)
	dst = base64.StdEncoding.AppendEncode(dst, sum[:])
	if r.Subprotocol != "" {
		dst = append(append(dst, "\r\nSec-WebSocket-Protocol: "...), r.Subprotocol...)
	}
	return append(dst, "\r\n\r\n"...)
}

// validKey reports whether key is 16 bytes in base64.
func validKey(key string) bool {
	b, err := base64.StdEncoding.DecodeString(key)
	return err == nil && len(b) == 16 && len(key) == 24
}

// tokens returns the elements of a header that is a list, which may have several
// lines.
func tokens(values []string) (all []string) {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if t = strings.Trim(t, " \t"); t != "" {
				all = append(all, t)
			}
		}
	}
	return all
}

// hasToken reports whether a header that is a list has the token, in any case of
// letters.
func hasToken(values []string, token string) bool {
	return slices.ContainsFunc(tokens(values), func(t string) bool { return strings.EqualFold(t, token) })
}

// isToken reports whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case c >= '0' && c <= '9', c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z':
		case !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)):
			return false
		}
	}
	return s != ""
}
