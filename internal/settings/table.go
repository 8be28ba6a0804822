// Package settings has the settings of heartwheel serve: their table, the layers
// that set them, and what follows from them for the workers. Of this module it
// imports internal/address, internal/admission, internal/config, internal/wording and
// server.
package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"heartwheel/internal/address"
	"heartwheel/internal/config"
	"heartwheel/internal/wording"
	"heartwheel/server"
)

// Options is everything that can be set, parsed.
type Options struct {
	server.Config // Beats is set from BeatSide; Logger, Sockets and Quota by the daemon

	Ops       string // HOST:PORT or off
	Profile   string
	BeatSide  string
	Handler   string
	Workers   int      // 0: this process serves; AutoWorkers
	TLSCert   []string // files; Config.Certificates has them with their keys
	TLSKey    []string
	LogFormat string
	LogLevel  string
	File      string // path of the YAML file; empty: none
}

// idleTimeout is that of a client that does not ask for another beat interval.
func (o *Options) idleTimeout() time.Duration {
	if o.Timeout != 0 {
		return o.Timeout
	}
	return o.Beat * 5 / 2
}

// derive sets what follows from other fields.
func (o *Options) derive() {
	o.Config.Beats, _ = server.ParseBeats(o.BeatSide)
	o.Certificates = nil
	for i, cert := range o.TLSCert {
		pair := server.Certificate{Cert: cert}
		if i < len(o.TLSKey) {
			pair.Key = o.TLSKey[i]
		}
		o.Certificates = append(o.Certificates, pair)
	}
}

// listenersKey is the key of the list of listeners with settings of their own, which
// only the file has.
const listenersKey = "listeners"

// A Setting is one row of the Table.
type Setting = config.Setting[Options]

// Headings of the help.
const (
	listening   = "Listening"
	identity    = "Clients"
	framing     = "Framing"
	heartbeat   = "Heartbeat"
	application = "Application"
	limits      = "Limits"
	memory      = "Memory"
	shutdown    = "Shutdown"
	processes   = "Workers"
	logging     = "Log"
)

// Settings that server.Config judges against each other.
const (
	authSettings = "authentication"
	beatTimes    = "beat times"
	addressRate  = "address rate"
	frameSizes   = "frame sizes"
)

