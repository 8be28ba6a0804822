package config

import (
	"cmp"
	"maps"
	"reflect"
)

// A Change is a setting with another value than before, each as a user would
// write it.
type Change struct{ Key, Old, New string }

// String returns the change as the log has it.
func (c Change) String() string { return c.Key + ": " + c.Old + " → " + c.New }

// TakeLive copies to v, and to its m, what a reload can change of next: the values
// of the settings that are Live. It returns what is different then, and the other
// settings whose value in next differs, which v keeps. Secrets are not shown.
func (t Table[T]) TakeLive(v *T, m *Merged, next *T, nextMerged *Merged) (changed, kept []Change) {
	before := *v
	for _, s := range t {
		if s.Live == "" {
			if !s.equal(v, next) {
				kept = append(kept, s.change(v, m, next, nextMerged))
			}
			continue
		}
		s.copy(v, next)
	}
	for _, s := range t {
		if s.Live == "" {
			continue
		}
		c := s.change(&before, m, v, nextMerged)
		if !s.equal(&before, v) || c.Old != c.New {
			changed = append(changed, c)
		}
	}
	for _, s := range t {
		if s.Live != "" {
			m.take(s.Key, nextMerged)
		}
	}
	return changed, kept
}

func (s *Setting[T]) change(v *T, m *Merged, next *T, nextMerged *Merged) Change {
	if s.Secret {
		return Change{s.Key, "(secret)", "(secret)"}
	}
	is, _ := s.Show(v, m)
	will, _ := s.Show(next, nextMerged)
	return Change{s.Key, cmp.Or(is, "("+s.Unset+")"), cmp.Or(will, "("+s.Unset+")")}
}

// Clone returns a copy for TakeLive to change.
func (m *Merged) Clone() *Merged {
	c := *m
	c.origins, c.lines, c.written = maps.Clone(m.origins), maps.Clone(m.lines), maps.Clone(m.written)
	return &c
}

// take makes the origin of a setting that in from.
func (m *Merged) take(key string, from *Merged) {
	delete(m.origins, key)
	if o, ok := from.origins[key]; ok {
		m.origins[key] = o
	}
	m.written[key], m.lines[key] = from.written[key], from.lines[key]
	if !m.written[key] {
		delete(m.written, key)
	}
}

// equal reports whether the setting has the same value in a and b.
func (s *Setting[T]) equal(a, b *T) bool {
	switch field := s.Field(a).(type) {
	case value:
		return field.String() == s.Field(b).(value).String()
	case list:
		return field.String() == s.Field(b).(list).String()
	default:
		return reflect.DeepEqual(field, s.Field(b)) // pointers: what they lead to
	}
}

// copy sets the setting's value in to to that in from.
func (s *Setting[T]) copy(to, from *T) {
	switch field := s.Field(to).(type) {
	case value:
		_ = field.set(s.Field(from).(value).String())
	case list:
		panic("config: setting " + s.Key + " is a list of its own kind, which a reload cannot copy")
	default:
		reflect.ValueOf(field).Elem().Set(reflect.ValueOf(s.Field(from)).Elem())
	}
}
