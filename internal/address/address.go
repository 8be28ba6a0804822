// Package address reads the addresses that users write, for servers and clients
// alike. All of it is safe for concurrent use. It imports nothing of this module.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Schemes.
const (
	TCP  = "tcp"
	TLS  = "tls"
	WS   = "ws"   // WebSocket
	WSS  = "wss"  // WebSocket over TLS
	Unix = "unix" // a socket in the file system
)

// MaxUnixPath is the longest path of a socket, in bytes: sun_path without its NUL.
const MaxUnixPath = 107

// An Address is an address in its canonical form, so that two spellings of one
// address are equal by ==. The zero value is none.
type Address struct {
	Scheme string // lower case; empty: the address is a HOST:PORT alone
	Host   string // an IP address, without brackets and with its zone, or a name in lower case; empty: every address
	Port   uint16 // 0, to listen on: a free one
	// Path is that of a request with ws and wss, "/" unless it is given, and that of
	// the socket with unix, which has no host and port. Other schemes have none.
	Path string
}

// String returns what Parse, or ParseHostPort where there is no scheme, reads as a.
func (a Address) String() string {
	switch a.Scheme {
	case "":
		return a.HostPort()
	case Unix:
		return Unix + "://" + a.Path
	}
	return a.Scheme + "://" + a.HostPort() + a.Path
}

// HostPort returns the host and port of a for the functions of package net, and for
// people. With unix it is the path.
func (a Address) HostPort() string {
	if a.Scheme == Unix {
		return a.Path
	}
	return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port)))
}

// Network returns the network that HostPort is an address of, for the functions of
// package net: unix or tcp.
func (a Address) Network() string {
	if a.Scheme == Unix {
		return "unix"
	}
	return "tcp"
}

// Parse reads an address that has one of schemes: SCHEME://HOST:PORT, for ws and wss
// with a path or none and with the ports of http and https if it has no port,
// unix:///PATH. The error continues a sentence that begins with text, and says what to
// write.
func Parse(text string, schemes ...string) (Address, error) {
	a, err := parse(text, schemes)
	if err != nil {
		return Address{}, fmt.Errorf("%w; write %s", err, forms(text, schemes))
	}
	return a, nil
}

// forms says what to write in place of text: the form of its scheme, or of each that
// is allowed.
func forms(text string, schemes []string) string {
	if scheme, _, found := strings.Cut(text, "://"); found && slices.Contains(schemes, strings.ToLower(scheme)) {
		schemes = []string{strings.ToLower(scheme)}
	}
	var all []string
	for _, scheme := range schemes {
		all = append(all, form(scheme, "HOST:PORT", "PATH"))
	}
	text = all[len(all)-1]
	if len(all) > 1 {
		text = strings.Join(all[:len(all)-1], ", ") + " or " + text
	}
	return text + ", such as " + form(schemes[0], "127.0.0.1:9000", "run/heartwheel.sock")
}

func form(scheme, hostport, socket string) string {
	switch scheme {
	case WS, WSS:
		return scheme + "://" + hostport + "/path"
	case Unix:
		return scheme + ":///" + socket
	}
	return scheme + "://" + hostport
}

// url.Parse is of no use here: it takes a zone such as %lo for an escape.
func parse(text string, schemes []string) (Address, error) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme == "" || rest == "" || strings.ContainsFunc(text, isUnprintable) {
		return Address{}, errNone
	}
	scheme = strings.ToLower(scheme)
	if !slices.Contains(schemes, scheme) {
		return Address{}, fmt.Errorf("has the scheme %q, which is not supported", scheme)
	}
	switch scheme {
	case Unix:
		return parseUnix(rest)
	case WS, WSS:
		return parseWeb(scheme, rest)
	}
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?#@") {
		return Address{}, errors.New("has more than a host and a port")
	}
	a, err := ParseHostPort(rest)
	a.Scheme = scheme
	return a, err
}

