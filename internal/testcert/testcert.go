// Package testcert issues certificates for tests. It imports nothing of this module.
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// An Authority issues certificates. Not safe for concurrent use.
type Authority struct {
	File string         // its own certificate, in PEM
	Pool *x509.CertPool // has it

	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New returns an Authority whose files are gone after the test.
func New(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{dir: t.TempDir(), Pool: x509.NewCertPool()}
	a.File, _ = a.issue(t, "ca", time.Now().Add(24*time.Hour), nil)
	a.Pool.AddCert(a.cert)
	return a
}

// Issue writes NAME.pem and NAME.key, for an hour and for names: DNS names and IP
// addresses. It returns the paths.
func (a *Authority) Issue(t testing.TB, name string, names ...string) (cert, key string) {
	t.Helper()
	return a.issue(t, name, time.Now().Add(time.Hour), names)
}

// IssueUntil is Issue with another end.
func (a *Authority) IssueUntil(t testing.TB, end time.Time, name string, names ...string) (cert, key string) {
	t.Helper()
	return a.issue(t, name, end, names)
}

// issue issues a certificate; without names it is the authority's own.
func (a *Authority) issue(t testing.TB, name string, end time.Time, names []string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, n)
		}
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		c.IsCA, parent, signer = true, c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert == nil {
		a.key = key
		a.cert, _ = x509.ParseCertificate(der)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
