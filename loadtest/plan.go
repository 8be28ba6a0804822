package loadtest

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/address"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
)

// A Plan is a whole run. Build makes one from settings.
type Plan struct {
	engine.Load

	Target  string // SCHEME://HOST:PORT, and a path for ws and wss; empty: a server process of its own
	Serve   string // flags for that server, separated by spaces; empty: those that fit Interval
	Sources []netip.Prefix
	Order   string  // of Framing: big or little
	Answer  *string // nil: that of Framing is the beat

	Ops    string // URL of the server's metrics; empty: none
	SLO    []Gate
	MaxLag time.Duration // bound of the p99 of the generator's lag
	Out    string        // directory for the files; empty: none
}

// The words of Mode, Phase and Frame.
const (
	modeBeat  = engine.ModeBeat
	modeEcho  = engine.ModeEcho
	modeChurn = engine.ModeChurn

	phaseUniform = engine.PhaseUniform
	phaseSync    = engine.PhaseSync

	frameEmpty = engine.FrameEmpty
	framePing  = engine.FramePing
)

// Limits of one process of the generator. They are far above anything measured: a
// plan beyond them is a mistake.
const (
	maxConnectsPerProcess = 200_000
	maxFramesPerProcess   = 1_000_000
	maxProcesses          = 256
	maxLoops              = 64
	maxConnections        = 10_000_000
	maxConnectPhase       = time.Hour
)

// A PlanError lists everything that is wrong with a plan, a line each.
type PlanError struct{ Lines []string }

func (e *PlanError) Error() string { return strings.Join(e.Lines, "\n") }

// A problem is a wrong value of a plan.
type problem struct {
	key, value string
	text       string // what is wrong, and what to write instead
}

// Validate reports everything that is wrong with p at once, as a *PlanError. It looks
// at neither the machine nor the target.
func (p *Plan) Validate() error {
	var lines []string
	for _, problem := range p.validate() {
		lines = append(lines, fmt.Sprintf("%s %q: %s", problem.key, problem.value, problem.text))
	}
	if len(lines) > 0 {
		return &PlanError{lines}
	}
	return nil
}

func (p *Plan) validate() []problem {
	var problems []problem
	wrong := func(key string, value any, format string, args ...any) {
		problems = append(problems, problem{key, fmt.Sprint(value), fmt.Sprintf(format, args...)})
	}
	p.validateTarget(wrong)
	p.validateEdge(wrong)
	p.validateLoad(wrong)
	p.validateFaults(wrong)
	return problems
}

type wrongFunc func(key string, value any, format string, args ...any)

func (p *Plan) validateTarget(wrong wrongFunc) {
	if p.Target != "" {
		a, err := address.Parse(p.Target, Schemes...)
		switch {
		case err != nil:
			wrong("target", p.Target, "%s", err)
		case a.Host == "" || a.Port == 0:
			wrong("target", p.Target, "lacks a host or a port; write %s://HOST:PORT, such as %s://127.0.0.1:9000",
				a.Scheme, a.Scheme)
		}
	}
	if p.Target != "" && p.Serve != "" {
		wrong("serve", p.Serve, "is for a server that the run starts itself; leave out either serve or target")
	}
	if p.Ops != "" {
		u, err := url.Parse(p.Ops)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			wrong("ops", p.Ops, "is not a URL; write one such as http://127.0.0.1:9090")
		}
	}
}

func (p *Plan) validateLoad(wrong wrongFunc) {
	positive := func(key string, n, most int) bool {
		if n < 1 || n > most {
			wrong(key, n, "must lie between 1 and %s", wording.Grouped(most))
		}
		return n >= 1 && n <= most
	}
	sized := positive("connections", p.Connections, maxConnections)
	sized = positive("processes", p.Processes, maxProcesses) && sized
	sized = positive("loops", p.Loops, maxLoops) && sized
	if sized && p.Connections < p.Processes*p.Loops {
		wrong("connections", p.Connections,
			"is less than one for each of %d event loops; write more connections or fewer processes",
			p.Processes*p.Loops)
	}
	if p.Duration <= 0 || p.Duration > 30*24*time.Hour {
		wrong("duration", p.Duration, "must be more than zero and at most 720h")
	}
	if p.ConnectTimeout < 100*time.Millisecond || p.ConnectTimeout > time.Hour {
		wrong("connect-timeout", p.ConnectTimeout, "must lie between 100ms and 1h")
	}
	if r := p.ConnectRate; r.From < 0 || r.To <= 0 || r.From == 0 && r.To == 0 {
		wrong("connect-rate", r, "is impossible: nothing would ever be connected; write connects a second such as 5k")
	} else if sized {
		p.validateRate(wrong)
	}
	if p.Mode == modeBeat {
		switch {
		case p.Interval < time.Millisecond || p.Interval > 24*time.Hour:
			wrong("interval", p.Interval, "must lie between 1ms and 24h")
		case sized && float64(p.Connections)/p.Interval.Seconds() > float64(maxFramesPerProcess*p.Processes):
			wrong("interval", p.Interval,
				"is impossible: %s beats a second for each process, and none can send more than %s; "+
					"write a longer interval or more processes",
				wording.Grouped(int64(float64(p.Connections)/p.Interval.Seconds()/float64(p.Processes))),
				wording.Grouped(maxFramesPerProcess))
		}
	}
	switch {
	case p.ServerBeats && p.Mode != modeBeat:
		wrong("server-beats", p.ServerBeats, "is for mode beat, in which nothing else is sent; leave one out")
	case p.ServerBeats && p.HelloBeats == "client":
		wrong("server-beats", p.ServerBeats, "contradicts hello-beats client; leave one out")
	}
	if p.Mode == modeEcho {
		positive("inflight", p.Inflight, 1024)
		if p.Payload < engine.MinPayload || p.Payload > codec.MaxFrameLimit-1 {
			wrong("payload", p.Payload, "must lie between %d bytes, which the time stamp takes, and %d",
				engine.MinPayload,
				codec.MaxFrameLimit-1)
		}
	}
	if p.MaxLag <= 0 {
		wrong("max-lag", p.MaxLag, "must be more than zero")
	}
}

