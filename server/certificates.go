package server

import (
	"slices"
	"strings"
	"time"

	"heartwheel/internal/edge/tlsedge"
)

const (
	certificateLook  = 10 * time.Second    // how often the files are looked at
	certificateWarn  = 30 * 24 * time.Hour // before the end of a certificate
	certificateAgain = 24 * time.Hour      // from one warning to the next
)

// A certificateWatch loads the files of certificates again when they change, and warns
// before a certificate ends. It belongs to one goroutine.
type certificateWatch struct {
	s      *Server
	failed map[*tlsedge.Server]string // what was wrong at the last look
	logged map[*tlsedge.Server]string // what of that is in the log
	warned map[string]time.Time       // by fingerprint
}

func newCertificateWatch(s *Server) *certificateWatch {
	return &certificateWatch{s, map[*tlsedge.Server]string{}, map[*tlsedge.Server]string{}, map[string]time.Time{}}
}

// hasTLS reports whether there is anything to watch.
func (s *Server) hasTLS() bool {
	return slices.ContainsFunc(s.listeners, func(ln *listener) bool { return ln.tls != nil })
}

// run looks until accepting ends.
func (w *certificateWatch) run() {
	for {
		w.look(time.Now())
		if !w.s.sleep(certificateLook) {
			return
		}
	}
}

// look does what is due at now.
func (w *certificateWatch) look(now time.Time) {
	warned := map[string]time.Time{}
	for _, ln := range w.s.listeners {
		if ln.tls == nil {
			continue
		}
		w.reload(ln)
		for _, c := range ln.tls.Certificates() {
			if _, done := warned[c.Fingerprint]; !done {
				w.warn(c, now, warned)
			}
		}
	}
	w.warned = warned
}

// reload loads the files of ln again if they have changed. What is wrong with them is
// logged at the second look: a certificate and its key are not replaced at once.
func (w *certificateWatch) reload(ln *listener) {
	if !ln.tls.Changed() {
		delete(w.failed, ln.tls)
		delete(w.logged, ln.tls)
		return
	}
	if !w.s.reloadMu.TryLock() { // Reload, which may take seconds, loads them; the configuration must not change
		return
	}
	err := ln.tls.Reload()
	w.s.reloadMu.Unlock()
	if err == nil {
		delete(w.failed, ln.tls)
		delete(w.logged, ln.tls)
		for _, c := range ln.tls.Certificates() {
			w.s.log.Info("certificate loaded again", "addr", ln.Addr().String(), "file", c.File,
				"names", strings.Join(c.Names, ","), "not_after", c.NotAfter.UTC().Format(time.RFC3339))
		}
		return
	}
	why := err.Error()
	if w.failed[ln.tls] == why && w.logged[ln.tls] != why {
		w.logged[ln.tls] = why
		for _, part := range parts(err) {
			w.s.log.Error("files of certificates have changed and are wrong; those loaded before stay in use",
				"addr", ln.Addr().String(), "error", part)
		}
	}
	w.failed[ln.tls] = why
}

// warn logs that c ends soon, if it does, once in certificateAgain.
func (w *certificateWatch) warn(c tlsedge.Certificate, now time.Time, warned map[string]time.Time) {
	left := c.NotAfter.Sub(now)
	if left > certificateWarn {
		return
	}
	if last, ok := w.warned[c.Fingerprint]; ok && now.Sub(last) < certificateAgain {
		warned[c.Fingerprint] = last
		return
	}
	warned[c.Fingerprint] = now
	args := []any{"file", c.File, "names", strings.Join(c.Names, ","),
		"not_after", c.NotAfter.UTC().Format(time.RFC3339), "fix", "replace the file; it is read again by itself"}
	if left <= 0 {
		w.s.log.Error("a certificate has expired: clients refuse it", args...)
		return
	}
	w.s.log.Warn("a certificate expires soon", append(args, "days", int(left/(24*time.Hour)))...)
}

// certificateEnds gives add the end of each certificate that is loaded, with its file,
// in seconds since 1970.
func certificateEnds(s *Server, _ []counters, add func(float64, ...string)) {
	seen := map[string]bool{}
	for _, ln := range s.listeners {
		if ln.tls == nil {
			continue
		}
		for _, c := range ln.tls.Certificates() {
			if file := strings.ToValidUTF8(c.File, "\uFFFD"); !seen[file] {
				seen[file] = true
				add(float64(c.NotAfter.Unix()), file)
			}
		}
	}
}
