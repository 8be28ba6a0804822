package codec

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
)

// declaredCodes are the Code constants in code.go, name to value, so that new codes
// are tested too.
func declaredCodes(t *testing.T) map[string]Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]Code{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		v, err := strconv.ParseUint(spec.Values[0].(*ast.BasicLit).Value, 10, 16)
		if err != nil {
			t.Fatal(err)
		}
		codes[spec.Names[0].Name] = Code(v)
		return true
	})
	if len(codes) != 24 {
		t.Errorf("%d codes declared, want the 24 of the protocol", len(codes))
	}
	return codes
}

// TestCodeString: the word of a code is its constant's name in snake_case, and
// no two have the same.
func TestCodeString(t *testing.T) {
	words := map[string]string{}
	for name, code := range declaredCodes(t) {
		var want strings.Builder
		for i, r := range strings.TrimPrefix(name, "Code") {
			if i > 0 && r >= 'A' && r <= 'Z' {
				want.WriteByte('_')
			}
			want.WriteRune(r)
		}
		got := code.String()
		if got != strings.ToLower(want.String()) {
			t.Errorf("%s.String() = %q, want %q", name, got, strings.ToLower(want.String()))
		}
		if other, ok := words[got]; ok {
			t.Errorf("%s and %s are both %q", name, other, got)
		}
		words[got] = name
	}
	unknown := 0
	for c := range 1 << 16 {
		if Code(c).String() == "unknown" {
			unknown++
		}
	}
	if unknown != 1<<16-len(words) {
		t.Errorf("%d codes are unknown, want all but %d", unknown, len(words))
	}
}

func TestCodeReconnect(t *testing.T) {
	for c := range 1 << 16 {
		want := false
		switch {
		case c >= 3000 && c <= 3499, c >= 4000 && c <= 4499:
			want = true
		}
		if got := Code(c).Reconnect(); got != want {
			t.Errorf("Code(%d).Reconnect() = %v, want %v", c, got, want)
		}
	}
}
