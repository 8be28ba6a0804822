package address

import (
	"net/url"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{
		"tcp://127.0.0.1:9000":        "tcp://127.0.0.1:9000",
		"TCP://127.0.0.1:9000":        "tcp://127.0.0.1:9000",
		"tcp://127.0.0.1:9000/":       "tcp://127.0.0.1:9000",
		"Tls://Example.COM:09000":     "tls://example.com:9000",
		"tcp://:0":                    "tcp://:0",
		"tcp://[]:1":                  "tcp://:1",
		"tcp://[::]:65535":            "tcp://[::]:65535",
		"tcp://[0:0::0:1]:1":          "tcp://[::1]:1",
		"tcp://[2001:DB8::A]:1":       "tcp://[2001:db8::a]:1",
		"tcp://[::ffff:127.0.0.1]:1":  "tcp://127.0.0.1:1",
		"tcp://[fe80::1%lo]:9000":     "tcp://[fe80::1%lo]:9000",
		"tcp://[FE80::1%Eth0.7]:9000": "tcp://[fe80::1%Eth0.7]:9000",
		"tcp://[fe80::1%25lo]:9000":   "tcp://[fe80::1%lo]:9000",
		"tcp://[fe80::1%25]:9000":     "tcp://[fe80::1%25]:9000",
		"tcp://[fe80::1%2]:9000":      "tcp://[fe80::1%2]:9000",
		"tcp://my_host-1.example.:1":  "tcp://my_host-1.example.:1",
		"tcp://bücher.example:1":      "tcp://bücher.example:1",
		"":                            "! is not an address",
		"tcp://":                      "! is not an address",
		"://a:1":                      "! is not an address",
		"9000":                        "! is not an address",
		"127.0.0.1:9000":              "! is not an address",
		"tcp:127.0.0.1:9000":          "! is not an address",
		" tcp://127.0.0.1:1":          "! is not an address",
		"tcp://127.0.0.1:1\x00":       "! is not an address",
		"tcp://a b:1":                 "! is not an address",
		"tcp://%zz:1":                 "! is not an address",
		"tcp://a,b:1":                 "! is not an address",
		"tcp://[fe80::1%]:1":          "! is not an address",
		"tcp://[fe80::1%a,b]:1":       "! is not an address",
		"tcp://[127.0.0.1%lo]:1":      "! is not an address",
		"tcp://[::1]9000":             "! has no port",
		"tcp://[::1]":                 "! has no port",
		"tcp://127.0.0.1":             "! has no port",
		"tcp://127.0.0.1:":            "! has no port",
		"tcp://::1:9000":              "! has an IPv6 address without brackets",
		"tcp://127.0.0.1:65536":       `! has the port "65536", which is not a number from 0 to 65535`,
		"tcp://127.0.0.1:-1":          `! has the port "-1"`,
		"tcp://127.0.0.1:http":        `! has the port "http"`,
		"http://127.0.0.1:1":          `! has the scheme "http", which is not supported`,
		"tcp://127.0.0.1:1/path":      "! has more than a host and a port",
		"tcp://127.0.0.1:1?a":         "! has more than a host and a port",
		"tcp://127.0.0.1:1#a":         "! has more than a host and a port",
		"tcp://me@127.0.0.1:1":        "! has more than a host and a port",

		"ws://127.0.0.1:9000":             "ws://127.0.0.1:9000/",
		"ws://127.0.0.1:9000/":            "ws://127.0.0.1:9000/",
		"WSS://Example.COM:09000/Live/v1": "wss://example.com:9000/Live/v1",
		"ws://:0/ws/":                     "ws://:0/ws/",
		"ws://[::1]/a":                    "ws://[::1]:80/a",
		"wss://example.com":               "wss://example.com:443/",
		"wss://[0::1%25lo]:1/~u;v=1:@/x":  "wss://[::1%lo]:1/~u;v=1:@/x",
		"ws://":                           "! is not an address",
		"ws:///path":                      "! has no port",
		"ws://127.0.0.1:/path":            "! has no port",
		"ws://[::1]9000/path":             "! has no port",
		"ws://::1:9000/path":              "! has an IPv6 address without brackets",
		"ws://127.0.0.1:65536/":           `! has the port "65536"`,
		"ws://a,b:1/":                     "! is not an address",
		"ws://127.0.0.1:1/?token=a":       "! has a query or a fragment, which an address does not take",
		"ws://127.0.0.1:1?token=a":        "! has a query or a fragment",
		"ws://127.0.0.1:1/a#b":            "! has a query or a fragment",
		"ws://me:secret@127.0.0.1:1/":     "! has more than a host, a port and a path",
		"ws://127.0.0.1:1/a%20b":          "! has '%' in its path, which is not supported",
		"ws://127.0.0.1:1/a,b":            "! has ',' in its path",
		"ws://127.0.0.1:1/bücher":         "! has 'ü' in its path",
		"ws://127.0.0.1:1/\xff":           "! has '�' in its path",
		"ws://127.0.0.1:1/a b":            "! is not an address",
		"ws://127.0.0.1:1//":              "! has a path that is longer than it has to be: / is the same",
		"ws://127.0.0.1:1//a":             "! has a path that is longer than it has to be: /a is the same",
		"ws://127.0.0.1:1/a/../b":         "! has a path that is longer than it has to be: /b is the same",
		"ws://127.0.0.1:1/a/.":            "! has a path that is longer than it has to be: /a is the same",

		"unix:///run/heartwheel.sock": "unix:///run/heartwheel.sock",
		"UNIX:///Run/ü@:1":            "unix:///Run/ü@:1",
		"unix:///" + long[:106]:       "unix:///" + long[:106],
		"unix:///" + long[:107]:       "! has a path of 108 bytes, a socket's has at most 107",
		"unix://run/heartwheel.sock":  "! has no absolute path",
		"unix:/run/heartwheel.sock":   "! is not an address",
		"unix://":                     "! is not an address",
		"unix:///":                    "! has a path that ends with /",
		"unix:///run/":                "! has a path that ends with /",
		"unix:///run//a":              "! has a path that is longer than it has to be: /run/a is the same",
		"unix:///run/../a":            "! has a path that is longer than it has to be: /a is the same",
		"unix:///run/a,unix:///run/b": "! has one of , ? # % in its path",
		"unix:///run/a%20b":           "! has one of , ? # % in its path",
		"unix:///run/a b":             "! is not an address",
	} {
		a, err := Parse(text, TCP, TLS, WS, WSS, Unix)
		if wrong, isWrong := strings.CutPrefix(want, "! "); isWrong {
			if err == nil || !strings.HasPrefix(err.Error(), wrong) ||
				!strings.HasSuffix(err.Error(), ", such as "+example(text)) {
				t.Errorf("%q: %v, %v; want %s", text, a, err, wrong)
			}
			continue
		}
		if err != nil || a.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, a, err, want)
		}
	}
}

