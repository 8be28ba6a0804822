package report

// Schema names the form of summary.json. A change that a reader of the older
// form would get wrong makes it /2; members may be added without.
const Schema = "heartwheel-loadtest/1"

// Names of the two latencies, as they are written wherever they are shown.
const (
	ResponseName = "response, from schedule" // answer − the time the frame was due
	ServiceName  = "service, from send"      // answer − the time the frame was really sent
)

// A Summary is the result of a run: summary.json. The same data give the same
// bytes. Times of the run, with names that end in _s, are seconds since its
// start. A member that is null could not be measured, or may not be shown:
// Response and Service are null when the generator was limited, because they
// would then say nothing about the server.
type Summary struct {
	Schema      string      `json:"schema"`
	Verdict     Verdict     `json:"verdict"`
	Plan        []Setting   `json:"plan"` // every setting as effective, in the order of the help
	Environment Environment `json:"environment"`
	Phases      []Phase     `json:"phases"` // in order of time
	Connections Connections `json:"connections"`
	Frames      Frames      `json:"frames"`
	Response    *Latency    `json:"response"` // of the hold phase only
	Service     *Latency    `json:"service"`  // of the hold phase only
	Detection   *Detection  `json:"detection"`
	FalseKills  Closes      `json:"false_kills"`        // closed though they had kept their beats
	Unexplained Closes      `json:"unexplained_closes"` // neither a fault, nor a false kill, nor told
	Generator   Generator   `json:"generator"`
	Server      *Server     `json:"server"` // null without --ops and without a local process
	SLO         []SLOResult `json:"slo"`
	Errors      []string    `json:"errors"`
}

// The words of a Verdict.
const (
	Pass        = "PASS"        // exit 0
	Failed      = "FAILED"      // exit 1
	Breached    = "BREACHED"    // exit 3: a gate of --slo
	Invalid     = "INVALID"     // exit 4: generator-limited
	Interrupted = "INTERRUPTED" // exit 130: what was measured until then
)

// A Verdict is what the run comes to.
type Verdict struct {
	Word     string   `json:"word"` // one of the words above
	ExitCode int      `json:"exit_code"`
	Reasons  []string `json:"reasons"` // one sentence each; empty after a pass
}

// A Setting is one setting of the plan.
type Setting struct {
	Key   string `json:"key"`   // as in the flag and in a scenario
	Value string `json:"value"` // as a user would write it; lists separated by a space
	From  string `json:"from"`  // "default", "flag" or "scenario NAME"
}

// Environment is where the run took place: the generator's machine.
type Environment struct {
	Version     string `json:"version"` // of heartwheel
	Go          string `json:"go"`
	OS          string `json:"os"`
	Arch        string `json:"arch"`
	Kernel      string `json:"kernel"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"` // of the machine; 0: unknown
	Processes   int    `json:"processes"`    // of the generator
	Loops       int    `json:"loops"`        // event loops of each process
	Target      string `json:"target"`       // tcp://HOST:PORT
	OwnServer   bool   `json:"own_server"`   // the run started the target itself
	Started     string `json:"started"`      // RFC 3339
}

// A Phase is a part of the run: "connect", "hold" or "close".
type Phase struct {
	Name   string  `json:"name"`
	StartS float64 `json:"start_s"`
	EndS   float64 `json:"end_s"`
}

// Connections counts attempts to connect and what became of them.
type Connections struct {
	Asked       int           `json:"asked"`       // of the plan; in mode churn the attempts that were due
	Established int           `json:"established"` // connected, and not turned away
	Failed      int           `json:"failed"`      // sum of Failures
	Failures    []Failure     `json:"failures"`    // most frequent first
	Refused     int           `json:"refused"`     // accepted, then told 3020 (overloaded); not among Failed
	Told        []Told        `json:"told"`        // closed later with a code that explains it, such as 3001
	Reconnects  int           `json:"reconnects"`  // connections made again after a fault
	AtEnd       int           `json:"at_end"`      // open when the hold phase was over
	RateAsked   string        `json:"rate_asked"`  // a second: "20k", or "1k:20k" for a ramp
	RateReal    float64       `json:"rate_real"`   // attempts a second in the connect phase, or in hold for churn
	TimeUS      *Distribution `json:"time_us"`     // from connect until established
}

// A Failure is one way in which connections failed.
type Failure struct {
	Error   string `json:"error"` // such as "connection refused"
	Count   int    `json:"count"`
	Example string `json:"example"` // the first one: when, which, from where
}

// Told counts connections closed with one code.
type Told struct {
	Code    int    `json:"code"` // as in codec/SPEC.md
	Meaning string `json:"meaning"`
	Count   int    `json:"count"`
}

