package settings

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"heartwheel/internal/config"
	"heartwheel/loadtest"
)

// FuzzFile: whatever the file holds, the result is valid settings, or an error
// with at least one line. The same for a scenario of the load test.
func FuzzFile(f *testing.F) {
	for _, text := range []string{
		"", "beat: 3s\n", "beat: 15", "listen: [a, [b]]", "listen: {a: b}", "a.b.c: 1", "beat: {}", "beat:",
		"? [x]\n: y",
		"profile: fast\ntimeout: 9s\nlisten: tcp://[::1]:0\nops: off\nmax-connections: 1e6\n",
		"beat: &x [*x]", "a: &a {b: 1}\n<<: *a\n", "1: 2\ntrue: false\n~: ~\n", "beat: .nan", "beat: !!binary aGk=",
		"---\nbeat: 1s\n---\nbeat: 2s", "beat: 2001-01-01", "\xff\xfe", "loops: 0x10", "\tbeat: 1s",
		"listeners: [{listen: tcp://a:1, origin: [x, y]}, {listen: 'ws://b:1/x'}]", "listeners: [a, {b: {c: d}}]",
		"listeners: &a [{listen: *a}]", "listeners: {}\nlisteners: [[]]",
		"connections: 5k\nfault: [silent:10%@1s]\nslo: false_kills==0\n",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "f.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
		if l, err := loadtest.ReadScenario(path); err == nil {
			p, _, err := loadtest.Build(l)
			if err == nil {
				err = p.Validate()
			}
			if plan := (*loadtest.PlanError)(nil); err != nil && (!errors.As(err, &plan) || len(plan.Lines) == 0) {
				t.Errorf("%q as a scenario: %v", text, err)
			}
		}
		r, err := Resolve(FlagLayer(map[string]string{"config": path}))
		if err == nil {
			if err := r.Validate(); err != nil {
				t.Errorf("%q: Resolved, but %v", text, err)
			}
			return
		}
		var usage *UsageError
		if !errors.As(err, &usage) || len(usage.Lines) == 0 {
			t.Errorf("%q: %v", text, err)
		}
	})
}

// TestFieldErrorsHaveALine: what server.Config finds wrong is reported with the
// key, the file and the line.
func TestFieldErrorsHaveALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	text := "max-frame: 255\nlisten:\n  - tcp://127.0.0.1:1\n  - udp://127.0.0.1:2\n" +
		"ban: [10.0.0.1,\n  nowhere]\nloops: 9999\n"
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Resolve(ArgumentLayer(path))
	for _, want := range []string{
		`max-frame "255" (file F:1): must lie between`, `listen "udp://127.0.0.1:2" (file F:4): has the scheme`,
		`ban "nowhere" (file F:6): `, `loops "9999" (file F:7): must lie`,
	} {
		if want = strings.ReplaceAll(want, "F:", path+":"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no line says %q:\n%v", want, err)
		}
	}
}

// TestLastingFile: serve reads its file again in workers and successors, so it
// takes regular files only. Checking one reads it once.
func TestLastingFile(t *testing.T) {
	dir := t.TempDir()
	regular, link := filepath.Join(dir, "f.yaml"), filepath.Join(dir, "link")
	const text = "address-max: 7\n"
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	_, _ = in.WriteString(text) // fits into the pipe
	in.Close()
	pipe := fmt.Sprintf("/dev/fd/%d", out.Fd())
	if err := os.WriteFile(regular, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(regular)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	descriptor := fmt.Sprintf("/dev/fd/%d", f.Fd())
	for name, target := range map[string]string{link: "f.yaml", link + "2": descriptor} {
		if err := os.Symlink(target, name); err != nil {
			t.Fatal(err)
		}
	}
	for path, lasting := range map[string]bool{regular: true, link: true, pipe: false, descriptor: false,
		link + "2": false, "/dev/null": false} {
		for _, l := range []config.Layer{FlagLayer(map[string]string{"config": path}),
			EnvLayer([]string{"HEARTWHEEL_CONFIG=" + path})} {
			_, err := Resolve(l)
			if (err == nil) != lasting || err != nil && !strings.Contains(err.Error(), "is not a regular file") {
				t.Errorf("%s: %v", path, err)
			}
		}
		if path == "/dev/null" {
			continue
		}
		if r, err := Resolve(ArgumentLayer(path)); err != nil || r.AddressMax != 7 {
			t.Errorf("%s as an argument: %v", path, err)
		}
	}
}

// TestSameTextEverywhere: a value means the same in a file, in the environment
// and in a flag.
func TestSameTextEverywhere(t *testing.T) {
	for _, c := range []struct{ key, text string }{
		{"max-connections", "0100"}, {"max-connections", "0x10"}, {"max-connections", "1e6"},
		{"max-connections", "1_000"}, {"max-connections", "20k"},
		{"require-hello", "yes"}, {"require-hello", "True"}, {"require-hello", "on"}, {"require-hello", "true"},
		{"require-hello", "false"},
		{"ops", "off"}, {"ops", "010:0100"}, {"beat", "15"}, {"beat", "2001-01-01"}, {"log-level", "2001-01-01"},
		{"loops", "1.0"}, {"loops", "+2"}, {"loops", "010"}, {"loops", `" 5"`}, {"loops", `"5 "`}, {"loops", `"05"`},
		{"max-connections", "1m"}, {"max-connections", `"20 k"`}, {"max-connections", `" 1m"`},
		{"max-frame", "0100000"}, {"max-frame", "1_000"}, {"max-frame", "64KiB"}, {"max-frame", `" 64 KiB"`},
		{"workers", "01"}, {"workers", `" 1"`}, {"address-rate", "0100"}, {"address-rate", "1k"},
	} {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(c.key+": "+c.text+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
		s := Table.ByKey(c.key)
		text := strings.Trim(c.text, `"`) // quotes are YAML's
		var texts, errs []string
		for _, l := range []config.Layer{ArgumentLayer(path),
			EnvLayer([]string{s.Variable(EnvPrefix) + "=" + text}), FlagLayer(map[string]string{c.key: text})} {
			r, err := Resolve(l)
			if err != nil {
				_, reason, _ := strings.Cut(err.Error(), "): ")
				texts, errs = append(texts, ""), append(errs, reason)
				continue
			}
			value, _ := r.Show(s)
			texts, errs = append(texts, value), append(errs, "")
		}
		if texts[0] != texts[1] || texts[1] != texts[2] || errs[0] != errs[1] || errs[1] != errs[2] {
			t.Errorf("%s %s: %q, %q", c.key, c.text, texts, errs)
		}
	}
}
