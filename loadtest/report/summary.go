package report

// Schema names the form of summary.json. A change that breaks readers makes it /2;
// members may be added.
const Schema = "heartwheel-loadtest/1"

// The names of the two latencies.
const (
	ResponseName = "response, from schedule" // answer − the time the frame was due
	ServiceName  = "service, from send"      // answer − the time the frame was sent
)

// A Summary is the result of a run: summary.json. The same data give the same bytes.
// Members that end in _s are seconds since the start. Null means not measured, or not
// shown: Response and Service are null if the generator was limited, as they would say
// nothing about the server. Not safe for concurrent use.
type Summary struct {
	Schema      string      `json:"schema"`
	Verdict     Verdict     `json:"verdict"`
	Plan        []Setting   `json:"plan"` // every setting in force, in the order of the help
	Environment Environment `json:"environment"`
	Phases      []Phase     `json:"phases"` // in order of time
	Connections Connections `json:"connections"`
	Frames      Frames      `json:"frames"`
	Response    *Latency    `json:"response"` // of the hold phase only
	Service     *Latency    `json:"service"`  // of the hold phase only
	Detection   *Detection  `json:"detection"`
	FalseKills  Closes      `json:"false_kills"`        // closed by the server though they kept their beats
	Unexplained Closes      `json:"unexplained_closes"` // closed with T unknown, or for a drain not in the plan
	Generator   Generator   `json:"generator"`
	Server      *Server     `json:"server"` // null without --ops and without a local process
	SLO         []SLOResult `json:"slo"`
	Notes       []string    `json:"notes"` // what explains the figures, a sentence each
	Errors      []string    `json:"errors"`
}

// The words of a Verdict.
const (
	Pass        = "PASS"        // exit 0
	Failed      = "FAILED"      // exit 1
	Breached    = "BREACHED"    // exit 3: a gate of --slo
	Invalid     = "INVALID"     // exit 4: generator-limited
	Interrupted = "INTERRUPTED" // exit 130: the figures are those until then
)

// A Verdict is the outcome of a run.
type Verdict struct {
	Word     string   `json:"word"` // one of the words above
	ExitCode int      `json:"exit_code"`
	Reasons  []string `json:"reasons"` // a sentence each; empty after a pass
}

// A Setting is one setting of the plan.
type Setting struct {
	Key   string `json:"key"`   // as in the flag and in a scenario
	Value string `json:"value"` // as a user would write it; lists separated by a space
	From  string `json:"from"`  // "default", "flag", "argument" or "scenario NAME"
}

// Environment is the generator's machine and the target.
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
	Target      string `json:"target"`       // SCHEME://HOST:PORT, with the path of a WebSocket
	OwnServer   bool   `json:"own_server"`   // the run started the target
	Started     string `json:"started"`      // RFC 3339
}

// A Phase is a part of the run: "connect", "hold" or "close".
type Phase struct {
	Name   string  `json:"name"`
	StartS float64 `json:"start_s"`
	EndS   float64 `json:"end_s"`
}

// Connections counts attempts to connect and their outcomes.
type Connections struct {
	Asked       int           `json:"asked"`       // of the plan; in mode churn the attempts that were due
	Established int           `json:"established"` // connected, and not refused
	Failed      int           `json:"failed"`      // sum of Failures
	Failures    []Failure     `json:"failures"`    // most frequent first
	Refused     int           `json:"refused"`     // accepted, then closed with 3020 (overloaded); not among Failed
	Told        []Told        `json:"told"`        // closed later with a code that explains it, such as 3001
	Reconnects  int           `json:"reconnects"`  // after a fault
	AtEnd       int           `json:"at_end"`      // open at the end of the hold phase
	RateAsked   string        `json:"rate_asked"`  // a second: "20k", or "1k:20k" for a ramp
	RateReal    float64       `json:"rate_real"`   // attempts a second in the connect phase, or in hold for churn
	TimeUS      *Distribution `json:"time_us"`     // from connect until established
	TCPUS       *Distribution `json:"tcp_us"`      // of that, the TCP connect; null for tcp, as are the others
	TLSUS       *Distribution `json:"tls_us"`      // the TLS handshake, less what it waited for the generator
	UpgradeUS   *Distribution `json:"upgrade_us"`  // from the WebSocket request until its response
}

// A Failure is one way in which connections failed.
type Failure struct {
	Error   string `json:"error"` // such as "connection refused"
	Count   int    `json:"count"`
	Example string `json:"example"` // the first: when, which, from where
}

