package cli

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

const envPrefix = "HEARTWHEEL_"

// maxFile bounds what is read of a file of settings.
const maxFile = 1 << 20

// A layer is one source of settings. Layers are kept apart so that the origin
// of each value stays known; a later layer wins.
type layer struct {
	values *koanf.Koanf
	origin func(key string) string // where the layer's value of key comes from
	spell  func(key string) string // how the layer's source writes key
	given  bool                    // somebody wrote these values, they are not presets
	file   bool
}

func newLayer(values map[string]any, given bool, origin, spell func(string) string) layer {
	k := koanf.New(".")
	// A confmap cannot fail to load.
	_ = k.Load(confmap.Provider(values, ""), nil)
	return layer{values: k, origin: origin, spell: spell, given: given}
}

func always(text string) func(string) string { return func(string) string { return text } }

func asIs(key string) string { return key }

func defaultLayer() layer {
	values := map[string]any{}
	for _, s := range settings {
		if s.def != "" {
			values[s.key] = s.def
		}
	}
	return newLayer(values, false, always("default"), asIs)
}

// profileLayer has no timeout: 2.5 × beat is each profile's timeout too, and
// left open it follows the beat interval that a connection negotiates.
func profileLayer(p server.Profile) layer {
	return newLayer(map[string]any{
		"beat":     p.Beat.String(),
		"beat-min": p.BeatMin.String(),
		"beat-max": p.BeatMax.String(),
	}, false, always("profile "+p.Name), asIs)
}

// envLayer takes the HEARTWHEEL_* variables of environ. An empty one counts as
// not set, as compose files and unit files write it.
func envLayer(environ []string) layer {
	values := map[string]any{}
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || foreign(name, value) {
			continue
		}
		key := name // an unknown name stays as it is, and is reported
		for _, s := range settings {
			if s.env() == name {
				key = s.key
			}
		}
		if value != "" || key == name {
			values[key] = value
		}
	}
	spell := func(key string) string {
		if s := settingByKey(key); s != nil {
			return s.env()
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
	case envPrefix + "ACTIVE_HELP", envPrefix + "COMPLETION_DESCRIPTIONS", inheritEnv:
		return true
	}
	return kubernetes.MatchString(name) || strings.HasSuffix(name, "_PORT") && strings.Contains(value, "://")
}

func flagLayer(values map[string]any) layer {
	spell := func(key string) string { return "--" + key }
	return newLayer(values, true, func(key string) string { return "flag " + spell(key) }, spell)
}

// fileLayer reads the YAML file at path. The error says what to do.
func fileLayer(path string) (layer, error) {
	k := koanf.New(".")
	l := layer{values: k, origin: always("file " + path), spell: asIs, given: true, file: true}
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
		return l, fmt.Errorf("is larger than %s; give the path of a YAML file", formatSize(maxFile))
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

// A resolved is what the layers come to: valid options, and where each value
// that is set comes from.
type resolved struct {
	options
	origins map[string]string
	given   int // settings that somebody wrote
}

// resolve puts the defaults, the profile, the file and the outer layers above
// each other and judges the result. The error is a *usageError with a line for
// everything that is wrong.
func resolve(outer ...layer) (*resolved, error) {
	j := &judge{bad: map[string]bool{}}
	layers := []layer{defaultLayer()}
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

	r := &resolved{origins: map[string]string{}}
	for _, l := range layers {
		j.unknown(l)
		for _, s := range settings {
			if !l.values.Exists(s.key) {
				continue
			}
			raw := l.values.Get(s.key)
			err := s.set(&r.options, raw)
			if s.key == "config" && l.file {
				err = errors.New("cannot be set in the file itself; leave it out")
			}
			if err != nil {
				j.wrong(s.key, raw, l.origin(s.key), err)
				j.bad[s.group] = true
				continue
			}
			r.origins[s.key] = l.origin(s.key)
			if l.given && s.key != "config" {
				j.given = append(j.given, s.key)
			}
		}
	}
	r.widen(j.given)
	j.fields(r)
	if len(j.lines) > 0 {
		return nil, &usageError{lines: j.lines, help: "heartwheel serve"}
	}
	slices.Sort(j.given)
	r.given = len(slices.Compact(j.given))
	return r, nil
}

// last finds the winning text of key among layers, and its origin.
func last(layers []layer, key string) (text, origin string) {
	for _, l := range layers {
		if l.values.Exists(key) {
			text, origin = fmt.Sprint(l.values.Get(key)), l.origin(key)
		}
	}
	return text, origin
}

// widen makes the range that a profile allows hold the beat interval that
// somebody gave, so that giving the one is enough.
func (r *resolved) widen(given []string) {
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
func (j *judge) unknown(l layer) {
	for _, key := range l.values.Keys() {
		base, _, _ := strings.Cut(key, ".") // koanf writes the inside of a map so
		if settingByKey(key) != nil || settingByKey(base) != nil {
			continue
		}
		var names []string
		for _, s := range settings {
			names = append(names, l.spell(s.key))
		}
		inner := key[strings.LastIndex(key, ".")+1:]
		j.lines = append(j.lines, fmt.Sprintf("%s (%s): is not a setting; the nearest is %s",
			l.spell(key), l.origin(key), wording.Nearest(l.spell(inner), names)))
	}
}

// fields reports what server.Config finds wrong, with the origin of each, and
// what it does not know of. A value is not judged against another that could
// not be read, and a preset is not blamed for not fitting a wrong value.
func (j *judge) fields(r *resolved) {
	r.Config.Beats, _ = server.ParseBeats(r.beats)
	var errs []*server.FieldError
	for _, err := range unjoin(r.Config.Validate()) {
		var field *server.FieldError
		if !errors.As(err, &field) {
			j.lines = append(j.lines, err.Error())
			continue
		}
		errs = append(errs, field)
	}
	blamed := map[string]bool{}
	for _, e := range errs {
		if s := settingByKey(e.Key); s != nil && slices.Contains(j.given, e.Key) {
			blamed[s.group] = true
		}
	}
	for _, e := range errs {
		if s := settingByKey(e.Key); s != nil && s.group != "" {
			if j.bad[s.group] || blamed[s.group] && !slices.Contains(j.given, e.Key) {
				continue
			}
		}
		j.wrong(e.Key, e.Value, r.origins[e.Key], errors.New(e.Want))
	}
	if err := checkWorkers(r.workers, r.MaxConnections); err != nil {
		j.wrong("workers", settingByKey("workers").value(&r.options), r.origins["workers"], err)
	}
	if slices.Contains(r.Listen, "tcp://"+r.ops) && !strings.HasSuffix(r.ops, ":0") {
		j.wrong("ops", r.ops, r.origins["ops"], errors.New("is an address of listen too; give it another port, or off"))
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
