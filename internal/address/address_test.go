package address

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const form = "; write tcp://HOST:PORT or tls://HOST:PORT, such as tcp://127.0.0.1:9000"
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
	} {
		a, err := Parse(text, TCP, TLS)
		if wrong, isWrong := strings.CutPrefix(want, "! "); isWrong {
			if err == nil || !strings.HasPrefix(err.Error(), wrong) ||
				!strings.HasSuffix(err.Error(), form) {
				t.Errorf("%q: %v, %v; want %s", text, a, err, wrong)
			}
			continue
		}
		if err != nil || a.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, a, err, want)
		}
	}
}

// FuzzParse: the canonical form is read as the same address.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"tcp://127.0.0.1:9000", "TCP://[fe80::1%25lo]:1/", "tcp://:0", "tcp://[::ffff:1.2.3.4]:1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := Parse(text, TCP)
		if err != nil {
			return
		}
		if again, err := Parse(a.String(), TCP); err != nil || again != a || strings.ContainsAny(a.String(), ", \n") {
			t.Errorf("%q is %q, which is %+v, %v", text, a, again, err)
		}
	})
}
