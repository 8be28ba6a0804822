package settings

import (
	"errors"
	"slices"
	"strings"

	"heartwheel/internal/address"
	"heartwheel/internal/config"
	"heartwheel/server"
)

// A Resolved holds valid Options, and where each value comes from.
type Resolved struct {
	Options
	merged    *config.Merged
	listeners []listener // of Options.Listeners
}

// A File is the content of the configuration file as it was read at one time. It
// does not change.
type File struct {
	Data []byte
	Err  error // it could not be read; continues a sentence that begins with the path
}

// ReadFile reads the file that the layers name. Without one it returns nil.
func ReadFile(outer ...config.Layer) *File {
	path, from := config.Last(outer, "config")
	if path == "" {
		return nil
	}
	data, err := readFile(path, from.Source != config.ArgumentSource)
	return &File{data, err}
}

// Resolve is ResolveFile with the file as it is now.
func Resolve(outer ...config.Layer) (*Resolved, error) {
	return ResolveFile(ReadFile(outer...), outer...)
}

// ResolveFile merges the defaults, the profile, the file and then the outer layers,
// which name the file, and validates the result. The error is a *UsageError with a
// line for everything that is wrong.
func ResolveFile(f *File, outer ...config.Layer) (*Resolved, error) {
	layers := []config.Layer{Table.Defaults()}
	path, from := config.Last(outer, "config")
	var fileErr error
	var elements []config.Layer
	if f != nil {
		var file config.Layer
		if fileErr = f.Err; fileErr == nil {
			file, fileErr = config.ParseYAML("file "+path, f.Data)
			elements = file.Elements(listenersKey, "- listen: tcp://127.0.0.1:9000", Table.Keys())
		}
		layers = append(layers, file)
	}
	layers = append(layers, outer...)
	name, _ := config.Last(layers, "profile")
	if p, ok := server.ProfileByName(name); ok {
		layers = slices.Insert(layers, 1, profileLayer(p))
	}

	r := &Resolved{}
	r.merged = Table.Merge(&r.Options, layers...)
	if fileErr != nil {
		r.merged.ProblemAt("config", path, from, fileErr)
	}
	r.widenBeatRange()
	r.addListeners(elements)
	r.validate()
	if len(r.merged.Problems) > 0 {
		return nil, &UsageError{Lines: r.merged.Problems, Help: "heartwheel serve"}
	}
	return r, nil
}

// TakeLive takes from next the settings that a running server can change. It
// returns those that are different now, and those that differ in next and are kept.
func (r *Resolved) TakeLive(next *Resolved) (changed, kept []Change) {
	changed, kept = Table.TakeLive(&r.Options, r.merged, &next.Options, next.merged)
	r.derive()
	own, left := r.takeListeners(next)
	return append(changed, own...), append(kept, left...)
}

// Clone returns a copy that TakeLive changes without a change to r.
func (r *Resolved) Clone() *Resolved {
	c := &Resolved{Options: r.Options, merged: r.merged.Clone()}
	for _, l := range r.listeners {
		l.merged = l.merged.Clone()
		c.listeners = append(c.listeners, l)
	}
	return c
}

// Written returns the number of settings that the user wrote, but for config.
func (r *Resolved) Written() int {
	n := r.merged.WrittenKeys()
	if r.merged.Written("config") {
		n--
	}
	for _, l := range r.listeners {
		n += l.merged.WrittenKeys()
	}
	return n
}

// widenBeatRange makes the profile's range include the beat that the user wrote,
// so that beat alone is enough.
func (r *Resolved) widenBeatRange() {
	if !r.merged.Written("beat-min") && r.BeatMin > r.Beat {
		r.BeatMin = r.Beat
		r.merged.Note("beat-min", ", widened to include beat")
	}
	if !r.merged.Written("beat-max") && r.BeatMax < r.Beat {
		r.BeatMax = r.Beat
		r.merged.Note("beat-max", ", widened to include beat")
	}
}

// validate reports what server.Config finds wrong, and what it does not know of.
// A value is not judged against a related one that could not be read, and a
// preset is not blamed where a value that the user wrote is wrong.
func (r *Resolved) validate() {
	m := r.merged
	r.pairCertificates(nil)
	for i := range r.listeners {
		r.pairCertificates(&r.listeners[i])
	}
	r.setListeners()
	type problem struct {
		setting *Setting
		err     *server.FieldError
	}
	var problems []problem
	blamed := map[string]bool{} // Related of settings that the user wrote wrong
	for _, err := range unjoin(r.Config.Validate()) {
		var field *server.FieldError
		s := (*Setting)(nil)
		if errors.As(err, &field) {
			if l, of := r.listenerOf(field.Field); l != nil {
				if len(l.merged.Problems) == 0 {
					in := inSettings(&server.FieldError{Field: of, Value: field.Value, Want: field.Want})
					r.problem(l, in.Field, in.Value, errors.New(in.Want))
				}
				continue
			}
			field = inSettings(field)
			s = Table.ByKey(field.Field)
		}
		if s == nil {
			m.Problems = append(m.Problems, err.Error())
			continue
		}
		problems = append(problems, problem{s, field})
		if m.Written(s.Key) {
			blamed[s.Related] = s.Related != ""
		}
	}
	for _, p := range problems {
		if m.Unreadable(p.setting.Related) || blamed[p.setting.Related] && !m.Written(p.setting.Key) {
			continue
		}
		m.Problem(p.setting.Key, p.err.Value, errors.New(p.err.Want))
	}
	for i := range r.listeners {
		m.Append(r.listeners[i].merged)
	}
	if len(m.Problems) == 0 {
		for _, err := range unjoin(r.Config.CheckFiles()) {
			if field := (*server.FieldError)(nil); errors.As(err, &field) {
				r.problemOfFile(field)
			}
		}
		for i := range r.listeners {
			m.Append(r.listeners[i].merged)
		}
	}
	if err := checkWorkers(r.Workers, r.MaxConnections); err != nil {
		m.Problem("workers", Table.ByKey("workers").Text(&r.Options), err)
	}
	r.canonical()
	if slices.Contains(r.ListenSockets(), address.TCP+"://"+r.Ops) && !strings.HasSuffix(r.Ops, ":0") {
		m.Problem("ops", r.Ops, errors.New("is an address of listen too; give it another port, or off"))
	}
}

// canonical brings addresses into their canonical form, so that other parts of the
// program may compare them as text.
func (r *Resolved) canonical() {
	for i, text := range r.Listen {
		r.Listen[i] = canonical(text)
	}
	for i := range r.listeners {
		if l := &r.listeners[i]; len(l.Listen) > 0 {
			l.Listen = []string{canonical(l.Listen[0])}
		}
	}
	r.setListeners()
	if a, err := address.ParseHostPort(r.Ops); err == nil {
		r.Ops = a.String()
	}
}

// canonical returns an address of a listener in its canonical form, or as it is if it
// is wrong.
func canonical(text string) string {
	a, err := address.Parse(text, address.TCP, address.TLS, address.WS, address.WSS, address.Unix)
	if err != nil {
		return text
	}
	return a.String()
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
