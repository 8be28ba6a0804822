package cli

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

// options is everything that can be set, parsed.
type options struct {
	server.Config // its Beats and Logger are filled in from the fields below, its Sockets and Shared by serve

	ops       string // HOST:PORT or off
	profile   string
	beats     string
	handler   string
	workers   int // 0: this process serves; autoWorkers
	logFormat string
	logLevel  string
	config    string // path of the YAML file; empty: none
}

// kind says how a value is written. It is also the placeholder in the help.
type kind string

const (
	listKind     kind = "list"     // several, separated by commas or given several times
	addressKind  kind = "address"  // HOST:PORT or off
	wordKind     kind = "word"     // one of setting.words
	durationKind kind = "duration" // Go syntax, a unit is required
	sizeKind     kind = "size"     // bytes, or KiB, MiB, GiB
	numberKind   kind = "number"   // whole number, or with k, m
	boolKind     kind = "bool"
	pathKind     kind = "path"
)

// A setting is one thing that can be set. Flags, environment names, keys of
// the file, the output of config show and docs/settings.md all come from this table.
type setting struct {
	key    string // as in the flag and in the file
	kind   kind
	words  []string                // for wordKind: what may be written
	def    string                  // as a user would write it; empty: see unset
	unset  string                  // what holds while nothing sets it
	derive func(o *options) string // the value that holds while nothing sets it; nil: decided when the server starts
	zero   bool                    // zero may be written
	minus  string                  // a word that may be written, for the number −1
	group  string                  // settings of a group are judged against each other
	field  func(o *options) any    // pointer to the parsed value
	help   string
}

var settings = []*setting{
	{key: "listen", kind: listKind, def: "tcp://127.0.0.1:9000",
		field: func(o *options) any { return &o.Listen },
		help:  "address for clients, tcp://HOST:PORT; may be given several times; port 0 takes a free one"},
	{key: "ops", kind: addressKind, def: "127.0.0.1:9090",
		field: func(o *options) any { return &o.ops },
		help:  "HOST:PORT for health, metrics and profiles over HTTP, or off"},
	{key: "profile", kind: wordKind, words: profileNames(), def: server.Profiles[0].Name, group: "beat",
		field: func(o *options) any { return &o.profile },
		help:  "preset of the heartbeat times: sets beat, beat-min and beat-max unless they are given"},
	{key: "beat", kind: durationKind, unset: "from the profile", group: "beat",
		field: func(o *options) any { return &o.Beat },
		help:  "beat interval of a client that does not ask for another"},
	{key: "timeout", kind: durationKind, unset: "2.5 × the connection's beat", group: "beat",
		derive: func(o *options) string { return wording.Duration(o.Beat * 5 / 2) },
		field:  func(o *options) any { return &o.Timeout },
		help:   "silence after which a peer is dead, for every connection; at least 1.5 × beat"},
	{key: "beat-min", kind: durationKind, unset: "from the profile", group: "beat",
		field: func(o *options) any { return &o.BeatMin },
		help:  "shortest beat interval that a client may ask for"},
	{key: "beat-max", kind: durationKind, unset: "from the profile", group: "beat",
		field: func(o *options) any { return &o.BeatMax },
		help:  "longest beat interval that a client may ask for"},
	{key: "beats", kind: wordKind, words: []string{"client", "server"}, def: "client",
		field: func(o *options) any { return &o.beats },
		help:  "which side beats unless the client asks for the other"},
	{key: "beat-floor", kind: durationKind, def: "0s", zero: true, group: "beat",
		field: func(o *options) any { return &o.BeatFloor },
		help:  "three beats in a row closer together than this end the connection; 0s: no floor"},
	{key: "require-hello", kind: boolKind, def: "false",
		field: func(o *options) any { return &o.RequireHello },
		help:  "a connection's first frame must be HELLO, within 10s"},
	{key: "handler", kind: wordKind, words: []string{"echo"}, def: "echo",
		field: func(o *options) any { return &o.handler },
		help:  "what is done with the frames of the application"},
	{key: "max-connections", kind: numberKind, unset: "what the descriptor limit allows",
		field: func(o *options) any { return &o.MaxConnections },
		help:  "connections at one time; more are told to come back later"},
	{key: "address-rate", kind: numberKind, def: "0", zero: true, group: "address",
		field: func(o *options) any { return &o.AddressRate },
		help:  "new connections a second from one address, an IPv4 address or an IPv6 /64; 0: no limit"},
	{key: "address-burst", kind: numberKind, unset: "address-rate", group: "address",
		derive: func(o *options) string { return strconv.Itoa(o.AddressRate) },
		field:  func(o *options) any { return &o.AddressBurst },
		help:   "how many of these may come at once"},
	{key: "address-max", kind: numberKind, def: "0", zero: true,
		field: func(o *options) any { return &o.AddressMax },
		help:  "connections of one address at one time; 0: no limit"},
	{key: "flap-limit", kind: numberKind, def: "0", zero: true,
		field: func(o *options) any { return &o.FlapLimit },
		help:  "an address that connects more often than this within a minute is banned for ban-time; 0: none is"},
	{key: "ban-time", kind: durationKind, def: "5m",
		field: func(o *options) any { return &o.BanTime },
		help:  "how long an address that connects too often is banned"},
	{key: "ban", kind: listKind, unset: "nobody",
		field: func(o *options) any { return &o.Ban },
		help:  "address or CIDR prefix that is never let in; may be given several times"},
	{key: "max-frame", kind: sizeKind, def: "64KiB", group: "size",
		field: func(o *options) any { return &o.MaxFrame },
		help:  "largest frame body that is accepted"},
	{key: "outbox", kind: sizeKind, unset: "256KiB or 2 × max-frame, the larger", group: "size",
		derive: func(o *options) string { return formatSize(o.WithDefaults().Outbox) },
		field:  func(o *options) any { return &o.Outbox },
		help:   "bytes that may wait for a peer that reads too slowly; beyond, it is closed"},
	{key: "memory-limit", kind: sizeKind, unset: "the cgroup's limit, if there is one", minus: "off",
		field: func(o *options) any { return &o.MemoryLimit },
		help:  "memory that the server and the kernel may take for it, the cgroup's limit kept too; from 85 % of it newcomers are refused; off: whatever the limit, nobody is"},
	{key: "write-stall", kind: durationKind, def: "8s",
		field: func(o *options) any { return &o.WriteStall },
		help:  "a peer that takes less than 4 KiB of the bytes waiting for it in so long is closed"},
	{key: "drain", kind: durationKind, def: "30s",
		field: func(o *options) any { return &o.Drain },
		help:  "how long the orderly end after SIGTERM or SIGINT may take"},
	{key: "spread", kind: durationKind, def: "5s",
		field: func(o *options) any { return &o.Spread },
		help:  "clients told to reconnect spread themselves over this"},
	{key: "workers", kind: numberKind, def: "0", zero: true, minus: "auto",
		field: func(o *options) any { return &o.workers },
		help:  "processes that share the connections, under one that watches over them; auto: as many as max-connections needs; 0: one process does it all"},
	{key: "loops", kind: numberKind, unset: "one per processor",
		field: func(o *options) any { return &o.Loops },
		help:  "event loops of each process"},
	{key: "log-format", kind: wordKind, words: []string{"text", "json"}, def: "text",
		field: func(o *options) any { return &o.logFormat },
		help:  "form of the log, which goes to standard error"},
	{key: "log-level", kind: wordKind, words: []string{"debug", "info", "warn", "error"}, def: "info",
		field: func(o *options) any { return &o.logLevel },
		help:  "least level that is logged"},
	{key: "config", kind: pathKind, unset: "no file",
		field: func(o *options) any { return &o.config },
		help:  "YAML file with any of these settings, one `key: value` a line"},
}

