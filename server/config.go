package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

// Beats says which side of a connection beats. Its methods are pure functions.
type Beats uint8

const (
	ClientBeats Beats = iota // the client beats, the server answers
	ServerBeats              // the server beats after Beat of inbound silence, the client answers
)

// String returns the word used on the wire: client or server.
func (b Beats) String() string {
	if b == ServerBeats {
		return "server"
	}
	return "client"
}

// ParseBeats is the inverse of Beats.String. Safe for concurrent use.
func ParseBeats(s string) (Beats, error) {
	switch s {
	case "client":
		return ClientBeats, nil
	case "server":
		return ServerBeats, nil
	}
	return 0, fmt.Errorf("server: beats %q is neither client nor server", s)
}

// A Profile is a preset of the heartbeat times; see codec/SPEC.md. The idle timeout
// of each is 2.5 × Beat, the default of Config.Timeout.
type Profile struct {
	Name             string
	Beat             time.Duration // Config.Beat
	BeatMin, BeatMax time.Duration // Config.BeatMin and Config.BeatMax
}

// Profiles lists the presets, the default first. It must not be changed.
var Profiles = []Profile{
	{"standard", 15 * time.Second, time.Second, time.Minute},
	{"fast", 3 * time.Second, 500 * time.Millisecond, 15 * time.Second},
	{"iot", time.Minute, 5 * time.Second, 5 * time.Minute},
}

