package client

import (
	"errors"
	"strconv"

	"heartwheel/internal/address"
)

// A target is the address a client connects to.
type target struct {
	url  string // as it was given
	addr string // host:port
	tls  bool
}

// parseURL reads tcp://HOST:PORT or tls://HOST:PORT.
func parseURL(raw string) (target, error) {
	a, err := address.Parse(raw, address.TCP, address.TLS)
	if err == nil {
		err = checkPeer(a)
	}
	if err != nil {
		return target{}, &Error{URL: strconv.Quote(raw), Err: settingError(err.Error()), Final: true}
	}
	return target{url: raw, addr: a.HostPort(), tls: a.Scheme == address.TLS}, nil
}

// checkPeer reports what keeps a from being connected to.
func checkPeer(a address.Address) error {
	const form = "; write tcp://HOST:PORT or tls://HOST:PORT, such as tcp://127.0.0.1:9000"
	switch {
	case a.Host == "":
		return errors.New("has no host" + form)
	case a.Port == 0:
		return errors.New("has the port 0, which is for listening" + form)
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
