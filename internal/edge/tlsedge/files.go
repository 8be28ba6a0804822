package tlsedge

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// A Certificate is one that is loaded.
type Certificate struct {
	File        string
	Names       []string // DNS names and addresses
	NotAfter    time.Time
	Fingerprint string // SHA-256, in hex
}

// loaded is what a Config's files had. It does not change.
type loaded struct {
	c      Config
	config *tls.Config
	info   []Certificate
	stamps []stamp
}

// A stamp tells whether a file is another.
type stamp struct {
	file string
	size int64
	time time.Time
}

func stampOf(file string) stamp {
	s := stamp{file: file}
	if i, err := os.Stat(file); err == nil {
		s.size, s.time = i.Size(), i.ModTime()
	}
	return s
}

// suites are those of TLS 1.2: with forward secrecy and authenticated encryption, as
// RFC 9325, 4.2 recommends. crypto/tls offers CBC with SHA-1 too. Those of 1.3 are all
// of that kind.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

func (l *loaded) changed() bool {
	for _, s := range l.stamps {
		if stampOf(s.file) != s {
			return true
		}
	}
	return false
}

// load loads the files of c, or says everything that is wrong with them.
func load(c Config) (*loaded, error) {
	l := &loaded{c: c, config: &tls.Config{
		MinVersion:   c.MinVersion,
		CipherSuites: suites,
		NextProtos:   c.ALPN,
		// What is sealed is up to 16 KiB at once and should be one record.
		DynamicRecordSizingDisabled: true,
	}}
	var wrong []error
	owner := map[string]string{} // file by name and type of key
	for _, pair := range c.Certificates {
		for _, file := range []string{pair.Cert, pair.Key} {
			l.stamps = append(l.stamps, stampOf(file)) // before it is read
		}
		cert, err := loadPair(pair)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		info := infoOf(pair.Cert, cert.Leaf)
		for _, name := range info.Names {
			key := strings.ToLower(name) + " " + cert.Leaf.PublicKeyAlgorithm.String()
			if other, taken := owner[key]; taken {
				wrong = append(wrong, fmt.Errorf("tls: %s and %s are both for %s, with keys of the same type (%s)",
					other, pair.Cert, name, cert.Leaf.PublicKeyAlgorithm))
			}
			owner[key] = pair.Cert
		}
		l.config.Certificates = append(l.config.Certificates, cert)
		l.info = append(l.info, info)
	}
	if c.ClientCA != "" {
		l.stamps = append(l.stamps, stampOf(c.ClientCA))
		pool, err := loadCA(c.ClientCA, "client CA", false)
		if err != nil {
			wrong = append(wrong, err)
		}
		l.config.ClientCAs = pool
		l.config.ClientAuth = tls.RequireAndVerifyClientCert
		if c.ClientOptional {
			l.config.ClientAuth = tls.VerifyClientCertIfGiven
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return l, nil
}

func loadPair(pair Pair) (tls.Certificate, error) {
	chain, err := readPEM(pair.Cert, "certificate", "CERTIFICATE")
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readPEM(pair.Key, "key of "+pair.Cert, "PRIVATE KEY")
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair(chain, key)
	switch {
	case err == nil:
		return cert, nil
	case strings.Contains(err.Error(), "does not match"):
		return tls.Certificate{}, fmt.Errorf("tls: key %s is not that of certificate %s", pair.Key, pair.Cert)
	}
	return tls.Certificate{}, fmt.Errorf("tls: certificate %s with key %s: %w", pair.Cert, pair.Key, err)
}

// readPEM reads a file and checks that it has a block whose type ends with kind.
func readPEM(file, what, kind string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("tls: %s: %w", what, err)
	}
	var found []string
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if found = append(found, block.Type); strings.HasSuffix(block.Type, kind) {
			if block.Type == "ENCRYPTED PRIVATE KEY" || bytes.Contains(b, []byte("Proc-Type: 4,ENCRYPTED")) {
				return nil, fmt.Errorf("tls: %s: %s is encrypted: store it without a passphrase", what, file)
			}
			return b, nil
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("tls: %s: %s is not in PEM", what, file)
	}
	return nil, fmt.Errorf("tls: %s: %s has no %s, but %s", what, file, kind, strings.Join(found, ", "))
}

// loadCA loads the authorities of a file, and with others any certificate. what names
// the file in errors.
func loadCA(file, what string, others bool) (*x509.CertPool, error) {
	b, err := readPEM(file, what, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return pool, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("tls: %s: %s: %w", what, file, err)
		}
		if cert.BasicConstraintsValid && !cert.IsCA && !others {
			return nil, fmt.Errorf("tls: %s: %s has %q, which is no authority", what, file, cert.Subject)
		}
		pool.AddCert(cert)
	}
}

func infoOf(file string, leaf *x509.Certificate) Certificate {
	sum := sha256.Sum256(leaf.Raw)
	c := Certificate{File: file, Names: leaf.DNSNames, NotAfter: leaf.NotAfter, Fingerprint: hex.EncodeToString(sum[:])}
	c.Names = c.Names[:len(c.Names):len(c.Names)]
	for _, ip := range leaf.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	return c
}
