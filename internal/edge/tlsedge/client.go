package tlsedge

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"
)

// A ClientConfig configures a Client.
type ClientConfig struct {
	// CA is a file in PEM with the authorities for certificates of servers, or with
	// such a certificate itself; empty: the authorities of this machine.
	CA string
	// Insecure accepts any certificate.
	Insecure bool
	// Certificate is the client's own, for servers that ask for one; zero: none.
	Certificate Pair
	// ServerName is the name or address that the certificate has to be for. A name
	// is sent to the server.
	ServerName string
	// Timeout is for a whole handshake.
	Timeout time.Duration
	// Handshakes is how many may compute at once; 0: GOMAXPROCS.
	Handshakes int
}

// A Client makes connections of TLS to one server, each with a whole handshake. Safe
// for concurrent use.
type Client struct {
	timeout time.Duration
	slots   chan struct{}
	config  *tls.Config
}

// NewClient loads the files of c and returns a Client, or what is wrong with them.
func NewClient(c ClientConfig) (*Client, error) {
	if c.Handshakes == 0 {
		c.Handshakes = runtime.GOMAXPROCS(0)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: c.Insecure,
		DynamicRecordSizingDisabled: true,
	}
	if c.CA != "" {
		pool, err := loadCA(c.CA, "CA", true)
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if c.Certificate != (Pair{}) {
		cert, err := loadPair(c.Certificate)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return &Client{c.Timeout, make(chan struct{}, c.Handshakes), config}, nil
}

// Handshake does the handshake on conn, as that of Server does. waited is the part of
// its time in which it waited for others that computed.
func (c *Client) Handshake(conn net.Conn) (t *Transport, waited time.Duration, err error) {
	// A client computes before it sends anything, so that it takes its slot at once.
	h := &handshake{conn: conn, slots: c.slots, hello: true, end: time.Now().Add(c.timeout)}
	if err := conn.SetDeadline(h.end); err != nil {
		return nil, 0, fmt.Errorf("tls: %w", err)
	}
	w := &wire{peer: h}
	tc := tls.Client(w, c.config)
	if err = h.take(); err == nil {
		err = tc.Handshake()
		h.give()
	}
	if err != nil {
		return nil, h.waited, clientError(err, c.timeout)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, h.waited, fmt.Errorf("tls: %w", err)
	}
	w.peer = nil
	return &Transport{conn: tc, wire: w}, h.waited, nil
}

// ErrServerNotTLS: the server speaks something else.
var ErrServerNotTLS = errors.New("tls: not a TLS handshake: the server answers without TLS")

func clientError(err error, timeout time.Duration) error {
	if errors.As(err, new(tls.RecordHeaderError)) {
		return ErrServerNotTLS
	}
	return handshakeError(err, true, timeout)
}
