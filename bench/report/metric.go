package report

// A Metric is one figure of a workload.
type Metric struct {
	Key      string // in Run.Figures
	Title    string
	Unit     string // "B", "us", "ms", "%", "/s" or "" for a count
	More     bool   // more is better; else less is
	Deadline bool   // only a contender with deadlines can have it
	Headline bool   // goes into the table and the overview
	Info     bool   // explains the others; better or worse does not apply
}

// counted says that the metric counts faults, where zero is right: then
// there is no ratio, and the counts themselves are compared.
func (m *Metric) counted() bool { return m.Unit == "" }

// A Workload is a kind of load and what is measured under it.
type Workload struct {
	Key     string // "W1"
	Title   string
	Text    string // what is done, for the page
	Metrics []Metric
	// Few contenders can do it, bare gnet not among them: the table has a column for
	// each of them, with its figure.
	Few bool
}

// Workloads has every workload, in order. W8 is the micro benchmarks, which are
// not runs.
var Workloads = []Workload{
	{Key: "W1", Title: "Idle connections, deadline armed",
		Text: "Each connection beats once or twice, and waits. Resident memory a connection is of anonymous pages, " +
			"without code: at the end, less before the first connection. The heap is what a collection leaves, asked " +
			"for at the end, less that of a server without connections.",
		Metrics: []Metric{
			{Key: "rss_per_conn", Title: "resident memory a connection", Unit: "B", Headline: true},
			{Key: "heap_per_conn", Title: "live heap a connection", Unit: "B"},
			{Key: "rss", Title: "resident memory in all, code included", Unit: "B", Info: true},
			{Key: "gc_each", Title: "stopped by a collection", Unit: "us"},
			{Key: "gc_pause", Title: "stopped by all of them", Unit: "ms"},
			{Key: "gc_count", Title: "collections", Unit: "", Info: true},
			{Key: "gc_cpu", Title: "processor time of all of them", Unit: "ms"},
			{Key: "cpu", Title: "processor time while held", Unit: "%"},
		}},
	{Key: "W2", Title: "Beats at a fixed rate",
		Text: "Open loop: each connection sends an empty frame when it is due, whether or not " +
			"the server keeps up, and " +
			"the server answers it. Processor time is all of the server's process; the latency counts " +
			"from when the beat was due.",
		Metrics: []Metric{
			{Key: "cpu_per_beat", Title: "server CPU a beat", Unit: "us", Headline: true},
			{Key: "p50", Title: "latency, median", Unit: "us"},
			{Key: "p99", Title: "latency, 99 %", Unit: "us", Headline: true},
			{Key: "p999", Title: "latency, 99.9 %", Unit: "us"},
		}},
	{Key: "W3", Title: "Echo throughput",
		Text: "Closed loop: every connection keeps a number of frames on their way. A generator " +
			"of its own, one thread and " +
			"raw epoll, answers each whole frame with the next.",
		Metrics: []Metric{
			{Key: "frames", Title: "frames a second", Unit: "/s", More: true, Headline: true},
			{Key: "cpu_per_frame", Title: "server CPU a frame", Unit: "us"},
			{Key: "server_cpu", Title: "server, of its core", Unit: "%", Info: true},
			{Key: "load_cpu", Title: "generator, of its core", Unit: "%", Info: true},
		}},
	{Key: "W4", Title: "Connect, one beat, close",
		Text: "Connects at a fixed rate; each connection sends one beat, has its answer and is reset. " +
			"Server CPU is for all of that.",
		Metrics: []Metric{
			{Key: "cpu_per_connect", Title: "server CPU a connection", Unit: "us", Headline: true},
			{Key: "connect_p50", Title: "connecting, median", Unit: "us"},
			{Key: "connect_p99", Title: "connecting, 99 %", Unit: "us"},
			{Key: "failed", Title: "failed connections"},
		}},
	{Key: "W5", Title: "A wave of dead peers",
		Text: "A tenth of the connections fall silent within a second, a hundredth stop in " +
			"the middle of a frame. The " +
			"error is from when the idle timeout of a silent one had run out until the server closed it: 0 is " +
			"exact, below 0 is too early.",
		Metrics: []Metric{
			{Key: "off", Title: "largest detection error", Unit: "ms", Deadline: true, Headline: true},
			{Key: "error_p99", Title: "late by, 99 %, if none early", Unit: "ms", Deadline: true},
			{Key: "early", Title: "closed too early", Deadline: true},
			{Key: "undetected", Title: "dead ones never closed", Headline: true},
			{Key: "false_kills", Title: "live ones closed", Headline: true},
		}},
	{Key: "W6", Title: "The server stands still for twice its timeout",
		Text: "The server's process is stopped with SIGSTOP for two idle timeouts. The clients go on beating, and " +
			"their beats wait in the sockets. All of them are alive.",
		Metrics: []Metric{
			{Key: "killed", Title: "live ones closed", Headline: true},
			{Key: "killed_share", Title: "of all connections", Unit: "%", Info: true},
		}},
	{Key: "W7", Title: "Mass expiry",
		Text: "Nine tenths of the connections fall silent at once and run out within one " +
			"beat interval; the others go " +
			"on. The latency is that of the others in the worst second.",
		Metrics: []Metric{
			{Key: "off", Title: "largest detection error", Unit: "ms", Deadline: true, Headline: true},
			{Key: "error_p99", Title: "late by, 99 %, if none early", Unit: "ms", Deadline: true},
			{Key: "live_p99", Title: "latency of the others, 99 %", Unit: "us", Headline: true},
			{Key: "undetected", Title: "dead ones never closed"},
			{Key: "false_kills", Title: "live ones closed", Headline: true},
		}},
	{Key: "W9", Title: "TLS", Metrics: edgeMetrics, Few: true,
		Text: "Idle connections, beats, connects and echo with TLS 1.3, certificates of ECDSA on P-256, and no " +
			"resumption: W1 to W4 otherwise. Echo is by the load test, which may be the limit itself: the server's " +
			"processor time for a message counts."},
	{Key: "W10", Title: "WebSocket", Metrics: edgeMetrics, Few: true,
		Text: "The same with WebSocket, without TLS. Beats are its pings."},
}