func profileNames() []string {
	var names []string
	for _, p := range server.Profiles {
		names = append(names, p.Name)
	}
	return names
}

// settingByKey returns nil if there is no such setting.
func settingByKey(key string) *setting {
	for _, s := range settings {
		if s.key == key {
			return s
		}
	}
	return nil
}

// env is the setting's name in the environment.
func (s *setting) env() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, "-", "_"))
}

// set parses raw, as a source holds it, into o. The error says what is wrong
// and what to write instead.
func (s *setting) set(o *options, raw any) error {
	texts, err := plain(raw)
	if err != nil {
		return err
	}
	if s.kind == listKind {
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
		v, err := parseDuration(text)
		if err == nil && (v < 0 || v == 0 && !s.zero) {
			err = s.notPositive()
		}
		if err != nil {
			return err
		}
		*field = v
	case *int:
		if s.minus != "" && text == s.minus {
			*field = -1
			return nil
		}
		v, err := parseInt(text, s.kind)
		if err == nil && (v < 0 || v == 0 && !s.zero) {
			err = s.notPositive()
		}
		if err != nil && s.minus != "" {
			err = fmt.Errorf("%w, or write %s", err, s.minus)
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
func (s *setting) checkText(text string) error {
	switch s.kind {
	case wordKind:
		if !slices.Contains(s.words, text) {
			return errors.New("must be " + wording.Choice(s.words))
		}
	case addressKind:
		if text == "off" {
			return nil
		}
		_, port, err := net.SplitHostPort(text)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		if err != nil || port == "" {
			return fmt.Errorf("is not an address; write HOST:PORT, such as %s, or off", s.def)
		}
	case pathKind:
		if text == "" {
			return errors.New("is empty; write a path")
		}
	}
	return nil
}

func (s *setting) notPositive() error {
	if s.zero {
		return errors.New("must not be negative")
	}
	without := s.def
	if without == "" {
		without = s.unset
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

func parseDuration(text string) (time.Duration, error) {
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

// parseInt reads a size or a number.
func parseInt(text string, k kind) (int, error) {
	units, form := []unit{{"k", 1e3}, {"m", 1e6}}, "a whole number; write one such as 20000, 20k or 1m"
	if k == sizeKind {
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

// value is the setting's value in o, as a user would write it.
func (s *setting) value(o *options) string {
	switch field := s.field(o).(type) {
	case *time.Duration:
		return wording.Duration(*field)
	case *int:
		if s.minus != "" && *field < 0 {
			return s.minus
		}
		if s.kind == sizeKind {
			return formatSize(*field)
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

func formatSize(n int) string {
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
