// Package wording reads and writes what people write in settings and read in
// reports: values of YAML, durations, numbers, and words that were nearly right.
// All functions are pure and safe for concurrent use.
package wording

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Nearest returns the name with the smallest edit distance to word. names must
// not be empty.
func Nearest(word string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int { return distance(word, a) - distance(word, b) })
}

// distance is Levenshtein's: single characters added, removed or replaced.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

// Choice lists words as a sentence does: a, b or c.
func Choice(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// Duration writes d without the zeros that time.Duration.String ends in.
func Duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Grouped writes n with a comma before every three digits.
func Grouped[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if s[0] == '-' {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// ErrNotPlain is the error of Texts for a value that is neither plain nor a list
// of plain ones.
var ErrNotPlain = errors.New("is not a plain value")

// Texts turns a value of YAML into the texts that a person could have written on
// the command line: one, or several of a list. The error continues a sentence
// that begins with the value's key.
func Texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, errors.New("has no value; write one or leave it out")
	case string:
		return []string{v}, nil
	case []string:
		return v, nil
	case float64:
		return []string{strconv.FormatFloat(v, 'f', -1, 64)}, nil
	case bool, int, int64, uint64:
		return []string{fmt.Sprint(v)}, nil
	case []any:
		if len(v) == 0 {
			return nil, errors.New("is an empty list; write at least one value or leave it out")
		}
		var texts []string
		for _, element := range v {
			if _, nested := element.([]any); nested {
				return nil, errors.New("is a list of lists; write a plain list")
			}
			more, err := Texts(element)
			if err != nil {
				return nil, err
			}
			texts = append(texts, more...)
		}
		return texts, nil
	case time.Time:
		return nil, errors.New("is a date; no setting takes one")
	}
	return nil, ErrNotPlain
}

// Cause is err without the operation and the path of an fs.PathError, for a
// message that has them already.
func Cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
