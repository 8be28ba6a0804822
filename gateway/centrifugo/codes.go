package centrifugo

import (
	"fmt"

	"github.com/centrifugal/protocol"
)

// An Error answers a command that failed. Codes below 400 are Centrifugo's own.
type Error struct {
	Code      uint32
	Message   string
	Temporary bool // the same command may succeed later
}

func (e *Error) Error() string { return fmt.Sprintf("centrifugo: %s (%d)", e.Message, e.Code) }

func (e *Error) proto() *protocol.Error {
	return &protocol.Error{Code: e.Code, Message: e.Message, Temporary: e.Temporary}
}

// The errors of Centrifugo 6.9.1.
var (
	ErrInternal              = &Error{Code: 100, Message: "internal server error", Temporary: true}
	ErrUnauthorized          = &Error{Code: 101, Message: "unauthorized"}
	ErrUnknownChannel        = &Error{Code: 102, Message: "unknown channel"}
	ErrPermissionDenied      = &Error{Code: 103, Message: "permission denied"}
	ErrMethodNotFound        = &Error{Code: 104, Message: "method not found"}
	ErrAlreadySubscribed     = &Error{Code: 105, Message: "already subscribed"}
	ErrLimitExceeded         = &Error{Code: 106, Message: "limit exceeded"}
	ErrBadRequest            = &Error{Code: 107, Message: "bad request"}
	ErrNotAvailable          = &Error{Code: 108, Message: "not available"}
	ErrTokenExpired          = &Error{Code: 109, Message: "token expired"}
	ErrExpired               = &Error{Code: 110, Message: "expired"}
	ErrTooManyRequests       = &Error{Code: 111, Message: "too many requests", Temporary: true}
	ErrUnrecoverablePosition = &Error{Code: 112, Message: "unrecoverable position"}
	ErrConcurrentPagination  = &Error{Code: 113, Message: "concurrent pagination", Temporary: true}
)

// A Disconnect ends a connection. Over WebSocket it is the code and the reason
// of the close frame, elsewhere a push.
type Disconnect struct {
	Code   uint32
	Reason string
}

func (d Disconnect) Error() string { return fmt.Sprintf("centrifugo: %s (%d)", d.Reason, d.Code) }

// Reconnects reports whether a client connects again after d.
func (d Disconnect) Reconnects() bool {
	c := d.Code
	return c < 3500 || c >= 4000 && c < 4500 || c >= 5000
}

// The disconnects of Centrifugo 6.9.1. DisconnectClosed is never sent: the
// client has gone.
var (
	DisconnectClosed                = Disconnect{3000, "connection closed"}
	DisconnectShutdown              = Disconnect{3001, "shutdown"}
	DisconnectServerError           = Disconnect{3004, "internal server error"}
	DisconnectExpired               = Disconnect{3005, "connection expired"}
	DisconnectSubExpired            = Disconnect{3006, "subscription expired"}
	DisconnectSlow                  = Disconnect{3008, "slow"}
	DisconnectWriteError            = Disconnect{3009, "write error"}
	DisconnectInsufficientState     = Disconnect{3010, "insufficient state"}
	DisconnectForceReconnect        = Disconnect{3011, "force reconnect"}
	DisconnectNoPong                = Disconnect{3012, "no pong"}
	DisconnectTooManyRequests       = Disconnect{3013, "too many requests"}
	DisconnectStateInvalidated      = Disconnect{3014, "state invalidated"}
	DisconnectInvalidToken          = Disconnect{3500, "invalid token"}
	DisconnectBadRequest            = Disconnect{3501, "bad request"}
	DisconnectStale                 = Disconnect{3502, "stale"}
	DisconnectForced                = Disconnect{3503, "force disconnect"}
	DisconnectConnectionLimit       = Disconnect{3504, "connection limit"}
	DisconnectChannelLimit          = Disconnect{3505, "channel limit"}
	DisconnectInappropriateProtocol = Disconnect{3506, "inappropriate protocol"}
	DisconnectPermissionDenied      = Disconnect{3507, "permission denied"}
	DisconnectNotAvailable          = Disconnect{3508, "not available"}
	DisconnectTooManyErrors         = Disconnect{3509, "too many errors"}
)

// An Unsubscribe ends a subscription. A client subscribes again after codes from
// 2500; codes below 2000 are not sent.
type Unsubscribe struct {
	Code   uint32
	Reason string
}

// The reasons for which subscriptions end.
var (
	UnsubscribeClient           = Unsubscribe{0, "client unsubscribed"}
	UnsubscribeServer           = Unsubscribe{2000, "server unsubscribe"}
	UnsubscribeInsufficient     = Unsubscribe{2500, "insufficient state"}
	UnsubscribeExpired          = Unsubscribe{2501, "subscription expired"}
	UnsubscribeStateInvalidated = Unsubscribe{2502, "state invalidated"}
)