// ProfileByName finds a preset. Safe for concurrent use.
func ProfileByName(name string) (Profile, bool) {
	for _, p := range Profiles {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}

// Limits of Config's fields. A timeout is never infinite: a peer that lost its
// power is found within MaxTimeout whatever was configured.
const (
	MinBeat    = 100 * time.Millisecond
	MaxBeat    = time.Hour
	MaxTimeout = 3 * time.Hour
)

// MinMemory is the least Config.MemoryLimit, in bytes.
const MinMemory = 32 << 20

// Config configures a Server. The zero value of each field means the default that
// its comment names. New keeps a copy; the slices must not be changed afterwards.
// Methods change nothing and are safe for concurrent use.
type Config struct {
	// Listen has addresses as tcp://HOST:PORT; port 0 takes a free one. Spellings of
	// the same address are equal: TCP://[0::1%lo]:09000 is tcp://[::1%lo]:9000. tls is
	// the same over TLS, ws://HOST:PORT/path and wss WebSocket, with any number of
	// paths on a port, unix:///path a socket in the file system, for its owner and
	// group (mode 0660). None, and no Listeners either: tcp://127.0.0.1:9000.
	Listen    []string
	Edge                 // of the addresses in Listen
	Listeners []Listener // addresses with an Edge of their own
	// Sockets are listening sockets that are open already, in place of new ones for
	// their addresses in Listen. New takes them over, also if it fails, and closes
	// those that no address asks for.
	Sockets []Socket

	// Beat is the beat interval H of a client that does not ask for another. 0: 15 s.
	Beat time.Duration
	// Timeout is the idle timeout T of every connection, at least 1.5 × Beat. 0:
	// 2.5 × the connection's beat interval.
	Timeout time.Duration
	// BeatMin and BeatMax are the range that the interval a client asks for is
	// clamped to. 0: 1 s and 60 s, widened to hold Beat. With a Timeout, no interval
	// is above two thirds of it.
	BeatMin, BeatMax time.Duration
	Beats            Beats         // which side beats unless the client's HELLO asks for the other
	BeatFloor        time.Duration // three beats in a row closer together than this end in GOAWAY 3021; 0: no floor
	RequireHello     bool          // a connection's first frame must be HELLO, within 10 s

	// MaxConnections is the connection limit of this process. Connections above it
	// receive GOAWAY 3020 and are closed. 0: what the descriptor limit allows; more
	// than that is lowered with a warning.
	MaxConnections int
	Quota          Quota // limit of several processes together; nil: none
	MaxFrame       int   // largest frame body accepted, in bytes, at most 16777215; 0: 65536

	// Limits for one address, an IPv4 address or an IPv6 /64.
	AddressRate  int           // new connections per second; more are refused as address_rate. 0: no limit
	AddressBurst int           // how many of them may come at once; 0: AddressRate
	AddressMax   int           // connections at one time; more are refused as address_limit. 0: no limit
	FlapLimit    int           // connects within a minute; the next one bans the address for BanTime. 0: no limit
	BanTime      time.Duration // 0: 5 min

	Ban   []string // addresses and CIDR prefixes that are refused as banned
	Trust []string // addresses and CIDR prefixes that the limits for one address leave out; none of Ban

	// Outbox is how many bytes may wait for a peer that reads too slowly, and the
	// answers to one message of it as much again. Beyond them the connection is closed
	// as slow_consumer. From half of it on the peer is not read from until a quarter
	// is left; meanwhile its timeout rests and WriteStall decides. 0: the larger of 256 KiB and
	// 2 × MaxFrame.
	Outbox int
	// MemoryLimit is how many bytes this process and the kernel's part of its
	// connections may take. 0: what the cgroup allows; negative: no limit is watched,
	// not even the cgroup's. The nearest limit holds: from 85 % of it new connections
	// are refused. What connections hold (incomplete messages, outboxes) may come to a
	// quarter of it, or of the machine's memory, and to less while the rest is in use;
	// beyond, those that hold the most are closed as shed. While a limit is watched, the
	// server moves the runtime's own (debug.SetMemoryLimit), unless that is set already.
	MemoryLimit int
	// Processes is how many processes like this one share the cgroup's limit. Each
	// lets its connections hold that part of it. 0: 1.
	Processes int
	// WriteStall is how long a peer may take to read 4 KiB of its pending data, or
	// all if that is less. Beyond it, and at most an eighth of it later, the
	// connection is closed as slow_consumer. 0: 8 s or 0.8 × the connection's
	// timeout, the smaller.
	WriteStall time.Duration

	Drain  time.Duration // longest duration of a drain; 0: 30 s
	Spread time.Duration // clients that are asked to reconnect spread over this; 0: 5 s

	Loops  int          // event loops; 0: GOMAXPROCS
	Logger *slog.Logger // nil: slog.Default()
}

// A Quota is a limit on the connections of several processes together, kept
// outside of this package. With one, MaxConnections above what this process may
// open is lowered without a warning, as no process has to hold all of them. Its
// methods must be safe for concurrent use.
type Quota interface {
	Enter() bool // counts one connection more, unless the limit is reached
	Leave()      // counts one less
	Full() bool  // reports whether Enter would fail now
}

// ErrConfig is matched by every error of Validate, and by those of New that come
// from it.
var ErrConfig = errors.New("server: invalid configuration")

// A FieldError is one wrong field of a Config. It does not change, so its methods
// are safe for concurrent use.
type FieldError struct {
	Field string // the field's name, such as MaxFrame
	Value string // its value
	Want  string // what is wrong and what to set instead; writes other fields as Config.BeatMin
}

// Error returns, for example: server: Config.MaxFrame "1": must lie between …
func (e *FieldError) Error() string {
	return fmt.Sprintf("server: Config.%s %q: %s", e.Field, e.Value, e.Want)
}

// Unwrap makes errors.Is(err, ErrConfig) true.
func (e *FieldError) Unwrap() error { return ErrConfig }

// WithDefaults returns c with every zero field replaced by its default. The slices
// are shared.
func (c Config) WithDefaults() Config {
	def := Profiles[0]
	if len(c.Listen) == 0 && len(c.Listeners) == 0 {
		c.Listen = []string{"tcp://127.0.0.1:9000"}
	}
	if c.Auth.Mode == "" {
		c.Auth.Mode = "none"
	}
	if c.Beat == 0 {
		c.Beat = def.Beat
		if c.Timeout != 0 { // a timeout alone decides the beat too
			c.Beat = time.Duration(float64(c.Timeout) / 2.5)
		}
	}
	if c.BeatMin == 0 {
		c.BeatMin = min(def.BeatMin, c.Beat)
	}
	if c.BeatMax == 0 {
		c.BeatMax = max(def.BeatMax, c.Beat)
	}
	if c.MaxFrame == 0 {
		c.MaxFrame = codec.DefaultMaxFrame
	}
	if c.AddressBurst == 0 {
		c.AddressBurst = max(c.AddressRate, 0)
	}
	if c.BanTime == 0 {
		c.BanTime = 5 * time.Minute
	}
	if c.Outbox == 0 {
		c.Outbox = max(256<<10, 2*c.MaxFrame)
	}
	if c.Processes == 0 {
		c.Processes = 1
	}
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	if c.Spread == 0 {
		c.Spread = 5 * time.Second
	}
	if c.Loops == 0 {
		c.Loops = runtime.GOMAXPROCS(0)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports every wrong field at once: a joined error whose parts are
// *FieldError, or nil. It judges c as WithDefaults completes it.
func (c Config) Validate() error {
	c = c.WithDefaults()
	var errs []error
	wrong := func(field string, value any, want string, args ...any) {
		errs = append(errs, &FieldError{field, fmt.Sprint(value), fmt.Sprintf(want, args...)})
	}
	errs = append(errs, c.validateEdges()...)
	c.validateBeat(wrong)
	if c.MaxConnections < 0 {
		wrong("MaxConnections", c.MaxConnections,
			"must be positive; leave it unset for what the descriptor limit allows")
	}
	if c.MaxFrame < 256 || c.MaxFrame > codec.MaxFrameLimit {
		wrong("MaxFrame", c.MaxFrame, "must lie between 256 and %d bytes", codec.MaxFrameLimit)
	} else if c.Outbox < c.MaxFrame+1024 {
		wrong("Outbox", c.Outbox, "must hold one frame of Config.MaxFrame = %d and 1024 bytes more; set at least %d",
			c.MaxFrame, c.MaxFrame+1024)
	}
	if c.MemoryLimit > 0 && c.MemoryLimit < MinMemory {
		wrong("MemoryLimit", c.MemoryLimit,
			"must be at least %d bytes (32MiB), as an empty server takes half of that; "+
				"leave it unset for the cgroup's limit", MinMemory)
	}
	if c.Processes < 0 {
		wrong("Processes", c.Processes, "must be positive; leave it unset for 1")
	}
	c.validateAddresses(wrong)
	if c.WriteStall != 0 && c.WriteStall < 100*time.Millisecond {
		wrong("WriteStall", c.WriteStall, "must be at least 100ms")
	}
	if c.Drain < 0 || c.Drain > time.Hour {
		wrong("Drain", c.Drain, "must be more than 0 and at most 1h")
	}
	if c.Spread < 0 || c.Spread > time.Hour {
		wrong("Spread", c.Spread, "must be more than 0 and at most 1h")
	}
	if c.Loops < 0 || c.Loops > 256 {
		wrong("Loops", c.Loops, "must lie between 1 and 256; leave it unset for one per processor")
	}
	return errors.Join(errs...)
}

func (c *Config) validateBeat(wrong func(field string, value any, want string, args ...any)) {
	if c.Beat < MinBeat || c.Beat > MaxBeat {
		wrong("Beat", c.Beat, "must lie between %s and %s", MinBeat, MaxBeat)
	}
	if c.Timeout != 0 && (c.Timeout > MaxTimeout || c.Timeout*2 < c.Beat*3) {
		wrong("Timeout", c.Timeout,
			"must lie between 1.5 × Config.Beat = %s and %s; leave it unset for 2.5 × Config.Beat = %s, "+
				"or set Config.Beat to at most two thirds of it", c.Beat*3/2, MaxTimeout, c.Beat*5/2)
	}
	if c.BeatMin < MinBeat || c.BeatMin > c.Beat {
		wrong("BeatMin", c.BeatMin, "must lie between %s and Config.Beat = %s", MinBeat, c.Beat)
	}
	if c.BeatMax > MaxBeat || c.BeatMax < c.Beat {
		wrong("BeatMax", c.BeatMax, "must lie between Config.Beat = %s and %s", c.Beat, MaxBeat)
	}
	if c.Beats > ServerBeats {
		wrong("Beats", uint8(c.Beats), "must be ClientBeats or ServerBeats")
	}
	if c.BeatFloor < 0 || c.BeatFloor > max(c.BeatMin, 0) {
		wrong("BeatFloor", c.BeatFloor, "must lie between 0s (no floor) and Config.BeatMin = %s", c.BeatMin)
	}
}

func (c *Config) validateAddresses(wrong func(field string, value any, want string, args ...any)) {
	for _, n := range []struct {
		field string
		value int
	}{{"AddressRate", c.AddressRate}, {"AddressBurst", c.AddressBurst}, {"AddressMax", c.AddressMax}, {"FlapLimit",
		c.FlapLimit}} {
		if n.value < 0 || n.value > 1e6 {
			wrong(n.field, n.value, "must lie between 0 (no limit) and 1000000")
		}
	}
	if c.AddressBurst > 0 && c.AddressRate == 0 {
		wrong("AddressBurst", c.AddressBurst, "has no meaning without Config.AddressRate; set that too")
	}
	if c.BanTime < time.Second || c.BanTime > 30*24*time.Hour {
		wrong("BanTime", c.BanTime, "must lie between 1s and 720h")
	}
	var banned []netip.Prefix
	for _, text := range c.Ban {
		p, err := admission.ParsePrefix(text)
		if err != nil {
			wrong("Ban", text, "%s", err)
			continue
		}
		banned = append(banned, p)
	}
	for _, text := range c.Trust {
		p, err := admission.ParsePrefix(text)
		if err != nil {
			wrong("Trust", text, "%s", err)
			continue
		}
		if i := slices.IndexFunc(banned, p.Overlaps); i >= 0 {
			wrong("Trust", text, "overlaps with %s of Config.Ban; an address is banned or trusted, not both", banned[i])
		}
	}
}

// admission returns the part of c, which is complete, that concerns admission.
func (c *Config) admission() admission.Config {
	a := admission.Config{
		MaxConnections: c.MaxConnections, AddressRate: c.AddressRate, AddressBurst: c.AddressBurst,
		AddressMax: c.AddressMax, FlapLimit: c.FlapLimit, BanTime: c.BanTime, RetryAfter: c.Spread, Logger: c.Logger,
		Quota: c.Quota,
	}
	a.Ban, a.Trust = prefixes(c.Ban), prefixes(c.Trust)
	return a
}

// prefixes parses what Validate has found right.
func prefixes(texts []string) (all []netip.Prefix) {
	for _, text := range texts {
		if p, err := admission.ParsePrefix(text); err == nil {
			all = append(all, p)
		}
	}
	return all
}
