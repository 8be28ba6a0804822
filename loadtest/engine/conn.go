package engine

// A connState is the state of a connection.
type connState uint8

const (
	stateClosed     connState = iota // no socket
	stateConnecting                  // connect has begun
	stateHandshake                   // connected, its TLS handshake is under way; see handshakes
	stateUpgrade                     // waits for the response to its WebSocket request
	stateHello                       // waits for WELCOME
	stateUp
)

// The flags of a conn.
const (
	flagAnswered    = 1 << iota // the server has answered a frame
	flagFrozen                  // is not read any more
	flagReconnect               // of the fault conn.reconnectOf
	flagCloseNotice             // a CLOSE or GOAWAY has arrived; see loop.closeNotices
	flagPartial                 // part of an inbound frame is in loop.partial
	flagReset                   // was reset by a fault: no frame of it is due
	flagUnsent                  // outbound bytes are in loop.unsent
	flagRecord                  // part of an inbound TLS record is in loop.records
)

// A conn is the state of one connection, without pointers. Loop only. Times are in
// ns of epoll.Monotonic.
type conn struct {
	fd        int32
	gen       uint32 // counts the sockets of the conn
	injection int32  // index in loop.injections, or −1

	state       connState
	flags       uint8
	reconnectOf uint8 // index in Load.Faults, with flagReconnect

	unansweredBeats uint32 // empty beats without an answer
	sendSeq         uint32 // of the next stamp
	answerSeq       uint32 // of the next answer; sendSeq − answerSeq stamped frames have no answer yet

	stateSince   int64 // when the connect began; with stateUp, when it was established
	lastFrame    int64 // see peerClose.lastFrame
	oldestDue    int64 // when the oldest unanswered empty beat was due
	oldestSent   int64 // and sent
	newestSent   int64 // when the newest was sent
	waitingSince int64 // for the answer to a stamped frame; before stateUp, when the step at hand began
}

// An injection is a fault injected into a connection. Loop only.
type injection struct {
	conn   int32
	fault  uint8
	start  int64
	expect int64 // see peerClose.expect
	ended  bool  // detected, or the connection is gone

	nextDrip int64 // when the next byte is due
	sent     int   // bytes that have dripped
}
