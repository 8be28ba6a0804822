package loadtest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// A Key is one setting of a plan: a flag, and a key of a scenario.
type Key struct {
	Name    string
	Short   string // letter of the flag; empty: none
	Kind    string // placeholder in the help
	Default string // as a user would write it; empty: none
	Unset   string // what holds without a value, if Default is empty
	List    bool   // may be given several times
	Help    string
	Words   []string // what may be written, if only these

	set   func(p *Plan, text string) error // adds, if List
	get   func(p *Plan) string
	clear func(p *Plan) // of a List
}

// Keys has every setting, in the order of the help.
var Keys = []Key{
	free("target", "address", "a server process of its own", "tcp://HOST:PORT of the server to test",
		func(p *Plan) *string { return &p.Target }),
	number("connections", "c", "1k", "connections", func(p *Plan) *int { return &p.Connections }),
	duration("duration", "d", "30s", "how long all connections are held once they are up", func(p *Plan) *time.Duration { return &p.Duration }),
	word("mode", "beat", []string{modeBeat, modeEcho, modeChurn},
		"beat: every connection beats each interval; echo: every connection keeps frames on their way; churn: connect, beat, close, at the connect rate",
		func(p *Plan) *string { return &p.Mode }),
	duration("interval", "", "3s", "beat: time between two beats of a connection", func(p *Plan) *time.Duration { return &p.Interval }),
	word("phase", phaseUniform, []string{phaseUniform, phaseSync}, "beat: the beats spread over the interval, or all at one instant",
		func(p *Plan) *string { return &p.Phase }),
	word("frame", frameEmpty, []string{frameEmpty, framePing}, "beat, churn: what a beat is", func(p *Plan) *string { return &p.Frame }),
	number("inflight", "", "1", "echo: frames on their way on each connection", func(p *Plan) *int { return &p.Inflight }),
	number("payload", "", "64", "echo: bytes in each frame", func(p *Plan) *int { return &p.Payload }),
	{Name: "connect-rate", Kind: "rate", Default: "5k", Help: "connects a second, or a ramp such as 1k:20k; in mode churn for the whole run",
		set: func(p *Plan, text string) (err error) { p.ConnectRate, err = parseRate(text); return err },
		get: func(p *Plan) string { return p.ConnectRate.String() }},
	duration("connect-timeout", "", "10s", "a connection that takes longer has failed", func(p *Plan) *time.Duration { return &p.ConnectTimeout }),
	{Name: "source", Kind: "range", List: true, Unset: "127.0.0.0/26 or more for a target on loopback, else the kernel's choice",
		Help: "source address or range of them, used in turn; may be given several times",
		set: func(p *Plan, text string) error {
			prefix, err := parseSource(text)
			p.Sources = append(p.Sources, prefix)
			return err
		},
		get:   func(p *Plan) string { return joined(p.Sources, netip.Prefix.String) },
		clear: func(p *Plan) { p.Sources = nil }},
	number("processes", "", "1", "processes of the generator; each holds as many connections as it may open files", func(p *Plan) *int { return &p.Processes }),
	number("loops", "", "1", "event loops of each process", func(p *Plan) *int { return &p.Loops }),
	{Name: "hello", Kind: "bool", Default: "false", Help: "begin each connection with HELLO; the other hello settings do so too",
		set: func(p *Plan, text string) error {
			if text != "true" && text != "false" {
				return errors.New("must be true or false")
			}
			p.Hello = text == "true"
			return nil
		},
		get: func(p *Plan) string { return strconv.FormatBool(p.Hello) }},
	duration("hello-beat", "", "", "beat interval to wish for in HELLO", func(p *Plan) *time.Duration { return &p.HelloBeat }),
	word("hello-beats", "", []string{"client", "server"}, "which side should beat, to wish for in HELLO; server: the server's beats are answered",
		func(p *Plan) *string { return &p.HelloBeats }),
	free("hello-device", "text", "none", "device of HELLO; the number of the connection is added", func(p *Plan) *string { return &p.HelloDevice }),
	{Name: "hello-token", Kind: "text", Unset: "none", Help: "token of HELLO; the report does not show it",
		set: func(p *Plan, text string) error { p.HelloToken = text; return nil },
		get: func(p *Plan) string {
			if p.HelloToken != "" {
				return "(given)"
			}
			return ""
		}},
	{Name: "fault", Kind: "fault", List: true, Unset: "none",
		Help: "KIND:SHARE@WHEN[,+over=DURATION][,+reconnect] after the hold phase began, such as silent:10%@30s; may be given several times; KIND is " +
			wording.Choice(faultNames()),
		set: func(p *Plan, text string) error {
			f, err := parseFault(text)
			p.Faults = append(p.Faults, f)
			return err
		},
		get:   func(p *Plan) string { return joined(p.Faults, func(f Fault) string { return f.Text }) },
		clear: func(p *Plan) { p.Faults = nil }},
	duration("timeout", "", "", "idle timeout T of the server, if it does not say so itself", func(p *Plan) *time.Duration { return &p.Timeout }),
	duration("bound", "", "200ms", "how much later than due a dead peer may be noticed", func(p *Plan) *time.Duration { return &p.Bound }),
	duration("partial-timeout", "", "10s", "how long the server lets part of a frame stay incomplete", func(p *Plan) *time.Duration { return &p.PartialTimeout }),
	{Name: "ops", Kind: "URL", Unset: "that of a server of its own", Help: "address of the server's metrics, to sample them about every second",
		set: func(p *Plan, text string) error {
			if !strings.Contains(text, "://") {
				text = "http://" + text
			}
			p.Ops = strings.TrimSuffix(strings.TrimSuffix(text, "/"), "/metrics")
			return nil
		},
		get: func(p *Plan) string { return p.Ops }},
	{Name: "slo", Kind: "gate", List: true, Unset: "none",
		Help: "gate such as rtt.p99<5ms, false_kills==0 or detect.max<=timeout+200ms; may be given several times; a broken one ends in exit 3",
		set: func(p *Plan, text string) error {
			g, err := parseGate(text)
			p.SLO = append(p.SLO, g)
			return err
		},
		get:   func(p *Plan) string { return joined(p.SLO, func(g Gate) string { return g.Text }) },
		clear: func(p *Plan) { p.SLO = nil }},
	duration("max-lag", "", "5ms", "p99 of the generator's own lag beyond which the run is invalid", func(p *Plan) *time.Duration { return &p.MaxLag }),
	{Name: "seed", Kind: "number", Default: "1", Help: "decides which connections a fault takes",
		set: func(p *Plan, text string) (err error) {
			if p.Seed, err = strconv.ParseUint(text, 10, 64); err != nil {
				err = errors.New("is not a whole number from 0")
			}
			return err
		},
		get: func(p *Plan) string { return strconv.FormatUint(p.Seed, 10) }},
	free("serve", "flags", "those that fit the interval", "flags for a server of its own, such as '--profile iot'", func(p *Plan) *string { return &p.Serve }),
	free("out", "path", "none", "directory for summary.json, timeseries.ndjson, events.ndjson, .hgrm files and report.html",
		func(p *Plan) *string { return &p.Out }),
}

