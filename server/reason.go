package server

import "heartwheel/codec"

// Reason says why a connection ended. Its word is the same in logs, in the metric
// label and in tests, and that of its close code if that code means nothing else.
// Its methods are pure functions.
type Reason uint8

const (
	PeerClosed    Reason = iota // the peer closed: a CLOSE frame, or the end of its stream
	PeerReset                   // the peer's machine reset the connection
	PeerTimeout                 // the kernel gave up: no acknowledgement, keep-alive, no route
	ReadError                   // any other error while reading
	WriteError                  // any other error while writing
	IdleTimeout                 // no complete frame for the idle timeout
	Incomplete                  // part of a frame, or no HELLO, for 10 s
	ProtocolError               // bytes that are not this protocol
	FrameTooLarge               // a frame beyond the largest accepted length
	BadVersion                  // a HELLO of an unknown version
	BadToken                    // a token, or a HELLO that the handler refused
	TokenExpired                // its token was good
	AuthBusy                    // too many clients were being identified, or what identifies them did not answer
	BeatTooOften                // beats closer together than the floor
	RateLimited                 // more CONFIG frames than allowed, or a proxy names a client that is refused
	HelloLimit                  // too many connections have not sent their first message
	SlowConsumer                // the outbox overflowed, or the peer read too little of it
	Shed                        // it held much when what connections hold was beyond the budget of memory
	Draining                    // this server is shutting down
	Internal                    // the handler panicked or failed
	Application                 // the handler closed it
	EngineStopped               // the event loop ended under the connection
	numReasons
)

var reasons = [numReasons]struct {
	word string
	code codec.Code
}{
	PeerClosed:    {"peer_closed", codec.CodePeerClosed},
	PeerReset:     {"peer_reset", codec.CodePeerClosed},
	PeerTimeout:   {"peer_timeout", codec.CodePeerClosed},
	ReadError:     {"read_error", codec.CodeInternalError},
	WriteError:    {"write_error", codec.CodeWriteError},
	IdleTimeout:   {"idle_timeout", codec.CodeIdleTimeout},
	Incomplete:    {"incomplete", codec.CodeIncomplete},
	ProtocolError: {"protocol_error", codec.CodeProtocolError},
	FrameTooLarge: {"frame_too_large", codec.CodeFrameTooLarge},
	BadVersion:    {"bad_version", codec.CodeBadVersion},
	BadToken:      {"bad_token", codec.CodeBadToken},
	TokenExpired:  {"token_expired", codec.CodeTokenExpired},
	AuthBusy:      {"auth_busy", codec.CodeOverloaded},
	BeatTooOften:  {"beat_too_often", codec.CodeBeatTooOften},
	RateLimited:   {"rate_limited", codec.CodeRateLimited},
	HelloLimit:    {"hello_limit", codec.CodeOverloaded},
	SlowConsumer:  {"slow_consumer", codec.CodeSlowConsumer},
	Shed:          {"shed", codec.CodeOverloaded},
	Draining:      {"draining", codec.CodeDraining},
	Internal:      {"internal_error", codec.CodeInternalError},
	Application:   {"application", codec.CodePeerClosed},
	EngineStopped: {"engine_stopped", codec.CodeInternalError},
}

// String returns the reason's word, such as "idle_timeout".
func (r Reason) String() string {
	if r < numReasons {
		return reasons[r].word
	}
	return "unknown"
}

// Code returns the close code that codec/SPEC.md gives to the reason. A code that
// the handler chose itself is not kept.
func (r Reason) Code() codec.Code {
	if r < numReasons {
		return reasons[r].code
	}
	return codec.CodeInternalError
}

// averted says what saved a connection at its deadline.
type averted uint8

const (
	avertedUnread averted = iota // its socket held bytes that were not read yet
	numAverted
)

var averteds = [numAverted]string{"unread"}
