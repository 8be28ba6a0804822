package config

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMerge(t *testing.T) {
	file, err := ParseYAML("file f.yaml", []byte("wait: 1s\nweight: 2KiB\ntags: [a, b]\nrates: [1]\n"))
	if err != nil {
		t.Fatal(err)
	}
	notIgnored := func(name, _ string) bool { return name == "CAR_OTHER" }
	var c car
	m := carTable.Merge(&c, carTable.Defaults(),
		carTable.Preset("profile slow", map[string]string{"wait": "9s", "name": "slow"}), file,
		carTable.Environment("CAR_", []string{"CAR_WEIGHT=3KiB", "CAR_TAGS=", "CAR_OTHER=1", "X=1"}, notIgnored),
		carTable.Flags(map[string][]string{"tags": {"c,d", "e"}, "fast": {"true"}}), Argument("config", "f.yaml"))
	if m.Problems != nil {
		t.Fatal(m.Problems)
	}
	if c.Name != "slow" || c.Wait != time.Second || c.Weight != 3<<10 || !c.Fast ||
		!slices.Equal(c.Tags, []string{"c", "d", "e"}) || c.File != "f.yaml" {
		t.Errorf("%+v", c)
	}
	for key, want := range map[string][2]string{
		"name": {"slow", "profile slow"}, "max-wheels": {"4", "default: four"},
		"weight": {"3KiB", "environment CAR_WEIGHT"},
		"wait":   {"1s", "file f.yaml:1"}, "fast": {"true", "flag --fast"}, "tags": {"c,d,e", "flag --tags"},
		"rates":  {"1", "file f.yaml:4"},
		"config": {"f.yaml", "argument"},
	} {
		if value, from := carTable.ByKey(key).Show(&c, m); value != want[0] || from.String() != want[1] {
			t.Errorf("%s is %s from %s, want %s", key, value, from, want)
		}
	}
	if m.WrittenKeys() != 6 || m.Written("name") || !m.Written("wait") {
		t.Errorf("%d were written", m.WrittenKeys())
	}
}

// TestMergeProblems: a value that cannot be read is a problem though a later
// layer overrules it.
func TestMergeProblems(t *testing.T) {
	var c car
	m := carTable.Merge(&c,
		carTable.Environment("CAR_", []string{"CAR_WEIGHT=x", "CAR_WIEGHT=", "CAR_weight=1", "CAR_PORT=1"},
			func(string, string) bool { return false }),
		carTable.Flags(map[string][]string{"weight": {"1KiB"}, "name": {"a", "b"}, "nmae": {"x"},
			"max-wheels": {"no"}}))
	want := []string{
		`weight "x" (environment CAR_WEIGHT): is not a size; write bytes, such as 65536, or 64KiB or 1MiB`,
		"CAR_WIEGHT (environment CAR_WIEGHT): is not a setting; the nearest is CAR_WEIGHT",
		"CAR_weight (environment CAR_weight): is not a setting; the nearest is CAR_WEIGHT",
		"CAR_PORT (environment CAR_PORT): is not a setting; there are CAR_NAME, CAR_MAX_WHEELS, CAR_WEIGHT, " +
			"CAR_WAIT, CAR_FAST, CAR_TAGS, CAR_RATES, CAR_CONFIG",
		`name "a,b" (flag --name): has 2 values; give it one`,
		`max-wheels "no" (flag --max-wheels): is not a whole number; write one such as 20000, 20k or 1m, or write all`,
		"--nmae (flag --nmae): is not a setting; the nearest is --name",
	}
	if !slices.Equal(m.Problems, want) {
		t.Errorf("got %q\nwant %q", m.Problems, want)
	}
	if !m.Unreadable("sizes") || m.Unreadable("") || c.Weight != 1<<10 {
		t.Errorf("%+v", c)
	}
}

// TestProblemsAreBounded: a large file that is not one of settings is no flood.
func TestProblemsAreBounded(t *testing.T) {
	for _, text := range []string{strings.Repeat("a: 1\n", 20_000), "a:\n" + strings.Repeat("  b: 1\n", 20_000)} {
		l, err := ParseYAML("file f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		got := carTable.Merge(&car{}, l).Problems
		if len(got) != maxProblems+1 || got[maxProblems] != "there are more errors, which are not listed" {
			t.Errorf("%d lines, the last %q", len(got), got[len(got)-1])
		}
	}
}

func TestWrittenForms(t *testing.T) {
	c := car{Wheels: -1, Wait: 90 * time.Second, Tags: []string{"a", "b"}, Rates: []float64{1, 2.5}}
	for key, want := range map[string]string{"max-wheels": "all", "wait": "1m30s", "tags": "a,b", "rates": "1 2.5",
		"fast": "false", "weight": "0"} {
		if got := carTable.ByKey(key).Text(&c); got != want {
			t.Errorf("%s is written %q, want %q", key, got, want)
		}
	}
	secret := Setting[car]{Field: func(c *car) any { return &c.Name }, Secret: true}
	if got := secret.Text(&car{Name: "x"}); got != "(given)" {
		t.Error(got)
	}
}
