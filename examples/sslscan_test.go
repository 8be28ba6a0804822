package examples

import (
	"encoding/xml"
	"os/exec"
	"strings"
	"testing"

	"heartwheel/internal/testcert"
)

// A scan is what sslscan reports.
type scan struct {
	Test struct {
		Protocols []struct {
			Type    string `xml:"type,attr"`
			Version string `xml:"version,attr"`
			Enabled bool   `xml:"enabled,attr"`
		} `xml:"protocol"`
		Ciphers []struct {
			Version string `xml:"sslversion,attr"`
			Name    string `xml:"cipher,attr"`
		} `xml:"cipher"`
		Renegotiation struct {
			Supported bool `xml:"supported,attr"`
			Secure    bool `xml:"secure,attr"`
		} `xml:"renegotiation"`
		Compression struct {
			Supported bool `xml:"supported,attr"`
		} `xml:"compression"`
		Heartbleed []struct {
			Vulnerable bool `xml:"vulnerable,attr"`
		} `xml:"heartbleed"`
	} `xml:"ssltest"`
}

// TestSSLScan: another program finds no protocol below TLS 1.2, and only ciphers with
// forward secrecy and authenticated encryption.
func TestSSLScan(t *testing.T) {
	if !*long {
		t.Skip("it takes seconds: -long")
	}
	program, err := exec.LookPath("sslscan")
	if err != nil {
		if *requireLanguages {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Parallel()
	binary, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	cert, key := testcert.New(t).Issue(t, "server", "localhost")
	addr := freePort(t)
	p := start(t, binary, "serve", "--listen", "tls://"+addr, "--tls-cert", cert, "--tls-key", key,
		"--ops", "127.0.0.1:0")
	p.awaitAny("ops listening")
	out, err := exec.Command(program, "--no-colour", "--xml=-", "--sni-name=localhost", addr).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s scan
	if err := xml.Unmarshal(out, &s); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(s.Test.Protocols) < 6 || len(s.Test.Ciphers) < 6 {
		t.Fatalf("it has found little: %s", out)
	}
	for _, p := range s.Test.Protocols {
		if modern := p.Type == "tls" && (p.Version == "1.2" || p.Version == "1.3"); p.Enabled != modern {
			t.Errorf("%s %s enabled: %v", p.Type, p.Version, p.Enabled)
		}
	}
	for _, c := range s.Test.Ciphers {
		t.Log(c.Version, c.Name)
		forward := c.Version == "TLSv1.3" || strings.HasPrefix(c.Name, "ECDHE-")
		sealed := strings.Contains(c.Name, "GCM") || strings.Contains(c.Name, "POLY1305")
		if !forward || !sealed {
			t.Errorf("%s %s is offered", c.Version, c.Name)
		}
	}
	if s.Test.Renegotiation.Supported || s.Test.Compression.Supported {
		t.Errorf("renegotiation %+v, compression %+v", s.Test.Renegotiation, s.Test.Compression)
	}
	for _, h := range s.Test.Heartbleed {
		if h.Vulnerable {
			t.Error("heartbleed")
		}
	}
}
