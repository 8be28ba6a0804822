package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// car is a struct with a field of each type.
type car struct {
	Name   string
	Wheels int
	Weight int
	Wait   time.Duration
	Fast   bool
	Tags   []string
	Rates  []float64
	File   string
}

var carTable = Table[car]{
	{Key: "name", Kind: Text, Default: "none", Field: func(c *car) any { return &c.Name }},
	{Key: "max-wheels", Kind: Number, Unset: "four", MinusOne: "all", Derived: func(*car) string { return "4" },
		Field: func(c *car) any { return &c.Wheels }},
	{Key: "weight", Kind: Size, Default: "1KiB", Related: "sizes", Field: func(c *car) any { return &c.Weight }},
	{Key: "wait", Kind: Duration, Default: "0s", Zero: true, Field: func(c *car) any { return &c.Wait }},
	{Key: "fast", Kind: Bool, Default: "false", Field: func(c *car) any { return &c.Fast }},
	{Key: "tags", Kind: List, Unset: "none", Field: func(c *car) any { return &c.Tags }},
	{Key: "rates", Kind: "rate", Unset: "none", Field: func(c *car) any {
		return ListOf(&c.Rates, parseRate,
			func(f float64) string { return fmt.Sprint(f) })
	}},
	{Key: "config", Kind: Path, Unset: "no file", NotInFile: true, Field: func(c *car) any { return &c.File }},
}

func parseRate(text string) (float64, error) {
	var f float64
	if _, err := fmt.Sscan(text, &f); err != nil {
		return 0, fmt.Errorf("is not a rate")
	}
	return f, nil
}

// TestFileProblems: each problem of a file is one line with its key and its line.
func TestFileProblems(t *testing.T) {
	deep := "tags: " + strings.Repeat("[", 2000) + strings.Repeat("]", 2000)
	for text, want := range map[string][]string{
		"":                            nil,
		"# only\n\n# comments\n":      nil,
		"name: x\n...\n":              nil,
		"---\nname: x\n":              nil,
		"%YAML 1.1\n--- # x\nname: x": nil,
		"name: |\n  x\n  ---\n":       nil,
		"name: x\n---\n---\n":         nil,
		"tags: a, b\nrates: [1, 2.5]\nmax-wheels: all\nfast: true\nwait: 0s\n": nil,
		"a: &a [x, y]\nname: z": {"a (file f:1): is not a setting; there are name, max-wheels, " +
			"weight, wait, fast, tags, rates, config"},
		"tags: &a [x, y]\nrates: *a": {`rates "x" (file f:1): is not a rate`,
			`rates "y" (file f:1): is not a rate`},
		"\n\nmax-wheels: 1x\nweight: 1x": {
			`max-wheels "1x" (file f:3): is not a whole number; write one such as 20000, 20k or 1m, or write all`,
			`weight "1x" (file f:4): is not a size`,
		},
		"rates:\n  - 1\n  - x\n  - 2\n  - y": {`rates "x" (file f:3): is not a rate`,
			`rates "y" (file f:5): is not a rate`},
		"rates: [1,\n x]": {`rates "x" (file f:2): is not a rate`},
		"wieght: 1KiB":    {"wieght (file f:1): is not a setting; the nearest is weight"},
		"max_wheels: 1":   {"max_wheels (file f:1): is not a setting; the nearest is max-wheels"},
		"car:\n  body:\n    weight: 1\n  n: 2": {
			"car.body.weight (file f:3): is not a setting; the nearest is weight",
			"car.n (file f:4): is not a setting; there are name,",
		},
		"wait:\n  value: 1s": {"wait (file f:1): holds further keys; the file is flat, one " +
			"`key: value` a line"},
		"name: x\nwait: 1s\nname: y": {"name (file f:3): is set already in line 1; give it once"},
		"name:\nwait: ~":             {"name (file f:1): has no value", "wait (file f:2): has no value"},
		"tags: []":                   {"tags (file f:1): is an empty list"},
		"tags: [a,\n [b]]":           {"tags (file f:1): is a list of lists in line 2"},
		"tags: [a,\n {b: c}]":        {"tags (file f:1): is a list with further keys in line 2"},
		"tags: [a,\n ~]":             {"tags (file f:1): has an element without a value in line 2"},
		"name: [a, b]":               {`name "a,b" (file f:1): has 2 values; give it one`},
		"wait: 0\nweight: 0": {
			`weight "0" (file f:2): must be more than zero; leave it out for the default: 1KiB`,
		},
		"wait: -1s":     {`wait "-1s" (file f:1): must not be negative`},
		"config: g":     {`config "g" (file f:1): cannot be set in the file itself`},
		"? [x]\n: y":    {"? (file f:1): is not a setting"},
		"<<: {name: x}": {"<<.name (file f:1): is not a setting; the nearest is name"},
		"tags: &a [*a]": {"tags (file f:1): is a list of lists in line 1"},

		"just words":          {"is not YAML of the form `key: value`: line 1 is not a key and its value"},
		"\n- a\n- b":          {"is not YAML of the form `key: value`: line 2 is not a key and its value"},
		"name: x\n\twait: 1s": {"is not YAML of the form `key: value`: line 2"},
		"a: b: c":             {"is not YAML of the form `key: value`: line 1"},
		"name: *x":            {"is not YAML of the form `key: value`: "},
		"name: x\n---\nwait: 1s": {"holds more than one YAML document: line 3 begins another; leave out the " +
			"lines of only ---"},
		"{name: x}\n--- {wait: 1s}":  {"holds more than one YAML document: line 2"},
		"name: x\r\n---\r\nwait: 1s": {"holds more than one YAML document: line 3"},
		"name: x\n...\nwait: 1s":     {"line 3"},
		deep:                         {"tags (file f:1): is a list of lists in line 1"},
	} {
		l, err := ParseYAML("file f", []byte(text))
		var got []string
		if err != nil {
			got = []string{err.Error()}
		} else {
			got = carTable.Merge(&car{}, carTable.Defaults(), l).Problems
		}
		if len(text) > 100 {
			text = text[:100] + "…"
		}
		if len(got) != len(want) {
			t.Errorf("%q: %q, want %d lines", text, got, len(want))
			continue
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("%q: %q, want %q", text, got[i], want[i])
			}
		}
	}
}

// TestAliasBomb: aliases are not expanded.
func TestAliasBomb(t *testing.T) {
	text := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 30 {
		aliases := strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i), 10), ", ")
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, aliases)
	}
	text += "tags: *a30\n"
	l, err := ParseYAML("file f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	problems := carTable.Merge(&car{}, l).Problems
	if len(problems) != 32 || !strings.HasPrefix(problems[31], "tags (file f:32): is a list of lists") {
		t.Errorf("%d problems: %q", len(problems), problems)
	}
}

func TestFileSizeIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big.yaml")
	for size, tooLarge := range map[int]bool{maxFile: false, maxFile + 1: true} {
		if err := os.WriteFile(path, []byte(strings.Repeat("#", size)), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path); (err != nil) != tooLarge || err != nil && err.Error() != "is larger than 1MiB" {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := ReadFile(filepath.Join(path, "x")); err == nil || err.Error() != "cannot be read: not a directory" {
		t.Error(err)
	}
}