var edgeMetrics = []Metric{
	{Key: "rss_per_conn", Title: "resident memory a connection", Unit: "B", Headline: true},
	{Key: "heap_per_conn", Title: "live heap a connection", Unit: "B"},
	{Key: "cpu_per_beat", Title: "server CPU a beat", Unit: "us", Headline: true},
	{Key: "p50", Title: "latency, median", Unit: "us"},
	{Key: "p99", Title: "latency, 99 %", Unit: "us"},
	{Key: "cpu_per_connect", Title: "server CPU a connection", Unit: "us", Headline: true},
	{Key: "handshakes", Title: "connections a second of processor time", Unit: "/s", More: true, Headline: true},
	{Key: "connect_p99", Title: "connecting, 99 %", Unit: "us"},
	{Key: "failed", Title: "failed connections"},
	{Key: "cpu_per_frame", Title: "server CPU a message", Unit: "us", Headline: true},
	{Key: "frames", Title: "messages a second", Unit: "/s", More: true, Headline: true},
}

// WorkloadByKey returns nil if there is none.
func WorkloadByKey(key string) *Workload {
	for i := range Workloads {
		if Workloads[i].Key == key {
			return &Workloads[i]
		}
	}
	return nil
}

const early = "its wheel fires up to a tick early, and closes peers before their time; heartwheel never does"
const alarm = "heartwheel has one alarm for all that are near their deadlines and closes 32 at a turn; a timer for " +
	"each connection waits for no other, and to refresh it costs 14 times as much (W8)"

const floor = "it is the floor: its reads are raw system calls too, where gnet's go through Go's scheduler, and it " +
	"looks at a frame's length and no more"

const frame = "64 frames in one read cost 14.5 ns each in session, counters and handler; nbio's echo " +
	"looks at nothing but the length"

const memory = "a session with its deadline is 96 B, and gnet keeps a second address, of 64 B, for a connection that " +
	"it has not accepted itself; what the first ones cost counts where there are few"
const collect = "heartwheel collects when there is 25 % of garbage, the others at 100 %, to " +
	"need less memory; once the " +
	"clients are there hardly any comes up"
const pulse = "with idle connections heartwheel takes 1.4 % of a core: a pulse each tick shows that no loop stands " +
	"still; collections while they connect take 0.3 %"
const together = "heartwheel closes what runs out together 32 at a turn of half a millisecond"

// reasons say why another contender wins, by "workload metric" and then by the
// contender's name, or "" for all of them. Write one when a table shows a win
// that is understood; without one the table says that the reason is not known.
var reasons = map[string]map[string]string{
	"W1 rss_per_conn": {"": memory}, "W1 heap_per_conn": {"": memory},
	"W1 gc_pause": {"": collect}, "W1 gc_each": {"": collect}, "W1 gc_cpu": {"": collect},
	"W1 cpu":      {"": pulse},
	"W7 live_p99": {"": together},
	"W3 frames":   {"epoll": floor, "nbio": frame}, "W3 cpu_per_frame": {"epoll": floor, "nbio": frame},
	"W5 off": {"": alarm, "gnet-timingwheel": early}, "W5 error_p99": {"": alarm},
	"W7 off": {"": alarm, "gnet-timingwheel": early}, "W7 error_p99": {"": alarm},
}

// reason is why the contender wins in the metric of the workload.
func reason(workload, metric, contender string) string {
	byName := reasons[workload+" "+metric]
	if text := byName[contender]; text != "" {
		return text
	}
	if text := byName[""]; text != "" {
		return text
	}
	return "reason not known yet"
}
