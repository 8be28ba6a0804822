package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

// An endpoint is a URL of the configuration.
type endpoint struct {
	*url.URL
	name string // for logs: without the query, which may hold a secret
}

// parseEndpoint reads a URL: https, or http to an address that plain says is safe
// without encryption. A host name is looked up when it is dialled.
func parseEndpoint(field, text string, plain func(netip.Addr) bool, where string) (endpoint, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Opaque != "" {
		return endpoint{}, fmt.Errorf("auth: %s is not a URL such as https://id.example/path", field)
	}
	e := endpoint{u, (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()}
	addr, err := netip.ParseAddr(u.Hostname())
	switch {
	case u.User != nil:
		return e, fmt.Errorf("auth: %s must not hold a user or password", field)
	case u.Scheme != "https" && u.Scheme != "http":
		return e, fmt.Errorf("auth: %s has the scheme %.20q: use https", field, u.Scheme)
	case u.Scheme == "http" && err == nil && !plain(addr):
		return e, fmt.Errorf("auth: %s: http is for %s: use https for %s", field, where, u.Host)
	}
	return e, nil
}

// loopback reports whether an address is this machine.
func loopback(a netip.Addr) bool { return a.Unmap().IsLoopback() }

// private reports whether an address is not of the internet: loopback, RFC 1918, RFC
// 4193 or link-local.
func private(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast()
}

// A mistake is an error that the configuration, or what it names, is to blame for.
// Any other of a request is an outage, which ends by itself.
type mistake struct{ error }

func (m mistake) Unwrap() error { return m.error }

// newTransport returns a transport to e for at most conns connections, each of which
// is there within timeout or not at all. Without
// encryption it connects to addresses that plain allows, and no others, whatever the
// name of the host leads to.
func newTransport(e endpoint, plain func(netip.Addr) bool, where string, conns int,
	timeout time.Duration) *http.Transport {
	d := &net.Dialer{Timeout: timeout}
	if e.Scheme == "http" {
		d.Control = controlPlain(e, plain, where)
	}
	return &http.Transport{
		DialContext: d.DialContext, MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns,
		TLSHandshakeTimeout: timeout, IdleConnTimeout: 90 * time.Second, MaxResponseHeaderBytes: 32 << 10,
		DisableCompression: true, ForceAttemptHTTP2: true,
	}
}

// controlPlain refuses addresses that plain does not allow.
func controlPlain(e endpoint, plain func(netip.Addr) bool, where string) func(_, _ string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil || !plain(addr.Addr()) {
			return mistake{fmt.Errorf("http is for %s, and %s is at %s: use https", where, e.Host, address)}
		}
		return nil
	}
}

// readBody reads a body of at most most bytes.
func readBody(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(b) > most {
		err = mistake{fmt.Errorf("the answer is longer than %d bytes", most)}
	}
	return b, err
}

// cause is what an error of a request is about, without the URL.
func cause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// An outage logs when something begins to fail, and when it works again: once each.
type outage struct {
	log   *slog.Logger
	what  string
	quiet time.Duration // without a failure, until it works again

	mu          sync.Mutex
	began, last time.Time // of failures; zero: none
}

func (o *outage) failed(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = time.Now()
	if o.began.IsZero() {
		o.began = o.last
		o.log.Warn(o.what+" fails", "error", err)
	}
}

func (o *outage) worked() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.began.IsZero() && time.Since(o.last) >= o.quiet {
		o.log.Info(o.what+" works again", "after", time.Since(o.began).Round(time.Millisecond))
		o.began = time.Time{}
	}
}