func (p *Plan) validateRate(wrong wrongFunc) {
	if most := max(p.ConnectRate.From, p.ConnectRate.To); most > float64(maxConnectsPerProcess*p.Processes) {
		wrong("connect-rate", p.ConnectRate, "is impossible for %s: none can begin more than %s connects a second; "+
			"write a lower rate or more processes", wording.Plural(p.Processes, "process"),
			wording.Grouped(maxConnectsPerProcess))
	}
	if p.Mode == modeChurn {
		return
	}
	if over := p.ConnectTime(); over > maxConnectPhase {
		wrong("connect-rate", p.ConnectRate,
			"%s would take %s to connect, and at most %s are sensible; write a higher rate",
			wording.Plural(p.Connections, "connection"), over.Round(time.Second),
			wording.Duration(maxConnectPhase))
	}
}

func (p *Plan) validateFaults(wrong wrongFunc) {
	if p.Timeout < 0 || p.Timeout > 0 && p.Timeout < 10*time.Millisecond {
		wrong("timeout", p.Timeout, "must be at least 10ms; leave it out to ask the server")
	}
	if p.Bound <= 0 {
		wrong("bound", p.Bound, "must be more than zero")
	}
	if p.PartialTimeout <= 0 {
		wrong("partial-timeout", p.PartialTimeout, "must be more than zero")
	}
	for i := range p.Faults {
		f := &p.Faults[i]
		switch {
		case p.Mode == modeChurn && f.Kind != engine.StallServer:
			wrong("fault", f.Text, "in mode churn no connection lives long enough; use mode beat or echo")
		case f.At >= p.Duration:
			wrong("fault", f.Text, "is after the end of the hold phase, which lasts %s; write a longer duration",
				wording.Duration(p.Duration))
		case f.Count > p.Connections:
			wrong("fault", f.Text, "is more than all %s", wording.Plural(p.Connections, "connection"))
		}
	}
	if p.HelloBeat < 0 {
		wrong("hello-beat", p.HelloBeat, "must not be negative")
	}
}

// ValidateTimeout is Validate for a server with the idle timeout t; 0: unknown.
func (p *Plan) ValidateTimeout(t time.Duration) error {
	var lines []string
	if t > 0 && p.Mode == modeBeat && p.HelloBeats != "server" && !p.ServerBeats && p.Interval*10 > t*9 {
		lines = append(lines, fmt.Sprintf("interval %s: is too long: "+
			"the server declares a peer dead after T = %s of silence; write %s or less",
			p.Interval, wording.Duration(t), wording.Duration((t*2/3).Truncate(time.Millisecond))))
	}
	for i := range p.Faults {
		f := &p.Faults[i]
		if f.At >= p.Duration {
			continue // Validate reports it
		}
		if f.NeedsTimeout() && t == 0 {
			lines = append(lines, fmt.Sprintf("fault %q: cannot be judged: "+
				"the server does not say its idle timeout T; write it, such as --timeout 30s", f.Text))
			continue
		}
		if need := f.At + f.Latest(t, p.PartialTimeout, p.Bound); need > p.Duration {
			lines = append(lines, fmt.Sprintf("fault %q: is over only %s after the hold phase began, "+
				"which lasts %s; write --duration %s or longer", f.Text, wording.Duration(need),
				wording.Duration(p.Duration),
				wording.Duration((need+time.Second-1).Truncate(time.Second))))
		}
	}
	if len(lines) > 0 {
		return &PlanError{lines}
	}
	return nil
}
