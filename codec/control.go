package codec

import (
	"encoding/json"
	"math"
)

// maxMS is the largest value of a member in milliseconds: ten years of 365
// days. So time.Duration(ms) * time.Millisecond never overflows.
const maxMS = 10 * 365 * 24 * 60 * 60 * 1000

// Who beats on a connection: the values of "beats".
const (
	beatsClient = "client"
	beatsServer = "server"
)

// Hello is the client's first frame: who it is and what it wishes. Every member
// is optional; the zero value says nothing.
type Hello struct {
	// V is the protocol version. 0 means 1, and ParseHello never returns 0.
	// Versions the receiver does not speak are for it to refuse (CodeBadVersion).
	V      int    `json:"v,omitempty"`
	Token  string `json:"token,omitempty"`
	Device string `json:"device,omitempty"`
	// BeatMS is the wished beat interval in milliseconds; 0 is no wish.
	BeatMS int64 `json:"beat_ms,omitempty"`
	// Beats is who the client wishes to beat: "client", "server", or "" for no
	// wish.
	Beats string `json:"beats,omitempty"`
	// Resume is the session to go on with; "" for a new one.
	Resume string `json:"resume,omitempty"`
}

// Welcome is the server's answer to HELLO: what it decided.
type Welcome struct {
	// V is the protocol version. 0 means 1; it is written and returned as 1.
	V       int    `json:"v"`
	Session string `json:"session"`
	// BeatMS and TimeoutMS are the beat interval and the idle timeout in force,
	// in milliseconds.
	BeatMS    int64 `json:"beat_ms"`
	TimeoutMS int64 `json:"timeout_ms"`
	// Beats is who beats: "client" or "server"; "" if the server did not say.
	Beats string `json:"beats"`
	// MaxFrame is the largest length the server accepts, in bytes.
	MaxFrame int `json:"max_frame"`
	// MinBeatMS is the shortest interval between beats the server bears, in
	// milliseconds; 0 is no such limit.
	MinBeatMS int64 `json:"min_beat_ms"`
	// SpreadMS is the window, in milliseconds, over which to spread a reconnect.
	SpreadMS int64 `json:"spread_ms"`
	// Time is the server's clock as RFC 3339. The codec does not look into it.
	Time string `json:"time"`
}

// Config is, from the server, the values in force from now on; from the client,
// a wish.
type Config struct {
	// BeatMS is the beat interval in milliseconds; 0 is no wish.
	BeatMS int64 `json:"beat_ms,omitempty"`
	// TimeoutMS is the idle timeout in milliseconds; 0 is no wish.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// Goaway asks the client to connect again, elsewhere if Addr is given.
type Goaway struct {
	// Code says why; it is never 0.
	Code Code `json:"code"`
	// Reason is for a person to read, at most MaxReason bytes when written.
	Reason string `json:"reason"`
	// AfterMS is how long to wait before connecting again, in milliseconds.
	AfterMS int64 `json:"after_ms"`
	// Addr is where to connect, host:port; "" is the same address again. The
	// codec does not look into it.
	Addr string `json:"addr,omitempty"`
}

// AppendHello appends a HELLO frame. The values are not checked: the peer
// refuses what ParseHello refuses. A token long enough to bring the JSON above
// MaxControl is refused too; HeaderSize+1+MaxControl is the largest useful
// growth of dst.
func AppendHello(dst []byte, h Hello) []byte {
	return appendControl(dst, OpHello, h)
}

// ParseHello returns the content of a HELLO, all of it copied. An empty payload
// is {}: a HELLO that says nothing.
//
// An error is an ErrBody and names the member. All four JSON bodies refuse: a
// payload above MaxControl, not UTF-8 or not exactly one object; a member of
// the wrong type; an integer below 0 or, for milliseconds, above ten years.
// Besides: beats is neither "client" nor "server".
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
			h.Resume = m.text()
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

// ParseWelcome returns the content of a WELCOME, all of it copied. A member
// that is absent is its zero value, except V, which is then 1.
//
// An error is an ErrBody and names the member. Besides the errors of all JSON:
// beats is neither "client" nor "server", max_frame is above MaxFrameLimit.
func ParseWelcome(payload []byte) (Welcome, error) {
	var w Welcome
	m := openObject(OpWelcome, payload)
	for m.next() {
		switch string(m.name) {
		case "v":
			w.V = int(m.integer(math.MaxInt32))
		case "session":
			w.Session = m.text()
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
	return appendControl(dst, OpConfig, c)
}

// ParseConfig returns the content of a CONFIG. An empty payload is {}: no wish,
// only the question which values are in force.
//
// An error is an ErrBody and names the member.
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
		}
	}
	if m.err != nil {
		return Config{}, m.err
	}
	return c, nil
}

// AppendGoaway appends a GOAWAY frame. The reason is cut and cleaned as in
// AppendClose; the other values are not checked.
func AppendGoaway(dst []byte, g Goaway) []byte {
	g.Reason = clip(g.Reason)
	return appendControl(dst, OpGoaway, g)
}

// ParseGoaway returns the content of a GOAWAY, all of it copied.
//
// An error is an ErrBody and names the member. Besides the errors of all JSON:
// code is absent, 0 or above 65535.
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
