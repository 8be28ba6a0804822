package settings

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

// Options is everything that can be set, parsed.
type Options struct {
	server.Config // its Beats and Logger are filled in from the fields below, its Sockets and Quota by serve

	Ops       string // HOST:PORT or off
	Profile   string
	BeatSide  string
	Handler   string
	Workers   int // 0: this process serves; AutoWorkers
	LogFormat string
	LogLevel  string
	File      string // path of the YAML file; empty: none
}

// Kind says how a value is written. It is also the placeholder in the help.
type Kind string

const (
	ListKind     Kind = "list"     // several, separated by commas or given several times
	AddressKind  Kind = "address"  // HOST:PORT or off
	WordKind     Kind = "word"     // one of setting.Words
	DurationKind Kind = "duration" // Go syntax, a unit is required
	SizeKind     Kind = "size"     // bytes, or KiB, MiB, GiB
	NumberKind   Kind = "number"   // whole number, or with k, m
	BoolKind     Kind = "bool"
	PathKind     Kind = "path"
)

// A Setting is one thing that can be set. Flags, environment names, keys of
// the file, the output of config show and docs/settings.md all come from this table.
type Setting struct {
	Key      string // as in the flag and in the file
	Kind     Kind
	Words    []string                // for WordKind: what may be written
	Default  string                  // as a user would write it; empty: see unset
	Unset    string                  // what holds while nothing sets it
	derive   func(o *Options) string // the value that holds while nothing sets it; nil: decided when the server starts
	zero     bool                    // zero may be written
	MinusOne string                  // a word that may be written, for the number −1
	group    string                  // settings of a group are judged against each other
	field    func(o *Options) any    // pointer to the parsed value
	Help     string
}

