package settings

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"heartwheel/internal/config"
	"heartwheel/server"
)

// A listener is an element of listeners in the file. Its Options are the general ones
// with what it sets itself, and Listen is its one address.
type listener struct {
	Options
	merged *config.Merged // of what it sets itself
	begin  config.Origin
}

// addListeners makes the listeners that elements of the file describe. What one does
// not set is as for all, but a certificate and its key go together, as do the settings
// of one way to identify clients.
func (r *Resolved) addListeners(elements []config.Layer) {
	for _, element := range elements {
		own, base := r.Options, r.Options
		own.Listen, base.Listen = nil, nil
		wrote := ListenerTable.Merge(&own, element)
		if wrote.Written("tls-cert") || wrote.Written("tls-key") {
			base.TLSCert, base.TLSKey = nil, nil
		}
		if own.Auth.Mode != base.Auth.Mode {
			base.Auth = server.Auth{}
		}
		if wrote.Written("framing") {
			base.Framing = server.Framing{}
		}
		l := listener{Options: base, begin: element.Begin()}
		l.merged = ListenerTable.Merge(&l.Options, element)
		if len(l.Listen) == 0 && len(l.merged.Problems) == 0 {
			l.merged.ProblemAt("listen", "", l.begin, errors.New("has no address; write listen: URL"))
		}
		for _, s := range ListenerTable[1:] {
			if s.Text(&base) == s.Text(&r.Options) {
				l.merged.Inherit(s.Key, r.merged)
			}
		}
		r.listeners = append(r.listeners, l)
	}
	if len(elements) > 0 && !r.merged.Written("listen") {
		r.Listen = nil // the default
		r.merged.Note("listen", ": none, as there are listeners")
	}
}

// setListeners puts r.listeners into the Config.
func (r *Resolved) setListeners() {
	r.Listeners = nil
	for _, l := range r.listeners {
		address := ""
		if len(l.Listen) > 0 {
			address = l.Listen[0]
		}
		r.Listeners = append(r.Listeners, server.Listener{Address: address, Edge: l.Edge})
	}
}

// listenerField is a field of an element of server.Config.Listeners.
var listenerField = regexp.MustCompile(`^Listeners\[(\d+)\]\.([\w.]+)$`)

// listenerOf returns the listener that a field belongs to, nil if none, and the name
// of the field in it.
func (r *Resolved) listenerOf(field string) (*listener, string) {
	m := listenerField.FindStringSubmatch(field)
	if m == nil {
		return nil, field
	}
	i, err := strconv.Atoi(m[1])
	if err != nil || i >= len(r.listeners) {
		return nil, field
	}
	return &r.listeners[i], m[2]
}

// problem reports what is wrong with a setting of l (nil: of all), where it was
// written.
func (r *Resolved) problem(l *listener, key, value string, err error) {
	switch {
	case l == nil:
		r.merged.Problem(key, value, err)
	case l.merged.Written(key):
		l.merged.Problem(key, value, err)
	case r.merged.Written(key) && value != "":
		r.merged.Problem(key, value, err)
	default:
		l.merged.ProblemAt(key, value, l.begin, err)
	}
}

// pairCertificates gives each certificate its key. What is wrong is of l; nil: of all.
func (r *Resolved) pairCertificates(l *listener) {
	o := &r.Options
	if l != nil {
		o = &l.Options
	}
	switch certs, keys := len(o.TLSCert), len(o.TLSKey); {
	case certs > keys:
		r.problem(l, "tls-cert", o.TLSCert[keys], errors.New("has no key; give its file with tls-key"))
	case keys > certs:
		r.problem(l, "tls-key", o.TLSKey[certs], errors.New("has no certificate; give its file with tls-cert"))
	}
	o.derive()
}

// problemOfFile reports what is wrong with a file of certificates, where that was
// written.
func (r *Resolved) problemOfFile(e *server.FieldError) {
	l, field := r.listenerOf(e.Field)
	o := &r.Options
	if l != nil {
		o = &l.Options
	}
	key, files := "tls-cert", o.TLSCert
	switch {
	case field == "Auth":
		r.problem(l, "auth", e.Value, errors.New(e.Want))
		return
	case strings.HasPrefix(e.Want, "tls: key"):
		key, files = "tls-key", o.TLSKey
	case strings.HasPrefix(e.Want, "tls: client CA"):
		key, files = "client-ca", []string{o.ClientCA}
	}
	file := ""
	for _, name := range files {
		if strings.Contains(e.Want, name) && len(name) > len(file) {
			file = name
		}
	}
	r.problem(l, key, file, errors.New(strings.TrimPrefix(e.Want, "tls: ")))
}

// takeListeners takes what can change of the listeners of next.
func (r *Resolved) takeListeners(next *Resolved) (changed, kept []Change) {
	left := slices.Clone(next.listeners)
	for i := range r.listeners {
		l := &r.listeners[i]
		j := slices.IndexFunc(left, func(n listener) bool { return n.Listen[0] == l.Listen[0] })
		if j < 0 {
			continue
		}
		n := left[j]
		left = slices.Delete(left, j, j+1) // port 0 may be there several times
		was := l.merged.Clone()
		took, fixed := ListenerTable.TakeLive(&l.Options, l.merged, &n.Options, n.merged)
		l.derive()
		for _, c := range took {
			if was.Written(c.Key) || l.merged.Written(c.Key) { // else it is a change for all
				changed = append(changed, l.change(i, c))
			}
		}
		for _, c := range fixed {
			kept = append(kept, l.change(i, c))
		}
	}
	if is, will := r.ownAddresses(), next.ownAddresses(); is != will {
		kept = append(kept, Change{Key: listenersKey, Old: cmp.Or(is, "none"), New: cmp.Or(will, "none")})
	}
	r.setListeners()
	return changed, kept
}

func (l *listener) change(i int, c Change) Change {
	c.Key = fmt.Sprintf("%s[%d].%s", listenersKey, i, c.Key)
	return c
}

// ownAddresses returns the addresses of the listeners, as they compare.
func (r *Resolved) ownAddresses() string {
	var all []string
	for _, l := range r.listeners {
		all = append(all, l.Listen...)
	}
	return strings.Join(slices.Sorted(slices.Values(all)), ",")
}

// A ShownSetting is a line of config show.
type ShownSetting struct{ Key, Value, From string }

// ShowAll returns every setting, and those of the listeners, with their values in force.
func (r *Resolved) ShowAll() (all []ShownSetting) {
	for _, s := range Table {
		value, from := r.Show(s)
		all = append(all, ShownSetting{s.Key, value, from})
	}
	for i, l := range r.listeners {
		for _, s := range ListenerTable {
			value, from := s.Show(&l.Options, l.merged)
			key := fmt.Sprintf("%s[%d].%s", listenersKey, i, s.Key)
			all = append(all, ShownSetting{key, cmp.Or(value, "-"), from.String()})
		}
	}
	return all
}
