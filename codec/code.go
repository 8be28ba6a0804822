package codec

// Code says why a connection ended or, from 4001 to 4005, why a frame was refused.
// It is a u16 in CLOSE and ERROR and a number in GOAWAY, and a valid WebSocket
// close code.
type Code uint16

// Close codes after which the client reconnects.
const (
	CodePeerClosed    Code = 3000 // the peer closed, with CLOSE or at the socket
	CodeDraining      Code = 3001 // the server is shutting down or draining
	CodeInternalError Code = 3004 // internal error of the server
	CodeTokenExpired  Code = 3005 // get a new token, then reconnect
	CodeSlowConsumer  Code = 3008 // the peer reads too slowly
	CodeWriteError    Code = 3009 // writing to the socket failed
	CodeIdleTimeout   Code = 3012 // silence for T; counted, never sent
	CodeRateLimited   Code = 3013 // more traffic than allowed
	CodeOverloaded    Code = 3020 // the server is at its connection limit
	CodeBeatTooOften  Code = 3021 // beats faster than min_beat_ms
)

// Close codes after which the client does not reconnect.
const (
	CodeBadToken      Code = 3500 // bad or missing token
	CodeProtocolError Code = 3501 // bytes that are not this protocol
	CodeIncomplete    Code = 3502 // a frame or the HELLO not completed in time
	CodeKicked        Code = 3503 // closed by an operator or the application
	CodeIdentityLimit Code = 3504 // too many connections of this identity
	CodeReplaced      Code = 3510 // replaced by a newer session
	CodeFrameTooLarge Code = 3511 // frame larger than the limit
	CodeBadVersion    Code = 3512 // protocol version not supported
	CodeBanned        Code = 3513 // this address or identity is banned
)

// Frame errors: the content of ERROR. The connection stays.
const (
	CodeNoGateway        Code = 4001 // REQ to PUBLISH without a gateway
	CodeNotAllowed       Code = 4002
	CodeUnavailable      Code = 4003 // not now; try again later
	CodeNotFound         Code = 4004 // no such channel or subject
	CodeFrameRateLimited Code = 4005
)

// String returns the code's word, the same in logs and metric labels, such as
// "idle_timeout"; "unknown" for any other code, so that the number of words is
// bounded.
func (c Code) String() string {
	switch c {
	case CodePeerClosed:
		return "peer_closed"
	case CodeDraining:
		return "draining"
	case CodeInternalError:
		return "internal_error"
	case CodeTokenExpired:
		return "token_expired"
	case CodeSlowConsumer:
		return "slow_consumer"
	case CodeWriteError:
		return "write_error"
	case CodeIdleTimeout:
		return "idle_timeout"
	case CodeRateLimited:
		return "rate_limited"
	case CodeOverloaded:
		return "overloaded"
	case CodeBeatTooOften:
		return "beat_too_often"
	case CodeBadToken:
		return "bad_token"
	case CodeProtocolError:
		return "protocol_error"
	case CodeIncomplete:
		return "incomplete"
	case CodeKicked:
		return "kicked"
	case CodeIdentityLimit:
		return "identity_limit"
	case CodeReplaced:
		return "replaced"
	case CodeFrameTooLarge:
		return "frame_too_large"
	case CodeBadVersion:
		return "bad_version"
	case CodeBanned:
		return "banned"
	case CodeNoGateway:
		return "no_gateway"
	case CodeNotAllowed:
		return "not_allowed"
	case CodeUnavailable:
		return "unavailable"
	case CodeNotFound:
		return "not_found"
	case CodeFrameRateLimited:
		return "frame_rate_limited"
	}
	return "unknown"
}

// Reconnect reports whether a client whose connection ended with c reconnects: true
// for 3000-3499 and 4000-4499, false otherwise. The ranges also hold for codes that
// this package does not know.
func (c Code) Reconnect() bool {
	return c >= 3000 && c < 3500 || c >= 4000 && c < 4500
}