// Told counts connections closed with one code.
type Told struct {
	Code    int    `json:"code"` // see codec/SPEC.md
	Meaning string `json:"meaning"`
	Count   int    `json:"count"`
}

// Frames counts whole frames of the entire run.
type Frames struct {
	Sent               int64   `json:"sent"`                 // that ask for an answer
	Scheduled          int64   `json:"scheduled"`            // mode beat: due in hold, without dead peers
	SentOnSchedule     int64   `json:"sent_on_schedule"`     // of those, sent
	Answered           int64   `json:"answered"`             // correctly
	Unanswered         int64   `json:"unanswered"`           // at the end, on open connections without a fault
	OldestUnansweredMS float64 `json:"oldest_unanswered_ms"` // age of the oldest of them
	Wrong              int64   `json:"wrong"`                // answers that differ from what was due
	WrongExample       string  `json:"wrong_example"`        // the first; empty if none
	ServerBeats        int64   `json:"server_beats"`         // of the server, answered
	PerSecond          float64 `json:"per_second"`           // answered a second in the hold phase
}

// A Distribution is a few percentiles. The name of the member that holds it has the unit.
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
	Spectrum []SpectrumPoint `json:"spectrum"` // by rising percentile; the last is 100
}

// SpectrumPoint: Percentile of the values are at most ValueUS.
type SpectrumPoint struct {
	ValueUS    float64 `json:"value_us"`
	Percentile float64 `json:"percentile"` // 0 to 100
	Count      int64   `json:"count"`      // of values up to here
}

// Detection is the outcome of the injected faults. The error of a detection is the time
// of the close minus (last byte of the last whole frame + T), or minus the time of the
// fault for kinds that the server should detect at once. It should be 0 to BoundMS.
type Detection struct {
	TimeoutMS   float64       `json:"timeout_ms"`   // T
	TimeoutFrom string        `json:"timeout_from"` // "WELCOME", "--timeout" or "unknown"
	BoundMS     float64       `json:"bound_ms"`
	Faults      []FaultResult `json:"faults"` // in the order of the plan
	Injected    int           `json:"injected"`
	Detected    int           `json:"detected"`
	Undetected  int           `json:"undetected"`
	Early       int           `json:"early"`    // with an error below 0
	Late        int           `json:"late"`     // with an error above BoundMS
	ErrorMS     *Distribution `json:"error_ms"` // of all detections
	Buckets     []Bucket      `json:"buckets"`  // of the same, without gaps; some may be empty
}

// A FaultResult is the outcome of one --fault.
type FaultResult struct {
	Fault      string        `json:"fault"` // as written: "silent:10%@30s"
	Kind       string        `json:"kind"`
	Expect     string        `json:"expect"`     // when the server should detect it, in words
	StartS     float64       `json:"start_s"`    // when the first began
	EndS       float64       `json:"end_s"`      // the last detection or reconnect, or the end of the run
	Observable bool          `json:"observable"` // false: the client cannot see the detection; see Note
	Injected   int           `json:"injected"`
	Detected   int           `json:"detected"`
	Undetected int           `json:"undetected"`
	Early      int           `json:"early"`
	Late       int           `json:"late"`
	ErrorMS    *Distribution `json:"error_ms"`
	Examples   []string      `json:"examples"` // of undetected, early and late ones, the worst first
	Reconnect  *Reconnect    `json:"reconnect"`
	Note       string        `json:"note"`
}

// Reconnect counts the reconnects of a fault.
type Reconnect struct {
	Asked       int           `json:"asked"`
	Established int           `json:"established"`
	Refused     int           `json:"refused"` // closed with 3020
	Failed      int           `json:"failed"`
	TookMS      float64       `json:"took_ms"` // from the reset until the last reconnect
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
	Examples []CloseExample `json:"examples"` // the worst few, those least silent first
}

// A CloseExample is one close by the server.
type CloseExample struct {
	AtS        float64 `json:"at_s"`
	Connection int     `json:"connection"` // its number in the plan, from 0
	SilentMS   float64 `json:"silent_ms"`  // since the last whole frame was sent on it
	How        string  `json:"how"`        // "end of stream", "reset" or an error
	Code       int     `json:"code"`       // of a CLOSE or GOAWAY before it; 0: none
	Reason     string  `json:"reason"`     // that came with the code
	Text       string  `json:"text"`       // all of it as a sentence
}

