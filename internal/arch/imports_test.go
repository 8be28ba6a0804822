package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module      = "heartwheel"
	gnet        = "github.com/panjf2000/gnet/"
	timingwheel = "github.com/RussellLuo/timingwheel"
	nftables    = "github.com/google/nftables"
	yaml        = "go.yaml.in/yaml/"
	cobra       = "github.com/spf13/"
	centrifugal = "github.com/centrifugal/"
)

// A packageRule says what a package may import beside the standard library.
// Tests are free to import more.
type packageRule struct {
	own        []string // packages of this module, by directory
	any        bool     // any package of this module
	thirdParty bool     // other modules
	env        bool     // may read the environment
}

// root is the module's root.
const root = "../.."

// packageRules has an entry for every package of the module, by directory. A
// new package needs an entry here.
var packageRules = map[string]packageRule{
	".":            {own: []string{"internal/cli"}, env: true},
	"internal/cli": {any: true, thirdParty: true, env: true},
	"codec":        {},
	"wheel":        {thirdParty: true},
	"server": {own: []string{"codec", "wheel", "internal/address", "internal/admission", "internal/auth",
		"internal/edge/lengthfield", "internal/edge/proxyproto", "internal/edge/tlsedge", "internal/edge/websocket",
		"internal/ops"}, thirdParty: true},
	"client":  {own: []string{"codec", "internal/address"}, thirdParty: true},
	"gateway": {own: []string{"server", "codec"}, thirdParty: true},

	"gateway/centrifugo": {thirdParty: true},

	"loadtest": {own: []string{"codec", "loadtest/engine", "loadtest/report", "internal/address", "internal/config",
		"internal/edge/tlsedge", "internal/edge/websocket", "internal/epoll", "internal/wording"}, thirdParty: true},
	"loadtest/engine": {own: []string{"codec", "internal/edge/lengthfield", "internal/edge/tlsedge",
		"internal/edge/websocket", "internal/epoll", "internal/timerslack", "internal/wording"}, thirdParty: true},
	"loadtest/report": {own: []string{"internal/wording"}, thirdParty: true},

	"internal/auth":      {own: []string{"codec"}, thirdParty: true},
	"internal/admission": {own: []string{"codec"}, thirdParty: true},
	"internal/config":    {own: []string{"internal/wording"}, thirdParty: true},
	"internal/address":   {},
	"internal/settings": {own: []string{"internal/address", "internal/admission", "internal/config", "internal/wording",
		"server"}},
	"internal/handover": {
		own: []string{
			"internal/address", "internal/admission", "internal/settings", "internal/timerslack", "internal/wording",
			"server",
		},
		thirdParty: true,
	},
	"internal/logging": {thirdParty: true},
	"internal/ops":     {thirdParty: true},
	"internal/daemon": {
		own: []string{
			"internal/admission", "internal/handover", "internal/ops", "internal/settings", "internal/wording",
			"server",
		},
		thirdParty: true,
	},
	"internal/supervisor": {
		own: []string{
			"internal/address", "internal/admission", "internal/handover", "internal/ops", "internal/settings",
			"internal/timerslack", "internal/wording", "server",
		},
		thirdParty: true,
	},

	"internal/arch":   {},
	"internal/doctor": {own: []string{"internal/wording"}, thirdParty: true},

	"internal/netlab":   {thirdParty: true}, // for tests alone
	"internal/testcert": {},
	"examples":          {},
	"examples/embedded": {own: []string{"server", "codec"}},

	"internal/edge/lengthfield": {own: []string{"codec"}},
	"internal/edge/proxyproto":  {own: []string{"codec"}},
	"internal/edge/tlsedge":     {own: []string{"codec"}},
	"internal/edge/websocket":   {own: []string{"codec"}, thirdParty: true},

	"internal/epoll":      {thirdParty: true},
	"internal/timerslack": {thirdParty: true},
	"internal/wording":    {},

	"internal/faults": {},

	"examples/progress": {own: []string{"client", "server", "codec"}},
}

// moduleRules say where a module of others may be imported: by the path's
// beginning, the directories or single files that may.
var moduleRules = map[string][]string{
	gnet:        {"server/gnet.go"},
	timingwheel: {"wheel"},
	nftables:    {"internal/netlab"},
	yaml:        {"internal/config"},
	cobra:       {"internal/cli"},
	centrifugal: {"gateway/centrifugo"},
}

// envReaders are the functions that read the environment.
var envReaders = map[string][]string{
	"os":      {"Getenv", "LookupEnv", "Environ", "ExpandEnv"},
	"syscall": {"Getenv", "Environ"},
}

