// Package address reads the addresses that users write, for servers and clients
// alike. All of it is safe for concurrent use. It imports nothing of this module.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Schemes.
const (
	TCP = "tcp"
	TLS = "tls"
)

// An Address is an address in its canonical form, so that two spellings of one
// address are equal by ==. The zero value is none.
type Address struct {
	Scheme string // lower case; empty: the address is a HOST:PORT alone
	Host   string // an IP address, without brackets and with its zone, or a name in lower case; empty: every address
	Port   uint16 // 0, to listen on: a free one
}

// String returns what Parse, or ParseHostPort where there is no scheme, reads as a.
func (a Address) String() string {
	if a.Scheme == "" {
		return a.HostPort()
	}
	return a.Scheme + "://" + a.HostPort()
}

// HostPort returns a for the functions of package net, and for people.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// Parse reads SCHEME://HOST:PORT. The error continues a sentence that begins with
// text, and says what to write.
func Parse(text string, schemes ...string) (Address, error) {
	a, err := parse(text, schemes)
	if err != nil {
		return Address{}, fmt.Errorf("%w; write %s://HOST:PORT, such as %s://127.0.0.1:9000",
			err, strings.Join(schemes, "://HOST:PORT or "), schemes[0])
	}
	return a, nil
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
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?#@") {
		return Address{}, errors.New("has more than a host and a port")
	}
	a, err := ParseHostPort(rest)
	a.Scheme = scheme
	return a, err
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
