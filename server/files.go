package server

import (
	"errors"

	"heartwheel/internal/auth"
	"heartwheel/internal/edge/tlsedge"
)

// A fileSet is what the files had that a Config names, by endpoint.
type fileSet struct {
	tls   []*tlsedge.Server // nil: without TLS
	auths [][]auth.Config   // and by path
}

// CheckFiles reads the files that c, which is valid, names: certificates, keys and tokens.
// It reports everything that is wrong with them: a joined error whose parts are
// *FieldError, or nil.
func (c Config) CheckFiles() error {
	c = c.WithDefaults()
	ends, _ := c.endpoints()
	_, err := c.readFiles(ends)
	return err
}

// readFiles is CheckFiles for c, which is complete and has ends, and returns what it read.
func (c *Config) readFiles(ends []endpoint) (f fileSet, err error) {
	var errs []error
	for _, e := range ends {
		var t *tlsedge.Server
		if e.secure() {
			t, err = tlsedge.New(e.tls())
			for _, part := range parts(err) {
				errs = append(errs, &FieldError{e.prefix() + "Certificates", e.certificates(), part.Error()})
			}
		}
		var auths []auth.Config
		for _, p := range e.paths {
			a, err := p.auth.load(c)
			if err != nil {
				errs = append(errs, &FieldError{p.prefix() + "Auth", p.auth.Mode, err.Error()})
			}
			auths = append(auths, a)
		}
		f.tls, f.auths = append(f.tls, t), append(f.auths, auths)
	}
	return f, errors.Join(errs...)
}

// parts returns the errors that err joins.
func parts(err error) []error {
	switch joined, ok := err.(interface{ Unwrap() []error }); {
	case ok:
		return joined.Unwrap()
	case err != nil:
		return []error{err}
	}
	return nil
}
