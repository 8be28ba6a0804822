package loadtest

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/internal/wording"
	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

// Headings of the help.
const (
	groupLoad      = "Load"
	groupConnect   = "Connecting"
	groupFraming   = "Framing"
	groupGenerator = "Generator"
	groupHello     = "HELLO"
	groupFaults    = "Faults"
	groupServer    = "Server"
	groupResult    = "Result"
)

// Table is every setting of a plan: flags of the command, but for target, which
// is its argument, and keys of a scenario.
var Table = config.Table[Plan]{
	{Key: "target", Kind: config.Address, Group: groupServer, Unset: "a server process of its own",
		Field: func(p *Plan) any { return &p.Target },
		Help:  "the server to test: tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"},
	{Key: "connections", Short: "c", Kind: config.Number, Group: groupLoad, Default: "1k", Signed: true,
		Field: func(p *Plan) any { return &p.Connections },
		Help:  "number of connections"},
	{Key: "duration", Short: "d", Kind: config.Duration, Group: groupLoad, Default: "30s", Signed: true,
		Field: func(p *Plan) any { return &p.Duration },
		Help:  "how long to hold all connections once they are up"},
	{Key: "mode", Kind: config.Word, Group: groupLoad, Default: modeBeat,
		Words: []string{modeBeat, modeEcho, modeChurn},
		Field: func(p *Plan) any { return &p.Mode },
		Help: "beat: every connection beats once per interval; echo: every connection keeps frames in flight; " +
			"churn: connect, beat, close, at the connect rate"},
	{Key: "interval", Kind: config.Duration, Group: groupLoad, Default: "3s", Signed: true,
		Field: func(p *Plan) any { return &p.Interval },
		Help:  "beat: time between two beats of a connection"},
	{Key: "server-beats", Kind: config.Bool, Group: groupLoad, Default: "false",
		Field: func(p *Plan) any { return &p.ServerBeats },
		Help:  "beat: the server beats by itself; its beats are answered, and none is sent"},
	{Key: "phase", Kind: config.Word, Group: groupLoad, Default: phaseUniform, Words: []string{phaseUniform, phaseSync},
		Field: func(p *Plan) any { return &p.Phase },
		Help:  "beat: spread the beats over the interval, or send all at one instant"},
	{Key: "frame", Kind: config.Word, Group: groupLoad, Unset: "empty, or ping with ws and wss",
		Words: []string{frameEmpty, framePing}, Derived: func(p *Plan) string { return p.Frame },
		Field: func(p *Plan) any { return &p.Frame },
		Help:  "beat, churn: the frame that is a beat; ping is that of WebSocket with ws and wss"},
	{Key: "inflight", Kind: config.Number, Group: groupLoad, Default: "1", Signed: true,
		Field: func(p *Plan) any { return &p.Inflight },
		Help:  "echo: frames in flight on each connection"},
	{Key: "payload", Kind: config.Number, Group: groupLoad, Default: "64", Signed: true,
		Field: func(p *Plan) any { return &p.Payload },
		Help:  "echo: bytes in each frame"},
	{Key: "connect-rate", Kind: "rate", Group: groupConnect, Default: "5k",
		Field: func(p *Plan) any { return config.Parsed(&p.ConnectRate, parseRate, engine.Rate.String) },
		Help:  "connects per second, or a ramp such as 1k:20k; in mode churn for the whole run"},
	{Key: "connect-timeout", Kind: config.Duration, Group: groupConnect, Default: "10s", Signed: true,
		Field: func(p *Plan) any { return &p.ConnectTimeout },
		Help:  "a connection that takes longer has failed"},
	{Key: "source", Kind: "range", Group: groupConnect,
		Unset: "127.0.0.0/26 or more for a target on loopback, else the kernel's choice",
		Field: func(p *Plan) any { return config.ListOf(&p.Sources, parseSource, netip.Prefix.String) },
		Help:  "source address or range of addresses, used in turn; may be repeated"},
	{Key: "ca", Kind: config.Path, Group: groupConnect, Unset: "those of this machine",
		Field: func(p *Plan) any { return &p.CA },
		Help:  "tls, wss: PEM file with the authorities of the server's certificate, or with that itself"},
	{Key: "insecure", Kind: config.Bool, Group: groupConnect, Default: "false",
		Field: func(p *Plan) any { return &p.Insecure },
		Help:  "tls, wss: accept any certificate; the report says so"},
	{Key: "cert", Kind: config.Path, Group: groupConnect, Unset: "none",
		Field: func(p *Plan) any { return &p.Cert },
		Help:  "tls, wss: PEM file of the clients' own certificate with its chain"},
	{Key: "key", Kind: config.Path, Group: groupConnect, Unset: "none",
		Field: func(p *Plan) any { return &p.Key },
		Help:  "tls, wss: PEM file of its key"},
	{Key: "server-name", Kind: config.Text, Group: groupConnect, Unset: "the host of the target",
		Field: func(p *Plan) any { return &p.ServerName },
		Help:  "tls, wss: name to ask for, and to verify the certificate with"},
	{Key: "header", Kind: "line", Group: groupConnect, Unset: "none", Secret: true,
		Field: func(p *Plan) any { return config.ListOf(&p.Request.Header, parseHeader, showHeader) },
		Help: "ws, wss: header of the request, such as 'Origin: https://example.com' or 'Authorization: Bearer " +
			"TOKEN'; the report does not show its value; may be repeated"},
	{Key: "framing", Kind: config.Word, Group: groupFraming, Default: engine.FramingNative,
		Words: []string{engine.FramingNative, engine.FramingLength, engine.FramingVarint, engine.FramingLines,
			engine.FramingDelimiter},
		Field: func(p *Plan) any { return &p.Framing.Kind },
		Help: "tcp, tls: how the server cuts its stream into messages; echo: what it echoes is in hexadecimal, so " +
			"twice as long, with lines and delimiter"},
	{Key: "length-offset", Kind: config.Number, Group: groupFraming, Default: "0", Signed: true,
		Field: func(p *Plan) any { return &p.Framing.Offset },
		Help:  "bytes before the length field; they are sent as 0"},
	{Key: "length-width", Kind: config.Number, Group: groupFraming, Default: "4", Signed: true,
		Field: func(p *Plan) any { return &p.Framing.Width },
		Help:  "bytes of the length field: 1, 2, 3, 4 or 8"},
	{Key: "length-order", Kind: config.Word, Group: groupFraming, Default: orderBig,
		Words: []string{orderBig, orderLittle},
		Field: func(p *Plan) any { return &p.Order },
		Help:  "byte order of the length field"},
	{Key: "length-adjust", Kind: config.Number, Group: groupFraming, Default: "0", Signed: true,
		Field: func(p *Plan) any { return &p.Framing.Adjust },
		Help:  "added to the length for the bytes after it: -4 if a field of 4 bytes at the front counts itself"},
	{Key: "length-strip", Kind: config.Number, Group: groupFraming, Default: stripHeader, Signed: true,
		MinusOne: stripHeader,
		Field:    func(p *Plan) any { return &p.Framing.Strip },
		Help: "bytes at the front of a frame that are not part of its message; header: up to the length " +
			"field's end"},
	{Key: "delimiter", Kind: config.Text, Group: groupFraming, Unset: "none",
		Field: func(p *Plan) any { return config.Parsed(&p.Framing.Delimiter, parseMessage, formatMessage) },
		Help:  `what ends a message, such as '\r\n' or '\x00'`},
	{Key: "beat-message", Kind: config.Text, Group: groupFraming, Unset: "empty",
		Field: func(p *Plan) any { return config.Parsed(&p.Framing.Beat, parseMessage, formatMessage) },
		Help:  `the message that is a beat, such as PING or '\x01\x00'`},
	{Key: "answer-message", Kind: config.Text, Group: groupFraming, Unset: "the beat",
		Field: func(p *Plan) any { return config.Parsed(&p.Answer, parseAnswer, formatAnswer) },
		Help:  "the message that answers a beat"},
	{Key: "processes", Kind: config.Number, Group: groupGenerator, Default: "1", Signed: true,
		Field: func(p *Plan) any { return &p.Processes },
		Help:  "processes of the generator; the descriptor limit of each bounds its connections"},
	{Key: "loops", Kind: config.Number, Group: groupGenerator, Default: "1", Signed: true,
		Field: func(p *Plan) any { return &p.Loops },
		Help:  "event loops of each process"},
	{Key: "hello", Kind: config.Bool, Group: groupHello, Default: "false",
		Field: func(p *Plan) any { return &p.Hello },
		Help:  "begin each connection with HELLO; implied by the other hello settings"},
	{Key: "hello-beat", Kind: config.Duration, Group: groupHello, Unset: "what the server decides", Signed: true,
		Field: func(p *Plan) any { return &p.HelloBeat },
		Help:  "beat interval to ask for in HELLO"},
	{Key: "hello-beats", Kind: config.Word, Group: groupHello, Unset: "no preference",
		Words: []string{"client", "server"},
		Field: func(p *Plan) any { return &p.HelloBeats },
		Help:  "side that should beat, to ask for in HELLO; server: the server's beats are answered"},
	{Key: "hello-device", Kind: config.Text, Group: groupHello, Unset: "none",
		Field: func(p *Plan) any { return &p.HelloDevice },
		Help:  "device name in HELLO; the number of the connection is appended"},
	{Key: "hello-token", Kind: config.Text, Group: groupHello, Unset: "none", Secret: true,
		Field: func(p *Plan) any { return &p.HelloToken },
		Help:  "token in HELLO; the report does not show it"},
	{Key: "fault", Kind: "fault", Group: groupFaults, Unset: "none",
		Field: func(p *Plan) any {
			return config.ListOf(&p.Faults, parseFault, func(f Fault) string { return f.Text })
		},
		Help: "KIND:SHARE@WHEN, such as silent:10%@30s, with the options ,+over=DURATION and ,+reconnect; WHEN " +
			"counts from the hold phase; may be repeated; KIND is " +
			wording.Choice(faultNames())},
	{Key: "expect-drain", Kind: config.Bool, Group: groupFaults, Default: "false",
		Field: func(p *Plan) any { return &p.ExpectDrain },
		Help:  "the server drains during the run: connections closed with 3001 are no failure"},
	{Key: "timeout", Kind: config.Duration, Group: groupFaults, Unset: "what the server decides", Signed: true,
		Field: func(p *Plan) any { return &p.Timeout },
		Help:  "idle timeout T of the server, for one that does not announce it"},
	{Key: "bound", Kind: config.Duration, Group: groupFaults, Default: "200ms", Signed: true,
		Field: func(p *Plan) any { return &p.Bound },
		Help:  "how late the server may find a dead peer"},
	{Key: "partial-timeout", Kind: config.Duration, Group: groupFaults, Default: "10s", Signed: true,
		Field: func(p *Plan) any { return &p.PartialTimeout },
		Help:  "how long the server allows a frame to stay incomplete"},
	{Key: "ops", Kind: "URL", Group: groupServer, Unset: "that of a server of its own",
		Field: func(p *Plan) any { return config.Parsed(&p.Ops, parseOpsURL, func(url string) string { return url }) },
		Help:  "address of the server's metrics, sampled about once per second"},
	{Key: "slo", Kind: "gate", Group: groupResult, Unset: "none",
		Field: func(p *Plan) any { return config.ListOf(&p.SLO, parseGate, func(g Gate) string { return g.Text }) },
		Help: "gate such as rtt.p99<5ms, false_kills==0, at_end>=99%, sent>=99% (of the beats " +
			"due in the hold phase) or " +
			"detect.max<=timeout+200ms; a broken gate is exit code " +
			"3; may be repeated"},
	{Key: "max-lag", Kind: config.Duration, Group: groupGenerator, Default: "5ms", Signed: true,
		Field: func(p *Plan) any { return &p.MaxLag },
		Help:  "p99 of the generator's own lag, or of fewer than 1,000 the median, above which no latency counts"},
	{Key: "seed", Kind: config.Number, Group: groupFaults, Default: "1",
		Field: func(p *Plan) any { return config.Parsed(&p.Seed, parseSeed, formatSeed) },
		Help:  "seed of the choice of connections for faults"},
	{Key: "serve", Kind: "flags", Group: groupServer, Unset: "those that fit the interval",
		Field: func(p *Plan) any { return &p.Serve },
		Help:  "flags for a server of its own, such as '--profile iot'"},
	{Key: "out", Kind: config.Path, Group: groupResult, Unset: "none",
		Field: func(p *Plan) any { return &p.Out },
		Help:  "directory for summary.json, timeseries.ndjson, events.ndjson, .hgrm files and report.html"},
}

