// Package report turns the raw figures of a benchmark into medians, ratios with
// intervals, a Markdown table and an HTML page. It measures nothing itself.
package report

// Schema names the form of RUN.json. A change that a reader of the older form
// would get wrong makes it /2.
const Schema = "heartwheel-bench/1"

// Subject is the name of the contender that the others are compared with, and
// Floor that of the one without deadlines that heartwheel is built on.
const (
	Subject = "heartwheel"
	Floor   = "gnet"
)

// Results is RUN.json: everything that was measured, and where.
type Results struct {
	Schema      string      `json:"schema"`
	Environment Environment `json:"environment"`
	Contenders  []Contender `json:"contenders"` // in the order of the tables
	Cells       []Cell      `json:"cells"`      // in the order of the tables
	Runs        []Run       `json:"runs"`       // in the order in which they were made
	Micro       []Micro     `json:"micro"`
	Problems    []string    `json:"problems"` // what was left out, and why
}

// Environment is the machine and how it was used.
type Environment struct {
	Started     string  `json:"started"` // RFC 3339
	TookS       float64 `json:"took_s"`
	Kernel      string  `json:"kernel"`
	CPU         string  `json:"cpu"`
	CPUs        int     `json:"cpus"`
	MemoryBytes int64   `json:"memory_bytes"`
	Go          string  `json:"go"`
	Commit      string  `json:"commit"` // of heartwheel; "+" follows if files were changed
	ServerCPUs  []int   `json:"server_cpus"`
	LoadCPUs    []int   `json:"load_cpus"`
	Procs       int     `json:"gomaxprocs"` // of every server
	Loops       int     `json:"loops"`      // of every server that has event loops
	Rounds      int     `json:"rounds"`
	Seed        uint64  `json:"seed"` // of the order of the runs
	Quick       bool    `json:"quick"`
	Interrupted bool    `json:"interrupted"`
	Loose       bool    `json:"loose"`         // nothing was discarded
	LoadAtStart float64 `json:"load_at_start"` // mean number of runnable tasks in the minute before
}

// A Contender is a server under test.
type Contender struct {
	Name      string `json:"name"`
	Title     string `json:"title"`     // what it is, in a few words
	Version   string `json:"version"`   // of what it is built on
	Deadlines bool   `json:"deadlines"` // ends silent connections
	Loops     bool   `json:"loops"`     // event loops, no thread or goroutine for each connection
}

// A Cell is one workload with its numbers.
type Cell struct {
	ID       string `json:"id"`       // such as "W3-16x1024"; names files
	Workload string `json:"workload"` // a key of Workloads
	Title    string `json:"title"`    // what distinguishes it within the workload
}

// A Run is one contender in one cell in one round. Exactly one of Figures,
// Discarded and Failed tells what came of it.
type Run struct {
	Cell      string             `json:"cell"`
	Contender string             `json:"contender"`
	Round     int                `json:"round"` // from 1
	AtS       float64            `json:"at_s"`  // since the start of the benchmark
	TookS     float64            `json:"took_s"`
	Figures   map[string]float64 `json:"figures,omitempty"`   // by key of a Metric, and others
	Discarded string             `json:"discarded,omitempty"` // says nothing about the contender: why
	Failed    string             `json:"failed,omitempty"`    // what went wrong
}

// A Micro is one line of go test -bench, over all its repetitions.
type Micro struct {
	Name   string               `json:"name"`
	Values map[string][]float64 `json:"values"` // by unit, such as "ns/op"
}
