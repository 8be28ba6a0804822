package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/address"
)

// Config configures a Client or a Conn. The zero value of each field means the
// default in its comment. A Config may be shared by any number of clients; its
// callbacks must then be safe for concurrent use.
type Config struct {
	// Token authenticates this client, sent in HELLO; empty: none. Once it has expired, code
	// 3005 ends the client: there is no other.
	Token string
	// TokenFunc returns the token for each attempt to connect, in place of Token, and
	// another before that expires, which is sent on the open connection. addr is the
	// host:port that the token will be sent to. It is called in a goroutine of the client
	// and must return once ctx ends. An error fails the attempt, and the client tries
	// again; on an open connection it is called again until the token has expired. With
	// NewConn, addr is the connection's remote address.
	TokenFunc func(ctx context.Context, addr string) (string, error)
	Device    string // name of this device, sent in HELLO; empty: none

	// RedirectHosts are the hosts, without a port, that GOAWAY may lead to besides
	// Dial's. An address with any other host is not followed: the client returns to
	// Dial's. Not with Token, which is sent to Dial's host only; TokenFunc knows the address.
	RedirectHosts []string

	// Beat is the beat interval to ask for; 0: the server's default. The server
	// decides, within its range.
	Beat time.Duration
	// ServerBeats asks the server to beat; this client then answers. false: the server
	// decides; heartwheel's beats over ws:// and wss://.
	ServerBeats bool
	// Adaptive searches for the longest beat interval that the network path
	// survives, up to the server's maximum; nil: the interval is fixed. Not with
	// ServerBeats.
	Adaptive *Adaptive

	// RetryDial makes Dial retry, as after a loss, when the first attempt fails
	// with a temporary error; false: Dial returns that error.
	RetryDial bool
	// ConnectTimeout limits one attempt, from the name lookup to WELCOME; 0: 10 s.
	ConnectTimeout time.Duration
	// TLS is for tls:// and wss:// addresses; nil: the system's roots, and the address's
	// host as server name.
	TLS *tls.Config
	// DialContext opens connections, for proxies and tests; nil: a net.Dialer. With
	// unix:// network is unix and addr the path, otherwise tcp and host:port.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnHeartbeat is called every HeartbeatRate while a call blocks, in the
	// caller's goroutine; HeartbeatRate 0: 100 ms. It delays only the return of
	// that call. It may call Close.
	HeartbeatRate time.Duration
	OnHeartbeat   func()

	// OnState is called with each change of state, one at a time and in order, in
	// a goroutine of the client. It delays the client and must not call Close.
	OnState func(Event)
	// OnData is called with each DATA in the reading goroutine; Receive then gets
	// none. payload is valid until it returns. Nothing is read meanwhile, and that
	// time does not count against the server. It must not call Close.
	OnData func(payload []byte)
	// OnError is called, as OnData is, with an ERROR that belongs to no Request:
	// the server refused another frame of this client.
	OnError func(*CodeError)

	MaxFrame      int // largest frame length accepted from the server, in bytes; 0: 65536
	SendBuffer    int // bytes queued for writing; 0: 256 KiB. Send blocks while it is full
	ReceiveBuffer int // bytes queued for Receive; 0: 256 KiB. Reading stops while it is full

	rand func() float64 // uniform in [0, 1); nil: math/rand/v2
}

// ErrConfig is matched by every error about a Config or an address.
var ErrConfig = errors.New("client: wrong settings")

// A settingError describes one wrong setting.
type settingError string

func (e settingError) Error() string { return string(e) }

// Is makes errors.Is(err, ErrConfig) true.
func (e settingError) Is(target error) bool { return target == ErrConfig }

// dial is the default DialContext. Beats replace TCP keep-alive.
var dial = (&net.Dialer{KeepAlive: -1}).DialContext

// withDefaults returns c with every zero field replaced by its default.
func (c Config) withDefaults() Config {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	if c.HeartbeatRate == 0 {
		c.HeartbeatRate = 100 * time.Millisecond
	}
	if c.MaxFrame == 0 {
		c.MaxFrame = codec.DefaultMaxFrame
	}
	if c.SendBuffer == 0 {
		c.SendBuffer = 256 << 10
	}
	if c.ReceiveBuffer == 0 {
		c.ReceiveBuffer = 256 << 10
	}
	if c.DialContext == nil {
		c.DialContext = dial
	}
	if c.rand == nil {
		c.rand = rand.Float64
	}
	return c
}

