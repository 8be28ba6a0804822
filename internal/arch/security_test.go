package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"heartwheel/internal/admission"
	"heartwheel/server"
)

var (
	settingRow = regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| `HEARTWHEEL_\\w+` \\| [^|]+ \\| ([^|]+) \\|")
	flagName   = regexp.MustCompile("--([a-z-]+)")
)

// TestSecurityLimits checks the table of limits in docs/security.md: the defaults are
// those of docs/settings.md, and what shows a limit is a reason or a metric.
func TestSecurityLimits(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	defaults := map[string]string{}
	for _, row := range settingRow.FindAllStringSubmatch(read("settings.md"), -1) {
		defaults[row[1]] = row[2]
	}
	shown := []string{}
	for _, cause := range admission.Causes() {
		shown = append(shown, cause.String())
	}
	for r := server.Reason(0); r.String() != "unknown"; r++ {
		shown = append(shown, r.String())
	}
	metrics := newDocs(t).sources["server"]

	_, table, _ := strings.Cut(read("security.md"), "\n## Limits\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := 0
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 4 || strings.HasPrefix(cells[0], "---") || cells[0] == " limit " {
			continue
		}
		rows++
		limit, def, by := cells[0], strings.TrimSpace(cells[1]), cells[3]
		if strings.HasPrefix(strings.TrimSpace(limit), "`--") {
			for i, f := range flagName.FindAllStringSubmatch(limit, -1) {
				if want, ok := defaults[f[1]]; !ok || i == 0 && def != want {
					t.Errorf("--%s: default %q, want %q", f[1], def, want)
				}
			}
		} else if def != "fixed" {
			t.Errorf("%q: default %q, want fixed", limit, def)
		}
		for _, span := range codeSpan.FindAllStringSubmatch(by, -1) {
			metric, ok := strings.CutPrefix(span[1], "heartwheel_")
			known := slices.Contains(shown, span[1])
			if ok {
				known = strings.Contains(metrics, `"`+metric+`"`) || strings.Contains(metrics, `"`+span[1]+`"`)
			}
			if !known {
				t.Errorf("%q: %s is neither a reason nor a metric", limit, span[1])
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d limits were found", rows)
	}
}
