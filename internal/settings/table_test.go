package settings

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
	r, err := Resolve()
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
		r, err := Resolve(FlagLayer(map[string]any{"beats": word}))
		if err != nil || r.Config.Beats != want {
			t.Errorf("beats %s comes to %v, %v", word, r, err)
		}
	}
}

// TestProfilesNeedNoTimeout is why profileLayer can leave the timeout open.
func TestProfilesNeedNoTimeout(t *testing.T) {
	for _, p := range server.Profiles {
		r, err := Resolve(FlagLayer(map[string]any{"profile": p.Name}))
		if err != nil {
			t.Fatal(err)
		}
		if r.Beat != p.Beat || r.BeatMin != p.BeatMin || r.BeatMax != p.BeatMax || r.Timeout != 0 {
			t.Errorf("profile %s comes to beat %s, %s to %s, timeout %s", p.Name, r.Beat, r.BeatMin, r.BeatMax, r.Timeout)
		}
		if shown, _ := r.Show(ByKey("timeout")); shown != wording.Duration(p.Beat*5/2) {
			t.Errorf("profile %s: 2.5 × beat is %s, its timeout is %s", p.Name, p.Beat*5/2, shown)
		}
	}
}

// TestEveryFieldCanBeSet finds a field of server.Config that no setting leads
// to, and a setting that leads nowhere.
func TestEveryFieldCanBeSet(t *testing.T) {
	values := map[Kind]string{
		ListKind: "tcp://127.0.0.1:1", AddressKind: "off", DurationKind: "7m",
		SizeKind: "77", NumberKind: "77", BoolKind: "true", PathKind: "f.yaml",
	}
	var all Options
	for _, s := range Table {
		text := values[s.Kind]
		if s.Kind == WordKind {
			text = s.Words[len(s.Words)-1]
		}
		var o Options
		if err := s.set(&o, text); err != nil {
			t.Errorf("%s: %s", s.Key, err)
		}
		if got := s.Value(&o); got != text {
			t.Errorf("%s was set to %s and is %s", s.Key, text, got)
		}
		if reflect.DeepEqual(o, Options{}) {
			t.Errorf("%s sets nothing", s.Key)
		}
		if err := s.set(&all, text); err != nil {
			t.Error(err)
		}
		if s.Default != "" && s.Unset != "" || s.Default == "" && s.Unset == "" {
			t.Errorf("%s: exactly one of def and unset says what holds", s.Key)
		}
	}
	config := reflect.ValueOf(all.Config)
	for i := range config.NumField() {
		name := config.Type().Field(i).Name
		// These are filled in from beats and by serve.
		if config.Field(i).IsZero() && name != "Beats" && name != "Logger" && name != "Sockets" && name != "Quota" {
			t.Errorf("no setting leads to server.Config.%s", name)
		}
	}
	if reflect.ValueOf(all).NumField() != 1+8 {
		t.Error("Options has another number of fields: give each a setting")
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"15s": 15 * time.Second, "37.5s": 37500 * time.Millisecond, "2m": 2 * time.Minute,
		"1h30m": 90 * time.Minute, "0": 0, "-1s": -time.Second,
	} {
		if got, err := ParseDuration(text); got != want || err != nil {
			t.Errorf("%q is %s, %v, want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"15": "write 15s", "1.5": "write 1.5s", "": "such as 15s", "15 s": "such as 15s", "1d": "such as 15s", "s": "such as 15s",
	} {
		if d, err := ParseDuration(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %s, %v, want an error with %q", text, d, err, want)
		}
	}
}

func TestParseInt(t *testing.T) {
	for _, c := range []struct {
		text string
		Kind Kind
		want int
	}{
		{"65536", SizeKind, 65536}, {"64KiB", SizeKind, 65536}, {"64 kib", SizeKind, 65536}, {"1MiB", SizeKind, 1 << 20}, {"1GiB", SizeKind, 1 << 30},
		{"20000", NumberKind, 20000}, {"20k", NumberKind, 20000}, {"1m", NumberKind, 1000000}, {"1M", NumberKind, 1000000},
		{"-5", NumberKind, -5}, {"0", SizeKind, 0},
	} {
		if got, err := ParseInt(c.text, c.Kind); got != c.want || err != nil {
			t.Errorf("%s %q is %d, %v, want %d", c.Kind, c.text, got, err, c.want)
		}
	}
	for _, c := range []struct {
		text string
		Kind Kind
		want string
	}{
		{"64KB", SizeKind, "is not a size"}, {"64k", SizeKind, "is not a size"}, {"", SizeKind, "is not a size"},
		{"KiB", SizeKind, "is not a size"}, {"1.5MiB", SizeKind, "is not a size"},
		{"20KiB", NumberKind, "is not a whole number"}, {"1.5k", NumberKind, "is not a whole number"},
		{"1e6", NumberKind, "is not a whole number"}, {"99999999999999999999", NumberKind, "beyond"},
		{"9223372036854775807k", NumberKind, "beyond"}, {"-9223372036854775808m", NumberKind, "beyond"},
	} {
		if n, err := ParseInt(c.text, c.Kind); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q is %d, %v, want an error with %q", c.Kind, c.text, n, err, c.want)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for want, n := range map[string]int{"0": 0, "77": 77, "1KiB": 1024, "1025": 1025, "64KiB": 65536, "1MiB": 1 << 20, "1536KiB": 3 << 19, "1GiB": 1 << 30} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

var update = flag.Bool("update", false, "write docs/settings.md anew")

// TestSettingsPage keeps docs/settings.md as the table of settings has it.
func TestSettingsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Settings

Made from the table in internal/settings: ` + "`go test ./internal/settings -run TestSettingsPage -update`" + ` writes it anew.

A flag counts more than the environment, which counts more than the file, which
counts more than the profile. The keys of the file are the names of the flags.
` + "`heartwheel config show`" + ` shows what they come to, ` + "`heartwheel config check FILE`" + `
what is wrong with a file.

| flag and key | environment | value | default | meaning |
|---|---|---|---|---|
`)
	for _, s := range Table {
		value, def := string(s.Kind), s.Unset
		if s.Kind == WordKind {
			value = "`" + strings.Join(s.Words, "`, `") + "`"
		}
		if s.Default != "" {
			def = "`" + s.Default + "`"
		}
		env := "`" + s.Env() + "`"
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.Key, env, value, def, s.Help)
	}
	b.WriteString("\n| profile | beat | timeout | beat-min | beat-max |\n|---|---|---|---|---|\n")
	for _, p := range server.Profiles {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name,
			wording.Duration(p.Beat), wording.Duration(p.Beat*5/2), wording.Duration(p.BeatMin), wording.Duration(p.BeatMax))
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
		t.Error("docs/settings.md is not what the table of settings says: go test -run TestSettingsPage -update ./internal/settings")
	}
}