// checkFile returns what breaks a rule in one file. name is its path below
// the module, with slashes.
func checkFile(name string, f *ast.File) []string {
	var broken []string
	wrong := func(format string, args ...any) {
		broken = append(broken, name+": "+fmt.Sprintf(format, args...))
	}
	dir, test := path.Dir(name), strings.HasSuffix(name, "_test.go")
	rule, known := packageRules[dir]
	if !known {
		wrong("the package is not in packageRules: add it with what it may import")
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			wrong("%s", err)
			continue
		}
		first, _, _ := strings.Cut(imported, "/")
		own := imported == module || first == module
		target := strings.TrimPrefix(strings.TrimPrefix(imported, module), "/")
		switch {
		case own && (target == "bench" || strings.HasPrefix(target, "bench/")):
			wrong("nothing imports bench")
		case test:
		case own && !rule.any && !slices.Contains(rule.own, target):
			wrong("%s does not import %s", dir, imported)
		case !own && strings.Contains(first, ".") && !rule.thirdParty:
			wrong("%s imports nothing of others, but %s", dir, imported)
		}
		for prefix, where := range moduleRules {
			allowed := test || slices.Contains(where, dir) || slices.Contains(where, name)
			if strings.HasPrefix(imported, prefix) && !allowed {
				wrong("%s is imported only in %s", imported, strings.Join(where, ", "))
			}
		}
	}
	if !rule.env && !test {
		for _, read := range envReads(f) {
			wrong("only the command reads the environment, but here is %s", read)
		}
	}
	return broken
}

// envReads returns the uses of envReaders in f, such as os.Getenv.
func envReads(f *ast.File) []string {
	names := map[string][]string{} // local name of a package: its functions
	for _, spec := range f.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		if readers, ok := envReaders[imported]; ok {
			name := imported
			if spec.Name != nil {
				name = spec.Name.Name
			}
			names[name] = readers
		}
	}
	var reads []string
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if pkg, ok := sel.X.(*ast.Ident); ok && slices.Contains(names[pkg.Name], sel.Sel.Name) {
				reads = append(reads, pkg.Name+"."+sel.Sel.Name)
			}
		}
		return true
	})
	return reads
}

