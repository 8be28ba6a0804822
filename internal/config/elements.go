package config

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// Elements takes a list of mappings out of the layer of a file: the value of key. Each
// comes back as a layer of its own, for the Merge of another table, whose problems name
// a setting as key[0].setting. What is wrong with the list itself stays in l, as an
// unknown key; with example the error says what to write. outer is the keys of the table
// around the list.
func (l *Layer) Elements(key, example string, outer []string) (elements []Layer) {
	kept := l.entries[:0:0]
	for i := range l.entries {
		e := &l.entries[i]
		if e.key != key || !l.file {
			kept = append(kept, *e)
			continue
		}
		all, err := l.elements(e, example)
		if err != nil {
			kept = append(kept, entry{key: key, line: e.line, err: err, list: true})
			continue
		}
		for i := range all {
			all[i].outer = outer
		}
		elements = append(elements, all...)
	}
	l.entries = kept
	return elements
}

func (l *Layer) elements(e *entry, example string) (all []Layer, err error) {
	n := e.node
	switch {
	case n == nil: // given twice
		return nil, e.err
	case n.Kind == yaml.AliasNode:
		n = n.Alias
	}
	write := fmt.Sprintf("write a list whose elements begin with %q, or leave it out", example)
	switch {
	case isNull(n):
		return nil, errors.New("has no value; " + write)
	case n.Kind != yaml.SequenceNode:
		return nil, errors.New("is not a list; " + write)
	case len(n.Content) == 0:
		return nil, errors.New("is an empty list; " + write)
	}
	for i, element := range n.Content {
		if element.Kind != yaml.MappingNode { // nor an alias: the result is no larger than the file
			return nil, fmt.Errorf("has an element in line %d that is not of the form `key: value`; %s",
				element.Line, write)
		}
		all = append(all, Layer{source: l.source, file: true, line: element.Line,
			path: fmt.Sprintf("%s[%d].", e.key, i), entries: fileEntries(element, "")})
	}
	return all, nil
}

// Begin returns where an element of a list of the file begins.
func (l *Layer) Begin() Origin { return Origin{Source: l.source, Line: l.line} }
