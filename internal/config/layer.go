package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A Layer is what one source says. Layers are kept apart so that the origin of
// each value stays known.
type Layer struct {
	source  string // "default", "profile fast", "file heartwheel.yaml", "environment", "flag" or "argument"
	preset  bool   // not written by the user
	file    bool
	prefix  string                  // of the names of an environment
	line    int                     // of an element of a list: where it begins
	path    string                  // of an element: what precedes its keys, for people
	outer   []string                // of an element: keys of the table around its list
	name    func(key string) string // what the source calls a setting; nil: its key
	entries []entry                 // in the order of the source
}

// An entry is a key and its value, as the source has them.
type entry struct {
	key   string
	line  int // in the file; 0: not from a file
	texts []text
	err   error   // why there are no texts
	inner []entry // keys below this one, which no setting has

	node *yaml.Node // of a file
	list bool       // key is that of a list of mappings
}

// A text is a value, or an element of a list, as it was written.
type text struct {
	value string
	line  int
}

func entryOf(key string, values ...string) entry {
	e := entry{key: key}
	for _, v := range values {
		e.texts = append(e.texts, text{value: v})
	}
	return e
}

// Defaults is the layer of the table's own defaults.
func (t Table[T]) Defaults() Layer {
	l := Layer{source: "default", preset: true}
	for _, s := range t {
		if s.Default != "" {
			l.entries = append(l.entries, entryOf(s.Key, s.Default))
		}
	}
	return l
}

// Preset is a layer of values with a name, which yields where the user wrote
// something that does not fit it.
func (t Table[T]) Preset(name string, values map[string]string) Layer {
	l := Layer{source: name, preset: true}
	for _, s := range t {
		if v, ok := values[s.Key]; ok {
			l.entries = append(l.entries, entryOf(s.Key, v))
		}
	}
	return l
}

// Environment is the layer of the variables of environ that begin with prefix,
// but for those that ignore picks out. An empty variable counts as not set, as
// compose files and unit files write it, unless no setting has its name.
func (t Table[T]) Environment(prefix string, environ []string, ignore func(name, value string) bool) Layer {
	l := Layer{source: "environment", prefix: prefix}
	l.name = func(key string) string {
		if s := t.ByKey(key); s != nil {
			return s.Variable(prefix)
		}
		return key
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(name, prefix) || ignore(name, value) {
			continue
		}
		key := name // an unknown name is reported as it is
		for _, s := range t {
			if s.Variable(prefix) == name {
				key = s.Key
			}
		}
		if value != "" || key == name {
			l.entries = append(l.entries, entryOf(key, value))
		}
	}
	return l
}

// Flags is the layer of flags, by key, as they were written.
func (t Table[T]) Flags(values map[string][]string) Layer {
	l := Layer{source: "flag", name: func(key string) string { return "--" + key }}
	keys := t.Keys()
	for key := range values {
		if t.ByKey(key) == nil {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys[len(t):])
	for _, key := range keys {
		if v, ok := values[key]; ok {
			l.entries = append(l.entries, entryOf(key, v...))
		}
	}
	return l
}

// ArgumentSource is the Origin.Source of Argument.
const ArgumentSource = "argument"

// Argument is the layer of the one setting that an argument of a command gives.
func Argument(key, value string) Layer {
	return Layer{source: ArgumentSource, entries: []entry{entryOf(key, value)}}
}

// origin returns where the value of e comes from.
func (l *Layer) origin(e *entry) Origin {
	o := Origin{Source: l.source, Line: e.line}
	if l.name != nil {
		o.Name = l.name(e.key)
	}
	return o
}

// An Origin says where a value comes from.
type Origin struct {
	Source string // as in Layer
	Name   string // of the flag or the variable; else empty
	Line   int    // in the file; else 0
	Note   string // continues the text
}

// String returns the origin as messages have it: file heartwheel.yaml:12, or
// flag --max-frame.
func (o Origin) String() string {
	s := o.Source
	if o.Name != "" {
		s += " " + o.Name
	}
	if o.Line > 0 {
		s += fmt.Sprintf(":%d", o.Line)
	}
	return s + o.Note
}

// Last returns the text that wins for a setting that holds a single value.
func Last(layers []Layer, key string) (text string, from Origin) {
	for _, l := range layers {
		for i := range l.entries {
			if e := &l.entries[i]; e.key == key && len(e.texts) > 0 {
				text, from = e.texts[len(e.texts)-1].value, l.origin(e)
			}
		}
	}
	return text, from
}
