package codec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// members iterates over the members of one JSON object. encoding/json's decoding into
// structs would ignore the case of names, silently replace invalid UTF-8, not say
// which value was wrong, and allocate for unknown members.
//
// openObject has encoding/json validate the text first, so that the iteration only
// has to find where values end.
type members struct {
	op    Op
	rest  []byte // valid JSON: what follows the last member read
	err   error  // the first error; ends the iteration
	name  []byte // of the current member
	value []byte // of the current member, as written
}

// openObject starts iterating over payload, which must be one JSON object in UTF-8
// of at most MaxControl bytes. Otherwise next returns false and err is set.
func openObject(op Op, payload []byte) members {
	m := members{op: op}
	switch {
	case len(payload) > MaxControl:
		m.err = bodyError(op, "payload is %d bytes, at most %d are allowed", len(payload), MaxControl)
	case !utf8.Valid(payload):
		m.err = bodyError(op, "payload is not UTF-8")
	case !json.Valid(payload):
		m.err = bodyError(op, "payload is not one JSON object")
	default:
		m.rest = skipSpace(payload)
		if m.rest[0] != '{' {
			m.err = bodyError(op, "payload is %s, not a JSON object", describe(m.rest))
		}
	}
	return m
}

// next advances to the next member and reports whether there is one.
func (m *members) next() bool {
	if m.err != nil {
		return false
	}
	// rest begins with the '{' or ',' before the member, or the last '}'.
	if m.rest[0] == '}' {
		return false
	}
	b := skipSpace(m.rest[1:])
	if b[0] == '}' { // {}
		return false
	}
	n := stringEnd(b)
	m.name = b[1 : n-1]
	if bytes.IndexByte(m.name, '\\') >= 0 {
		m.name = []byte(unquote(b[:n]))
	}
	b = skipSpace(b[n:])
	b = skipSpace(b[1:]) // the colon
	n = valueEnd(b)
	m.value = b[:n]
	m.rest = skipSpace(b[n:])
	return true
}

// integer returns the current value, an integer from 0 to max; null is 0.
func (m *members) integer(max int64) int64 {
	if m.isNull() {
		return 0
	}
	n, err := strconv.ParseInt(string(m.value), 10, 64)
	if err != nil || n < 0 || n > max {
		m.err = bodyError(m.op, "%s is %s, wanted an integer from 0 to %d", m.name, describe(m.value), max)
		return 0
	}
	return n
}

// text returns the current value, a string; null is "". The error does not show the
// value: it may be a secret.
func (m *members) text() string {
	if m.isNull() {
		return ""
	}
	if m.value[0] != '"' {
		m.err = bodyError(m.op, "%s is not a string", m.name)
		return ""
	}
	return unquote(m.value)
}

// session returns the current value, a string of at most MaxSession bytes; null is "".
func (m *members) session() string {
	s := m.text()
	if len(s) > MaxSession {
		m.err = bodyError(m.op, "%s is %d bytes, at most %d are allowed", m.name, len(s), MaxSession)
		return ""
	}
	return s
}

// beats returns the current value, "client", "server" or ""; null is "".
func (m *members) beats() string {
	s := m.text()
	switch s {
	case "", beatsClient, beatsServer:
		return s
	}
	m.err = bodyError(m.op, "%s is %s, wanted %q or %q", m.name, describe(m.value), beatsClient, beatsServer)
	return ""
}

func (m *members) isNull() bool { return m.value[0] == 'n' }

// The functions below take text that begins with valid JSON.

// skipSpace returns b without the white space in front.
func skipSpace(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r') {
		b = b[1:]
	}
	return b
}

// stringEnd returns the length of the string, quotes included, at the front of b.
func stringEnd(b []byte) int {
	for i := 1; ; i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// valueEnd returns the length of the value at the front of b, which something of the
// enclosing object always follows.
func valueEnd(b []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch b[i] {
		case '"':
			i += stringEnd(b[i:]) - 1
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // after a number or literal: closes the enclosing object
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
}

// unquote returns the value of the JSON string b.
func unquote(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		panic("codec: " + err.Error()) // openObject has validated it: cannot happen
	}
	return s
}

// describe formats a value for an error: short, printable, on one line.
func describe(value []byte) string {
	switch value[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return fmt.Sprintf("%.32q", unquote(value[:stringEnd(value)]))
	}
	return fmt.Sprintf("%.32s", value)
}