// long is a path too long for a socket.
var long = strings.Repeat("a", 200)

// example is the address that an error about text names.
func example(text string) string {
	switch scheme, _, _ := strings.Cut(strings.ToLower(text), "://"); scheme {
	case TLS:
		return "tls://127.0.0.1:9000"
	case WS, WSS:
		return scheme + "://127.0.0.1:9000/path"
	case Unix:
		return "unix:///run/heartwheel.sock"
	}
	return "tcp://127.0.0.1:9000"
}

func TestForms(t *testing.T) {
	for _, c := range []struct {
		text    string
		schemes []string
		want    string
	}{
		{"9000", []string{TCP}, "tcp://HOST:PORT, such as tcp://127.0.0.1:9000"},
		{"9000", []string{TCP, TLS}, "tcp://HOST:PORT or tls://HOST:PORT, such as tcp://127.0.0.1:9000"},
		{"9000", []string{TCP, TLS, WS, WSS, Unix}, "tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/path, " +
			"wss://HOST:PORT/path or unix:///PATH, such as tcp://127.0.0.1:9000"},
		{"Ws://:/", []string{TCP, WS}, "ws://HOST:PORT/path, such as ws://127.0.0.1:9000/path"},
		{"unix://a", []string{TCP, Unix}, "unix:///PATH, such as unix:///run/heartwheel.sock"},
		{"unix://a", []string{TCP}, "tcp://HOST:PORT, such as tcp://127.0.0.1:9000"},
	} {
		if _, err := Parse(c.text, c.schemes...); err == nil || !strings.HasSuffix(err.Error(), "; write "+c.want) {
			t.Errorf("%q: %v; want %s", c.text, err, c.want)
		}
	}
}

// An Address names what package net dials and listens on.
func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"tcp://[::1]:1": "tcp [::1]:1", "wss://a/b": "tcp a:443", "unix:///run/a": "unix /run/a",
	} {
		a, err := Parse(text, TCP, WSS, Unix)
		if got := a.Network() + " " + a.HostPort(); err != nil || got != want {
			t.Errorf("%s is %s, %v; want %s", text, got, err, want)
		}
	}
}

// FuzzParse: the canonical form is read as the same address, and is one word of a list.
func FuzzParse(f *testing.F) {
	schemes := []string{TCP, TLS, WS, WSS, Unix}
	for _, text := range []string{
		"tcp://127.0.0.1:9000", "TCP://[fe80::1%25lo]:1/", "tcp://:0", "tcp://[::ffff:1.2.3.4]:1",
		"ws://a", "WSS://[::1]/a/b/", "ws://[]:1//", "ws://a:1/../b", "unix:///run/a.sock", "unix://a", "unix:///a/./b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text, schemes...)
		if err != nil {
			return
		}
		again, err := Parse(a.String(), schemes...)
		if err != nil || again != a || strings.ContainsAny(a.String(), ", \n") {
			t.Errorf("%q is %q, which is %+v, %v", text, a, again, err)
		}
		u, err := url.Parse(a.Path)
		if a.Scheme != Unix && (err != nil || u.Path != a.Path || u.EscapedPath() != a.Path) {
			t.Errorf("%q has the path %q, which others read as %+v, %v", text, a.Path, u, err)
		}
		if a.Scheme == Unix && (a.Host != "" || a.Port != 0 || len(a.Path) > MaxUnixPath) {
			t.Errorf("%q is %+v", text, a)
		}
	})
}