// Generator is what the generator measured of itself.
type Generator struct {
	LagUS        *Distribution `json:"schedule_lag_us"` // of frames in the hold phase: sent − due
	ConnectLagUS *Distribution `json:"connect_lag_us"`  // of connects: begun − due
	CPU          []ProcessCPU  `json:"cpu"`             // of the hold phase
	LagBoundUS   float64       `json:"lag_bound_us"`    // for the p99 of both lags
	CPUBound     float64       `json:"cpu_bound_percent"`
	Lapses       int           `json:"lapses"` // connections on which the generator itself missed T
	Limited      bool          `json:"limited"`
	Why          []string      `json:"why"`
	RSSBytes     int64         `json:"rss_bytes"`                 // peak, of all its processes; 0: unknown
	HeapPerConn  float64       `json:"heap_bytes_per_connection"` // live heap and stacks ÷ connections
}

// ProcessCPU is the processor time of one process, in percent of one core.
type ProcessCPU struct {
	Process     int     `json:"process"` // from 0
	CPUPercent  float64 `json:"cpu_percent"`
	LoopPercent float64 `json:"loop_percent"` // of its busiest event loop
}

// Server is what was measured of the server from outside the protocol. 0 in a member with
// omitempty means not measured.
type Server struct {
	Ops                    string           `json:"ops,omitempty"`  // URL of the metrics
	PIDs                   []int            `json:"pids,omitempty"` // of a local server
	Samples                int              `json:"samples"`
	ConnectionsMax         int              `json:"connections_max,omitempty"`
	CPUPercent             float64          `json:"cpu_percent"` // mean of the hold phase, of one core
	CPUPercentMax          float64          `json:"cpu_percent_max"`
	RSSBeforeBytes         int64            `json:"rss_before_bytes,omitempty"`
	RSSAfterBytes          int64            `json:"rss_after_bytes,omitempty"` // at the end of hold
	RSSPeakBytes           int64            `json:"rss_peak_bytes,omitempty"`
	UserBytesPerConnection float64          `json:"user_bytes_per_connection,omitempty"` // RSS growth ÷ connections
	KernelBytesPerSocket   float64          `json:"kernel_bytes_per_socket,omitempty"`   // slab difference ÷ sockets
	ClosedByReason         map[string]int64 `json:"closed_by_reason,omitempty"`          // during the run
	RefusedByReason        map[string]int64 `json:"refused_by_reason,omitempty"`
	LoopLagP99US           float64          `json:"loop_lag_p99_us,omitempty"` // upper edge of its bucket
	LoopLagMeanUS          float64          `json:"loop_lag_mean_us,omitempty"`
	Notes                  []string         `json:"notes,omitempty"` // what could not be measured, and why
}

// An SLOResult is the result of one gate of --slo.
type SLOResult struct {
	Gate     string  `json:"gate"` // as written
	OK       bool    `json:"ok"`
	Known    bool    `json:"known"`    // false: nothing was measured, and the gate is not OK
	Measured float64 `json:"measured"` // in Unit
	Limit    float64 `json:"limit"`    // in Unit
	Unit     string  `json:"unit"`     // "ms" or "" for a count
}

// A Sample is one second: a line of timeseries.ndjson. Rates are of that second, counts
// since the start. Null means not measured.
type Sample struct {
	T           float64       `json:"t_s"` // the end of the second
	Phase       string        `json:"phase"`
	Connections int           `json:"connections"` // open
	Connecting  int           `json:"connecting"`  // connect has begun
	Connects    float64       `json:"connects_per_s"`
	Failed      int           `json:"failed"` // with refused ones
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

// A ServerSample is what was measured of the server in that second.
type ServerSample struct {
	Connections int     `json:"connections"` // −1: unknown
	CPUPercent  float64 `json:"cpu_percent"` // of one core
	RSSBytes    int64   `json:"rss_bytes"`
	Closed      int64   `json:"closed"` // since the start of the run
}

// The kinds of an Event.
const (
	EventPhase       = "phase"
	EventFault       = "fault"      // its first injection
	EventFaultOver   = "fault_over" // its last detection or reconnect
	EventFalseKill   = "false_kill" // the first few
	EventUnexplained = "unexplained_close"
	EventUndetected  = "undetected"
	EventWrong       = "wrong_answer"
	EventTold        = "told"
	EventConnect     = "connect_failed"
	EventNothingLeft = "nothing_left" // the hold phase ended early
	EventError       = "error"
)

// An Event is a line of events.ndjson, in order of time.
type Event struct {
	T     float64 `json:"t_s"`
	Kind  string  `json:"kind"`  // one of the kinds above
	Fault string  `json:"fault"` // as written, for kinds about a fault; else empty
	Count int     `json:"count"` // of connections; 0: none in particular
	Text  string  `json:"text"`
}
