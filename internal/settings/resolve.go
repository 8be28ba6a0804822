package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"heartwheel/internal/address"
	"heartwheel/internal/config"
	"heartwheel/server"
)

// A Resolved holds valid Options, and where each value comes from.
type Resolved struct {
	Options
	merged *config.Merged
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
	if f != nil {
		var file config.Layer
		if fileErr = f.Err; fileErr == nil {
			file, fileErr = config.ParseYAML("file "+path, f.Data)
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
	r.Config.Beats, r.Certificates = next.Config.Beats, next.Certificates
	return changed, kept
}

// Clone returns a copy that TakeLive changes without a change to r.
func (r *Resolved) Clone() *Resolved { return &Resolved{Options: r.Options, merged: r.merged.Clone()} }

// Written returns the number of settings that the user wrote, but for config.
func (r *Resolved) Written() int {
	n := r.merged.WrittenKeys()
	if r.merged.Written("config") {
		n--
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
	r.Config.Beats, _ = server.ParseBeats(r.BeatSide)
	m := r.merged
	r.pairCertificates()
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
	if len(m.Problems) == 0 {
		for _, err := range unjoin(r.Config.CheckFiles()) {
			var field *server.FieldError
			if errors.As(err, &field) {
				field = inSettings(field)
				m.Problem(field.Field, field.Value, errors.New(field.Want))
			}
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

// pairCertificates gives each certificate its key.
func (r *Resolved) pairCertificates() {
	r.Certificates = nil
	if len(r.TLSCert) != len(r.TLSKey) {
		r.merged.Problem("tls-key", strings.Join(r.TLSKey, ","),
			fmt.Errorf("is %d files for %d of tls-cert; give each certificate its key", len(r.TLSKey), len(r.TLSCert)))
		return
	}
	for i, cert := range r.TLSCert {
		r.Certificates = append(r.Certificates, server.Certificate{Cert: cert, Key: r.TLSKey[i]})
	}
}

// canonical brings addresses into their canonical form, so that other parts of the
// program may compare them as text.
func (r *Resolved) canonical() {
	for i, text := range r.Listen {
		if a, err := address.Parse(text, address.TCP, address.TLS, address.WS, address.WSS); err == nil {
			r.Listen[i] = a.String()
		}
	}
	if a, err := address.ParseHostPort(r.Ops); err == nil {
		r.Ops = a.String()
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