// Table is every setting, in the order of the help.
var Table = []*Setting{
	{Key: "listen", Kind: ListKind, Default: "tcp://127.0.0.1:9000",
		field: func(o *Options) any { return &o.Listen },
		Help:  "address for clients, tcp://HOST:PORT; may be given several times; port 0 takes a free one"},
	{Key: "ops", Kind: AddressKind, Default: "127.0.0.1:9090",
		field: func(o *Options) any { return &o.Ops },
		Help:  "HOST:PORT for health, metrics and profiles over HTTP, or off"},
	{Key: "profile", Kind: WordKind, Words: profileNames(), Default: server.Profiles[0].Name, group: "beat",
		field: func(o *Options) any { return &o.Profile },
		Help:  "preset of the heartbeat times: sets beat, beat-min and beat-max unless they are given"},
	{Key: "beat", Kind: DurationKind, Unset: "from the profile", group: "beat",
		field: func(o *Options) any { return &o.Beat },
		Help:  "beat interval of a client that does not ask for another"},
	{Key: "timeout", Kind: DurationKind, Unset: "2.5 × the connection's beat", group: "beat",
		derive: func(o *Options) string { return wording.Duration(o.Beat * 5 / 2) },
		field:  func(o *Options) any { return &o.Timeout },
		Help:   "silence after which a peer is dead, for every connection; at least 1.5 × beat"},
	{Key: "beat-min", Kind: DurationKind, Unset: "from the profile", group: "beat",
		field: func(o *Options) any { return &o.BeatMin },
		Help:  "shortest beat interval that a client may ask for"},
	{Key: "beat-max", Kind: DurationKind, Unset: "from the profile", group: "beat",
		field: func(o *Options) any { return &o.BeatMax },
		Help:  "longest beat interval that a client may ask for"},
	{Key: "beats", Kind: WordKind, Words: []string{"client", "server"}, Default: "client",
		field: func(o *Options) any { return &o.BeatSide },
		Help:  "which side beats unless the client asks for the other"},
	{Key: "beat-floor", Kind: DurationKind, Default: "0s", zero: true, group: "beat",
		field: func(o *Options) any { return &o.BeatFloor },
		Help:  "three beats in a row closer together than this end the connection; 0s: no floor"},
	{Key: "require-hello", Kind: BoolKind, Default: "false",
		field: func(o *Options) any { return &o.RequireHello },
		Help:  "a connection's first frame must be HELLO, within 10s"},
	{Key: "handler", Kind: WordKind, Words: []string{"echo"}, Default: "echo",
		field: func(o *Options) any { return &o.Handler },
		Help:  "what is done with the frames of the application"},
	{Key: "max-connections", Kind: NumberKind, Unset: "what the descriptor limit allows",
		field: func(o *Options) any { return &o.MaxConnections },
		Help:  "connections at one time; more are told to come back later"},
	{Key: "address-rate", Kind: NumberKind, Default: "0", zero: true, group: "address",
		field: func(o *Options) any { return &o.AddressRate },
		Help:  "new connections a second from one address, an IPv4 address or an IPv6 /64; 0: no limit"},
	{Key: "address-burst", Kind: NumberKind, Unset: "address-rate", group: "address",
		derive: func(o *Options) string { return strconv.Itoa(o.AddressRate) },
		field:  func(o *Options) any { return &o.AddressBurst },
		Help:   "how many of these may come at once"},
	{Key: "address-max", Kind: NumberKind, Default: "0", zero: true,
		field: func(o *Options) any { return &o.AddressMax },
		Help:  "connections of one address at one time; 0: no limit"},
	{Key: "flap-limit", Kind: NumberKind, Default: "0", zero: true,
		field: func(o *Options) any { return &o.FlapLimit },
		Help:  "an address that connects more often than this within a minute is banned for ban-time; 0: none is"},
	{Key: "ban-time", Kind: DurationKind, Default: "5m",
		field: func(o *Options) any { return &o.BanTime },
		Help:  "how long an address that connects too often is banned"},
	{Key: "ban", Kind: ListKind, Unset: "nobody",
		field: func(o *Options) any { return &o.Ban },
		Help:  "address or CIDR prefix that is never let in; may be given several times"},
	{Key: "max-frame", Kind: SizeKind, Default: "64KiB", group: "size",
		field: func(o *Options) any { return &o.MaxFrame },
		Help:  "largest frame body that is accepted"},
	{Key: "outbox", Kind: SizeKind, Unset: "256KiB or 2 × max-frame, the larger", group: "size",
		derive: func(o *Options) string { return FormatSize(o.WithDefaults().Outbox) },
		field:  func(o *Options) any { return &o.Outbox },
		Help:   "bytes that may wait for a peer that reads too slowly; beyond, it is closed"},
	{Key: "memory-limit", Kind: SizeKind, Unset: "the cgroup's limit, if there is one", MinusOne: "off",
		field: func(o *Options) any { return &o.MemoryLimit },
		Help:  "memory that the server and the kernel may take for it, the cgroup's limit kept too; from 85 % of it newcomers are refused; off: whatever the limit, nobody is"},
	{Key: "write-stall", Kind: DurationKind, Default: "8s",
		field: func(o *Options) any { return &o.WriteStall },
		Help:  "a peer that takes less than 4 KiB of the bytes waiting for it in so long is closed"},
	{Key: "drain", Kind: DurationKind, Default: "30s",
		field: func(o *Options) any { return &o.Drain },
		Help:  "how long the orderly end after SIGTERM or SIGINT may take"},
	{Key: "spread", Kind: DurationKind, Default: "5s",
		field: func(o *Options) any { return &o.Spread },
		Help:  "clients told to reconnect spread themselves over this"},
	{Key: "workers", Kind: NumberKind, Default: "0", zero: true, MinusOne: "auto",
		field: func(o *Options) any { return &o.Workers },
		Help:  "processes that share the connections, under one that watches over them; auto: as many as max-connections needs; 0: one process does it all"},
	{Key: "loops", Kind: NumberKind, Unset: "one per processor",
		field: func(o *Options) any { return &o.Loops },
		Help:  "event loops of each process"},
	{Key: "log-format", Kind: WordKind, Words: []string{"text", "json"}, Default: "text",
		field: func(o *Options) any { return &o.LogFormat },
		Help:  "form of the log, which goes to standard error"},
	{Key: "log-level", Kind: WordKind, Words: []string{"debug", "info", "warn", "error"}, Default: "info",
		field: func(o *Options) any { return &o.LogLevel },
		Help:  "least level that is logged"},
	{Key: "config", Kind: PathKind, Unset: "no file",
		field: func(o *Options) any { return &o.File },
		Help:  "YAML file with any of these settings, one `key: value` a line"},
}

func profileNames() []string {
	var names []string
	for _, p := range server.Profiles {
		names = append(names, p.Name)
	}
	return names
}

// ByKey returns nil if there is no such setting.
func ByKey(key string) *Setting {
	for _, s := range Table {
		if s.Key == key {
			return s
		}
	}
	return nil
}

// Env is the setting's name in the environment.
func (s *Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}

