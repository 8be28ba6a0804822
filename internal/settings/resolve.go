package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

// Names of environment variables.
const (
	EnvPrefix  = "HEARTWHEEL_"         // of every setting
	InheritEnv = EnvPrefix + "INHERIT" // the descriptors a process was given; no setting
)

// maxFile bounds what is read of a file of settings.
const maxFile = 1 << 20

// A Layer is one source of settings. Layers are kept apart so that the origin
// of each value stays known; a later one wins.
type Layer struct {
	values *koanf.Koanf
	origin func(key string) string // where its value of key comes from
	spell  func(key string) string // how its source writes key
	given  bool                    // somebody wrote these values, they are not presets
	file   bool
}

func newLayer(values map[string]any, given bool, origin, spell func(string) string) Layer {
	k := koanf.New(".")
	// A confmap cannot fail to load.
	_ = k.Load(confmap.Provider(values, ""), nil)
	return Layer{values: k, origin: origin, spell: spell, given: given}
}

func always(text string) func(string) string { return func(string) string { return text } }

func asIs(key string) string { return key }

func defaultLayer() Layer {
	values := map[string]any{}
	for _, s := range Table {
		if s.Default != "" {
			values[s.Key] = s.Default
		}
	}
	return newLayer(values, false, always("default"), asIs)
}

// profileLayer has no timeout: 2.5 × beat is each profile's timeout too, and
// left open it follows the beat interval that a connection negotiates.
func profileLayer(p server.Profile) Layer {
	return newLayer(map[string]any{
		"beat":     p.Beat.String(),
		"beat-min": p.BeatMin.String(),
		"beat-max": p.BeatMax.String(),
	}, false, always("profile "+p.Name), asIs)
}

// EnvLayer takes the HEARTWHEEL_* variables of environ. An empty one counts as
// not set, as compose files and unit files write it.
func EnvLayer(environ []string) Layer {
	values := map[string]any{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, EnvPrefix) || foreign(name, value) {
			continue
		}
		key := name // an unknown name stays as it is, and is reported
		for _, s := range Table {
			if s.Env() == name {
				key = s.Key
			}
		}
		if value != "" || key == name {
			values[key] = value
		}
	}
	spell := func(key string) string {
		if s := ByKey(key); s != nil {
			return s.Env()
		}
		return key
	}
	return newLayer(values, true, func(key string) string { return "environment " + spell(key) }, spell)
}

