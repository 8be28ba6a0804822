package codec

import (
	"encoding/json"
	"math"
	"strconv"
)

// maxMS is the largest value of a member in milliseconds, ten years of 365 days:
// time.Duration(ms) * time.Millisecond never overflows.
const maxMS = 10 * 365 * 24 * 60 * 60 * 1000

// The beating side of a connection: the values of "beats".
const (
	beatsClient = "client"
	beatsServer = "server"
)

// Hello is the client's first frame: its identity and preferences. Every member is
// optional.
type Hello struct {
	// V is the protocol version. 0 means 1, and ParseHello never returns 0. The
	// receiver checks whether it supports the version (CodeBadVersion).
	V      int    `json:"v,omitempty"`
	Token  string `json:"token,omitempty"`
	Device string `json:"device,omitempty"`
	// BeatMS is the preferred beat interval in milliseconds; 0: no preference.
	BeatMS int64 `json:"beat_ms,omitempty"`
	// Beats is the preferred beating side: "client", "server", or "" for no
	// preference.
	Beats string `json:"beats,omitempty"`
	// Resume is the session to continue; "" for a new one.
	Resume string `json:"resume,omitempty"`
}

// Welcome is the server's answer to HELLO: the values in force.
type Welcome struct {
	// V is the protocol version. 0 means 1; it is written and returned as 1.
	V       int    `json:"v"`
	Session string `json:"session"`
	// BeatMS and TimeoutMS are the beat interval and the idle timeout in force,
	// in milliseconds.
	BeatMS    int64 `json:"beat_ms"`
	TimeoutMS int64 `json:"timeout_ms"`
	// Beats is the beating side: "client" or "server"; "" if absent.
	Beats string `json:"beats"`
	// MaxFrame is the largest length the server accepts, in bytes.
	MaxFrame int `json:"max_frame"`
	// MinBeatMS is the shortest interval of beats that the server allows, in
	// milliseconds; 0: no limit.
	MinBeatMS int64 `json:"min_beat_ms"`
	// SpreadMS is the window over which to spread a reconnect, in milliseconds.
	SpreadMS int64 `json:"spread_ms"`
	// Time is the server's clock in RFC 3339. The codec does not check it.
	Time string `json:"time"`
	// ExpiresMS is how long the token is still good, in milliseconds; 0: it does not
	// expire.
	ExpiresMS int64 `json:"expires_ms,omitempty"`
}

// Config holds, from the server, the values in force from now on; from the client,
// what it asks for.
type Config struct {
	// BeatMS is the beat interval in milliseconds; 0: no preference.
	BeatMS int64 `json:"beat_ms,omitempty"`
	// TimeoutMS is the idle timeout in milliseconds; 0: no preference.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// ExpiresMS, from the server, is as in Welcome.
	ExpiresMS int64 `json:"expires_ms,omitempty"`
	// Token, from the client, replaces the one that it was identified by.
	Token string `json:"token,omitempty"`
}

// Goaway announces the end of the connection, and where and when to reconnect.
type Goaway struct {
	// Code is why, and whether to reconnect; never 0.
	Code Code `json:"code"`
	// Reason is a text for people, written with at most MaxReason bytes.
	Reason string `json:"reason"`
	// AfterMS is the delay before reconnecting, in milliseconds.
	AfterMS int64 `json:"after_ms"`
	// Addr is the host:port to reconnect to; "" for the same address. The codec does
	// not check it.
	Addr string `json:"addr,omitempty"`
}

// AppendHello appends a HELLO frame. The values are not checked: the peer refuses
// what ParseHello refuses, JSON above MaxControl among it.
func AppendHello(dst []byte, h Hello) []byte {
	return appendControl(dst, OpHello, h)
}

// ParseHello returns the content of a HELLO, copied. An empty payload is {}.
//
// An error is an ErrBody and names the member. All four JSON parsers refuse a payload
// above MaxControl, not UTF-8 or not exactly one object, a member of the wrong type,
// and an integer below 0 or, in milliseconds, above ten years. ParseHello also refuses
// a beats that is neither "client" nor "server", and a resume above MaxSession.
func ParseHello(payload []byte) (Hello, error) {
	if len(payload) == 0 {
		return Hello{V: Version}, nil
	}
	var h Hello
	m := openObject(OpHello, payload)
	for m.next() {
		switch string(m.name) {
		case "v":
			h.V = int(m.integer(math.MaxInt32))
		case "token":
			h.Token = m.text()
		case "device":
			h.Device = m.text()
		case "beat_ms":
			h.BeatMS = m.integer(maxMS)
		case "beats":
			h.Beats = m.beats()
		case "resume":
			h.Resume = m.session()
		}
	}
	if m.err != nil {
		return Hello{}, m.err
	}
	h.V = version(h.V)
	return h, nil
}