// parseOpsURL reads HOST:PORT or a URL, with or without /metrics.
func parseOpsURL(text string) (string, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	return strings.TrimSuffix(strings.TrimSuffix(text, "/"), "/metrics"), nil
}

func parseSeed(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, errors.New("is not a whole number from 0")
	}
	return n, nil
}

func formatSeed(n uint64) string { return strconv.FormatUint(n, 10) }

// Build merges the defaults and the layers, a later one wins, and validates the
// plan. The error is a *PlanError with a line for everything that is wrong. The
// settings are the values in force, and where each comes from.
func Build(layers ...config.Layer) (*Plan, []report.Setting, error) {
	p := &Plan{}
	merged := Table.Merge(p, append([]config.Layer{Table.Defaults()}, layers...)...)
	p.Hello = p.Hello || p.HelloBeat != 0 || p.HelloBeats != "" || p.HelloDevice != "" || p.HelloToken != ""
	p.derive()
	if len(merged.Problems) == 0 { // a value that cannot be read is not judged against others
		for _, problem := range p.validate() {
			merged.Problem(problem.key, problem.value, errors.New(problem.text))
		}
	}
	if len(merged.Problems) > 0 {
		return nil, nil, &PlanError{merged.Problems}
	}
	var inForce []report.Setting
	for _, s := range Table {
		value, from := s.Show(p, merged)
		inForce = append(inForce, report.Setting{Key: s.Key, Value: value, From: from.Source})
	}
	return p, inForce, nil
}