// TestImports checks every Go file of the module, whatever its build tags.
func TestImports(t *testing.T) {
	files, seen := 0, map[string]bool{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != "." && (base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil && name != "." {
				return fs.SkipDir // another module, such as bench
			}
			return nil
		}
		if filepath.Ext(name) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		for _, broken := range checkFile(filepath.ToSlash(name), f) {
			t.Error(broken)
		}
		for _, spec := range f.Imports {
			for prefix := range moduleRules {
				if strings.HasPrefix(strings.Trim(spec.Path.Value, `"`), prefix) {
					seen[prefix] = true
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d files were found", files)
	}
	for prefix := range moduleRules {
		if !seen[prefix] {
			t.Errorf("nothing imports %s: its rule checks nothing", prefix)
		}
	}
}

// TestImportRulesFind proves that a forbidden import is found.
func TestImportRulesFind(t *testing.T) {
	for _, c := range []struct {
		name, source string
		want         string // part of what is reported; empty: nothing is wrong
	}{
		{"server/x.go", `import "heartwheel/client"`, "server does not import heartwheel/client"},
		{"server/x.go", `import "heartwheel/gateway"`, "server does not import heartwheel/gateway"},
		{"server/x.go", `import "heartwheel"`, "server does not import heartwheel"},
		{"server/x.go", `import ("heartwheel/codec"; "heartwheel/wheel"; "golang.org/x/sys/unix")`, ""},
		{"server/x.go", `import ("heartwheel/internal/admission"; "heartwheel/internal/ops")`, ""},
		{"server/x.go", `import "heartwheel/internal/cli"`, "server does not import heartwheel/internal/cli"},
		{"internal/admission/x.go", `import "heartwheel/codec"`, ""},
		{"internal/admission/x.go", `import "heartwheel/wheel"`, "internal/admission does not import heartwheel/wheel"},
		{"internal/admission/x.go", `import "heartwheel/server"`, "does not import heartwheel/server"},
		{"internal/ops/x.go", `import "heartwheel/server"`, "internal/ops does not import heartwheel/server"},
		{"server/x.go", `import g "github.com/panjf2000/gnet/v2"`, "is imported only in server/gnet.go"},
		{"server/x.go", `import "github.com/panjf2000/gnet/v2/pkg/logging"`, "is imported only in server/gnet.go"},
		{"server/gnet.go", `import "github.com/panjf2000/gnet/v2"`, ""},
		{"server/x_test.go", `import ("github.com/panjf2000/gnet/v2"; "heartwheel/client")`, ""},
		{"server/x.go", `import _ "github.com/RussellLuo/timingwheel"`, "is imported only in wheel"},
		{"wheel/x.go", `import "github.com/RussellLuo/timingwheel"`, ""},
		{"wheel/x.go", `import "heartwheel/codec"`, "wheel does not import heartwheel/codec"},
		{"codec/x.go", `import "github.com/panjf2000/gnet/v2"`, "codec imports nothing of others"},
		{"codec/x.go", `import "golang.org/x/sys/cpu"`, "codec imports nothing of others"},
		{"codec/x.go", `import "heartwheel/wheel"`, "codec does not import heartwheel/wheel"},
		{"codec/x.go", `import "encoding/binary"`, ""},
		{"codec/x_test.go", `import "go.uber.org/goleak"`, ""},
		{"client/x.go", `import "heartwheel/codec"`, ""},
		{"client/x.go", `import "heartwheel/server"`, "client does not import heartwheel/server"},
		{"gateway/x.go", `import "heartwheel/client"`, "gateway does not import heartwheel/client"},
		{"loadtest/x.go", `import "heartwheel/server"`, "loadtest does not import heartwheel/server"},
		{"loadtest/engine/x.go", `import "heartwheel/loadtest/report"`,
			"loadtest/engine does not import heartwheel/loadtest/report"},
		{"loadtest/report/x.go", `import "heartwheel/loadtest"`, "loadtest/report does not import heartwheel/loadtest"},
		{"internal/epoll/x.go", `import "heartwheel/codec"`, "internal/epoll does not import heartwheel/codec"},
		{"internal/doctor/x.go", `import "heartwheel/codec"`, "internal/doctor does not import heartwheel/codec"},
		{"x.go", `import "heartwheel/bench"`, "nothing imports bench"},
		{"x_test.go", `import "heartwheel/bench/peers"`, "nothing imports bench"},
		{"internal/cli/x.go", `import ("heartwheel/server"; "heartwheel/client")`, ""},
		{"internal/cli/x.go", `import "os"; var _ = os.Getenv("X")`, ""},
		{"main.go", `import ("heartwheel/internal/cli"; "os"); var _ = os.Environ()`, ""},
		{"internal/daemon/x.go", `import "heartwheel/internal/supervisor"`, "internal/daemon does not import"},
		{"internal/supervisor/x.go", `import "heartwheel/internal/daemon"`, "internal/supervisor does not import"},
		{"internal/config/x.go", `import "heartwheel/internal/settings"`, "internal/config does not import"},
		{"internal/config/x.go", `import "heartwheel/server"`, "internal/config does not import heartwheel/server"},
		{"internal/config/x.go", `import ("heartwheel/internal/wording"; "go.yaml.in/yaml/v4")`, ""},
		{"internal/config/x.go", `import "os"; var _ = os.Environ()`, "here is os.Environ"},
		{"loadtest/x.go", `import "go.yaml.in/yaml/v4"`, "is imported only in internal/config"},
		{"internal/config/x.go", `import "github.com/spf13/pflag"`, "is imported only in internal/cli"},
		{"internal/settings/x.go", `import "heartwheel/loadtest"`,
			"internal/settings does not import heartwheel/loadtest"},
		{"internal/settings/x.go", `import "heartwheel/internal/handover"`, "internal/settings does not import"},
		{"main.go", `import "heartwheel/server"`, ". does not import heartwheel/server"},
		{"server/x.go", `import "os"; var _ = os.Getenv("X")`, "here is os.Getenv"},
		{"server/x.go", `import sys "os"; var _, _ = sys.LookupEnv("X")`, "here is sys.LookupEnv"},
		{"codec/x.go", `import "syscall"; var _, _ = syscall.Getenv("X")`, "here is syscall.Getenv"},
		{"server/x.go", `import "os"; var _ = os.Getpid()`, ""},
		{"server/x_test.go", `import "os"; var _ = os.Getenv("X")`, ""},
		{"util/x.go", `import "fmt"`, "not in packageRules"},
		{"server/inner/x.go", `import "fmt"`, "not in packageRules"},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), c.name, "package x; "+c.source, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		broken := strings.Join(checkFile(c.name, f), "\n")
		if (c.want == "") != (broken == "") || !strings.Contains(broken, c.want) {
			t.Errorf("%s with %s: got %q, want %q", c.name, c.source, broken, c.want)
		}
	}
}
