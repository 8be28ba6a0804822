package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"heartwheel/client"
	"heartwheel/internal/address"
	"heartwheel/internal/config"
)

// tlsFlags are those of addTLS.
var tlsFlags = []string{"ca", "cert", "key", "server-name"}

// addTLS adds the flags that setTLS reads.
func (f *clientFlags) addTLS() {
	f.add("ca", "", "path", "", "PEM file of the authorities to trust, in place of the system's")
	f.add("cert", "", "path", "", "PEM file of this client's certificate with its chain")
	f.add("key", "", "path", "", "PEM file of its key")
	f.add("server-name", "", "text", "", "name in the server's certificate (default: the host of the address)")
}

// setTLS sets what cfg needs for an address with TLS.
func (f *clientFlags) setTLS(cfg *client.Config, url string) {
	scheme, _, _ := strings.Cut(strings.ToLower(url), "://")
	with := map[string]bool{}
	for _, name := range tlsFlags {
		if with[name] = len(f.values[name].texts) > 0; with[name] && scheme != address.TLS && scheme != address.WSS {
			f.judge(name, errors.New("is for tls:// and wss:// addresses"))
			return
		}
	}
	cfg.TLS = &tls.Config{ServerName: f.text("server-name")}
	if with["ca"] {
		pem, err := config.ReadFile(f.text("ca"))
		pool := x509.NewCertPool()
		if err == nil && !pool.AppendCertsFromPEM(pem) {
			err = errors.New("has no certificate in PEM")
		}
		f.judge("ca", err)
		cfg.TLS.RootCAs = pool
	}
	switch {
	case with["cert"] && with["key"]:
		cert, err := f.keyPair()
		if err == nil {
			cfg.TLS.Certificates = []tls.Certificate{cert}
		}
	case with["cert"]:
		f.judge("cert", errors.New("needs the flag --key too"))
	case with["key"]:
		f.judge("key", errors.New("needs the flag --cert too"))
	}
}

// keyPair reads --cert and --key. It judges them.
func (f *clientFlags) keyPair() (tls.Certificate, error) {
	cert, err := config.ReadFile(f.text("cert"))
	f.judge("cert", err)
	key, keyErr := config.ReadFile(f.text("key"))
	f.judge("key", keyErr)
	if err = errors.Join(err, keyErr); err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		err = fmt.Errorf("does not go with the key %q: %s", f.text("key"), strings.TrimPrefix(err.Error(), "tls: "))
		f.judge("cert", err)
	}
	return pair, err
}