// set parses raw, as a source holds it, into o. The error says what is wrong
// and what to write instead.
func (s *Setting) set(o *Options, raw any) error {
	texts, err := plain(raw)
	if err != nil {
		return err
	}
	if s.Kind == ListKind {
		var parts []string
		for _, text := range texts {
			for part := range strings.SplitSeq(text, ",") {
				parts = append(parts, strings.TrimSpace(part))
			}
		}
		*s.field(o).(*[]string) = parts
		return nil
	}
	if len(texts) != 1 {
		return errors.New("has several values; give it one")
	}
	text := texts[0]
	switch field := s.field(o).(type) {
	case *time.Duration:
		v, err := ParseDuration(text)
		if err == nil && (v < 0 || v == 0 && !s.zero) {
			err = s.notPositive()
		}
		if err != nil {
			return err
		}
		*field = v
	case *int:
		if s.MinusOne != "" && text == s.MinusOne {
			*field = -1
			return nil
		}
		v, err := ParseInt(text, s.Kind)
		if err == nil && (v < 0 || v == 0 && !s.zero) {
			err = s.notPositive()
		}
		if err != nil && s.MinusOne != "" {
			err = fmt.Errorf("%w, or write %s", err, s.MinusOne)
		}
		if err != nil {
			return err
		}
		*field = v
	case *bool:
		if text != "true" && text != "false" {
			return errors.New("must be true or false")
		}
		*field = text == "true"
	case *string:
		if err := s.checkText(text); err != nil {
			return err
		}
		*field = text
	}
	return nil
}

// checkText judges the value of a setting that stays text.
func (s *Setting) checkText(text string) error {
	switch s.Kind {
	case WordKind:
		if !slices.Contains(s.Words, text) {
			return errors.New("must be " + wording.Choice(s.Words))
		}
	case AddressKind:
		if text == "off" {
			return nil
		}
		_, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil || port == "" {
			return fmt.Errorf("is not an address; write HOST:PORT, such as %s, or off", s.Default)
		}
	case PathKind:
		if text == "" {
			return errors.New("is empty; write a path")
		}
	}
	return nil
}

func (s *Setting) notPositive() error {
	if s.zero {
		return errors.New("must not be negative")
	}
	without := s.Default
	if without == "" {
		without = s.Unset
	}
	return fmt.Errorf("must be more than zero; leave it out for the default: %s", without)
}

// plain turns what a source holds into the texts that a user could have
// written: one, or several of a list.
func plain(raw any) ([]string, error) {
	texts, err := wording.Texts(raw)
	if errors.Is(err, wording.ErrNotPlain) {
		err = errors.New("holds further keys; the file is flat, one `key: value` a line")
	}
	return texts, err
}

// ParseDuration reads a duration as a user writes it. The error says what to write
// instead.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, fmt.Errorf("has no unit; write %ss", text)
	}
	return 0, errors.New("is not a duration; write a number and a unit, such as 15s, 500ms or 2m")
}

// A unit is a suffix of a number and what it multiplies by.
type unit struct {
	suffix string
	factor int64
}

// ParseInt reads a size or a number, as k says. The error says what to write
// instead.
func ParseInt(text string, k Kind) (int, error) {
	units, form := []unit{{"k", 1e3}, {"m", 1e6}}, "a whole number; write one such as 20000, 20k or 1m"
	if k == SizeKind {
		units, form = []unit{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}}, "a size; write bytes, such as 65536, or 64KiB or 1MiB"
	}
	digits, factor := text, int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(strings.ToLower(text), u.suffix); ok {
			digits, factor = strings.TrimSpace(head), u.factor
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && (n > math.MaxInt/factor || n < math.MinInt/factor) {
		return 0, errors.New("is beyond what this machine can count")
	}
	if err != nil {
		return 0, errors.New("is not " + form)
	}
	return int(n * factor), nil
}

// Value is the setting's value in o, as a user would write it.
func (s *Setting) Value(o *Options) string {
	switch field := s.field(o).(type) {
	case *time.Duration:
		return wording.Duration(*field)
	case *int:
		if s.MinusOne != "" && *field < 0 {
			return s.MinusOne
		}
		if s.Kind == SizeKind {
			return FormatSize(*field)
		}
		return strconv.Itoa(*field)
	case *bool:
		return strconv.FormatBool(*field)
	case *[]string:
		return strings.Join(*field, ",")
	case *string:
		return *field
	}
	return ""
}

func FormatSize(n int) string {
	switch {
	case n > 0 && n%(1<<30) == 0:
		return strconv.Itoa(n>>30) + "GiB"
	case n > 0 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "MiB"
	case n > 0 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "KiB"
	}
	return strconv.Itoa(n)
}
