package settings

import (
	"reflect"
	"testing"

	"heartwheel/server"
)

// TestFramingSettings: what an operator writes for known framings.
func TestFramingSettings(t *testing.T) {
	for _, one := range []struct {
		flags map[string]string
		want  server.Framing
	}{
		{map[string]string{"framing": "native"}, server.Framing{Kind: "native"}},
		{map[string]string{"framing": "length-field", "beat-message": "", "answer-message": `""`},
			server.Framing{Kind: "length-field", Beat: []byte{}, Answer: []byte{}}},
		{map[string]string{"framing": "length-field", "length-offset": "2", "length-width": "2",
			"length-order":  "little",
			"length-adjust": "-4", "length-strip": "0"},
			server.Framing{Kind: "length-field", Offset: 2, Width: 2, Little: true, Adjust: -4,
				Strip: server.KeepHeader}},
		{map[string]string{"framing": "length-field", "length-strip": "4"},
			server.Framing{Kind: "length-field", Strip: 4}},
		{map[string]string{"framing": "varint", "beat-message": `\x08\x01`},
			server.Framing{Kind: "varint", Beat: []byte{8, 1}}},
		{map[string]string{"framing": "lines", "beat-message": "PING", "answer-message": `P\x4FNG`,
			"ping-message": "\xff\x00é\\\\"},
			server.Framing{Kind: "lines", Beat: []byte("PING"), Answer: []byte("PONG"),
				ServerBeat: []byte("\xff\x00é\\")}},
		{map[string]string{"framing": "delimiter", "delimiter": `\r\n`},
			server.Framing{Kind: "delimiter", Delimiter: "\r\n"}},
	} {
		r, err := Resolve(FlagLayer(one.flags))
		if err != nil {
			t.Errorf("%v: %v", one.flags, err)
			continue
		}
		if !reflect.DeepEqual(r.Framing, one.want) {
			t.Errorf("%v comes to %+v, want %+v", one.flags, r.Framing, one.want)
		}
		again := map[string]string{}
		for key := range one.flags {
			again[key], _ = r.Show(Table.ByKey(key))
		}
		if s, err := Resolve(FlagLayer(again)); err != nil || !reflect.DeepEqual(s.Framing, r.Framing) {
			t.Errorf("%v is shown as %v: %v", one.flags, again, err)
		}
	}
	for _, text := range []string{`""`, `\x22\x22`, "", `"`} {
		b, err := parseMessage(text)
		if again, _ := parseMessage(formatMessage(b)); err != nil || string(again) != string(b) || again == nil {
			t.Errorf("%s: %q, %v", text, again, err)
		}
	}
}
