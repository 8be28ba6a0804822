package websocket

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// An origin is one of Path.Origins. What is empty may be anything.
type origin struct {
	scheme, host, port string
	below              bool // host begins with a dot: every host that ends with it
}

// parseOrigin parses one of Path.Origins.
func parseOrigin(s string) (o origin, err error) {
	if s == "*" {
		return origin{}, nil
	}
	scheme, host, cut := strings.Cut(s, "://")
	if !cut {
		scheme, host = "", s
	}
	rest, below := strings.CutPrefix(host, "*.")
	u, err := url.Parse("x://" + rest)
	if err != nil || u.Hostname() == "" || u.Host != rest || strings.Contains(rest, "*") || cut && scheme == "" {
		return origin{}, fmt.Errorf("origin %q is none of HOST, HOST:PORT, SCHEME://HOST, *.DOMAIN and *", s)
	}
	o = origin{strings.ToLower(scheme), strings.ToLower(u.Hostname()), u.Port(), below}
	if o.port == "" {
		o.port = portOf(o.scheme)
	}
	if below {
		o.host = "." + o.host
	}
	return o, nil
}

// allowed reports whether the page that asks for a connection may: a page of the
// same host and port as the request's, or one that is listed. A request without
// an origin is not from a browser.
func allowed(r *http.Request, list []origin) bool {
	values := r.Header["Origin"]
	if len(values) == 0 {
		return true
	}
	var page origin // of a page in a sandbox, whose origin is "null"
	if u, err := url.Parse(values[0]); err == nil && len(values) == 1 && u.Host != "" {
		page = origin{scheme: strings.ToLower(u.Scheme), host: strings.ToLower(u.Hostname()), port: u.Port()}
		if page.port == "" {
			page.port = portOf(page.scheme)
		}
		own := url.URL{Host: r.Host}
		port := own.Port()
		if port == "" {
			port = portOf(page.scheme)
		}
		if page.host == strings.ToLower(own.Hostname()) && page.port == port {
			return true
		}
	}
	for _, o := range list {
		if o.matches(page) {
			return true
		}
	}
	return false
}

func (o origin) matches(page origin) bool {
	host := o.host == "" || o.host == page.host || o.below && strings.HasSuffix(page.host, o.host)
	return host && (o.scheme == "" || o.scheme == page.scheme) && (o.port == "" || o.port == page.port)
}

// portOf returns the port that a scheme implies.
func portOf(scheme string) string {
	switch scheme {
	case "https", "wss":
		return "443"
	case "http", "ws":
		return "80"
	}
	return ""
}
