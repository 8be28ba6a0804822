package loadtest

import (
	"time"

	"heartwheel/internal/wording"
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
	Loop      int      `json:"loop"` // over all processes
	Tick      *tick    `json:"tick,omitempty"`
	Event     *event   `json:"event,omitempty"`
	Connected *tallies `json:"connected,omitempty"` // every connection was tried
	Result    *result  `json:"result,omitempty"`    // the last one
	Error     string   `json:"error,omitempty"`     // the loop could not go on
	Lost      bool     `json:"-"`                   // no Result will come: its process has ended
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

	WrongExample     string         `json:"wrong_example"`
	FalseKills       []closeExample `json:"false_kill_examples"`
	Unexplained      []closeExample `json:"unexplained_examples"`
	Unanswered       int64          `json:"unanswered"`
	OldestUnanswered int64          `json:"oldest_unanswered"` // ns
	AnsweredInHold   int64          `json:"answered_in_hold"`

	FirstConnect int64 `json:"first_connect"` // when the first and the last attempt began
	LastConnect  int64 `json:"last_connect"`
	HoldEnd      int64 `json:"hold_end"` // 0: hold never began
	Closed       int64 `json:"closed"`   // when all sockets were closed

	LoopCPU float64 `json:"loop_cpu"` // percent of a core in hold
	ProcCPU float64 `json:"proc_cpu"` // of the loop's process
	RSS     int64   `json:"rss"`      // of the loop's process
	Heap    int64   `json:"heap"`     // live heap and stacks of the process
}

// An event is something that a person may want to know of.
type event struct {
	T     float64 `json:"t_s"` // seconds since the start
	Kind  string  `json:"kind"`
	Fault string  `json:"fault"` // as written, for the kinds that are about one; else empty
	Count int     `json:"count"` // of connections that it is about
	Text  string  `json:"text"`
}

// Kinds of an event.
const (
	eventFalseKill   = "false_kill" // the first few
	eventUnexplained = "unexplained_close"
	eventUndetected  = "undetected"
	eventWrong       = "wrong_answer" // the first
	eventTold        = "told"
	eventConnect     = "connect_failed" // the first of each error
)

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

// mergeResults adds up what the loops have measured.
func mergeResults(results []*result, faults int) *result {
	t := &result{Failures: map[string]*failure{}, Told: map[int]int{}, Faults: make([]faultTally, faults)}
	for _, r := range results {
		t.Tallies.add(&r.Tallies)
		t.Response.merge(r.Response)
		t.Service.merge(r.Service)
		t.Lag.merge(r.Lag)
		t.Connect.merge(r.Connect)
		t.ConnectLag.merge(r.ConnectLag)
		for text, f := range r.Failures {
			have := t.Failures[text]
			if have == nil {
				have = &failure{}
				t.Failures[text] = have
			}
			have.Count += f.Count
			have.Example = firstText(have.Example, f.Example)
		}
		for code, n := range r.Told {
			t.Told[code] += n
		}
		for i := range r.Faults {
			t.Faults[i].merge(&r.Faults[i])
		}
		t.WrongExample = firstText(t.WrongExample, r.WrongExample)
		t.FalseKills = append(t.FalseKills, r.FalseKills...)
		t.Unexplained = append(t.Unexplained, r.Unexplained...)
		t.Unanswered += r.Unanswered
		t.OldestUnanswered = max(t.OldestUnanswered, r.OldestUnanswered)
		t.AnsweredInHold += r.AnsweredInHold
		t.FirstConnect = earliest(t.FirstConnect, r.FirstConnect)
		t.LastConnect = max(t.LastConnect, r.LastConnect)
		t.HoldEnd = max(t.HoldEnd, r.HoldEnd)
		t.Closed = max(t.Closed, r.Closed)
	}
	return t
}

// merge adds o to t.
func (t *faultTally) merge(o *faultTally) {
	t.Start, t.End = earliest(t.Start, o.Start), max(t.End, o.End)
	t.Injected += o.Injected
	t.Detected += o.Detected
	t.Undetected += o.Undetected
	t.Early += o.Early
	t.Late += o.Late
	t.Errors = append(t.Errors, o.Errors...)
	t.Examples = append(t.Examples, o.Examples...)
	t.Asked += o.Asked
	t.Back += o.Back
	t.BackRefused += o.BackRefused
	t.BackFailed += o.BackFailed
	t.LastBack = max(t.LastBack, o.LastBack)
	t.BackTime.merge(o.BackTime)
}

// earliest is the smaller of two times, of which 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// firstText is the text that comes first in the order of its bytes, so that it
// does not depend on which loop reported first. Empty is none.
func firstText(a, b string) string {
	if a == "" || b != "" && b < a {
		return b
	}
	return a
}