// AppendWelcome appends a WELCOME frame. The values are not checked; V == 0 is
// written as 1.
func AppendWelcome(dst []byte, w Welcome) []byte {
	w.V = version(w.V)
	return appendControl(dst, OpWelcome, w)
}

// ParseWelcome returns the content of a WELCOME, copied. An absent member is its zero
// value, except that V is 1.
//
// An error is an ErrBody and names the member. See ParseHello; a max_frame above
// MaxFrameLimit and a session above MaxSession are refused too.
func ParseWelcome(payload []byte) (Welcome, error) {
	var w Welcome
	m := openObject(OpWelcome, payload)
	for m.next() {
		switch string(m.name) {
		case "v":
			w.V = int(m.integer(math.MaxInt32))
		case "session":
			w.Session = m.session()
		case "beat_ms":
			w.BeatMS = m.integer(maxMS)
		case "timeout_ms":
			w.TimeoutMS = m.integer(maxMS)
		case "beats":
			w.Beats = m.beats()
		case "max_frame":
			w.MaxFrame = int(m.integer(MaxFrameLimit))
		case "min_beat_ms":
			w.MinBeatMS = m.integer(maxMS)
		case "spread_ms":
			w.SpreadMS = m.integer(maxMS)
		case "time":
			w.Time = m.text()
		case "expires_ms":
			w.ExpiresMS = m.integer(maxMS)
		}
	}
	if m.err != nil {
		return Welcome{}, m.err
	}
	w.V = version(w.V)
	return w, nil
}

// AppendConfig appends a CONFIG frame. The values are not checked.
func AppendConfig(dst []byte, c Config) []byte {
	if c.Token != "" {
		return appendControl(dst, OpConfig, c)
	}
	var body [maxConfig]byte
	b := appendMS(append(body[:0], '{'), `"beat_ms":`, c.BeatMS)
	b = appendMS(b, `"timeout_ms":`, c.TimeoutMS)
	b = appendMS(b, `"expires_ms":`, c.ExpiresMS)
	return AppendFrame(dst, OpConfig, append(b, '}'))
}

// maxConfig is the length of the longest CONFIG without a token: three integers of 20
// digits.
const maxConfig = len(`{"beat_ms":,"timeout_ms":,"expires_ms":}`) + 3*20

// appendMS appends a member to an object, unless it is 0.
func appendMS(dst []byte, name string, ms int64) []byte {
	if ms == 0 {
		return dst
	}
	if dst[len(dst)-1] != '{' {
		dst = append(dst, ',')
	}
	return strconv.AppendInt(append(dst, name...), ms, 10)
}

// ParseConfig returns the content of a CONFIG. An empty payload is {}: it only asks
// which values are in force.
//
// An error is an ErrBody and names the member. See ParseHello.
func ParseConfig(payload []byte) (Config, error) {
	if len(payload) == 0 {
		return Config{}, nil
	}
	var c Config
	m := openObject(OpConfig, payload)
	for m.next() {
		switch string(m.name) {
		case "beat_ms":
			c.BeatMS = m.integer(maxMS)
		case "timeout_ms":
			c.TimeoutMS = m.integer(maxMS)
		case "expires_ms":
			c.ExpiresMS = m.integer(maxMS)
		case "token":
			c.Token = m.text()
		}
	}
	if m.err != nil {
		return Config{}, m.err
	}
	return c, nil
}

// AppendGoaway appends a GOAWAY frame. The reason is treated as in AppendClose; the
// other values are not checked.
func AppendGoaway(dst []byte, g Goaway) []byte {
	g.Reason = clip(g.Reason)
	return appendControl(dst, OpGoaway, g)
}

// ParseGoaway returns the content of a GOAWAY, copied.
//
// An error is an ErrBody and names the member. See ParseHello; a code that is absent,
// 0 or above 65535 is refused too.
func ParseGoaway(payload []byte) (Goaway, error) {
	var g Goaway
	m := openObject(OpGoaway, payload)
	for m.next() {
		switch string(m.name) {
		case "code":
			g.Code = Code(m.integer(math.MaxUint16))
		case "reason":
			g.Reason = m.text()
		case "after_ms":
			g.AfterMS = m.integer(maxMS)
		case "addr":
			g.Addr = m.text()
		}
	}
	if m.err == nil && g.Code == 0 {
		m.err = bodyError(OpGoaway, "code is absent or 0")
	}
	if m.err != nil {
		return Goaway{}, m.err
	}
	return g, nil
}

func appendControl(dst []byte, op Op, v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("codec: " + err.Error()) // structs of strings and integers: cannot happen
	}
	return AppendFrame(dst, op, body)
}

func version(v int) int {
	if v == 0 {
		return Version
	}
	return v
}
