package client

import (
	"errors"
	"strconv"
	"strings"

	"heartwheel/internal/address"
)

// A target is the address a client connects to.
type target struct {
	url     string // as it was given
	addr    string // host:port, or the path of a socket
	address address.Address
	tls     bool
	web     bool // WebSocket
}

// schemes are those of addresses to connect to.
var schemes = []string{address.TCP, address.TLS, address.WS, address.WSS, address.Unix}

// parseURL reads the address of a server.
func parseURL(raw string) (target, error) {
	a, err := address.Parse(raw, schemes...)
	if err == nil {
		err = checkPeer(a)
	}
	if err != nil {
		if scheme, _, _ := strings.Cut(raw, ":"); strings.Contains(raw, "?") {
			raw = withoutQuery(raw) + "?…" // it may hold a token, and errors are logged
			if strings.EqualFold(scheme, address.WS) || strings.EqualFold(scheme, address.WSS) {
				err = errors.New(err.Error() + "; a token is a setting of its own and travels in HELLO")
			}
		}
		return target{}, &Error{URL: strconv.Quote(raw), Err: settingError(err.Error()), Final: true}
	}
	return target{
		url: raw, addr: a.HostPort(), address: a,
		tls: a.Scheme == address.TLS || a.Scheme == address.WSS,
		web: a.Scheme == address.WS || a.Scheme == address.WSS,
	}, nil
}

// checkPeer reports what keeps a from being connected to.
func checkPeer(a address.Address) error {
	form := "tcp://HOST:PORT, such as tcp://127.0.0.1:9000"
	switch a.Scheme {
	case address.Unix:
		return nil
	case "", address.TCP:
	case address.TLS:
		form = "tls://HOST:PORT, such as tls://127.0.0.1:9000"
	default:
		form = a.Scheme + "://HOST:PORT/path, such as " + a.Scheme + "://127.0.0.1:9000/path"
	}
	switch {
	case a.Host == "":
		return errors.New("has no host; write " + form)
	case a.Port == 0:
		return errors.New("has the port 0, which is for listening; write " + form)
	}
	return nil
}

// parsePeer reads a host:port to connect to.
func parsePeer(text string) (address.Address, error) {
	a, err := address.ParseHostPort(text)
	if err == nil {
		err = checkPeer(a)
	}
	return a, err
}
