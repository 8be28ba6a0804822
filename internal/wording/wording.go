// Package wording writes what people read in messages and reports: lists of
// words, durations, numbers, and what a mistyped word was probably meant to be.
// All functions are pure and safe for concurrent use. It imports nothing of this
// module.
package wording

import (
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Nearest returns the name that word was probably meant to be: one within a
// third of its length in typing errors, one that word begins, or one with word
// among its words or the other way round. It returns "" if there is none. Case
// does not count, nor - against _.
func Nearest(word string, names []string) string {
	word = fold(word)
	best, least := "", 0
	for _, name := range names {
		folded := fold(name)
		d := distance(word, folded)
		if d*3 > max(len(word), len(folded)) && !sharesWord(word, folded) {
			continue
		}
		if best == "" || d < least {
			best, least = name, d
		}
	}
	return best
}

// Suggestion ends a message about a word that is not among names: with the
// nearest of them, or with all. spell, if any, writes a name as the reader would.
func Suggestion(word string, names []string, spell func(name string) string) string {
	near := Nearest(word, names)
	if near != "" {
		names = []string{near}
	}
	shown := slices.Clone(names)
	if spell != nil {
		for i := range shown {
			shown[i] = spell(shown[i])
		}
	}
	if near != "" {
		return "the nearest is " + shown[0]
	}
	return "there are " + strings.Join(shown, ", ")
}

func fold(s string) string { return strings.ReplaceAll(strings.ToLower(s), "_", "-") }

// minPrefix is the length from which the beginning of a name stands for it.
const minPrefix = 3

// sharesWord reports whether word begins name, or one of the two is among the
// words of the other: frame and max-frame.
func sharesWord(word, name string) bool {
	return len(word) >= minPrefix && strings.HasPrefix(name, word) ||
		slices.Contains(strings.Split(name, "-"), word) || slices.Contains(strings.Split(word, "-"), name)
}

// distance is the number of characters to add, remove, replace or swap with
// their neighbour (optimal string alignment).
func distance(a, b string) int {
	var before []int // the row before row
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			replace := row[j]
			if a[i] != b[j] {
				replace++
			}
			next[j+1] = min(replace, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
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

// Cause is err without the operation and the path of an fs.PathError, for a
// message that has them already.
func Cause(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
