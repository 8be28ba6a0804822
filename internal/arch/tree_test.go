package arch

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// treeRow is a row of the table of packages in CONTRIBUTING.md: its folder and
// what it may import.
var treeRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|.*\\| ([^|]+) \\|$")

// exists reports whether a package with a rule is there already.
func exists(dir string) bool {
	files, _ := filepath.Glob(filepath.Join(root, dir, "*.go"))
	return len(files) > 0
}

// tableImports is what the table of packages says of the rule.
func (r packageRule) tableImports() string {
	switch {
	case r.any:
		return "anything"
	case len(r.own) == 0:
		return "nothing"
	}
	return "`" + strings.Join(slices.Sorted(slices.Values(r.own)), "`, `") + "`"
}

// TestTree checks that the table of packages in CONTRIBUTING.md has the packages
// and imports of packageRules.
func TestTree(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "CONTRIBUTING.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## The tree\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := map[string]string{}
	for _, row := range treeRow.FindAllStringSubmatch(table, -1) {
		rows[row[1]] = row[2]
	}
	delete(rows, "bench") // a module of its own
	for dir, rule := range packageRules {
		if !exists(dir) {
			continue
		}
		name := dir
		if dir == "." {
			name = "main.go"
		}
		if got, want := rows[name], rule.tableImports(); got != want {
			t.Errorf("%s may import %q in the table, want the row | `%s` | … | %s |", name, got, name, want)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("the table has %s, which is not in packageRules", name)
	}
}

// docImports is the sentence that ends a package comment, for the rule.
func (r packageRule) docImports() string {
	own := slices.Sorted(slices.Values(r.own))
	switch n := len(own); {
	case r.any:
		return "It may import any package of this module."
	case n == 0:
		return "It imports nothing of this module."
	case n == 1:
		return "Of this module it imports " + own[0] + "."
	default:
		return "Of this module it imports " + strings.Join(own[:n-1], ", ") + " and " + own[n-1] + "."
	}
}

// TestPackageComments checks that the comment of an internal package says what
// the package imports of this module, as in packageRules.
func TestPackageComments(t *testing.T) {
	for dir, rule := range packageRules {
		if !strings.HasPrefix(dir, "internal/") || !exists(dir) {
			continue
		}
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		comment := ""
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			comment += f.Doc.Text()
		}
		comment = strings.Join(strings.Fields(comment), " ")
		if want := rule.docImports(); !strings.HasSuffix(comment, want) {
			t.Errorf("%s: the package comment ends with %q, want %q", dir, comment[max(0, len(comment)-60):], want)
		}
	}
}
