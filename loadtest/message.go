package loadtest

import (
	"time"

	"heartwheel/internal/wording"
	"heartwheel/loadtest/report"
)

// An order is what the run tells every event loop. Times are of the machine's
// monotonic clock, in ns, so that they mean the same in every process.
type order struct {
	Start  int64 `json:"start,omitempty"`  // begin to connect then
	Hold   int64 `json:"hold,omitempty"`   // the hold phase begins then
	Looked bool  `json:"looked,omitempty"` // the last look at the server is over: the hold phase may end
	Stop   bool  `json:"stop,omitempty"`   // end now, with what there is
}

// A message is what an event loop tells the run. One of its members is set.
type message struct {
	Loop      int           `json:"loop"` // over all processes
	Tick      *tick         `json:"tick,omitempty"`
	Event     *report.Event `json:"event,omitempty"`
	Connected *tallies      `json:"connected,omitempty"` // every connection was tried
	Result    *result       `json:"result,omitempty"`    // the last one
	Error     string        `json:"error,omitempty"`     // the loop could not go on
	Lost      bool          `json:"-"`                   // no Result will come: its process has ended
}

// tallies are a loop's counts since the start. All of them can be added.
type tallies struct {
	Attempts    int   `json:"attempts"` // connects that were due, without reconnects
	Open        int   `json:"open"`     // now
	Connecting  int   `json:"connecting"`
	Established int   `json:"established"`
	Failed      int   `json:"failed"`
	Refused     int   `json:"refused"`
	Reconnects  int   `json:"reconnects"`
	Sent        int64 `json:"sent"`
	Answered    int64 `json:"answered"`
	Wrong       int64 `json:"wrong"`
	ServerBeats int64 `json:"server_beats"`
	Injected    int   `json:"injected"` // herds left out
	Detected    int   `json:"detected"`
	FalseKills  int   `json:"false_kills"`
	Unexplained int   `json:"unexplained"`
	Lapses      int   `json:"lapses"`
}

func (t *tallies) add(o *tallies) {
	t.Attempts += o.Attempts
	t.Open += o.Open
	t.Connecting += o.Connecting
	t.Established += o.Established
	t.Failed += o.Failed
	t.Refused += o.Refused
	t.Reconnects += o.Reconnects
	t.Sent += o.Sent
	t.Answered += o.Answered
	t.Wrong += o.Wrong
	t.ServerBeats += o.ServerBeats
	t.Injected += o.Injected
	t.Detected += o.Detected
	t.FalseKills += o.FalseKills
	t.Unexplained += o.Unexplained
	t.Lapses += o.Lapses
}

// A tick is a loop's figures at the end of one second.
type tick struct {
	N        int     `json:"n"` // seconds since the start
	Tallies  tallies `json:"tallies"`
	Response hist    `json:"response"` // of this second
	Service  hist    `json:"service"`
	Lag      hist    `json:"lag"`
	ProcCPU  int64   `json:"proc_cpu"` // ns of processor time of the process since the start
}

// tickStagger is the time over which the loops' ticks of one second are spread.
const tickStagger = 150 * time.Millisecond

// A result is all that a loop has measured.
type result struct {
	Loop    int     `json:"loop"`
	Tallies tallies `json:"tallies"`

	Response   hist `json:"response"`
	Service    hist `json:"service"`
	Lag        hist `json:"lag"`
	Connect    hist `json:"connect"`
	ConnectLag hist `json:"connect_lag"`

	Failures map[string]*failure `json:"failures"`
	Told     map[int]int         `json:"told"`
	Faults   []faultTally        `json:"faults"` // in the order of the plan

	WrongExample     string                `json:"wrong_example"`
	FalseKills       []report.CloseExample `json:"false_kill_examples"`
	Unexplained      []report.CloseExample `json:"unexplained_examples"`
	Unanswered       int64                 `json:"unanswered"`
	OldestUnanswered int64                 `json:"oldest_unanswered"` // ns
	AnsweredInHold   int64                 `json:"answered_in_hold"`

	FirstConnect int64 `json:"first_connect"` // when the first and the last attempt began
	LastConnect  int64 `json:"last_connect"`
	HoldEnd      int64 `json:"hold_end"` // 0: hold never began
	Closed       int64 `json:"closed"`   // when all sockets were closed

	LoopCPU float64 `json:"loop_cpu"` // percent of a core in hold
	ProcCPU float64 `json:"proc_cpu"` // of the loop's process
	RSS     int64   `json:"rss"`      // of the loop's process
	Heap    int64   `json:"heap"`     // live heap and stacks of the process
}

// A failure is one way in which connections failed.
type failure struct {
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// A faultTally is what became of one fault on one loop.
type faultTally struct {
	Start, End              int64 // when the first began and the last was over; 0: not
	Injected, Detected      int
	Undetected              int
	Early, Late             int
	Errors                  []int32 // µs
	Examples                []string
	Asked, Back             int // of a herd, or +reconnect
	BackRefused, BackFailed int
	LastBack                int64
	BackTime                hist
}

// examples is how many of a kind are kept.
const examples = 5

// since is how the times of messages are shown: seconds after the start.
func since(start, t int64) float64 { return wording.Thousandths(time.Duration(t - start).Seconds()) }

// ms64 is ns in ms.
func ms64(ns int64) float64 { return float64(ns) / 1e6 }
