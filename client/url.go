package client

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// A target is the address a client connects to.
type target struct {
	url  string // as it was given
	addr string // host:port
	tls  bool
}

// parseURL reads tcp://HOST:PORT or tls://HOST:PORT.
func parseURL(raw string) (target, error) {
	const form = "write tcp://HOST:PORT or tls://HOST:PORT, such as tcp://127.0.0.1:9000"
	wrong := func(format string, args ...any) (target, error) {
		text := fmt.Sprintf(format, args...) + "; " + form
		return target{}, &Error{URL: strconv.Quote(raw), Err: settingError(text), Final: true}
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return wrong("not an address")
	}
	if u.Scheme != "tcp" && u.Scheme != "tls" {
		return wrong("the scheme %q is not known", u.Scheme)
	}
	if u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return wrong("more than a host and a port")
	}
	if err := checkAddr(u.Host); err != nil {
		return wrong("%s", err)
	}
	return target{url: raw, addr: u.Host, tls: u.Scheme == "tls"}, nil
}

// checkAddr reports what is wrong with a host:port.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	switch {
	case err != nil && strings.Count(addr, ":") > 1 && addr[0] != '[':
		return errors.New("an IPv6 address needs brackets, as in [::1]:9000")
	case err != nil || port == "":
		return errors.New("the port is missing")
	case host == "":
		return errors.New("the host is missing")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port %q is not a number from 1 to 65535", port)
	}
	return nil
}
