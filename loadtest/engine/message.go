package engine

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// An Order goes from the run to every event loop. Times are in ns of
// epoll.Monotonic, which is the same in every process.
type Order struct {
	Start  int64 `json:"start,omitempty"`   // when the connects begin
	Hold   int64 `json:"hold,omitempty"`    // when the hold phase begins
	MayEnd bool  `json:"may_end,omitempty"` // the server was sampled for the last time: the hold phase may end
	Stop   bool  `json:"stop,omitempty"`    // end now, with what was measured
}

// A Message goes from an event loop to the run. One member beside Loop is set.
type Message struct {
	Loop      int      `json:"loop"` // index over all processes
	Tick      *Tick    `json:"tick,omitempty"`
	Event     *Event   `json:"event,omitempty"`
	Connected *Tallies `json:"connected,omitempty"` // every connection was tried
	Result    *Result  `json:"result,omitempty"`    // the last message
	Error     string   `json:"error,omitempty"`     // the loop cannot go on
	Lost      bool     `json:"-"`                   // the process ended without a Result
}

// Tallies count since the start. They add up over loops.
type Tallies struct {
	Attempts    int   `json:"attempts"` // connects begun or due, without reconnects
	Open        int   `json:"open"`
	Connecting  int   `json:"connecting"`
	Established int   `json:"established"`
	Failed      int   `json:"failed"`
	Refused     int   `json:"refused"`
	Reconnects  int   `json:"reconnects"`
	Sent        int64 `json:"sent"`
	Answered    int64 `json:"answered"`
	Wrong       int64 `json:"wrong"`
	ServerBeats int64 `json:"server_beats"`
	Injected    int   `json:"injected"` // without herds
	Detected    int   `json:"detected"`
	FalseKills  int   `json:"false_kills"`
	Unexplained int   `json:"unexplained"`
	Lapses      int   `json:"lapses"`
}