// Frames counts whole frames of the entire run.
type Frames struct {
	Sent               int64   `json:"sent"`                 // that ask for an answer
	Answered           int64   `json:"answered"`             // rightly
	Unanswered         int64   `json:"unanswered"`           // at the end, on connections that were open and without a fault
	OldestUnansweredMS float64 `json:"oldest_unanswered_ms"` // at least so long
	Wrong              int64   `json:"wrong"`                // answers that are not what they should be
	WrongExample       string  `json:"wrong_example"`        // the first; empty if none
	ServerBeats        int64   `json:"server_beats"`         // beats of the server that were answered
	PerSecond          float64 `json:"per_second"`           // answered a second in the hold phase
}

// A Distribution is a few percentiles. Its unit is in the name of the member
// that holds it.
type Distribution struct {
	Count int64   `json:"count"`
	Min   float64 `json:"min"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
}

// A Latency is one of the two latencies.
type Latency struct {
	Name     string          `json:"name"` // ResponseName or ServiceName
	US       Distribution    `json:"us"`
	Spectrum []SpectrumPoint `json:"spectrum"` // by rising percentile; the last one is 100
}

// A SpectrumPoint says that Percentile of the values are at most ValueUS.
type SpectrumPoint struct {
	ValueUS    float64 `json:"value_us"`
	Percentile float64 `json:"percentile"` // 0 to 100
	Count      int64   `json:"count"`      // of values up to here
}

// Detection is what became of the injected faults. The error of a detection is
// closed − (last byte of the last whole frame + T), or closed − the fault for
// kinds that have to be noticed at once. Correct is 0 to BoundMS.
type Detection struct {
	TimeoutMS   float64       `json:"timeout_ms"`   // T
	TimeoutFrom string        `json:"timeout_from"` // who said so, such as "WELCOME" or "--timeout"
	BoundMS     float64       `json:"bound_ms"`
	Faults      []FaultResult `json:"faults"` // in the order of the plan
	Injected    int           `json:"injected"`
	Detected    int           `json:"detected"`
	Undetected  int           `json:"undetected"`
	Early       int           `json:"early"`    // detected with an error below 0
	Late        int           `json:"late"`     // detected with an error above BoundMS
	ErrorMS     *Distribution `json:"error_ms"` // of all detections
	Buckets     []Bucket      `json:"buckets"`  // of the same; without gaps, some may be empty
}

// A FaultResult is what became of one --fault.
type FaultResult struct {
	Fault      string        `json:"fault"` // as written: "silent:10%@30s"
	Kind       string        `json:"kind"`
	Expect     string        `json:"expect"`     // when it has to be noticed, in words
	StartS     float64       `json:"start_s"`    // when it began; for a band in a chart
	EndS       float64       `json:"end_s"`      // when all of it was over: detected, reconnected or given up
	Observable bool          `json:"observable"` // false: the client cannot see what the server noticed; see Note
	Injected   int           `json:"injected"`
	Detected   int           `json:"detected"`
	Undetected int           `json:"undetected"`
	Early      int           `json:"early"`
	Late       int           `json:"late"`
	ErrorMS    *Distribution `json:"error_ms"`
	Examples   []string      `json:"examples"` // of undetected, early and late ones
	Reconnect  *Reconnect    `json:"reconnect"`
	Note       string        `json:"note"`
}

// Reconnect is how the connections of a herd came back.
type Reconnect struct {
	Asked       int           `json:"asked"`
	Established int           `json:"established"`
	Refused     int           `json:"refused"` // told 3020
	Failed      int           `json:"failed"`
	TookMS      float64       `json:"took_ms"` // from the reset until the last one was back
	TimeUS      *Distribution `json:"time_us"` // from connect until established
}

// A Bucket counts the values of LowMS <= value < HighMS.
type Bucket struct {
	LowMS  float64 `json:"low_ms"`
	HighMS float64 `json:"high_ms"`
	Count  int     `json:"count"`
}

// Closes counts closes of one class.
type Closes struct {
	Count    int            `json:"count"`
	Examples []CloseExample `json:"examples"` // the first few
}

// A CloseExample is one close by the server.
type CloseExample struct {
	AtS        float64 `json:"at_s"`
	Connection int     `json:"connection"` // its number in the plan, from 0
	SilentMS   float64 `json:"silent_ms"`  // since the last byte that was sent on it
	How        string  `json:"how"`        // "end of stream" or "reset"
	Code       int     `json:"code"`       // of a CLOSE or GOAWAY that came before; 0: none
	Reason     string  `json:"reason"`     // that came with the code
	Text       string  `json:"text"`       // all of it as a sentence
}

// Generator is what the generator saw of itself.
type Generator struct {
	LagUS        *Distribution `json:"schedule_lag_us"` // of frames in the hold phase: sent − due
	ConnectLagUS *Distribution `json:"connect_lag_us"`  // of connects: begun − due
	CPU          []ProcessCPU  `json:"cpu"`             // of the hold phase
	LagBoundUS   float64       `json:"lag_bound_us"`    // for the p99 of both lags
	CPUBound     float64       `json:"cpu_bound_percent"`
	Lapses       int           `json:"lapses"` // connections on which the generator itself missed T
	Limited      bool          `json:"limited"`
	Why          []string      `json:"why"`
	RSSBytes     int64         `json:"rss_bytes"`                 // of all its processes, at most; 0: unknown
	HeapPerConn  float64       `json:"heap_bytes_per_connection"` // live heap and stacks, all in
}

// ProcessCPU is the processor time of one process, in percent of one core.
type ProcessCPU struct {
	Process     int     `json:"process"` // from 0
	CPUPercent  float64 `json:"cpu_percent"`
	LoopPercent float64 `json:"loop_percent"` // of its busiest event loop
}

// Server is what could be seen of the server from outside the protocol. A
// value of 0 in a member with omitempty was not seen.
type Server struct {
	Ops                    string           `json:"ops,omitempty"`  // URL that was sampled
	PIDs                   []int            `json:"pids,omitempty"` // of a local server
	Samples                int              `json:"samples"`
	ConnectionsMax         int              `json:"connections_max,omitempty"`
	CPUPercent             float64          `json:"cpu_percent"` // mean of the hold phase, of one core
	CPUPercentMax          float64          `json:"cpu_percent_max"`
	RSSBeforeBytes         int64            `json:"rss_before_bytes,omitempty"`
	RSSAfterBytes          int64            `json:"rss_after_bytes,omitempty"` // at the end of hold
	RSSPeakBytes           int64            `json:"rss_peak_bytes,omitempty"`
	UserBytesPerConnection float64          `json:"user_bytes_per_connection,omitempty"` // (RSS after − before) ÷ connections
	KernelBytesPerSocket   float64          `json:"kernel_bytes_per_socket,omitempty"`   // slab difference ÷ sockets of both ends
	ClosedByReason         map[string]int64 `json:"closed_by_reason,omitempty"`          // during the run
	RefusedByReason        map[string]int64 `json:"refused_by_reason,omitempty"`
	LoopLagP99US           float64          `json:"loop_lag_p99_us,omitempty"` // upper edge of the bucket that holds it
	LoopLagMeanUS          float64          `json:"loop_lag_mean_us,omitempty"`
	Notes                  []string         `json:"notes,omitempty"` // what could not be seen, and why
}

// An SLOResult is one gate of --slo.
type SLOResult struct {
	Gate     string  `json:"gate"` // as written
	OK       bool    `json:"ok"`
	Known    bool    `json:"known"`    // false: there was nothing to measure; such a gate is not OK
	Measured float64 `json:"measured"` // in Unit
	Limit    float64 `json:"limit"`    // in Unit
	Unit     string  `json:"unit"`     // "ms" or "" for a count
}

// A Sample is one line of timeseries.ndjson: one second. Rates are of that
// second, counts are since the start. Null means not measured.
type Sample struct {
	T           float64       `json:"t_s"` // the second's end
	Phase       string        `json:"phase"`
	Connections int           `json:"connections"` // open
	Connecting  int           `json:"connecting"`  // on their way
	Connects    float64       `json:"connects_per_s"`
	Failed      int           `json:"failed"` // refused ones included
	Sent        float64       `json:"sent_per_s"`
	Answered    float64       `json:"answered_per_s"`
	ResponseUS  *Distribution `json:"response_us"`
	ServiceUS   *Distribution `json:"service_us"`
	LagUS       *Distribution `json:"schedule_lag_us"` // of frames and of connects
	Injected    int           `json:"injected"`
	Detected    int           `json:"detected"`
	FalseKills  int           `json:"false_kills"`
	Unexplained int           `json:"unexplained_closes"`
	Wrong       int64         `json:"wrong"`
	CPUPercent  float64       `json:"generator_cpu_percent"` // of all processes, of one core
	Server      *ServerSample `json:"server"`
}

// A ServerSample is what the server showed in that second.
type ServerSample struct {
	Connections int     `json:"connections"` // −1: not seen
	CPUPercent  float64 `json:"cpu_percent"` // of one core
	RSSBytes    int64   `json:"rss_bytes"`
	Closed      int64   `json:"closed"` // since the start of the run
}

// Kinds of an Event.
const (
	EventPhase       = "phase"
	EventFault       = "fault"      // one began
	EventFaultOver   = "fault_over" // all of one was noticed, or is back
	EventFalseKill   = "false_kill" // the first few
	EventUnexplained = "unexplained_close"
	EventUndetected  = "undetected"
	EventWrong       = "wrong_answer"
	EventTold        = "told"
	EventConnect     = "connect_failed"
	EventError       = "error"
)

// An Event is one line of events.ndjson, in order of time.
type Event struct {
	T     float64 `json:"t_s"`
	Kind  string  `json:"kind"`  // one of the kinds above
	Fault string  `json:"fault"` // as written, for the kinds that are about one; else empty
	Count int     `json:"count"` // of connections that it is about; 0: none in particular
	Text  string  `json:"text"`
}
