package cli

import (
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"heartwheel/internal/wording"
	"heartwheel/server"
)

func TestDefaultsAreThoseOfTheServer(t *testing.T) {
	r, err := resolve()
	if err != nil {
		t.Fatal(err)
	}
	got, want := r.WithDefaults(), server.Config{}.WithDefaults()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the defaults of the settings come to\n%+v\nthose of server.Config are\n%+v", got, want)
	}
}

func TestBeats(t *testing.T) {
	for word, want := range map[string]server.Beats{"client": server.ClientBeats, "server": server.ServerBeats} {
		r, err := resolve(flagLayer(map[string]any{"beats": word}))
		if err != nil || r.Config.Beats != want {
			t.Errorf("beats %s comes to %v, %v", word, r, err)
		}
	}
}

// TestProfilesNeedNoTimeout is why profileLayer can leave the timeout open.
func TestProfilesNeedNoTimeout(t *testing.T) {
	for _, p := range server.Profiles {
		r, err := resolve(flagLayer(map[string]any{"profile": p.Name}))
		if err != nil {
			t.Fatal(err)
		}
		if r.Beat != p.Beat || r.BeatMin != p.BeatMin || r.BeatMax != p.BeatMax || r.Timeout != 0 {
			t.Errorf("profile %s comes to beat %s, %s to %s, timeout %s", p.Name, r.Beat, r.BeatMin, r.BeatMax, r.Timeout)
		}
		if shown, _ := r.show(settingByKey("timeout")); shown != wording.Duration(p.Timeout) {
			t.Errorf("profile %s: 2.5 × beat is %s, its timeout is %s", p.Name, shown, p.Timeout)
		}
	}
}

// TestEveryFieldCanBeSet finds a field of server.Config that no setting leads
// to, and a setting that leads nowhere.
func TestEveryFieldCanBeSet(t *testing.T) {
	values := map[kind]string{
		listKind: "tcp://127.0.0.1:1", addressKind: "off", durationKind: "7m",
		sizeKind: "77", numberKind: "77", boolKind: "true", pathKind: "f.yaml",
	}
	var all options
	for _, s := range settings {
		text := values[s.kind]
		if s.kind == wordKind {
			text = s.words[len(s.words)-1]
		}
		var o options
		if err := s.set(&o, text); err != nil {
			t.Errorf("%s: %s", s.key, err)
		}
		if got := s.value(&o); got != text {
			t.Errorf("%s was set to %s and is %s", s.key, text, got)
		}
		if reflect.DeepEqual(o, options{}) {
			t.Errorf("%s sets nothing", s.key)
		}
		if err := s.set(&all, text); err != nil {
			t.Error(err)
		}
		if s.def != "" && s.unset != "" || s.def == "" && s.unset == "" {
			t.Errorf("%s: exactly one of def and unset says what holds", s.key)
		}
	}
	config := reflect.ValueOf(all.Config)
	for i := range config.NumField() {
		name := config.Type().Field(i).Name
		// These are filled in from beats and by serve.
		if config.Field(i).IsZero() && name != "Beats" && name != "Logger" && name != "Sockets" && name != "Shared" {
			t.Errorf("no setting leads to server.Config.%s", name)
		}
	}
	if reflect.ValueOf(all).NumField() != 1+8 {
		t.Error("options has another number of fields: give each a setting")
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"15s": 15 * time.Second, "37.5s": 37500 * time.Millisecond, "2m": 2 * time.Minute,
		"1h30m": 90 * time.Minute, "0": 0, "-1s": -time.Second,
	} {
		if got, err := parseDuration(text); got != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"15": "write 15s", "1.5": "write 1.5s", "": "such as 15s", "15 s": "such as 15s", "1d": "such as 15s", "s": "such as 15s",
	} {
		if d, err := parseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %s, %v, want an error with %q", text, d, err, want)
		}
	}
}