// Kubernetes puts the addresses of every service into the environment of each
// pod: a service called heartwheel or heartwheel-ops is met here.
var kubernetes = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?$`)

// foreign reports whether a variable with our prefix is not a setting to
// judge: Kubernetes sets it, the shell completion reads it, or another process
// of ours says in it what it has given to this one.
func foreign(name, value string) bool {
	switch name {
	case EnvPrefix + "ACTIVE_HELP", EnvPrefix + "COMPLETION_DESCRIPTIONS", InheritEnv:
		return true
	}
	return kubernetes.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

func FlagLayer(values map[string]any) Layer {
	spell := func(key string) string { return "--" + key }
	return newLayer(values, true, func(key string) string { return "flag " + spell(key) }, spell)
}

// ArgumentLayer has the file of settings that an argument names.
func ArgumentLayer(path string) Layer {
	return newLayer(map[string]any{"config": path}, true, always("argument"), asIs)
}

// fileLayer reads the YAML file at path. The error says what to do.
func fileLayer(path string) (Layer, error) {
	k := koanf.New(".")
	l := Layer{values: k, origin: always("file " + path), spell: asIs, given: true, file: true}
	f, err := os.Open(path)
	if err != nil {
		return l, fmt.Errorf("cannot be read: %w; give the path of a YAML file", cause(err))
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return l, fmt.Errorf("cannot be read: %w; give the path of a YAML file", cause(err))
	}
	if len(text) > maxFile {
		return l, fmt.Errorf("is larger than %s; give the path of a YAML file", FormatSize(maxFile))
	}
	if documents(text) > 1 {
		return l, errors.New("holds more than one YAML document; leave out the lines of only ---")
	}
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		return l, fmt.Errorf("is not YAML of the form `key: value`: %s", yamlCause(err))
	}
	return l, nil
}

// cause drops the operation and the path, which the message has already.
func cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

var intoMap = regexp.MustCompile(`cannot unmarshal \S+ (.*) into map\[string\].*`)

// yamlCause puts the parser's message on one line, without its Go types.
func yamlCause(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	text = strings.TrimPrefix(text, "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors: ")
	return intoMap.ReplaceAllString(text, "$1 is not a list of keys")
}

// documents counts the YAML documents in text. The parser reads the first and
// says nothing of the others.
func documents(text []byte) int {
	n, content := 0, false
	for line := range bytes.Lines(text) {
		trimmed := bytes.TrimSpace(line)
		switch {
		case bytes.HasPrefix(line, []byte("---")) && (len(trimmed) == 3 || line[3] == ' '):
			rest := bytes.TrimSpace(trimmed[3:])
			content = len(rest) > 0 && rest[0] != '#'
			if content {
				n++
			}
		case len(trimmed) == 0 || trimmed[0] == '#' || trimmed[0] == '%':
		case bytes.HasPrefix(line, []byte("...")) && len(trimmed) == 3:
			content = false
		case !content:
			content = true
			n++
		}
	}
	return n
}

// A Resolved is what the layers come to: valid Options, and where each value
// that is set comes from.
type Resolved struct {
	Options
	Given   int // settings that somebody wrote
	origins map[string]string
}

// Resolve puts the defaults, the profile, the file and the outer layers above
// each other and judges the result. The error is a *UsageError with a line for
// everything that is wrong.
func Resolve(outer ...Layer) (*Resolved, error) {
	j := &judge{bad: map[string]bool{}}
	layers := []Layer{defaultLayer()}
	if path, from := last(outer, "config"); path != "" {
		file, err := fileLayer(path)
		if err != nil {
			j.wrong("config", path, from, err)
		}
		layers = append(layers, file)
	}
	layers = append(layers, outer...)
	name, _ := last(layers, "profile")
	if p, ok := server.ProfileByName(name); ok {
		layers = slices.Insert(layers, 1, profileLayer(p))
	}

	r := &Resolved{origins: map[string]string{}}
	for _, l := range layers {
		j.unknown(l)
		for _, s := range Table {
			if !l.values.Exists(s.Key) {
				continue
			}
			raw := l.values.Get(s.Key)
			err := s.set(&r.Options, raw)
			if s.Key == "config" && l.file {
				err = errors.New("cannot be set in the file itself; leave it out")
			}
			if err != nil {
				j.wrong(s.Key, raw, l.origin(s.Key), err)
				j.bad[s.group] = true
				continue
			}
			r.origins[s.Key] = l.origin(s.Key)
			if l.given && s.Key != "config" {
				j.given = append(j.given, s.Key)
			}
		}
	}
	r.widen(j.given)
	j.fields(r)
	if len(j.lines) > 0 {
		return nil, &UsageError{Lines: j.lines, Help: "heartwheel serve"}
	}
	slices.Sort(j.given)
	r.Given = len(slices.Compact(j.given))
	return r, nil
}

// last finds the winning text of key among layers, and its origin.
func last(layers []Layer, key string) (text, origin string) {
	for _, l := range layers {
		if l.values.Exists(key) {
			text, origin = fmt.Sprint(l.values.Get(key)), l.origin(key)
		}
	}
	return text, origin
}

// widen makes the range that a profile allows hold the beat interval that
// somebody gave, so that giving the one is enough.
func (r *Resolved) widen(given []string) {
	if !slices.Contains(given, "beat-min") && r.BeatMin > r.Beat {
		r.BeatMin = r.Beat
		r.origins["beat-min"] += ", widened to hold beat"
	}
	if !slices.Contains(given, "beat-max") && r.BeatMax < r.Beat {
		r.BeatMax = r.Beat
		r.origins["beat-max"] += ", widened to hold beat"
	}
}

// A judge collects what is wrong, one line each.
type judge struct {
	lines []string
	bad   map[string]bool // groups with a value that could not be read
	given []string        // keys that somebody wrote
}

func (j *judge) wrong(key string, value any, origin string, err error) {
	text := key
	if value != nil {
		texts, plainErr := plain(value)
		if plainErr == nil {
			text += fmt.Sprintf(" %q", strings.Join(texts, ","))
		}
	}
	j.lines = append(j.lines, fmt.Sprintf("%s (%s): %s", text, origin, err))
}

// unknown reports the keys of l that are not settings.
func (j *judge) unknown(l Layer) {
	for _, key := range l.values.Keys() {
		base, _, _ := strings.Cut(key, ".") // koanf writes the inside of a map so
		if ByKey(key) != nil || ByKey(base) != nil {
			continue
		}
		var names []string
		for _, s := range Table {
			names = append(names, l.spell(s.Key))
		}
		inner := key[strings.LastIndex(key, ".")+1:]
		j.lines = append(j.lines, fmt.Sprintf("%s (%s): is not a setting; the nearest is %s",
			l.spell(key), l.origin(key), wording.Nearest(l.spell(inner), names)))
	}
}

// fields reports what server.Config finds wrong, with the origin of each, and
// what it does not know of. A value is not judged against another that could
// not be read, and a preset is not blamed for not fitting a wrong value.
func (j *judge) fields(r *Resolved) {
	r.Config.Beats, _ = server.ParseBeats(r.BeatSide)
	var errs []*server.FieldError
	for _, err := range unjoin(r.Config.Validate()) {
		var field *server.FieldError
		if !errors.As(err, &field) {
			j.lines = append(j.lines, err.Error())
			continue
		}
		errs = append(errs, inSettings(field))
	}
	blamed := map[string]bool{}
	for _, e := range errs {
		if s := ByKey(e.Field); s != nil && slices.Contains(j.given, e.Field) {
			blamed[s.group] = true
		}
	}
	for _, e := range errs {
		if s := ByKey(e.Field); s != nil && s.group != "" {
			if j.bad[s.group] || blamed[s.group] && !slices.Contains(j.given, e.Field) {
				continue
			}
		}
		j.wrong(e.Field, e.Value, r.origins[e.Field], errors.New(e.Want))
	}
	if err := checkWorkers(r.Workers, r.MaxConnections); err != nil {
		j.wrong("workers", ByKey("workers").Value(&r.Options), r.origins["workers"], err)
	}
	if slices.Contains(r.Listen, "tcp://"+r.Ops) && !strings.HasSuffix(r.Ops, ":0") {
		j.wrong("ops", r.Ops, r.origins["ops"], errors.New("is an address of listen too; give it another port, or off"))
	}
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err != nil {
		return []error{err}
	}
	return nil
}