// Table is every setting, in the order of the help. Flags, names in the
// environment, keys of the file, the output of config show and docs/settings.md
// come from it.
var Table = slices.Concat(config.Table[Options]{
	{Key: "listen", Kind: config.List, Group: listening, Default: "tcp://127.0.0.1:9000",
		Field: func(o *Options) any { return &o.Listen },
		Help: "address for clients: tcp://HOST:PORT, tls://HOST:PORT, ws://HOST:PORT/path, wss://HOST:PORT/path, " +
			"unix:///path; may be repeated; paths share a port; port 0 picks a free one"},
	{Key: "ops", Kind: config.Address, Group: listening, Default: "127.0.0.1:9090", Check: checkOps,
		Field: func(o *Options) any { return &o.Ops },
		Help:  "HOST:PORT for health, metrics and profiles over HTTP, or off"},
	{Key: "tls-cert", Kind: config.List, Group: listening, Unset: "none", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.TLSCert },
		Help: "PEM file of a certificate with its chain, for tls and wss; may be repeated: the client's server " +
			"name chooses; read again when it changes"},
	{Key: "tls-key", Kind: config.List, Group: listening, Unset: "none", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.TLSKey },
		Help:   "PEM file of its key; repeated as often as tls-cert, in the same order"},
	{Key: "client-ca", Kind: config.Path, Group: listening, Unset: "clients need no certificate", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.ClientCA },
		Help:   "PEM file of the authorities that sign certificates of clients, which must have one then"},
	{Key: "origin", Kind: config.List, Group: listening, Unset: "pages of the same host", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Origins },
		Help: "web pages that may connect over ws and wss: HOST, SCHEME://HOST:PORT, *.DOMAIN, or * for any; " +
			"may be repeated"},
	{Key: "proxy-from", Kind: config.List, Group: listening, Unset: "none", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.ProxyFrom },
		Help: "address or CIDR prefix of a load balancer that sends PROXY protocol headers; if there is one, " +
			"nothing else may connect; may be repeated"},
	{Key: "trusted-proxies", Kind: config.List, Group: listening, Unset: "none", Live: config.LiveNew,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.TrustedProxies },
		Help: "address or CIDR prefix of an HTTP proxy whose X-Forwarded-For or Forwarded names the client, over ws " +
			"and wss; may be repeated"},

	{Key: "auth", Kind: config.Word, Group: identity, Words: []string{"none", "tokens", "jwt", "mtls", "hook"},
		Default: "none", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.Mode },
		Help: "how clients are identified: not at all, by static tokens, JSON Web Tokens, certificates or an " +
			"HTTP hook"},
	{Key: "tokens-file", Kind: config.Path, Group: identity, Unset: "none", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.TokensFile },
		Help:   "file of static tokens: the SHA-256 in hex and the user on each line (heartwheel token static)"},
	{Key: "jwt-secret-file", Kind: config.Path, Group: identity, Unset: "none", Live: config.LiveNew,
		Related: authSettings,
		InList:  listenersKey,
		Field:   func(o *Options) any { return &o.Auth.SecretFile },
		Help:    "file of the secret, 32 bytes or more, of JSON Web Tokens with HS256, HS384 and HS512"},
	{Key: "jwt-key", Kind: config.List, Group: identity, Unset: "none", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.KeyFiles },
		Help:   "PEM file of a public key of JSON Web Tokens: RSA, ECDSA or Ed25519; may be repeated"},
	{Key: "jwks", Kind: config.Text, Group: identity, Unset: "none", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.JWKS },
		Help:   "URL of a JWK set with more keys, https, or http to this machine; fetched again for new keys"},
	{Key: "jwt-issuer", Kind: config.Text, Group: identity, Unset: "any", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.Issuer },
		Help:   "what iss of a token must be"},
	{Key: "jwt-audience", Kind: config.Text, Group: identity, Unset: "any", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.Audience },
		Help:   "what aud of a token must have"},
	{Key: "jwt-leeway", Kind: config.Duration, Group: identity, Default: "0s", Zero: true, Live: config.LiveNew,
		Related: authSettings,
		InList:  listenersKey,
		Field:   func(o *Options) any { return &o.Auth.Leeway },
		Help:    "by how much clocks may differ when tokens begin and expire"},
	{Key: "auth-hook", Kind: config.Text, Group: identity, Unset: "none", Live: config.LiveNew, Related: authSettings,
		InList: listenersKey,
		Field:  func(o *Options) any { return &o.Auth.Hook },
		Help:   "URL of the HTTP server that says who a client is, https, or http to a private address"},
	{Key: "auth-hook-header", Kind: config.List, Group: identity, Unset: "none", Live: config.LiveNew,
		Related: authSettings,
		InList:  listenersKey,
		Field:   func(o *Options) any { return &o.Auth.HookHeaders },
		Help:    "header of a request for a WebSocket that the hook gets; may be repeated"},
}, framingRows, config.Table[Options]{
	{Key: "profile", Kind: config.Word, Group: heartbeat, Words: profileNames(), Default: server.Profiles[0].Name,
		Live:    config.LiveNew,
		Related: beatTimes,
		Field:   func(o *Options) any { return &o.Profile },
		Help:    "preset for beat, beat-min and beat-max; a value set for one of them wins"},
	{Key: "beat", Kind: config.Duration, Group: heartbeat, Unset: "from the profile", Related: beatTimes,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.Beat },
		Help:  "beat interval of a client that asks for none"},
	{Key: "timeout", Kind: config.Duration, Group: heartbeat, Unset: "2.5 × the connection's beat", Related: beatTimes,
		Live:    config.LiveNew,
		Derived: func(o *Options) string { return wording.Duration(o.idleTimeout()) },
		Field:   func(o *Options) any { return &o.Timeout },
		Help:    "silence after which a peer is dead, for every connection; at least 1.5 × beat"},
	{Key: "beat-min", Kind: config.Duration, Group: heartbeat, Unset: "from the profile", Related: beatTimes,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.BeatMin },
		Help:  "shortest beat interval that a client may ask for"},
	{Key: "beat-max", Kind: config.Duration, Group: heartbeat, Unset: "from the profile", Related: beatTimes,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.BeatMax },
		Help:  "longest beat interval that a client may ask for"},
	{Key: "beats", Kind: config.Word, Group: heartbeat, Words: []string{"client", "server"}, Default: "client",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.BeatSide },
		Help:  "side that beats, unless the client asks for the other"},
	{Key: "beat-floor", Kind: config.Duration, Group: heartbeat, Default: "0s", Zero: true, Related: beatTimes,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.BeatFloor },
		Help:  "close a peer after three beats in a row closer together than this; 0s: never"},
	{Key: "require-hello", Kind: config.Bool, Group: heartbeat, Default: "false",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.RequireHello },
		Help:  "close a peer whose first frame is not HELLO, or does not arrive within 10s"},

	{Key: "handler", Kind: config.Word, Group: application, Words: []string{"echo"}, Default: "echo",
		Field: func(o *Options) any { return &o.Handler },
		Help:  "what to do with application frames; echo sends them back"},

	{Key: "max-connections", Kind: config.Number, Group: limits, Unset: "what the descriptor limit allows",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.MaxConnections },
		Help:  "connections at one time; more are refused and asked to come back later"},
	{Key: "address-rate", Kind: config.Number, Group: limits, Default: "0", Zero: true, Related: addressRate,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.AddressRate },
		Help:  "new connections per second from one address (IPv4 address or IPv6 /64); 0: no limit"},
	{Key: "address-burst", Kind: config.Number, Group: limits, Unset: "address-rate", Related: addressRate,
		Live:    config.LiveNew,
		Derived: func(o *Options) string { return config.FormatNumber(o.AddressRate) },
		Field:   func(o *Options) any { return &o.AddressBurst },
		Help:    "new connections from one address at once, before address-rate applies"},
	{Key: "address-max", Kind: config.Number, Group: limits, Default: "0", Zero: true,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.AddressMax },
		Help:  "connections from one address at one time; 0: no limit"},
	{Key: "flap-limit", Kind: config.Number, Group: limits, Default: "0", Zero: true,
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.FlapLimit },
		Help:  "ban an address that connects more often than this in a minute; 0: never"},
	{Key: "ban-time", Kind: config.Duration, Group: limits, Default: "5m",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.BanTime },
		Help:  "how long such a ban lasts"},
	{Key: "ban", Kind: config.List, Group: limits, Unset: "none",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.Ban },
		Help:  "address or CIDR prefix to refuse; may be repeated"},
	{Key: "trust", Kind: config.List, Group: limits, Unset: "none",
		Live:  config.LiveNew,
		Field: func(o *Options) any { return &o.Trust },
		Help: "address or CIDR prefix without limits of its own, such as a load balancer whose health check " +
			"connects often; may be repeated"},

	{Key: "max-frame", Kind: config.Size, Group: memory, Default: "64KiB", Related: frameSizes,
		Field: func(o *Options) any { return &o.MaxFrame },
		Help:  "largest frame body to accept"},
	{Key: "outbox", Kind: config.Size, Group: memory, Unset: "256KiB or 2 × max-frame, the larger", Related: frameSizes,
		Derived: func(o *Options) string { return config.FormatSize(o.WithDefaults().Outbox) },
		Field:   func(o *Options) any { return &o.Outbox },
		Help: "bytes that may wait for a peer; from half of it on the peer is not read from, " +
			"and with more waiting it is closed"},
	{Key: "memory-limit", Kind: config.Size, Group: memory, Unset: "the cgroup's limit, if there is one",
		MinusOne: "off",
		Field:    func(o *Options) any { return &o.MemoryLimit },
		Help: "memory of the server and of the kernel for its connections; from 85 % of it, or of the cgroup's " +
			"limit, new connections are refused; " +
			"off: never refuse"},
	{Key: "write-stall", Kind: config.Duration, Group: memory,
		Live:    config.LiveNow,
		Unset:   "8s or 0.8 × the connection's timeout, the smaller",
		Derived: func(o *Options) string { return wording.Duration(min(8*time.Second, o.idleTimeout()*4/5)) },
		Field:   func(o *Options) any { return &o.WriteStall },
		Help:    "close a peer that reads less than 4 KiB of its pending data in this time"},

	{Key: "drain", Kind: config.Duration, Group: shutdown, Default: "30s",
		Live:  config.LiveNow,
		Field: func(o *Options) any { return &o.Drain },
		Help:  "longest time for an orderly shutdown after SIGTERM or SIGINT"},
	{Key: "spread", Kind: config.Duration, Group: shutdown, Default: "5s",
		Live:  config.LiveNow,
		Field: func(o *Options) any { return &o.Spread },
		Help:  "time over which clients spread their reconnects"},

	{Key: "workers", Kind: config.Number, Group: processes, Default: "0", Zero: true, MinusOne: "auto",
		Field: func(o *Options) any { return &o.Workers },
		Help: "processes that share the connections, under a supervisor; auto: as many as max-connections needs; " +
			"0: a single process"},
	{Key: "loops", Kind: config.Number, Group: processes, Unset: "one per processor",
		Field: func(o *Options) any { return &o.Loops },
		Help:  "event loops of each process"},

	{Key: "log-format", Kind: config.Word, Group: logging, Words: []string{"text", "json"}, Default: "text",
		Live:  config.LiveNow,
		Field: func(o *Options) any { return &o.LogFormat },
		Help:  "format of the log on standard error"},
	{Key: "log-level", Kind: config.Word, Group: logging, Words: []string{"debug", "info", "warn", "error"},
		Live:    config.LiveNow,
		Default: "info",
		Field:   func(o *Options) any { return &o.LogLevel },
		Help:    "lowest level to log"},

	{Key: "config", Kind: config.Path, Group: config.Other, Unset: "no file", NotInFile: true, Check: checkPath,
		Field: func(o *Options) any { return &o.File },
		Help:  "YAML file with any of these settings, one \"key: value\" a line; not a pipe"},
})

// ListenerTable is what an element of listeners sets.
var ListenerTable = append(config.Table[Options]{
	{Key: "listen", Kind: config.Text, Group: listening, Unset: "none",
		Field: func(o *Options) any {
			return config.Parsed(&o.Listen, func(text string) ([]string, error) { return []string{text}, nil },
				func(all []string) string { return strings.Join(all, ",") })
		},
		Help: "one address, as in listen"},
}, Table.InList(listenersKey)...)

func profileNames() []string {
	var names []string
	for _, p := range server.Profiles {
		names = append(names, p.Name)
	}
	return names
}

func checkOps(text string) error {
	if text == "off" {
		return nil
	}
	if _, err := address.ParseHostPort(text); err != nil {
		return fmt.Errorf("%w; write HOST:PORT, such as 127.0.0.1:9090, or off", err)
	}
	return nil
}

func checkPath(text string) error {
	if text == "" {
		return errors.New("is empty; write a path")
	}
	return nil
}
