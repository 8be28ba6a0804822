package settings

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"heartwheel/internal/config"
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
		r, err := Resolve(FlagLayer(map[string]string{"beats": word}))
		if err != nil || r.Config.Beats != want {
			t.Errorf("beats %s comes to %v, %v", word, r, err)
		}
	}
}

// TestProfilesNeedNoTimeout is why profileLayer can leave the timeout open.
func TestProfilesNeedNoTimeout(t *testing.T) {
	for _, p := range server.Profiles {
		r, err := Resolve(FlagLayer(map[string]string{"profile": p.Name}))
		if err != nil {
			t.Fatal(err)
		}
		if r.Beat != p.Beat || r.BeatMin != p.BeatMin || r.BeatMax != p.BeatMax || r.Timeout != 0 {
			t.Errorf("profile %s comes to beat %s, %s to %s, timeout %s",
				p.Name, r.Beat, r.BeatMin, r.BeatMax, r.Timeout)
		}
		if shown, _ := r.Show(Table.ByKey("timeout")); shown != wording.Duration(p.Beat*5/2) {
			t.Errorf("profile %s: 2.5 × beat is %s, the timeout is %s", p.Name, p.Beat*5/2, shown)
		}
	}
}

// TestEveryFieldCanBeSet finds a field of server.Config that no setting fills,
// and a setting that fills none.
func TestEveryFieldCanBeSet(t *testing.T) {
	values := map[config.Kind]string{
		config.List: "tcp://127.0.0.1:1", config.Address: "off", config.Duration: "7m",
		config.Size: "77", config.Number: "77", config.Bool: "true", config.Path: "f.yaml", config.Text: "text",
	}
	var all Options
	for _, s := range Table {
		text := values[s.Kind]
		if s.Kind == config.Word {
			text = s.Words[len(s.Words)-1]
		}
		layer := FlagLayer(map[string]string{s.Key: text})
		var o Options
		if m := Table.Merge(&o, layer); m.Problems != nil {
			t.Errorf("%s: %s", s.Key, m.Problems)
		}
		if got := s.Text(&o); got != text {
			t.Errorf("%s was set to %s and is %s", s.Key, text, got)
		}
		if reflect.DeepEqual(o, Options{}) {
			t.Errorf("%s sets nothing", s.Key)
		}
		if m := Table.Merge(&all, layer); m.Problems != nil {
			t.Error(m.Problems)
		}
		if s.Default != "" && s.Unset != "" || s.Default == "" && s.Unset == "" {
			t.Errorf("%s: exactly one of Default and Unset says what holds", s.Key)
		}
		if s.Group == "" || s.Help == "" || strings.Contains(s.Help, "`") {
			t.Errorf("%s: has no group, or a help that pflag would take apart", s.Key)
		}
	}
	if defaults := Table.Merge(new(Options), Table.Defaults()); defaults.Problems != nil {
		t.Error(defaults.Problems)
	}
	fields := reflect.ValueOf(all.Config)
	for _, f := range reflect.VisibleFields(fields.Type()) {
		name := f.Name
		// These are filled in from beats, from tls-cert and by serve.
		filled := []string{"Beats", "Certificates", "Listeners", "Logger", "Sockets", "Quota", "Processes"}
		if fields.FieldByIndex(f.Index).IsZero() && !slices.Contains(filled, name) {
			t.Errorf("no setting leads to server.Config.%s", name)
		}
	}
	if reflect.ValueOf(all).NumField() != 1+10 {
		t.Error("Options has another number of fields: give each a setting")
	}
}

var update = flag.Bool("update", false, "rewrite docs/settings.md")

