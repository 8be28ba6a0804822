package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"heartwheel/internal/testcert"
	"heartwheel/server"
)

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// listenersFile writes a file of settings; A and B in it are two pairs of files.
func listenersFile(t *testing.T, text string) (path string, inDir func(string) string) {
	t.Helper()
	ca := testcert.New(t)
	dir := filepath.Dir(ca.File)
	ca.Issue(t, "a", "a.example")
	ca.Issue(t, "b", "b.example")
	inDir = func(text string) string { return strings.ReplaceAll(text, "DIR", dir) }
	return writeFile(t, dir, "f.yaml", inDir(text)), inDir
}

// TestListeners: an element has its own settings, and the general ones where it has none.
func TestListeners(t *testing.T) {
	path, in := listenersFile(t, `tls-cert: DIR/a.pem
tls-key: DIR/a.key
origin: one.example
listeners:
  - listen: WSS://127.0.0.1:8443
  - listen: tls://127.0.0.1:9443
    tls-cert: DIR/b.pem
    tls-key: DIR/b.key
    proxy-from: [10.0.0.1,
      10.0.0.2]
`)
	r, err := Resolve(ArgumentLayer(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Listen) != 0 {
		t.Errorf("beside listeners it listens on %s", r.Listen)
	}
	a, b := []server.Certificate{{Cert: in("DIR/a.pem"), Key: in("DIR/a.key")}},
		[]server.Certificate{{Cert: in("DIR/b.pem"), Key: in("DIR/b.key")}}
	one, two := r.Listeners[0], r.Listeners[1]
	if one.Address != "wss://127.0.0.1:8443/" || !slices.Equal(one.Certificates, a) ||
		!slices.Equal(one.Origins, []string{"one.example"}) || len(one.ProxyFrom) != 0 {
		t.Errorf("the first is %+v", one)
	}
	if two.Address != "tls://127.0.0.1:9443" || !slices.Equal(two.Certificates, b) || len(two.ProxyFrom) != 2 {
		t.Errorf("the second is %+v", two)
	}
	if n := r.Written(); n != 8 {
		t.Errorf("%d settings are written, want 8", n)
	}
	shown := map[string]string{}
	for _, s := range r.ShowAll() {
		shown[s.Key] = s.Value + " | " + s.From
	}
	for key, want := range map[string]string{
		"listen":                  "- | default: none, as there are listeners",
		"listeners[0].listen":     "wss://127.0.0.1:8443/ | file F:5",
		"listeners[0].tls-cert":   in("DIR/a.pem | file F:1"),
		"listeners[0].proxy-from": "- | default: none",
		"listeners[1].tls-key":    in("DIR/b.key | file F:8"),
		"listeners[1].proxy-from": "10.0.0.1,10.0.0.2 | file F:9",
		"listeners[1].origin":     "one.example | file F:3",
	} {
		if want = strings.ReplaceAll(want, "F:", path+":"); shown[key] != want {
			t.Errorf("%s is shown as %q, want %q", key, shown[key], want)
		}
	}
}

// TestListenBesideListeners: who writes listen gets that too.
func TestListenBesideListeners(t *testing.T) {
	path, _ := listenersFile(t, "listeners: [{listen: 'ws://127.0.0.1:8080/a'}]\n")
	r, err := Resolve(ArgumentLayer(path), FlagLayer(map[string]string{"listen": "tcp://127.0.0.1:9000"}))
	if err != nil || !slices.Equal(r.ListenSockets(), []string{"tcp://127.0.0.1:9000", "tcp://127.0.0.1:8080"}) {
		t.Errorf("%v, %v", r, err)
	}
}

// TestListenersAuth: the settings of one way to identify clients go together.
func TestListenersAuth(t *testing.T) {
	path, in := listenersFile(t, `auth: tokens
tokens-file: DIR/tokens
listeners:
  - listen: tcp://127.0.0.1:1
  - listen: tcp://127.0.0.1:2
    auth: none
  - listen: tcp://127.0.0.1:3
    auth: tokens
`)
	writeFile(t, filepath.Dir(path), "tokens", strings.Repeat("ab", 32)+" someone\n")
	r, err := Resolve(ArgumentLayer(path))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []server.Auth{
		{Mode: "tokens", TokensFile: in("DIR/tokens")}, {Mode: "none"}, {Mode: "tokens", TokensFile: in("DIR/tokens")},
	} {
		if got := r.Listeners[i].Auth; !reflect.DeepEqual(got, want) {
			t.Errorf("listener %d has %+v, want %+v", i, got, want)
		}
	}
}

func TestListenerProblems(t *testing.T) {
	for text, want := range map[string]string{
		"listeners: tcp://127.0.0.1:1": "listeners (file F:1): is not a list; write a list whose elements begin with " +
			`"- listen: tcp://127.0.0.1:9000", or leave it out`,
		"listeners: []":                   "listeners (file F:1): is an empty list; write",
		"listeners:":                      "listeners (file F:1): has no value; write",
		"listeners: {listen: a}":          "listeners (file F:1): is not a list; write",
		"listeners:\n- tcp://127.0.0.1:1": "listeners (file F:1): has an element in line 2 that is not of the form",
		"a: &a {x: 1}\nlisteners: [*a]":   "listeners (file F:2): has an element in line 2 that is not of the form",
		"listeners:\n- origin: a.example": `listeners[0].listen "" (file F:2): has no address; write listen: URL`,
		"listeners:\n- listen: udp://a:1": `listeners[0].listen "udp://a:1" (file F:2): has the scheme "udp", which`,
		"listeners:\n- listen: [a, b]":    `listeners[0].listen "a,b" (file F:2): has 2 values; give it one`,
		"listeners:\n- listen: {a: b}":    `listeners[0].listen (file F:2): holds further keys`,
		"listeners:\n- listen: tcp://a:1\n  orign: b": "listeners[0].orign (file F:3): is not a setting; " +
			"the nearest is origin",
		"listeners:\n- listen: tcp://a:1\n  max-frame: 1KiB": "listeners[0].max-frame (file F:3): cannot be set " +
			"for one alone; write it outside of the list",
		"listeners:\n- listen: tcp://a:1\n  listen: tcp://a:2": "listeners[0].listen (file F:3): " +
			"is set already in line 2",
		"listeners: [{listen: 'tcp://a:1'}]\nlisteners: []": "listeners (file F:2): is set already in line 1",
		"listeners:\n- listen: tcp://a:1\n- listen: tcp://A:01": `listeners[1].listen "tcp://A:01" (file F:3): ` +
			"is given twice",
		"listeners:\n- listen: ws://a:1/x\n- listen: ws://a:1/x": `listeners[1].listen "ws://a:1/x" (file F:3): ` +
			"is given twice",
		"listeners:\n- listen: tcp://a:1\n- listen: ws://a:1/": `listeners[1].listen "ws://a:1/" (file F:3): ` +
			"is the address of tcp://a:1 too",
		"listeners:\n- listen: tls://a:1": `listeners[0].tls-cert "" (file F:2): must have one for tls://a:1`,
		"listeners:\n- listen: tcp://a:1\n  proxy-from:\n  - 10.0.0.1\n  - nowhere": `listeners[0].proxy-from ` +
			`"nowhere" (file F:5): `,
		"listeners:\n- listen: ws://a:1\n  origin: '*x'": `listeners[0].origin "*x" (file F:3): `,
		"tls-cert: DIR/a.pem\ntls-key: DIR/a.key\nlisteners:\n- listen: tls://a:1\n  tls-cert: DIR/b.pem": "" +
			`listeners[0].tls-cert "DIR/b.pem" (file F:5): has no key; give its file with tls-key`,
		"listeners:\n- listen: tls://a:1\n  tls-key: DIR/b.key": "" +
			`listeners[0].tls-key "DIR/b.key" (file F:3): has no certificate; give its file with tls-cert`,
		"tls-cert: DIR/a.pem": `tls-cert "DIR/a.pem" (file F:1): has no key; give its file with tls-key`,
		"listeners:\n- listen: tls://127.0.0.1:1\n  tls-cert: DIR/a.pem\n  tls-key: DIR/b.key": "" +
			`listeners[0].tls-key "DIR/b.key" (file F:4): key DIR/b.key is not that of certificate DIR/a.pem`,
		"listeners:\n- listen: tls://127.0.0.1:1\n  tls-cert:\n  - DIR/a.pem\n  - DIR/a.pem\n  tls-key: " +
			"[DIR/a.key, DIR/a.key]": `(file F:5): DIR/a.pem and DIR/a.pem are both for a.example`,
		"listeners:\n- listen: tls://127.0.0.1:1\n  tls-cert: DIR/a.pem\n  tls-key: DIR/a.key\n" +
			"  client-ca: DIR/no": "" +
			`listeners[0].client-ca "DIR/no" (file F:5): client CA: open DIR/no: no such file`,
	} {
		path, in := listenersFile(t, text)
		_, err := Resolve(ArgumentLayer(path))
		want = in(strings.ReplaceAll(want, "F:", path+":"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
			continue
		}
		if n := len(err.(*UsageError).Lines); n != 1 && !strings.HasPrefix(text, "listeners: [{") &&
			!strings.HasPrefix(text, "a:") && !strings.Contains(text, "tls-key: DIR/b.key") {
			t.Errorf("%s: one problem has %d lines:\n%s", text, n, err)
		}
	}
}

// TestListenersReload: what a listener sets changes at a reload, its address does not.
func TestListenersReload(t *testing.T) {
	resolve := func(text string) *Resolved {
		path, _ := listenersFile(t, text)
		r, err := Resolve(ArgumentLayer(path))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	base := resolve("origin: a.example\nlisteners:\n- listen: ws://127.0.0.1:1\n- listen: ws://127.0.0.1:2\n" +
		"  origin: b.example\n")
	for _, tc := range []struct{ text, changed, kept, origins string }{
		{"origin: c.example\nlisteners:\n- listen: ws://127.0.0.1:1\n- listen: ws://127.0.0.1:2\n  origin: b.example\n",
			"origin: a.example → c.example", "", "[c.example] [b.example]"},
		{"origin: a.example\nlisteners:\n- listen: ws://127.0.0.1:2\n- listen: ws://127.0.0.1:1\n  origin: d.example\n",
			"listeners[0].origin: a.example → d.example; listeners[1].origin: b.example → a.example", "",
			"[d.example] [a.example]"},
		{"origin: a.example\nlisteners:\n- listen: ws://127.0.0.1:3\n- listen: ws://127.0.0.1:2\n  origin: '*'\n",
			"listeners[1].origin: b.example → *",
			"listeners: ws://127.0.0.1:1/,ws://127.0.0.1:2/ → ws://127.0.0.1:2/,ws://127.0.0.1:3/", "[a.example] [*]"},
	} {
		r := base.Clone()
		changed, kept := r.TakeLive(resolve(tc.text))
		origins := fmt.Sprint(r.Listeners[0].Origins, " ", r.Listeners[1].Origins)
		kept = slices.DeleteFunc(kept, func(c Change) bool { return c.Key == "config" })
		if changes(changed) != tc.changed || changes(kept) != tc.kept || origins != tc.origins {
			t.Errorf("%s\nchanged %q\nkept %q\norigins %s", tc.text, changes(changed), changes(kept), origins)
		}
		if err := r.Validate(); err != nil {
			t.Error(err)
		}
	}
	if got := fmt.Sprint(base.Listeners[0].Origins, base.Listeners[1].Origins); got != "[a.example] [b.example]" {
		t.Errorf("a clone's reload has changed the original: %s", got)
	}
}

// TestListenersInFlags: an error of the server about a listener is in the words of the
// file.
func TestListenersInFlags(t *testing.T) {
	err := InFlags(&server.FieldError{Field: "Listeners[1].ProxyFrom", Value: "x",
		Want: "is wrong, as Config.MaxFrame"})
	if got := err.Error(); !strings.Contains(got, `listeners[1].proxy-from "x": is wrong, as --max-frame`) {
		t.Error(got)
	}
}