// Validate reports every wrong field at once, as a joined error whose parts match
// ErrConfig, or nil.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	wrong := func(field string, value any, want string, args ...any) {
		errs = append(errs, settingError(fmt.Sprintf("client: %s is %v: %s", field, value, fmt.Sprintf(want, args...))))
	}
	if c.Beat < 0 || c.Beat > 24*time.Hour || c.Beat > 0 && c.Beat < time.Millisecond {
		wrong("Beat", c.Beat, "must be 0 for the server's choice, or lie between 1ms and 24h")
	}
	if c.ConnectTimeout < 0 {
		wrong("ConnectTimeout", c.ConnectTimeout, "must not be negative; leave it out for 10s")
	}
	if c.HeartbeatRate < time.Millisecond {
		wrong("HeartbeatRate", c.HeartbeatRate, "must be at least 1ms; leave it out for 100ms")
	}
	if c.MaxFrame < 256 || c.MaxFrame > codec.MaxFrameLimit {
		wrong("MaxFrame", c.MaxFrame, "must lie between 256 and %d bytes", codec.MaxFrameLimit)
	}
	if c.SendBuffer < 0 {
		wrong("SendBuffer", c.SendBuffer, "must not be negative; leave it out for 256 KiB")
	}
	if c.ReceiveBuffer < 0 {
		wrong("ReceiveBuffer", c.ReceiveBuffer, "must not be negative; leave it out for 256 KiB")
	}
	if c.TokenFunc != nil && c.Token != "" {
		wrong("TokenFunc", "set with Token", "leave one of them out")
	}
	if len(c.RedirectHosts) > 0 && c.Token != "" {
		wrong("RedirectHosts", c.RedirectHosts, "Token is for Dial's host only; use TokenFunc")
	}
	for _, host := range c.RedirectHosts {
		if _, err := address.ParseHost(host); err != nil {
			wrong("RedirectHosts", fmt.Sprintf("%q", c.RedirectHosts), "must be hosts without a port")
			break
		}
	}
	if c.Adaptive != nil && c.ServerBeats {
		wrong("Adaptive", "set with ServerBeats", "it adapts the client's own beats; leave one of them out")
	}
	if a := c.Adaptive; a != nil {
		if a.Start < 0 {
			wrong("Adaptive.Start", a.Start, "must not be negative; leave it out for %s", firstInterval)
		}
		if a.Max < 0 || a.Max > 0 && a.Max < a.Start {
			wrong("Adaptive.Max", a.Max, "must not be less than Start = %s; leave it out for what the server allows",
				a.Start)
		}
		if a.Reprobe < 0 {
			wrong("Adaptive.Reprobe", a.Reprobe, "must not be negative; leave it out for %s", reprobeAfter)
		}
	}
	if err := checkHello(c.hello(c.Token, "")); err != nil {
		wrong("Token", fmt.Sprintf("%d bytes long", len(c.Token)), "%s", err)
	}
	return errors.Join(errs...)
}

// maxHello is the size of the largest HELLO, header included, in bytes.
const maxHello = codec.HeaderSize + 1 + codec.MaxControl

// checkHello reports a HELLO that is too large.
func checkHello(h codec.Hello) error {
	if n := len(codec.AppendHello(nil, h)); n > maxHello {
		return fmt.Errorf("HELLO would have %d bytes with it, %d are allowed; use a shorter token or device",
			n, maxHello)
	}
	return nil
}

// helloTo returns the HELLO of a connection to addr, with a token of TokenFunc if
// that is set.
func (c *Config) helloTo(ctx context.Context, addr, resume string) (codec.Hello, error) {
	token := c.Token
	if c.TokenFunc != nil {
		var err error
		if token, err = c.TokenFunc(ctx, addr); err != nil {
			return codec.Hello{}, &tokenError{err}
		}
		if err := checkHello(c.hello(token, "")); err != nil {
			return codec.Hello{}, &tokenError{fmt.Errorf("%d bytes long: %w", len(token), err)}
		}
	}
	return c.hello(token, resume), nil
}

// hello returns a HELLO. resume is the previous session, "" for none. It is left
// out where HELLO would be too large with it.
func (c *Config) hello(token, resume string) codec.Hello {
	h := codec.Hello{V: codec.Version, Token: token, Device: c.Device, BeatMS: c.Beat.Milliseconds(), Resume: resume}
	switch {
	case c.ServerBeats:
		h.Beats = "server"
	case c.Adaptive != nil:
		h.Beats = "client" // also where the server would beat
	}
	if resume != "" && checkHello(h) != nil {
		h.Resume = ""
	}
	return h
}