func free(name, kind, unset, help string, field func(*Plan) *string) Key {
	return Key{Name: name, Kind: kind, Unset: unset, Help: help,
		set: func(p *Plan, text string) error { *field(p) = text; return nil },
		get: func(p *Plan) string { return *field(p) }}
}

func word(name, def string, words []string, help string, field func(*Plan) *string) Key {
	return Key{Name: name, Kind: "word", Default: def, Unset: "no wish", Help: help, Words: words,
		set: func(p *Plan, text string) error {
			if !slices.Contains(words, text) {
				return errors.New("must be " + wording.Choice(words))
			}
			*field(p) = text
			return nil
		},
		get: func(p *Plan) string { return *field(p) }}
}

func number(name, short, def, help string, field func(*Plan) *int) Key {
	return Key{Name: name, Short: short, Kind: "number", Default: def, Help: help,
		set: func(p *Plan, text string) (err error) { *field(p), err = parseCount(text); return err },
		get: func(p *Plan) string { return formatCount(*field(p)) }}
}

func duration(name, short, def, help string, field func(*Plan) *time.Duration) Key {
	return Key{Name: name, Short: short, Kind: "duration", Default: def, Unset: "what the server decides", Help: help,
		set: func(p *Plan, text string) (err error) { *field(p), err = parseDuration(text); return err },
		get: func(p *Plan) string {
			if d := *field(p); d != 0 {
				return wording.Duration(d)
			}
			return ""
		}}
}

