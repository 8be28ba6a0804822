package centrifugo

import "github.com/centrifugal/protocol"

// A Hub decides what commands do. Every command that it gets with a Call must be
// answered through it once, at once or later, on the loop of its session. What
// it gets is its own, and stays as it is when the method has returned.
//
// The session has checked what the protocol asks for and no more: permissions,
// the names of channels, tokens, limits of history, empty data and
// FlagRejectUnrecovered are the hub's. Loop only.
type Hub interface {
	Connect(c Call, r *protocol.ConnectRequest)     // Connected
	Refresh(c Call, token string)                   // Refreshed
	Subscribe(c Call, r *protocol.SubscribeRequest) // Subscribed
	SubRefresh(c Call, channel, token string)       // SubRefreshed
	Publish(c Call, channel string, data []byte)    // Published
	Presence(c Call, channel string)                // Presence
	PresenceStats(c Call, channel string)           // PresenceStats
	History(c Call, r *protocol.HistoryRequest)     // History
	RPC(c Call, method string, data []byte)         // Result

	// Send takes a message that has no answer. An error of type Disconnect ends
	// the connection with it, any other as internal server error.
	Send(s *Session, data []byte) error

	// Left is called when a session that was subscribed to a channel no longer
	// is, unless its connection has ended.
	Left(s *Session, channel string, why Unsubscribe)

	// Closed is called once, when the connection has ended. The session still
	// has its channels. Calls may still be answered, to no effect.
	Closed(s *Session, why Disconnect)
}

// An Output takes what a session sends to its client. Loop only.
type Output interface {
	// Send takes one message, which is valid until Send returns. Messages of one
	// turn may share a frame: see AppendReply.
	Send(message []byte)

	// Close ends the connection after everything that was sent.
	Close(d Disconnect)

	// Resume is called when a session whose Input stopped early takes commands
	// again. It is not called from inside Input, and must not call it.
	Resume()
}
