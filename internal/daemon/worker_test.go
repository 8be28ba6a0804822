package daemon

import (
	"strings"
	"testing"

	"heartwheel/internal/handover"
	"heartwheel/internal/settings"
)

// TestCheckUnchanged: a new worker finds what a supervisor cannot change.
func TestCheckUnchanged(t *testing.T) {
	had := []string{"tcp://127.0.0.1:0", "tcp://127.0.0.1:0"}
	for _, c := range []struct{ listen, ops, workers, want string }{
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "auto", ""},
		{"tcp://127.0.0.1:0", "off", "2",
			"listen was tcp://127.0.0.1:0,tcp://127.0.0.1:0 and is now tcp://127.0.0.1:0: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", ":1", "2", "ops was off and is now :1: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "3", "workers was 2 and is now 3: it cannot change"},
		{"tcp://127.0.0.1:0,tcp://127.0.0.1:0", "off", "1000", "1000 workers need"},
	} {
		r, err := settings.Resolve(settings.FlagLayer(map[string]string{
			"listen":          c.listen,
			"ops":             c.ops,
			"workers":         c.workers,
			"max-connections": "1500",
		}))
		if err != nil {
			t.Fatal(err)
		}
		err = checkUnchanged(r, &handover.Control{Count: 2, Ops: "off"}, had, 1000)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