func joined[T any](list []T, text func(T) string) string {
	var texts []string
	for _, v := range list {
		texts = append(texts, text(v))
	}
	return strings.Join(texts, " ")
}

// KeyNames is the names of Keys.
func KeyNames() []string {
	var names []string
	for _, k := range Keys {
		names = append(names, k.Name)
	}
	return names
}

func keyByName(name string) *Key {
	for i := range Keys {
		if Keys[i].Name == name {
			return &Keys[i]
		}
	}
	return nil
}

// A Layer is one source of settings, such as the flags or a scenario.
type Layer struct {
	From   string              // "flag" or "scenario NAME"
	Values map[string][]string // by key, as a user wrote them; several only for a list
}

// Build puts the defaults and the layers above each other, a later one wins,
// and validates the plan. The error is a *PlanError with a line for everything
// that is wrong. The settings say what is in force and where it is from.
func Build(layers ...Layer) (*Plan, []Setting, error) {
	p := &Plan{}
	from := map[string]string{}
	var lines []string
	for _, k := range Keys {
		if k.Default != "" {
			if err := k.set(p, k.Default); err != nil {
				panic(err) // a default that its own key refuses
			}
		}
		from[k.Name] = "default"
	}
	for _, l := range layers {
		for _, name := range sortedKeys(l.Values) {
			k := keyByName(name)
			if k == nil {
				lines = append(lines, fmt.Sprintf("%s (%s): is not a setting; the nearest is %s", name, l.From, wording.Nearest(name, KeyNames())))
				continue
			}
			lines = append(lines, k.apply(p, l, l.Values[name])...)
			from[name] = l.From
		}
	}
	p.Hello = p.Hello || p.HelloBeat != 0 || p.HelloBeats != "" || p.HelloDevice != "" || p.HelloToken != ""
	if len(lines) > 0 {
		return nil, nil, &PlanError{lines} // values that could not be read are not judged against others
	}
	if err := p.Validate(); err != nil {
		return nil, nil, err
	}
	return p, p.settings(from), nil
}

// apply sets k from texts, and returns a line for each that is wrong. A list
// takes the place of one from an earlier layer.
func (k *Key) apply(p *Plan, l Layer, texts []string) (lines []string) {
	if !k.List && len(texts) != 1 {
		return []string{fmt.Sprintf("%s (%s): has %d values; give it one", k.Name, l.From, len(texts))}
	}
	if k.clear != nil {
		k.clear(p)
	}
	for _, text := range texts {
		if err := k.set(p, text); err != nil {
			lines = append(lines, fmt.Sprintf("%s %q (%s): %s", k.Name, text, l.From, err))
		}
	}
	return lines
}

// settings lists what is in force.
func (p *Plan) settings(from map[string]string) []Setting {
	var list []Setting
	for _, k := range Keys {
		list = append(list, Setting{Key: k.Name, Value: k.get(p), From: from[k.Name]})
	}
	return list
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
