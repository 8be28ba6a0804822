package arch

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"heartwheel/internal/cli"
)

// docPatterns are the documents that are checked, below root.
var docPatterns = []string{"*.md", "docs/*.md", "docs/*/*.md", "codec/*.md", "examples/*.md"}

// maxLines bounds documents that have to be read in one go.
var maxLines = map[string]int{"README.md": 120, "docs/benchmarks.md": 150}

var (
	fence    = regexp.MustCompile("(?ms)^```[^\n]*\n(.*?)^```")
	codeSpan = regexp.MustCompile("`([^`]+)`")
	measured = regexp.MustCompile(`<!-- figures: measured by (.+?) -->`)
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`(?m)^#+ (.+)$`)
	notSlug  = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
	testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark)[A-Z]\w*$`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	filePath = regexp.MustCompile(`^[\w./-]+/[\w-]+\.(go|md|yaml)$`)
	flagCall = regexp.MustCompile(`\b(?:flag|fs)\.\w+\((?:&[\w.]+, )?"([\w-]+)"`)
	word     = regexp.MustCompile(`'([^']*)'|"([^"]*)"|(\S+)`)
)

// goTestFlags are those of the go command; others are flags of the tests.
var goTestFlags = strings.Fields("bench benchtime count fuzz fuzztime race run short shuffle timeout v")

// A docs checks what documents cite against the module: files, tests, commands
// and their flags.
type docs struct {
	sources map[string]string   // all Go source of a folder, by its path below root
	named   map[string][]string // its tests
	offered map[string][]string // what follows a command line, as its completion says
}

func newDocs(t *testing.T) *docs {
	d := &docs{sources: map[string]string{}, named: map[string][]string{}, offered: map[string][]string{}}
	err := filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		b, err := os.ReadFile(name)
		rel, _ := filepath.Rel(root, filepath.Dir(name))
		dir := filepath.ToSlash(rel)
		d.sources[dir] += string(b)
		for _, f := range testFunc.FindAllStringSubmatch(string(b), -1) {
			d.named[dir] = append(d.named[dir], f[1])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// check returns what is wrong with a document. name is its path below root.
func (d *docs) check(name, text string) []string {
	var wrong []string
	report := func(format string, args ...any) {
		wrong = append(wrong, name+": "+fmt.Sprintf(format, args...))
	}
	if most, n := maxLines[name], strings.Count(text, "\n"); most > 0 && n > most {
		report("has %d lines, and may have %d", n, most)
	}
	commands := measured.FindAllStringSubmatch(text, -1)
	for _, f := range fence.FindAllStringSubmatch(text, -1) {
		for line := range strings.Lines(strings.ReplaceAll(f[1], "\\\n", " ")) {
			line, _, _ = strings.Cut(strings.TrimPrefix(line, "$ "), " #")
			commands = append(commands, []string{"", line})
		}
	}
	text = fence.ReplaceAllString(text, "")
	for _, span := range codeSpan.FindAllStringSubmatch(text, -1) {
		code := strings.ReplaceAll(span[1], `\|`, "|")
		commands = append(commands, []string{"", code})
		if testName.MatchString(code) && !slices.Contains(d.tests(".", true), code) {
			report("there is no test %s", code)
		}
		if _, err := os.Stat(filepath.Join(root, code)); filePath.MatchString(code) && err != nil {
			report("there is no file %s", code)
		}
	}
	for _, c := range commands {
		dir := "."
		for simple := range strings.SplitSeq(c[1], " && ") {
			dir = d.command(dir, words(simple), report)
		}
	}
	for _, l := range link.FindAllStringSubmatch(codeSpan.ReplaceAllString(text, ""), -1) {
		target, anchor, _ := strings.Cut(l[1], "#")
		if strings.Contains(target, "://") {
			continue
		}
		linked, content := name, []byte(text)
		if target != "" {
			linked = path.Join(path.Dir(name), target)
			if _, err := os.Stat(filepath.Join(root, linked)); err != nil {
				report("links to %s, which does not exist", l[1])
				continue
			}
		}
		if anchor == "" {
			continue
		}
		if target != "" {
			content, _ = os.ReadFile(filepath.Join(root, linked))
		}
		if !slices.Contains(anchors(string(content)), anchor) {
			report("links to %s, and there is no such heading", l[1])
		}
	}
	return wrong
}

func words(command string) []string {
	var all []string
	for _, w := range word.FindAllStringSubmatch(command, -1) {
		all = append(all, w[1]+w[2]+w[3])
	}
	return all
}

// anchors are the names that GitHub gives to the headings of a document.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(text, -1) {
		slug := notSlug.ReplaceAllString(strings.ToLower(h[1]), "")
		all = append(all, strings.ReplaceAll(slug, " ", "-"))
	}
	return all
}

