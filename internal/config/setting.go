// Package config reads the settings of a program. A Table names them and the
// field that each one fills; Layers hold what a source says (defaults, a preset,
// a file, the environment, flags, an argument); Merge puts the layers above each
// other, and keeps where each value comes from. Everything that is wrong is
// reported at once, with its source and line.
//
// Nothing here keeps state: all functions are safe for concurrent use.
//
// Of this module it imports internal/wording.
package config

import (
	"slices"
	"strings"
)

// A Kind says how a value is written. It is also the placeholder in the help,
// so a table may have kinds of its own.
type Kind string

const (
	List     Kind = "list"     // separated by commas, or given several times
	Address  Kind = "address"  // HOST:PORT
	Word     Kind = "word"     // one of Setting.Words
	Duration Kind = "duration" // a number and a unit
	Size     Kind = "size"     // bytes, or KiB, MiB, GiB
	Number   Kind = "number"   // whole, or with k or m
	Bool     Kind = "bool"     // true or false
	Path     Kind = "path"
	Text     Kind = "text"
)

// What Setting.Live says.
const (
	LiveNow = "at once"
	LiveNew = "new connections"
)

// Other is the group of flags that belong to none.
const Other = "Other"

// A Setting is one value that can be set, and the field of T that it fills.
type Setting[T any] struct {
	Key   string // name of the flag and key of the file
	Short string // letter of the flag; empty: none
	Kind  Kind
	Group string // heading in the help
	Help  string

	// Field returns a pointer to the field. Its type says how the value is read:
	// *string, *bool, *int, *time.Duration, *[]string (separated by commas), or
	// what Parsed and ListOf return.
	Field func(*T) any

	Words   []string        // the words that may be written; nil: any text
	Default string          // as a user would write it; empty: see Unset
	Unset   string          // in words, what holds while nothing sets it
	Derived func(*T) string // the value that holds then; nil: none, or known only later

	Zero     bool                    // zero may be written
	Signed   bool                    // any number may be written: T judges it
	MinusOne string                  // a word that may be written for the number -1
	Check    func(text string) error // judges a text; nil: any is right
	Related  string                  // settings with the same word here are judged against each other

	Live      string // for what a reload puts another value in force: LiveNow or LiveNew; empty: for nothing
	Secret    bool   // never shown
	NotInFile bool   // a file cannot set it
	InList    string // key of the list of mappings in the file whose elements may set it too; empty: none
}

// A Table holds the settings of T, in the order of the help.
type Table[T any] []*Setting[T]

// ByKey returns nil if there is no such setting.
func (t Table[T]) ByKey(key string) *Setting[T] {
	for _, s := range t {
		if s.Key == key {
			return s
		}
	}
	return nil
}

// Keys returns the key of every setting.
func (t Table[T]) Keys() []string {
	keys := make([]string, len(t))
	for i, s := range t {
		keys[i] = s.Key
	}
	return keys
}

// InList returns the settings that elements of the list with this key may set.
func (t Table[T]) InList(key string) (in Table[T]) {
	for _, s := range t {
		if s.InList == key {
			in = append(in, s)
		}
	}
	return in
}

// Groups returns the headings of the help, in order.
func (t Table[T]) Groups() []string {
	var groups []string
	for _, s := range t {
		if !slices.Contains(groups, s.Group) {
			groups = append(groups, s.Group)
		}
	}
	return groups
}

// Variable returns the setting's name in the environment.
func (s *Setting[T]) Variable(prefix string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(s.Key, "-", "_"))
}
