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
)

// Config says how a connection is made and kept. Its zero value is a good
// client. A Config may be shared by any number of clients and must not change
// while one of them lives. The callbacks have to be safe for concurrent use if
// it is shared.
type Config struct {
	Token  string // proves who this is, sent in HELLO; empty: none
	Device string // name of this device, sent in HELLO; empty: none

	// Beat is the beat interval that this client wishes for; 0: the server's
	// choice. The server decides within its range.
	Beat time.Duration
	// ServerBeats asks the server to beat, with this client answering.
	ServerBeats bool
	// Adaptive searches the longest beat interval that the network bears, up to
	// what the server allows; nil: the interval stays. Not with ServerBeats.
	Adaptive *Adaptive

	// RetryDial makes Dial try again, as after a loss, when the first attempt
	// fails with an error that may pass; false: Dial returns it.
	RetryDial bool
	// ConnectTimeout is what one attempt may take, from looking up the name to
	// the server's WELCOME; 0: 10 s.
	ConnectTimeout time.Duration
	TLS            *tls.Config // for tls:// addresses; nil: the system's roots, the host of the address as name
	// DialContext opens connections, for proxies and tests; nil: a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)

	// OnHeartbeat is called every HeartbeatRate while a call waits, in the
	// goroutine that called; HeartbeatRate 0: 100 ms. What it does delays the
	// call's return, nothing else. It may call Close.
	HeartbeatRate time.Duration
	OnHeartbeat   func()

	// OnState is told each change of state, one at a time and in order, in a
	// goroutine of the client. It must not call Close, and delays what follows.
	OnState func(Event)
	// OnData is called with each DATA in the goroutine that reads; Receive then
	// gets none. payload is valid until it returns. While it runs nothing is
	// read, which is not held against the server. It must not call Close.
	OnData func(payload []byte)
	// OnError is told of an ERROR of the server that belongs to no request: it
	// refused one of this client's frames. As OnData otherwise.
	OnError func(*CodeError)

	MaxFrame      int // largest frame body accepted from the server, in bytes; 0: 65536
	SendBuffer    int // bytes that may wait to be written; 0: 256 KiB. A Send beyond it waits
	ReceiveBuffer int // bytes that may wait for Receive; 0: 256 KiB. Beyond it, reading stops until Receive is called

	rand func() float64 // uniform in [0, 1); nil: math/rand/v2
}

// ErrConfig is matched by the errors of a Config and of an address that cannot
// be used.
var ErrConfig = errors.New("client: wrong settings")

// A settingError says what is wrong with a setting.
type settingError string

func (e settingError) Error() string { return string(e) }

// Is makes errors.Is(err, ErrConfig) true.
func (e settingError) Is(target error) bool { return target == ErrConfig }

// dial is the default of DialContext. The beats do what keep-alive would.
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

// Validate reports everything that is wrong at once. Each part matches
// ErrConfig.
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
	if c.Adaptive != nil && c.ServerBeats {
		wrong("Adaptive", "set with ServerBeats", "it is this side's beats that it paces; leave one of them out")
	}
	if a := c.Adaptive; a != nil {
		if a.Start < 0 {
			wrong("Adaptive.Start", a.Start, "must not be negative; leave it out for %s", firstInterval)
		}
		if a.Max < 0 || a.Max > 0 && a.Max < a.Start {
			wrong("Adaptive.Max", a.Max, "must not be less than Start = %s; leave it out for what the server allows", a.Start)
		}
		if a.Reprobe < 0 {
			wrong("Adaptive.Reprobe", a.Reprobe, "must not be negative; leave it out for %s", reprobeAfter)
		}
	}
	if n := len(codec.AppendHello(nil, c.hello(""))); n > codec.HeaderSize+1+codec.MaxControl {
		wrong("Token", fmt.Sprintf("%d bytes long", len(c.Token)), "HELLO would have %d bytes with it, %d are allowed; use a shorter token or device", n, codec.HeaderSize+1+codec.MaxControl)
	}
	return errors.Join(errs...)
}

// hello is what a connection begins with. resume is the session of the one
// before, "" for none.
func (c *Config) hello(resume string) codec.Hello {
	h := codec.Hello{V: codec.Version, Token: c.Token, Device: c.Device, BeatMS: c.Beat.Milliseconds(), Resume: resume}
	if c.ServerBeats {
		h.Beats = "server"
	}
	return h
}