// command checks one command in a folder, and returns the folder of the next.
func (d *docs) command(dir string, args []string, report func(string, ...any)) (next string) {
	switch {
	case len(args) < 2:
	case args[0] == "cd":
		return path.Join(dir, args[1])
	case args[0] == "go" && args[1] == "test":
		d.goTest(dir, args[2:], report)
	case args[0] == "go" && args[1] == "run" && len(args) > 2 && args[2] == "." && dir == ".":
		d.heartwheel(args[3:], report)
	case args[0] == "go" && args[1] == "run" && len(args) > 2 && strings.HasPrefix(args[2], "."):
		run := path.Join(dir, args[2])
		if d.sources[run] == "" {
			report("there is no program %s", run)
		}
		d.flags(run, args[3:], nil, report)
	case args[0] == "heartwheel":
		d.heartwheel(args[1:], report)
	}
	return dir
}

// flags checks flags of a program or a test against the source of its folder.
func (d *docs) flags(dir string, args, known []string, report func(string, ...any)) {
	for _, f := range flagCall.FindAllStringSubmatch(d.sources[dir], -1) {
		known = append(known, f[1])
	}
	for _, a := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
		if strings.HasPrefix(a, "-") && !slices.Contains(known, name) {
			report("%s has no flag %s", dir, a)
		}
	}
}

// goTest checks that the packages exist, and that each pattern finds a test in
// them.
func (d *docs) goTest(dir string, args []string, report func(string, ...any)) {
	var tests []string
	for _, a := range args {
		if !strings.HasPrefix(a, ".") || strings.HasPrefix(a, "./") && strings.Contains(a, "=") {
			continue
		}
		pkg, below := strings.CutSuffix(path.Join(dir, a), "...")
		pkg = path.Clean(pkg)
		if d.sources[pkg] == "" && !below {
			report("there is no package %s", a)
			continue
		}
		tests = append(tests, d.tests(pkg, below)...)
		if !below {
			d.flags(pkg, args, goTestFlags, report)
		}
	}
	for i, a := range args[:max(len(args)-1, 0)] {
		if pattern := args[i+1]; (a == "-run" || a == "-bench" || a == "-fuzz") && pattern != "^$" {
			for one := range strings.SplitSeq(pattern, "|") {
				if strings.ContainsAny(pattern, "()") {
					one = pattern
				}
				if re, err := regexp.Compile(one); err != nil || !slices.ContainsFunc(tests, re.MatchString) {
					report("no test matches %s %s", a, one)
				}
			}
		}
	}
}

// tests lists the tests of a folder, and of those below it.
func (d *docs) tests(dir string, below bool) (all []string) {
	for folder, tests := range d.named {
		if folder == dir || below && (dir == "." || strings.HasPrefix(folder, dir+"/")) {
			all = append(all, tests...)
		}
	}
	return all
}

