package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"heartwheel/server"
)

// TestKeyOf: every field of server.Config has the key of the setting that leads
// to it.
func TestKeyOf(t *testing.T) {
	var o Options
	config := reflect.ValueOf(&o.Config).Elem()
	for _, f := range reflect.VisibleFields(config.Type()) {
		if f.Anonymous {
			continue
		}
		name := f.Name
		s := Table.ByKey(keyOf(name))
		switch name {
		case "Sockets", "Quota", "Logger", "Processes", "Listeners": // these are no settings
			if s != nil {
				t.Errorf("Config.%s has the setting %s", name, s.Key)
			}
		case "Beats": // filled in from BeatSide
			if s == nil || s.Field(&o) != any(&o.BeatSide) {
				t.Errorf("Config.%s has not the setting beats", name)
			}
		case "Auth": // a setting for each field
			if s == nil || s.Field(&o) != any(&o.Auth.Mode) {
				t.Errorf("Config.%s has not the setting auth", name)
			}
		case "Framing": // likewise
			for inner := range reflect.TypeFor[server.Framing]().Fields() {
				if Table.ByKey(keyOf("Framing."+inner.Name)) == nil {
					t.Errorf("Config.Framing.%s has no setting", inner.Name)
				}
			}
		case "Certificates": // filled in from TLSCert and TLSKey
			if s == nil || s.Field(&o) != any(&o.TLSCert) {
				t.Errorf("Config.%s has not the setting tls-cert", name)
			}
		default:
			if s == nil || s.Field(&o) != config.FieldByIndex(f.Index).Addr().Interface() {
				t.Errorf("Config.%s is %s, which does not lead to it", name, keyOf(name))
			}
		}
	}
}

// TestErrorsNameSettings: no name of a Go field is in what the command reports,
// and each key that is there is a setting.
func TestErrorsNameSettings(t *testing.T) {
	field := regexp.MustCompile(`Config\b|\b[A-Z][a-z]+[A-Z]\w*|\b(Beat|Timeout|Outbox|Drain|Loops|Listen)\b`)
	for _, test := range []struct {
		values map[string]string
		want   []string
	}{
		{map[string]string{"beat": "2s", "timeout": "2s"},
			[]string{"timeout \"2s\" (flag --timeout): must lie between 1.5 × beat = 3s", "or set beat to at most"}},
		{map[string]string{"beat": "2s", "beat-min": "3s"}, []string{"beat-min \"3s\"", "and beat = 2s"}},
		{map[string]string{"beat": "2s", "beat-max": "1s"}, []string{"beat-max \"1s\"", "between beat = 2s"}},
		{map[string]string{"beat-floor": "1h"}, []string{"beat-floor \"1h0m0s\"", "and beat-min = 1s"}},
		{map[string]string{"max-frame": "1000", "outbox": "2000"},
			[]string{"outbox \"2000\"", "one frame of max-frame = 1000"}},
		{map[string]string{"framing": "lines", "beats": "server", "require-hello": "true"},
			[]string{`framing "lines" (flag --framing): needs ping-message, as beats is server`,
				`which require-hello asks for`}},
		{map[string]string{"beat-message": "PING", "length-width": "2", "delimiter": "x"},
			[]string{`length-width "2" (flag --length-width): is for framing = length-field`,
				`delimiter "x" (flag --delimiter): is for framing = delimiter`}},
		{map[string]string{"beat-message": "PING"}, []string{`beat-message "PING"`, "set framing too"}},
		{map[string]string{"framing": "length-field", "length-width": "5", "length-offset": "70k",
			"length-adjust": "70k",
			"length-strip":  "70k"}, []string{"1, 2, 3, 4 or 8", `length-offset "70000"`, "so that max-frame = 65536",
			"between -65536 and max-frame = 65536"}},
		{map[string]string{"framing": "length-field", "length-strip": "0", "beat-message": "PING"},
			[]string{`beat-message "PING"`, "with length-strip = 0 it begins with the header"}},
		{map[string]string{"framing": "lines", "beat-message": `\q`, "answer-message": "PONG"},
			[]string{`beat-message "\\q" (flag --beat-message): has a \ that begins nothing`}},
		{map[string]string{"framing": "lines", "answer-message": "PONG"},
			[]string{`answer-message "PONG"`, "set beat-message too"}},
		{map[string]string{"framing": "length-field", "length-order": "middle", "length-strip": "-1"},
			[]string{"must be big or little", "0 for none, or header"}},
		{map[string]string{"framing": "lines", "auth": "jwt", "jwks": "https://127.0.0.1/"},
			[]string{"which auth = jwt asks for; set that to none or mtls"}},
		{map[string]string{"framing": "lines", "listen": "ws://127.0.0.1:1/"},
			[]string{`framing "lines"`, "is for tcp and tls"}},
		{map[string]string{"max-frame": "1"}, []string{"max-frame \"1\""}},
		{map[string]string{"address-burst": "5"}, []string{"address-burst \"5\"", "without address-rate; set"}},
		{map[string]string{"memory-limit": "1MiB"}, []string{"memory-limit \"1048576\""}},
		{map[string]string{"ban": "10.0.0.0/8", "trust": "192.0.2.1,10.0.0.7"},
			[]string{`trust "10.0.0.7" (flag --trust): overlaps with 10.0.0.0/8 of ban`}},
		{map[string]string{"listen": "nonsense", "ban": "nonsense", "ban-time": "1ms", "write-stall": "1ms",
			"drain": "2h", "spread": "2h", "loops": "1000"},
			[]string{"listen \"nonsense\"", "ban \"nonsense\"", "ban-time \"1ms\"", "write-stall \"1ms\"",
				"drain \"2h0m0s\"", "spread \"2h0m0s\"", "loops \"1000\""}},
	} {
		_, err := Resolve(FlagLayer(test.values))
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("%v: %v", test.values, err)
			continue
		}
		for _, want := range test.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %q lacks %q", test.values, err, want)
			}
		}
		if name := field.FindString(err.Error()); name != "" {
			t.Errorf("%v: %q has the Go name %q", test.values, err, name)
		}
	}
}

func TestInFlags(t *testing.T) {
	err := InFlags(fmt.Errorf("server: choose another address for Config.Listen: %w", fs.ErrExist))
	if want := "server: choose another address for --listen: file already exists"; err.Error() != want ||
		!errors.Is(err, fs.ErrExist) {
		t.Errorf("%q, want %q", err, want)
	}
	err = InFlags(server.Config{Beat: 2 * time.Second, Timeout: time.Second}.Validate())
	if !strings.Contains(err.Error(), "--timeout") || strings.Contains(err.Error(), "Config.") ||
		!errors.Is(err, server.ErrConfig) {
		t.Errorf("%q", err)
	}
}