// TestSettingsPage keeps docs/settings.md in step with the table.
func TestSettingsPage(t *testing.T) {
	var b strings.Builder
	b.WriteString(`# Settings

Generated from internal/settings/table.go by
` + "`go test ./internal/settings -run TestSettingsPage -update`" + `.

A flag overrides the environment, which overrides the file, which overrides the
profile. The keys of the file are the names of the flags.
` + "`heartwheel config show`" + ` prints the values in force and their origins;
` + "`heartwheel config check FILE`" + ` reports what is wrong with a file, with line numbers.

SIGHUP reads the file again. The column of that name says for what a new value counts
from then on; the others (—) need a hand-over or a restart: [handover.md](handover.md).
`)
	for _, group := range Table.Groups() {
		fmt.Fprintf(&b,
			"\n## %s\n\n| flag and key | environment | value | default | SIGHUP | meaning |\n"+
				"|---|---|---|---|---|---|\n", group)
		for _, s := range Table {
			if s.Group != group {
				continue
			}
			value, def := string(s.Kind), s.Unset
			if s.Kind == config.Word {
				value = "`" + strings.Join(s.Words, "`, `") + "`"
			}
			if s.Default != "" {
				def = "`" + s.Default + "`"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", s.Key, s.Variable(EnvPrefix), value, def,
				cmp.Or(s.Live, "—"), s.Help)
		}
	}
	b.WriteString(`
## Listeners

In the file, addresses may have settings of their own: ` + "`listeners`" + ` is a list, and each
element has one address, ` + "`listen`" + `, and any of
` + "`" + strings.Join(ListenerTable.Keys()[1:], "`, `") + "`" + `.
What an element does not set is as for all, but a certificate and its key go together,
and so do the settings of one way to identify clients. The addresses of ` + "`listen`" + `
are served too, but its default is not. SIGHUP changes what an element sets, and not
which addresses there are.

` + "```yaml" + `
tls-cert: example.org.pem
tls-key: example.org.key
listeners:
  - listen: tcp://127.0.0.1:9000
  - listen: wss://0.0.0.0:443/live
    origin: [example.org, "*.example.org"]
  - listen: tls://0.0.0.0:9443
    client-ca: devices.pem
` + "```" + `
`)
	b.WriteString("\n## Profiles\n\n| profile | beat | timeout | beat-min | beat-max |\n|---|---|---|---|---|\n")
	for _, p := range server.Profiles {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name,
			wording.Duration(p.Beat), wording.Duration(p.Beat*5/2), wording.Duration(p.BeatMin),
			wording.Duration(p.BeatMax))
	}
	b.WriteString(`
## How values are written

- duration: a number and a unit, ` + "`15s`, `37.5s`, `500ms`, `2m`" + `.
- size: bytes, or with a unit, ` + "`65536`, `64KiB`, `1MiB`, `2GiB`" + `.
- number: whole, or with k or m, ` + "`20000`, `20k`, `1m`" + `.
- bool: ` + "`true` or `false`" + `.
- list: separated by commas; a flag may be repeated; in the file also a YAML list.
- address: ` + "`HOST:PORT`, or `off`" + `.

A value is written in the same way in a flag, a variable and the file: YAML's own
numbers and booleans (` + "`0x10`, `1e6`, `yes`" + `) have no meaning there.

A variable that begins with HEARTWHEEL_ and is not a setting is an error, and so
is an unknown key in the file. HEARTWHEEL_TOKEN, which is for ping and connect, and
the variables that Kubernetes sets for a service called heartwheel are ignored. An
empty variable counts as not set.
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
		t.Error("docs/settings.md is out of date: go test ./internal/settings -run TestSettingsPage -update")
	}
}

// TestWriteStallShown: by default it depends on the timeout.
func TestWriteStallShown(t *testing.T) {
	for _, tc := range []struct {
		flags map[string]string
		want  string
	}{
		{nil, "8s"},
		{map[string]string{"profile": "fast"}, "6s"},
		{map[string]string{"beat": "2s", "timeout": "4s"}, "3.2s"},
		{map[string]string{"profile": "fast", "write-stall": "20s"}, "20s"},
	} {
		r, err := Resolve(FlagLayer(tc.flags))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := r.Show(Table.ByKey("write-stall")); got != tc.want {
			t.Errorf("%v: write-stall is %s, want %s", tc.flags, got, tc.want)
		}
	}
}
