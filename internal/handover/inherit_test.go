package handover

import (
	"net"
	"slices"
	"strings"
	"testing"

	"heartwheel/internal/address"
	"heartwheel/internal/settings"
	"heartwheel/server"
)

func TestParseInherit(t *testing.T) {
	for text, wrong := range map[string]string{
		"ready":        "",
		"ready,stderr": "",
		"tcp://127.0.0.1:0,tcp://127.0.0.1:0,ops://:9090,ready":        "",
		"ready,stderr,worker://3/56/127.0.0.1:9090,count://7,tcp://:1": "",
		"ready,TCP://127.0.0.1:0,tcp://[fe80::1%lo]:1":                 "",
		"ready,unix:///run/a.sock,own+unix:///run/b.sock":              "",
		"stderr":                       "does not name ready",
		"tcp://:1":                     "does not name ready",
		"ready,ready":                  "names ready twice",
		"ready,stderr,stderr":          "names stderr twice",
		"ready,":                       `names ""`,
		"ready, stderr":                `names " stderr"`,
		"ready,tcp://":                 `names "tcp://"`,
		"ready,ws://:1":                `names "ws://:1"`,
		"ready,unix":                   `names "unix"`,
		strings.Repeat("ready,", 1000): "names more than 1000",
	} {
		names, err := parseInherit(text)
		switch {
		case wrong == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case wrong == "" && strings.Join(names, ",") != text:
			t.Errorf("%q has the names %q", text, names)
		case wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong)):
			t.Errorf("%.40q: %v, want %s", text, err, wrong)
		}
	}
}

// FuzzParseInherit: what is taken is what was written, and has one pipe for
// readiness.
func FuzzParseInherit(f *testing.F) {
	for _, text := range []string{
		"",
		"ready",
		"ready,stderr,tcp://[::1]:9000,ops://127.0.0.1:0",
		"ready,ready",
		"x,ready",
		",",
		"ready,worker://0/2/off,count://1",
		"ops://",
		"tcp://",
		"ready,own+unix:///a",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseInherit(text)
		if err != nil {
			return
		}
		if strings.Join(names, ",") != text || len(names) > maxInherited {
			t.Errorf("%q has the names %q", text, names)
		}
		ready := 0
		for _, name := range names {
			switch {
			case name == readyName:
				ready++
			case name == stderrName:
			case !strings.Contains(name, "://"):
				t.Errorf("%q has the name %q", text, name)
			}
		}
		if ready != 1 {
			t.Errorf("%q has %d pipes for readiness", text, ready)
		}
	})
}

// The variable is no setting, and no setting has its name.
func TestInheritIsNoSetting(t *testing.T) {
	for _, s := range settings.Table {
		if s.Variable(settings.EnvPrefix) == settings.InheritEnv {
			t.Errorf("%s is %s too", s.Key, settings.InheritEnv)
		}
	}
	if _, err := settings.Resolve(settings.EnvLayer([]string{settings.InheritEnv + "=ready"})); err != nil {
		t.Error(err)
	}
}

func TestLookup(t *testing.T) {
	environ := []string{"A=1", "AB=2", "A=3", "C"}
	for name, want := range map[string]string{"A": "3", "AB": "2", "B": "", "C": ""} {
		if got := Lookup(environ, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func listenHere(t *testing.T) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // which Go has on, and the server refuses
	ln, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func TestTakeOps(t *testing.T) {
	wanted, other, tcp := listenHere(t), listenHere(t), listenHere(t)
	in := &Inheritance{sockets: []server.Socket{
		{Address: "ops://a:1", Listener: other},
		{Address: "tcp://b:2", Listener: tcp},
		{Address: "ops://b:2", Listener: wanted},
	}}
	if got := in.TakeOps("b:2"); got != wanted {
		t.Errorf("took %v", got)
	}
	open := func(ln *net.TCPListener) bool {
		f, err := duplicate(ln)
		if err == nil {
			f.Close()
		}
		return err == nil
	}
	if !open(wanted) || open(other) || !open(tcp) {
		t.Errorf("wanted is open: %v, other: %v, tcp: %v", open(wanted), open(other), open(tcp))
	}
	left := []server.Socket{{Address: "tcp://b:2", Listener: tcp}}
	if rest := in.Take(address.TCP); !slices.Equal(rest, left) || len(in.sockets) != 0 {
		t.Errorf("left are %v, then %v", rest, in.sockets)
	}
}
