package engine

// A connState is where a connection is.
type connState uint8

const (
	stateClosed     connState = iota // no socket
	stateConnecting                  // on its way
	stateHello                       // connected, waits for WELCOME
	stateUp
)

// Flags of a conn.
const (
	flagAnswered    = 1 << iota // the server has answered something
	flagFrozen                  // never reads again
	flagReconnect               // this is a reconnect of the fault conn.again
	flagCloseNotice             // a CLOSE or GOAWAY has come; see loop.told
	flagPartial                 // part of an inbound frame waits in loop.rest
	flagUnsent                  // outbound bytes wait in loop.pending
)

// A conn is the state of one connection: all of it, without pointers.
// Loop only. Times are in ns of the loop's clock.
type conn struct {
	fd        int32
	gen       uint32 // tells apart the sockets that the conn had
	injection int32  // index in loop.victims of its fault, or −1

	state       connState
	flags       uint8
	reconnectOf uint8 // fault of flagAgain

	unansweredBeats uint32 // empty beats that have no answer yet
	sendSeq         uint32 // number of the next stamp to send; as many stamped frames have no answer yet
	answerSeq       uint32 // as it is ahead of the number of the next to come back

	stateSince   int64 // connecting: when that began; up: since when it is
	lastFrame    int64 // before the last byte of the last whole frame was sent; of the connect if there was none
	oldestDue    int64 // of the empty beats that have no answer yet the oldest: when it was due
	oldestSent   int64 // and when it was sent;
	newestSent   int64 // when the newest was sent
	waitingSince int64 // of stamped frames without an answer: since when none of them was answered
}

// A victim is a connection with a fault. Loop only.
type injection struct {
	conn   int32
	fault  uint8
	start  int64
	expect int64 // when it has to be noticed, at the earliest
	ended  bool  // noticed, or its connection is gone

	nextDrip int64 // of a drip: when its next byte is due
	sent     int   // and how many it has sent
}