func TestParseInt(t *testing.T) {
	for _, c := range []struct {
		text string
		kind kind
		want int
	}{
		{"65536", sizeKind, 65536}, {"64KiB", sizeKind, 65536}, {"64 kib", sizeKind, 65536}, {"1MiB", sizeKind, 1 << 20}, {"1GiB", sizeKind, 1 << 30},
		{"20000", numberKind, 20000}, {"20k", numberKind, 20000}, {"1m", numberKind, 1000000}, {"1M", numberKind, 1000000},
		{"-5", numberKind, -5}, {"0", sizeKind, 0},
	} {
		if got, err := parseInt(c.text, c.kind); got != c.want || err != nil {
			t.Errorf("%s %q is %d, %v, want %d", c.kind, c.text, got, err, c.want)
		}
	}
	for _, c := range []struct {
		text string
		kind kind
		want string
	}{
		{"64KB", sizeKind, "is not a size"}, {"64k", sizeKind, "is not a size"}, {"", sizeKind, "is not a size"},
		{"KiB", sizeKind, "is not a size"}, {"1.5MiB", sizeKind, "is not a size"},
		{"20KiB", numberKind, "is not a whole number"}, {"1.5k", numberKind, "is not a whole number"},
		{"1e6", numberKind, "is not a whole number"}, {"99999999999999999999", numberKind, "beyond"},
		{"9223372036854775807k", numberKind, "beyond"}, {"-9223372036854775808m", numberKind, "beyond"},
	} {
		if n, err := parseInt(c.text, c.kind); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q is %d, %v, want an error with %q", c.kind, c.text, n, err, c.want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for want, n := range map[string]int{"0": 0, "77": 77, "1KiB": 1024, "1025": 1025, "64KiB": 65536, "1MiB": 1 << 20, "1536KiB": 3 << 19, "1GiB": 1 << 30} {
		if got := formatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

var update = flag.Bool("update", false, "write docs/settings.md anew")

// TestSettingsPage keeps docs/settings.md as the table of settings has it.
func TestSettingsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Settings

Made from the table in settings.go: ` + "`go test -run TestSettingsPage -update .`" + ` writes it anew.

A flag counts more than the environment, which counts more than the file, which
counts more than the profile. The keys of the file are the names of the flags.
` + "`heartwheel config show`" + ` shows what they come to, ` + "`heartwheel config check FILE`" + `
what is wrong with a file.

| flag and key | environment | value | default | meaning |
|---|---|---|---|---|
`)
	for _, s := range settings {
		value, def := string(s.kind), s.unset
		if s.kind == wordKind {
			value = "`" + strings.Join(s.words, "`, `") + "`"
		}
		if s.def != "" {
			def = "`" + s.def + "`"
		}
		env := "`" + s.env() + "`"
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.key, env, value, def, s.help)
	}
	b.WriteString("\n| profile | beat | timeout | beat-min | beat-max |\n|---|---|---|---|---|\n")
	for _, p := range server.Profiles {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name,
			wording.Duration(p.Beat), wording.Duration(p.Timeout), wording.Duration(p.BeatMin), wording.Duration(p.BeatMax))
	}
	b.WriteString(`
How values are written:

- duration: a number and a unit, ` + "`15s`, `37.5s`, `500ms`, `2m`" + `.
- size: bytes, or with a unit, ` + "`65536`, `64KiB`, `1MiB`, `2GiB`" + `.
- number: whole, or with k or m, ` + "`20000`, `20k`, `1m`" + `.
- list: separated by commas; a flag may be given several times; in the file also a YAML list.
- address: ` + "`HOST:PORT`, or `off`" + `.

A variable that begins with HEARTWHEEL_ and is no setting is an error, and so is
an unknown key in the file. The variables that Kubernetes sets for a service
called heartwheel are left alone. An empty variable counts as not set.
`)
	if *update {
		if err := os.WriteFile("../../docs/settings.md", []byte(b.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("../../docs/settings.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("docs/settings.md is not what the table of settings says: go test -run TestSettingsPage -update ./internal/cli")
	}
}