// Add adds o to t.
func (t *Tallies) Add(o *Tallies) {
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

// A Tick has the figures of a loop for one second.
type Tick struct {
	N        int       `json:"n"` // seconds since the start
	Tallies  Tallies   `json:"tallies"`
	Response Histogram `json:"response"` // of this second, as are the two below
	Service  Histogram `json:"service"`
	Lag      Histogram `json:"lag"`
	ProcCPU  int64     `json:"proc_cpu"` // of the process since its start, in ns
}

// TickSpread is the time over which the loops' ticks of a second are staggered.
const TickSpread = 150 * time.Millisecond

// A Result is all that a loop has measured. Times are in ns of epoll.Monotonic.
type Result struct {
	Loop    int     `json:"loop"`
	Tallies Tallies `json:"tallies"`

	Response   Histogram `json:"response"`
	Service    Histogram `json:"service"`
	Lag        Histogram `json:"lag"`
	Connect    Histogram `json:"connect"`
	TCP        Histogram `json:"tcp"` // parts of Connect, with an edge: the TCP connect,
	TLS        Histogram `json:"tls"` // the handshake, less the time it waited for others that computed,
	Upgrade    Histogram `json:"upgrade"`
	ConnectLag Histogram `json:"connect_lag"`

	Failures map[string]*Failure `json:"failures"`
	Told     map[int]int         `json:"told"`
	Faults   []FaultTally        `json:"faults"` // by index in Load.Faults

	WrongExample     string         `json:"wrong_example"`
	FalseKills       []CloseExample `json:"false_kill_examples"`
	Unexplained      []CloseExample `json:"unexplained_examples"`
	Silences         []int64        `json:"silences"` // of unexplained closes without a code: the first ones, in ns
	Unanswered       int64          `json:"unanswered"`
	OldestUnanswered int64          `json:"oldest_unanswered"` // ns
	AnsweredInHold   int64          `json:"answered_in_hold"`
	Scheduled        int64          `json:"scheduled"`        // mode beat: frames due in the hold phase
	SentOnSchedule   int64          `json:"sent_on_schedule"` // of those, sent

	FirstConnect int64 `json:"first_connect"` // when the first attempt began
	LastConnect  int64 `json:"last_connect"`
	HoldEnd      int64 `json:"hold_end"` // 0: hold never began
	Closed       int64 `json:"closed"`   // when all sockets were closed

	LoopCPU float64 `json:"loop_cpu"` // of the hold phase, in percent of a core
	ProcCPU float64 `json:"proc_cpu"` // of the process, likewise
	RSS     int64   `json:"rss"`      // peak of the process, in bytes
	Heap    int64   `json:"heap"`     // live heap and stacks of the process, in bytes
}

// An Event is something worth showing to a person.
type Event struct {
	T     float64 `json:"t_s"` // seconds since the start
	Kind  string  `json:"kind"`
	Fault string  `json:"fault"` // Fault.Text, for kinds about a fault; else empty
	Count int     `json:"count"` // connections it is about
	Text  string  `json:"text"`
}

// The kinds of an Event.
const (
	EventFalseKill   = "false_kill" // the first few
	EventUnexplained = "unexplained_close"
	EventUndetected  = "undetected"
	EventWrong       = "wrong_answer" // the first
	EventTold        = "told"
	EventConnect     = "connect_failed" // the first of each error
)

// A Failure is one way in which connections failed.
type Failure struct {
	Count   int    `json:"count"`
	Example string `json:"example"`
}

// MaxFailures bounds the texts that failures are counted by: a server chooses some of
// them. The rest count as OtherFailures.
const MaxFailures = 20

// OtherFailures is the text for failures beyond MaxFailures.
const OtherFailures = "other errors"

// maxForeign bounds the bytes kept of a text that a server has sent.
const maxForeign = 300

// cut bounds a text by maxForeign.
func cut(text string) string {
	if len(text) <= maxForeign {
		return text
	}
	return strings.ToValidUTF8(text[:maxForeign], "") + "…"
}

// A FaultTally is what became of one fault on one loop.
type FaultTally struct {
	Start, End                        int64 // of the first injection and the last detection or reconnect; 0: none
	Injected, Detected                int
	Undetected                        int
	Early, Late                       int
	Errors                            []int32 // of detections, in µs
	Examples                          []FaultExample
	Reconnects, Reconnected           int // of a herd, or of +reconnect
	ReconnectRefused, ReconnectFailed int
	LastReconnect                     int64
	ReconnectTime                     Histogram
}

// A FaultExample is one peer whose fault was not detected as it should have been.
type FaultExample struct {
	OffNS int64 // how far from the time at which it should have been
	Text  string
}

// MaxExamples is how many examples of a kind are kept.
const MaxExamples = 5

// Worst sorts the examples, those most off first, and returns the first few.
func Worst(list []FaultExample) []FaultExample {
	slices.SortFunc(list, func(a, b FaultExample) int {
		return cmp.Or(cmp.Compare(b.OffNS, a.OffNS), cmp.Compare(a.Text, b.Text))
	})
	return list[:min(len(list), MaxExamples)]
}

// maxSilences bounds Result.Silences.
const maxSilences = 1000

// Since is t in seconds after start.
func Since(start, t int64) float64 { return wording.Thousandths(time.Duration(t - start).Seconds()) }

// milliseconds is ns in ms.
func milliseconds(ns int64) float64 { return float64(ns) / 1e6 }

// MergeResults adds up the results of all loops.
func MergeResults(results []*Result, faults int) *Result {
	t := &Result{Failures: map[string]*Failure{}, Told: map[int]int{}, Faults: make([]FaultTally, faults)}
	for _, r := range results {
		t.Tallies.Add(&r.Tallies)
		t.Response.Merge(r.Response)
		t.Service.Merge(r.Service)
		t.Lag.Merge(r.Lag)
		t.Connect.Merge(r.Connect)
		t.TCP.Merge(r.TCP)
		t.TLS.Merge(r.TLS)
		t.Upgrade.Merge(r.Upgrade)
		t.ConnectLag.Merge(r.ConnectLag)
		for text, f := range r.Failures {
			have := t.Failures[text]
			if have == nil {
				have = &Failure{}
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
		t.Silences = append(t.Silences, r.Silences...)
		t.Unanswered += r.Unanswered
		t.OldestUnanswered = max(t.OldestUnanswered, r.OldestUnanswered)
		t.AnsweredInHold += r.AnsweredInHold
		t.Scheduled += r.Scheduled
		t.SentOnSchedule += r.SentOnSchedule
		t.FirstConnect = earliest(t.FirstConnect, r.FirstConnect)
		t.LastConnect = max(t.LastConnect, r.LastConnect)
		t.HoldEnd = max(t.HoldEnd, r.HoldEnd)
		t.Closed = max(t.Closed, r.Closed)
	}
	return t
}

// merge adds o to t.
func (t *FaultTally) merge(o *FaultTally) {
	t.Start, t.End = earliest(t.Start, o.Start), max(t.End, o.End)
	t.Injected += o.Injected
	t.Detected += o.Detected
	t.Undetected += o.Undetected
	t.Early += o.Early
	t.Late += o.Late
	t.Errors = append(t.Errors, o.Errors...)
	t.Examples = append(t.Examples, o.Examples...)
	t.Reconnects += o.Reconnects
	t.Reconnected += o.Reconnected
	t.ReconnectRefused += o.ReconnectRefused
	t.ReconnectFailed += o.ReconnectFailed
	t.LastReconnect = max(t.LastReconnect, o.LastReconnect)
	t.ReconnectTime.Merge(o.ReconnectTime)
}

// earliest is the smaller of two times; 0 is none.
func earliest(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// firstText is the smaller of two texts, so that it does not depend on which loop
// reported first; empty is none.
func firstText(a, b string) string {
	if a == "" || b != "" && b < a {
		return b
	}
	return a
}
