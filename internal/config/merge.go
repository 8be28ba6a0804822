package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"heartwheel/internal/wording"
)

// Merged says where the values that Merge set come from, and what is wrong.
type Merged struct {
	Problems []string // a line for everything that is wrong, at most maxProblems and one more

	path       string            // of a list's element: what precedes its keys
	origins    map[string]Origin // of the winning value, by key
	lines      map[string][]text // of the winning value, by key
	written    map[string]bool   // keys that the user wrote, in any layer
	unreadable map[string]bool   // Setting.Related of values that could not be read
}

// maxProblems bounds the report about a file that is not one of settings.
const maxProblems = 100

// Merge fills the fields of v from the layers; of a setting, the last one wins.
// A value that cannot be read is a problem even where a later layer overrules it.
func (t Table[T]) Merge(v *T, layers ...Layer) *Merged {
	m := &Merged{origins: map[string]Origin{}, lines: map[string][]text{}, written: map[string]bool{},
		unreadable: map[string]bool{}}
	for i := range layers {
		l := &layers[i]
		m.path = l.path
		for j := range l.entries {
			e := &l.entries[j]
			s := t.ByKey(e.key)
			if s == nil {
				t.unknown(m, l, e)
				continue
			}
			if !s.merge(v, m, l, e) {
				m.unreadable[s.Related] = true
				continue
			}
			m.origins[s.Key], m.lines[s.Key] = l.origin(e), e.texts
			if !l.preset {
				m.written[s.Key] = true
			}
		}
	}
	return m
}

// merge sets s from e. It reports whether everything in it could be read.
func (s *Setting[T]) merge(v *T, m *Merged, l *Layer, e *entry) bool {
	from := l.origin(e)
	list := s.list(v)
	switch {
	case e.err != nil:
		m.problem(s.Key, nil, from, e.err)
		return false
	case s.NotInFile && l.file:
		m.problem(s.Key, e.texts, from, errors.New("cannot be set in the file itself; leave it out"))
		return false
	case list == nil && len(e.texts) != 1:
		m.problem(s.Key, e.texts, from, fmt.Errorf("has %d values; give it one", len(e.texts)))
		return false
	case list == nil:
		if err := s.set(v, e.texts[0].value); err != nil {
			m.problem(s.Key, e.texts, from, err)
			return false
		}
		return true
	}
	list.clear() // of an earlier layer
	good := true
	for _, one := range e.texts {
		if err := list.add(one.value); err != nil {
			from.Line = one.line
			m.problem(s.Key, []text{one}, from, err)
			good = false
		}
	}
	return good
}

// unknown reports a key, or those below it, that no setting has.
func (t Table[T]) unknown(m *Merged, l *Layer, e *entry) {
	if e.list {
		m.problem(e.key, nil, l.origin(e), e.err)
		return
	}
	if len(e.inner) > 0 {
		for i := range e.inner {
			t.unknown(m, l, &e.inner[i])
		}
		return
	}
	if len(m.Problems) > maxProblems {
		return // not listed; looking for the nearest name takes time
	}
	name := func(key string) string {
		if l.name != nil {
			return l.name(key)
		}
		return key
	}
	word := strings.TrimPrefix(e.key, l.prefix)
	word = word[strings.LastIndex(word, ".")+1:]
	if slices.Contains(l.outer, e.key) {
		m.problem(e.key, nil, l.origin(e), errors.New("cannot be set for one alone; write it outside of the list"))
		return
	}
	m.add(fmt.Sprintf("%s (%s): is not a setting; %s",
		l.path+name(e.key), l.origin(e), wording.Suggestion(word, t.Keys(), name)))
}

// Problem adds a line about the value of a setting. value may be an element of
// a list: the line names where that one was written.
func (m *Merged) Problem(key, value string, err error) {
	from := m.origins[key]
	for _, one := range m.lines[key] {
		if one.value == value || slices.Contains(splitCommas(one.value), value) {
			from.Line = one.line
		}
	}
	m.problem(key, []text{{value: value}}, from, err)
}

// ProblemAt adds a line about a value that is not in v.
func (m *Merged) ProblemAt(key, value string, from Origin, err error) {
	m.problem(key, []text{{value: value}}, from, err)
}

func (m *Merged) problem(key string, texts []text, from Origin, err error) {
	what := m.path + key
	if len(texts) > 0 {
		values := make([]string, len(texts))
		for i := range texts {
			values[i] = texts[i].value
		}
		what += fmt.Sprintf(" %q", strings.Join(values, ","))
	}
	m.add(fmt.Sprintf("%s (%s): %s", what, from, err))
}

// Append moves the problems of from to m.
func (m *Merged) Append(from *Merged) {
	for _, line := range from.Problems {
		m.add(line)
	}
	from.Problems = nil
}

func (m *Merged) add(line string) {
	switch n := len(m.Problems); {
	case slices.Contains(m.Problems, line):
	case n < maxProblems:
		m.Problems = append(m.Problems, line)
	case n == maxProblems:
		m.Problems = append(m.Problems, "there are more errors, which are not listed")
	}
}

// Inherit makes the origin of a setting that m does not have that in from.
func (m *Merged) Inherit(key string, from *Merged) {
	if _, has := m.origins[key]; has {
		return
	}
	if o, ok := from.origins[key]; ok {
		m.origins[key], m.lines[key] = o, from.lines[key]
	}
}

// Written reports whether the user wrote a value for the setting.
func (m *Merged) Written(key string) bool { return m.written[key] }

// WrittenKeys returns the number of settings that the user wrote a value for.
func (m *Merged) WrittenKeys() int { return len(m.written) }

// Unreadable reports whether a setting with this word in Related could not be read.
func (m *Merged) Unreadable(related string) bool { return related != "" && m.unreadable[related] }

// Note appends to the text of a setting's origin.
func (m *Merged) Note(key, note string) {
	o := m.origins[key]
	o.Note += note
	m.origins[key] = o
}

// Show returns the value of s in force, as a user would write it, and where it
// comes from. The value is empty if nothing sets it and nothing derives it.
func (s *Setting[T]) Show(v *T, m *Merged) (value string, from Origin) {
	if from, ok := m.origins[s.Key]; ok {
		return s.Text(v), from
	}
	if s.Derived != nil {
		value = s.Derived(v)
	}
	return value, Origin{Source: "default", Note: ": " + s.Unset}
}