// parseUnix reads the path of a socket. Nothing in it is an escape.
func parseUnix(p string) (Address, error) {
	switch {
	case p[0] != '/':
		return Address{}, errors.New("has no absolute path")
	case len(p) > MaxUnixPath:
		return Address{}, fmt.Errorf("has a path of %d bytes, a socket's has at most %d", len(p), MaxUnixPath)
	case strings.ContainsAny(p, ",?#%"): // lists are split at commas, and the others mean something in a URL
		return Address{}, errors.New("has one of , ? # % in its path, which is not supported")
	case strings.HasSuffix(p, "/"):
		return Address{}, errors.New("has a path that ends with /, which is not a socket's")
	}
	return Address{Scheme: Unix, Path: p}, checkPath(p)
}

// parseWeb reads the address of a WebSocket. Its path has no escapes, so that it is
// the same to those that decode it and those that do not.
func parseWeb(scheme, rest string) (Address, error) {
	if strings.ContainsAny(rest, "?#") {
		return Address{}, errors.New("has a query or a fragment, which an address does not take")
	}
	hostport, p := rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		hostport, p = rest[:i], rest[i:]
	}
	if strings.Contains(hostport, "@") {
		return Address{}, errors.New("has more than a host, a port and a path")
	}
	if hostport != "" && (!strings.Contains(hostport, ":") || strings.HasSuffix(hostport, "]")) {
		hostport += map[string]string{WS: ":80", WSS: ":443"}[scheme] // RFC 6455, 3
	}
	if i := strings.IndexFunc(p, isNoPath); i >= 0 {
		return Address{}, fmt.Errorf("has %q in its path, which is not supported", []rune(p[i:])[0])
	}
	a, err := ParseHostPort(hostport)
	if err == nil {
		err = checkPath(p)
	}
	a.Scheme, a.Path = scheme, p
	return a, err
}

// checkPath reports a path with other spellings: one with .. or an empty segment.
func checkPath(p string) error {
	short := path.Clean(p)
	if p != short && (p != short+"/" || short == "/") {
		return fmt.Errorf("has a path that is longer than it has to be: %s is the same", short)
	}
	return nil
}

// isNoPath reports whether r has no place in a path: RFC 3986, 3.3, without escapes
// and commas, at which lists are split.
func isNoPath(r rune) bool {
	isAlphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !isAlphanumeric && !strings.ContainsRune("-._~!$&'()*+;=:@/", r)
}

var errNone = errors.New("is not an address")

func isUnprintable(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// ParseHostPort reads HOST:PORT. The error continues a sentence that begins with
// text.
func ParseHostPort(text string) (Address, error) {
	host, port, err := net.SplitHostPort(text)
	switch {
	case err != nil && strings.Count(text, ":") > 1 && text[0] != '[':
		return Address{}, errors.New("has an IPv6 address without brackets, which are needed as in [::1]:9000")
	case err != nil && strings.Contains(err.Error(), "missing port"), err == nil && port == "":
		return Address{}, errors.New("has no port")
	case err != nil:
		return Address{}, errNone
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return Address{}, fmt.Errorf("has the port %q, which is not a number from 0 to 65535", port)
	}
	if host != "" {
		if host, err = ParseHost(host); err != nil {
			return Address{}, err
		}
	}
	return Address{Host: host, Port: uint16(n)}, nil
}

// ParseHost returns the canonical form of a name, or of an IP address without
// brackets. A zone may be written as in a URL, after %25. The error continues a
// sentence that begins with host.
func ParseHost(host string) (string, error) {
	if strings.Contains(host, ":") {
		if zone := strings.Index(host, "%25"); zone >= 0 && len(host) > zone+3 {
			host = host[:zone+1] + host[zone+3:]
		}
		ip, err := netip.ParseAddr(host)
		if err != nil || strings.ContainsFunc(ip.Zone(), func(r rune) bool {
			return isUnprintable(r) || strings.ContainsRune("%,/?#[]", r)
		}) {
			return "", errNone
		}
		return ip.Unmap().String(), nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), nil
	}
	if host == "" || strings.ContainsFunc(host, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	}) {
		return "", errNone
	}
	return strings.ToLower(host), nil
}
