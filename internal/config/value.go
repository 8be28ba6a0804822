package config

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"heartwheel/internal/wording"
)

// A value is a field with a type of its own.
type value interface {
	set(text string) error
	String() string
}

// A list is a field that holds several values.
type list interface {
	clear()
	add(text string) error
	String() string
}

// Parsed makes a field of any type, for Setting.Field.
func Parsed[V any](field *V, parse func(string) (V, error), format func(V) string) any {
	return parsed[V]{field, parse, format}
}

type parsed[V any] struct {
	field  *V
	parse  func(string) (V, error)
	format func(V) string
}

func (p parsed[V]) set(text string) error {
	v, err := p.parse(text)
	if err == nil {
		*p.field = v
	}
	return err
}

func (p parsed[V]) String() string { return p.format(*p.field) }

// ListOf makes a field of several values, for Setting.Field. Each is read by
// parse; commas do not separate them.
func ListOf[V any](field *[]V, parse func(string) (V, error), format func(V) string) any {
	return listOf[V]{field, parse, format}
}

type listOf[V any] struct {
	field  *[]V
	parse  func(string) (V, error)
	format func(V) string
}

func (l listOf[V]) clear() { *l.field = nil }

func (l listOf[V]) add(text string) error {
	v, err := l.parse(text)
	if err == nil {
		*l.field = append(*l.field, v)
	}
	return err
}

func (l listOf[V]) String() string {
	texts := make([]string, len(*l.field))
	for i, v := range *l.field {
		texts[i] = l.format(v)
	}
	return strings.Join(texts, " ")
}

// commaList is a list of texts that commas separate.
type commaList struct{ field *[]string }

func (l commaList) clear() { *l.field = nil }

func (l commaList) add(text string) error {
	*l.field = append(*l.field, splitCommas(text)...)
	return nil
}

func (l commaList) String() string { return strings.Join(*l.field, ",") }

func splitCommas(text string) []string {
	parts := strings.Split(text, ",")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// list returns the field as a list; nil if it holds a single value.
func (s *Setting[T]) list(v *T) list {
	switch field := s.Field(v).(type) {
	case list:
		return field
	case *[]string:
		return commaList{field}
	}
	return nil
}

// IsList reports whether the setting holds several values.
func (s *Setting[T]) IsList() bool {
	var v T
	return s.list(&v) != nil
}

// set reads text into a field that holds a single value. The error says what is
// wrong and what to write instead.
func (s *Setting[T]) set(v *T, text string) error {
	switch field := s.Field(v).(type) {
	case value:
		return field.set(text)
	case *time.Duration:
		d, err := ParseDuration(text)
		if err == nil {
			err = s.checkSign(int64(d))
		}
		if err != nil {
			return err
		}
		*field = d
	case *int:
		n, err := s.parseInt(text)
		if err != nil {
			return err
		}
		*field = n
	case *bool:
		if text != "true" && text != "false" {
			return errors.New("must be true or false")
		}
		*field = text == "true"
	case *string:
		if s.Words != nil && !slices.Contains(s.Words, text) {
			return errors.New("must be " + wording.Choice(s.Words))
		}
		if s.Check != nil {
			if err := s.Check(text); err != nil {
				return err
			}
		}
		*field = text
	default:
		panic(fmt.Sprintf("config: setting %s fills a %T", s.Key, field))
	}
	return nil
}

func (s *Setting[T]) parseInt(text string) (int, error) {
	if s.MinusOne != "" && text == s.MinusOne {
		return -1, nil
	}
	parse := ParseNumber
	if s.Kind == Size {
		parse = ParseSize
	}
	n, err := parse(text)
	if err == nil {
		err = s.checkSign(int64(n))
	}
	if err != nil && s.MinusOne != "" {
		err = fmt.Errorf("%w, or write %s", err, s.MinusOne)
	}
	return n, err
}

func (s *Setting[T]) checkSign(n int64) error {
	switch {
	case s.Signed || n > 0 || n == 0 && s.Zero:
		return nil
	case s.Zero:
		return errors.New("must not be negative")
	}
	without := s.Default
	if without == "" {
		without = s.Unset
	}
	return fmt.Errorf("must be more than zero; leave it out for the default: %s", without)
}

// Text returns the setting's value in v, as a user would write it.
func (s *Setting[T]) Text(v *T) string {
	if l := s.list(v); l != nil {
		return l.String()
	}
	switch field := s.Field(v).(type) {
	case value:
		return field.String()
	case *time.Duration:
		return wording.Duration(*field)
	case *int:
		switch {
		case s.MinusOne != "" && *field < 0:
			return s.MinusOne
		case s.Kind == Size:
			return FormatSize(*field)
		}
		return FormatNumber(*field)
	case *bool:
		return strconv.FormatBool(*field)
	case *string:
		if s.Secret && *field != "" {
			return "(given)"
		}
		return *field
	}
	return ""
}

// ParseDuration reads a duration with a unit. The error says what to write
// instead.
func ParseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, err := time.ParseDuration(text + "s"); err == nil {
		return 0, fmt.Errorf("has no unit; write %ss", text)
	}
	return 0, errors.New("is not a duration; write a number and a unit, such as 15s, 500ms or 2m")
}

// A unit is a suffix of a number and its factor.
type unit struct {
	suffix string
	factor int64
}

// ParseNumber reads a whole number: 20000, 20k, 1m. The error says what to write
// instead.
func ParseNumber(text string) (int, error) {
	return parseInt(text, []unit{{"k", 1e3}, {"m", 1e6}}, "is not a whole number; write one such as 20000, 20k or 1m")
}

// ParseSize reads a number of bytes: 65536, 64KiB, 1MiB, 2GiB. The error says
// what to write instead.
func ParseSize(text string) (int, error) {
	return parseInt(text, []unit{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}},
		"is not a size; write bytes, such as 65536, or 64KiB or 1MiB")
}

func parseInt(text string, units []unit, problem string) (int, error) {
	digits, factor := text, int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(strings.ToLower(text), u.suffix); ok {
			digits, factor = strings.TrimSpace(head), u.factor
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if errors.Is(err, strconv.ErrRange) || err == nil && (n > math.MaxInt/factor || n < math.MinInt/factor) {
		return 0, errors.New("is beyond what this machine can count")
	}
	if err != nil {
		return 0, errors.New(problem)
	}
	return int(n * factor), nil
}

// FormatNumber writes n as ParseNumber reads it: 15k, 1m, 15001.
func FormatNumber(n int) string {
	switch {
	case n != 0 && n%1e6 == 0:
		return strconv.Itoa(n/1e6) + "m"
	case n != 0 && n%1e3 == 0:
		return strconv.Itoa(n/1e3) + "k"
	}
	return strconv.Itoa(n)
}

// FormatSize writes n as ParseSize reads it, in the largest unit that divides it.
func FormatSize(n int) string {
	switch {
	case n > 0 && n%(1<<30) == 0:
		return strconv.Itoa(n>>30) + "GiB"
	case n > 0 && n%(1<<20) == 0:
		return strconv.Itoa(n>>20) + "MiB"
	case n > 0 && n%(1<<10) == 0:
		return strconv.Itoa(n>>10) + "KiB"
	}
	return strconv.Itoa(n)
}
