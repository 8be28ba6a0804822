package faults

import "time"

// A fleetSpec says what a fleet does. Times are in ns when written as JSON.
type fleetSpec struct {
	Addr  string
	Conns int
	Beat  time.Duration

	// Stops is when silent connections stop beating, one each, counted from
	// Epoch (monotonic), or from the moment when all are connected if that is 0.
	// Which connections these are is drawn by lot.
	Stops  []time.Duration
	AtOnce bool // each silent one beats a last time just when it stops; needs Epoch
	Epoch  int64
	GiveUp time.Duration // how long after the last stop it waits for the closes
	Seed   uint64

	Trace bool // report how long each beat took to be answered
}

// A silence is what came of one silent connection. Times are monotonic.
type silence struct {
	LastBeat int64  // before its last beat was written
	Answered int64  // after the answer to that was read; 0: it never came
	Before   int64  // it was not closed yet, as far as the kernel knew
	Seen     int64  // it was seen to be closed; 0: never
	How      string // "reset", or anything else that ended it
}

// A fleetReport is what came of all.
type fleetReport struct {
	Connected int64 // when the last one's first beat was answered
	Silent    []silence
	Live      int      // connections that beat to the end
	Wrong     []string // what should not have happened; the first few
	WrongN    int      // how often that was
	Beats     int      // written, first ones included
	Answers   int      // read
	Slowest   time.Duration
	LongPass  time.Duration // the longest that the fleet was away from its sockets
	Latest    time.Duration // the most that a beat was written after its time
	Trace     []answer      // of each beat that was answered, if the spec asks for it

	early time.Duration // how long before its timeout a silent peer may be closed; not the fleet's
}

// An answer is that to one beat.
type answer struct {
	Sent int64 // monotonic, before the beat was written
	Took time.Duration
	Away time.Duration // of that, how long the fleet may have left the answer unread
}