// heartwheel checks the subcommands and flags of a command line.
func (d *docs) heartwheel(args []string, report func(string, ...any)) {
	var sub []string
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		commands := d.offers(sub, "")
		if len(commands) == 0 {
			break
		}
		if !slices.Contains(commands, args[0]) {
			report("%s has no command %s", strings.Join(append([]string{"heartwheel"}, sub...), " "), args[0])
			return
		}
		sub, args = append(sub, args[0]), args[1:]
	}
	for i, a := range args {
		name, _, _ := strings.Cut(a, "=")
		switch {
		case i > 0 && args[i-1] == "--serve":
			d.heartwheel(append([]string{"serve"}, words(a)...), report)
		case strings.HasPrefix(a, "-") && !slices.Contains(d.offers(sub, "-"), name):
			report("heartwheel %s has no flag %s", strings.Join(sub, " "), a)
		}
	}
}

// offers lists the subcommands, or with begun "-" the flags, that may follow a
// command line, as the shell's completion says: those have a description.
func (d *docs) offers(line []string, begun string) []string {
	line = append(slices.Clip(line), begun)
	key := strings.Join(line, " ")
	if all, ok := d.offered[key]; ok {
		return all
	}
	var out, errs bytes.Buffer
	cli.Run(append([]string{"__complete"}, line...), nil, &out, &errs)
	var all []string
	for l := range strings.Lines(out.String()) {
		if name, _, ok := strings.Cut(l, "\t"); ok {
			all = append(all, name)
		}
	}
	d.offered[key] = all
	return all
}

// TestDocs checks the links and commands of the documents.
func TestDocs(t *testing.T) {
	d := newDocs(t)
	checked := 0
	for _, pattern := range docPatterns {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(root, file)
			for _, wrong := range d.check(filepath.ToSlash(name), string(text)) {
				t.Error(wrong)
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d documents were found", checked)
	}
}

// TestDocsFind has one wrong line for everything that TestDocs looks for.
func TestDocsFind(t *testing.T) {
	d := newDocs(t)
	for _, test := range []struct{ text, want string }{
		{"[x](codec/SPEC.md) [y](https://example.org/x) [z](docs/handover.md#systemd)", ""},
		{"[x](docs/nothing.md)", "links to docs/nothing.md, which does not exist"},
		{"[x](docs/handover.md#nothing)", "links to docs/handover.md#nothing, and there is no such heading"},
		{"`go test ./server -run TestIdleExpiry`", ""},
		{"`go test ./server -run 'TestIdleExpiry|TestGone'`", "no test matches -run TestGone"},
		{"`go test ./nothing -run TestIdleExpiry`", "there is no package ./nothing"},
		{"`go test ./codec -run '^$' -bench 'Decode\\|Gone'`", "no test matches -bench Gone"},
		{"`go test ./internal/faults -run TestSoak -soak 1h -lang`", "internal/faults has no flag -lang"},
		{"`TestGone` proves it", "there is no test TestGone"},
		{"in `server/nothing.go`", "there is no file server/nothing.go"},
		{"```\n$ go run . serve --profile fast   # x\n```\n", ""},
		{"```\nheartwheel serv\n```\n", "heartwheel has no command serv"},
		{"```\ncd bench && go run . -onli W1\n```\n", "bench has no flag -onli"},
		{"```\ngo run . loadtest \\\n  --falt silent:10%@2s\n```\n", "heartwheel loadtest has no flag --falt"},
		{"`heartwheel loadtest -c 1k --serve '--wrkers 2'`", "heartwheel serve has no flag --wrkers"},
		{"`heartwheel report compar a b`", "heartwheel report has no command compar"},
		{"`go run ./examples/nothing`", "there is no program examples/nothing"},
		{"<!-- figures: measured by go test -run TestGone ./server -->", "no test matches -run TestGone"},
		{strings.Repeat("\n", 121), "has 121 lines, and may have 120"},
	} {
		got := strings.Join(d.check("README.md", test.text), "\n")
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%q: %q, want %q", test.text, got, test.want)
		}
	}
}
