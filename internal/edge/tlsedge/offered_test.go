package tlsedge

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// offeredBlock is what docs/security.md says is offered.
var offeredBlock = regexp.MustCompile("(?s)```text offered\n(.*?)```")

// What is offered is what docs/security.md says: each version, suite and group that Go
// knows is tried.
func TestOffered(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	block := offeredBlock.FindSubmatch(b)
	if block == nil {
		t.Fatal("docs/security.md has no block of what is offered")
	}
	want := map[string][]string{}
	for line := range strings.Lines(strings.ReplaceAll(string(block[1]), ",\n ", ",")) {
		name, list, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want[name] = strings.Split(list, ", ")
	}

	a := newAuthority(t)
	s := newServer(t, Config{Certificates: []Pair{a.issue(t, "ec", []string{"s.example"}), rsaPair(t)}})
	accepts := func(c *tls.Config) bool {
		ours, theirs := net.Pipe()
		defer ours.Close()
		go func() {
			defer theirs.Close()
			_, _ = s.Handshake(theirs)
		}()
		c.InsecureSkipVerify, c.ServerName = true, "s.example"
		return tls.Client(ours, c).Handshake() == nil
	}
	got := map[string][]string{}
	for v := uint16(tls.VersionTLS10); v <= tls.VersionTLS13; v++ {
		if accepts(&tls.Config{MinVersion: v, MaxVersion: v}) {
			got["versions"] = append(got["versions"], tls.VersionName(v))
		}
	}
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS13) { // crypto/tls has no choice of these
			got["TLS 1.3"] = append(got["TLS 1.3"], suite.Name)
		} else if accepts(&tls.Config{CipherSuites: []uint16{suite.ID}, MaxVersion: tls.VersionTLS12}) {
			got["TLS 1.2"] = append(got["TLS 1.2"], suite.Name)
		}
	}
	for id := tls.CurveID(0); id < 1<<13; id++ {
		if strings.HasPrefix(id.String(), "CurveID(") {
			continue
		}
		if accepts(&tls.Config{CurvePreferences: []tls.CurveID{id}}) {
			got["groups"] = append(got["groups"], id.String())
		}
	}
	for name := range want {
		slices.Sort(got[name])
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %v are offered, and docs/security.md has %v", name, got[name], want[name])
		}
	}
	if len(want) != len(got) {
		t.Errorf("docs/security.md has %d lists, want %d", len(want), len(got))
	}
}

// rsaPair writes a certificate of its own with a key of RSA.
func rsaPair(t *testing.T) Pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rsa"}, DNSNames: []string{"s.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rsa.pem")
	write(t, file, fmt.Append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))))
	return Pair{file, file}
}
