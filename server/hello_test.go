package server

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// one returns the single frame that was written to c since the last look.
func one(r *rig, c *Conn, op codec.Op) codec.Frame {
	r.t.Helper()
	all := r.take(c)
	if len(all) != 1 || all[0].Op != op {
		r.t.Fatalf("frames %v, want one %s", all, op)
	}
	return all[0]
}

func welcome(r *rig, c *Conn) codec.Welcome {
	r.t.Helper()
	w, err := codec.ParseWelcome(one(r, c, codec.OpWelcome).Payload)
	if err != nil {
		r.t.Fatal(err)
	}
	return w
}

func TestNegotiation(t *testing.T) {
	ms := time.Millisecond
	fast := profile(t, "fast")
	iot := profile(t, "iot")
	fixed := Config{Beat: 10 * time.Second, Timeout: 20 * time.Second}
	for _, tc := range []struct {
		name          string
		cfg           Config
		wish          time.Duration
		beat, timeout time.Duration
	}{
		{"no wish", Config{}, 0, 15 * time.Second, 37500 * ms},
		{"wish in the range", Config{}, 20 * time.Second, 20 * time.Second, 50 * time.Second},
		{"odd wish", Config{}, 1001 * ms, 1001 * ms, 2502 * ms},
		{"too short", Config{}, 1 * ms, time.Second, 2500 * ms},
		{"lower end", Config{}, time.Second, time.Second, 2500 * ms},
		{"too long", Config{}, time.Hour, time.Minute, 150 * time.Second},
		{"ten years", Config{}, 10 * 365 * 24 * time.Hour, time.Minute, 150 * time.Second},
		{"fast, no wish", fast, 0, 3 * time.Second, 7500 * ms},
		{"fast, too short", fast, 1 * ms, 500 * ms, 1250 * ms},
		{"fast, too long", fast, time.Hour, 15 * time.Second, 37500 * ms},
		{"iot, no wish", iot, 0, time.Minute, 150 * time.Second},
		{"iot, too short", iot, 1 * ms, 5 * time.Second, 12500 * ms},
		{"iot, too long", iot, time.Hour, 5 * time.Minute, 750 * time.Second},
		{"timeout set, no wish", fixed, 0, 10 * time.Second, 20 * time.Second},
		{"timeout set, short wish", fixed, 2 * time.Second, 2 * time.Second, 20 * time.Second},
		{"timeout set, long wish is T / 1.5", fixed, time.Minute, 13333 * ms, 20 * time.Second},
	} {
		for _, with := range []string{"HELLO", "CONFIG"} {
			t.Run(tc.name+"/"+with, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRig(t, tc.cfg, nil)
					c := r.open()
					var beat, timeout int64
					if with == "HELLO" {
						r.feed(c, hello(codec.Hello{BeatMS: tc.wish.Milliseconds()}))
						w := welcome(r, c)
						beat, timeout = w.BeatMS, w.TimeoutMS
					} else {
						r.feed(c, wish(tc.wish))
						m, err := codec.ParseConfig(one(r, c, codec.OpConfig).Payload)
						if err != nil {
							t.Fatal(err)
						}
						beat, timeout = m.BeatMS, m.TimeoutMS
					}
					if beat != tc.beat.Milliseconds() || timeout != tc.timeout.Milliseconds() {
						t.Errorf("told %d, %d ms, want %v, %v", beat, timeout, tc.beat, tc.timeout)
					}
					r.do(func() {
						if c.Beat() != tc.beat || c.Timeout() != tc.timeout {
							t.Errorf("in force %v, %v, want %v, %v", c.Beat(), c.Timeout(), tc.beat, tc.timeout)
						}
						_, before := r.cfg.decide(0)
						var want []time.Duration // the kernel is told of a new timeout only
						if before.Truncate(ms) != tc.timeout {
							want = []time.Duration{tc.timeout}
						}
						got := r.sock(c).timeouts
						for i := range got {
							got[i] = got[i].Truncate(ms)
						}
						if !slices.Equal(got, want) {
							t.Errorf("the socket was told %v, want %v", got, want)
						}
					})
				})
			})
		}
	}
}

func TestWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{MaxFrame: 1000, BeatFloor: 500 * time.Millisecond, Spread: 7 * time.Second}, nil)
		c, other := r.open(), r.open()
		r.feed(c, hello(codec.Hello{V: 1, Token: "t", Device: "d", Resume: "r"}))
		w := welcome(r, c)
		want := codec.Welcome{V: 1, Session: c.ID(), BeatMS: 15000, TimeoutMS: 37500, Beats: "client",
			MaxFrame: 1000, MinBeatMS: 500,
			SpreadMS: 7000, Time: time.Now().UTC().Format(time.RFC3339)}
		if w != want {
			t.Errorf("%+v\nwant %+v", w, want)
		}
		if c.ID() == other.ID() || !strings.HasPrefix(c.ID(), "boot-") {
			t.Errorf("ids %q and %q", c.ID(), other.ID())
		}
		r.feed(other, codec.AppendFrame(nil, codec.OpHello, nil)) // an empty payload is {}
		if w := welcome(r, other); w.BeatMS != 15000 {
			t.Errorf("%+v", w)
		}
	})
}

func TestBeatsWish(t *testing.T) {
	for _, tc := range []struct {
		def        Beats
		wish, want string
	}{
		{ClientBeats, "", "client"}, {ClientBeats, "client", "client"}, {ClientBeats, "server", "server"},
		{ServerBeats, "", "server"}, {ServerBeats, "client", "client"}, {ServerBeats, "server", "server"},
	} {
		t.Run(fmt.Sprintf("%s,%q", tc.def, tc.wish), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := profile(t, "fast")
				cfg.Beats = tc.def
				r := newRig(t, cfg, nil)
				c := r.open()
				r.feed(c, hello(codec.Hello{Beats: tc.wish}))
				if w := welcome(r, c); w.Beats != tc.want {
					t.Errorf("told %q, want %q", w.Beats, tc.want)
				}
				r.feed(c, beat)
				if n := len(r.take(c)); (n == 1) != (tc.want == "client") {
					t.Errorf("a beat got %d answers", n)
				}
				r.wait(3*time.Second + slack)
				if n := len(r.take(c)); (n == 1) != (tc.want == "server") {
					t.Errorf("%d beats after H of silence", n)
				}
			})
		})
	}
}

func TestHelloRefused(t *testing.T) {
	raw := func(op codec.Op, s string) []byte { return codec.AppendFrame(nil, op, []byte(s)) }
	refuseWith := func(err error) func(*Conn, codec.Hello) error {
		return func(*Conn, codec.Hello) error { return err }
	}
	for _, tc := range []struct {
		name  string
		send  [][]byte
		hello func(*Conn, codec.Hello) error
		why   Reason
		code  codec.Code
	}{
		{"version 2", [][]byte{hello(codec.Hello{V: 2})}, nil, BadVersion, codec.CodeBadVersion},
		{"twice", [][]byte{hello(codec.Hello{}), hello(codec.Hello{})}, nil, ProtocolError, codec.CodeProtocolError},
		{"after a beat", [][]byte{beat, hello(codec.Hello{})}, nil, ProtocolError, codec.CodeProtocolError},
		{"after data", [][]byte{data("x"), hello(codec.Hello{})}, nil, ProtocolError, codec.CodeProtocolError},
		{"not JSON", [][]byte{raw(codec.OpHello, "{")}, nil, ProtocolError, codec.CodeProtocolError},
		{"an array", [][]byte{raw(codec.OpHello, "[]")}, nil, ProtocolError, codec.CodeProtocolError},
		{"wrong type", [][]byte{raw(codec.OpHello, `{"beat_ms":"fast"}`)}, nil, ProtocolError, codec.CodeProtocolError},
		{"negative", [][]byte{raw(codec.OpHello, `{"beat_ms":-1}`)}, nil, ProtocolError, codec.CodeProtocolError},
		{"beats nobody", [][]byte{raw(codec.OpHello, `{"beats":"nobody"}`)}, nil,
			ProtocolError, codec.CodeProtocolError},
		{"not UTF-8", [][]byte{raw(codec.OpHello, "{\"token\":\"\xff\"}")}, nil,
			ProtocolError, codec.CodeProtocolError},
		{"too long", [][]byte{raw(codec.OpHello, `{"token":"`+strings.Repeat("x", codec.MaxControl)+`"}`)}, nil,
			ProtocolError, codec.CodeProtocolError},
		{"CONFIG not JSON", [][]byte{raw(codec.OpConfig, "no")}, nil, ProtocolError, codec.CodeProtocolError},
		{"CONFIG not UTF-8", [][]byte{raw(codec.OpConfig, "{\"\xff\":1}")}, nil,
			ProtocolError, codec.CodeProtocolError},
		{"CONFIG negative", [][]byte{raw(codec.OpConfig, `{"beat_ms":-5}`)}, nil,
			ProtocolError, codec.CodeProtocolError},
		{"by the handler", [][]byte{hello(codec.Hello{})}, refuseWith(errors.New("no")), BadToken, codec.CodeBadToken},
		{"by the handler with a code", [][]byte{hello(codec.Hello{})},
			refuseWith(&codec.Error{Code: codec.CodeBanned, Text: "go away"}), BadToken, codec.CodeBanned},
	} {
		for _, require := range []bool{false, true} {
			if require && len(tc.send) > 1 && tc.name != "twice" || require && strings.HasPrefix(tc.name, "CONFIG") {
				continue // the first frame is refused already
			}
			for _, together := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/require=%v/together=%v", tc.name, require, together), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						h := &helloRecorder{recorder: newRecorder(), onHello: tc.hello}
						r := newRig(t, Config{RequireHello: require}, h)
						c := r.open()
						send := append(slices.Clone(tc.send), data("never seen"))
						if together {
							r.feed(c, slices.Concat(send...))
						} else {
							r.feed(c, send...)
						}
						r.wantClose(c, tc.why, tc.code)
						for _, g := range h.got {
							if g.payload == "never seen" {
								t.Error("a frame behind it reached the handler")
							}
						}
						if require && tc.name != "twice" && h.opens[c] != 0 {
							t.Error("Open was called")
						}
						if n := r.stats().closed[tc.why]; n != 1 {
							t.Errorf("counted %d", n)
						}
					})
				})
			}
		}
	}
}

func TestHelloHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &helloRecorder{recorder: newRecorder()}
		h.onHello = func(c *Conn, m codec.Hello) error {
			if n := len(h.got); n != 0 {
				t.Errorf("%d frames before HELLO", n)
			}
			return c.Send(codec.OpData, []byte("from Hello"))
		}
		h.onOpen = func(c *Conn) { _ = c.Send(codec.OpData, []byte("from Open")) }
		r := newRig(t, Config{RequireHello: true}, h)
		c := r.open()
		if h.opens[c] != 0 {
			t.Error("Open before HELLO")
		}
		m := codec.Hello{V: 1, Token: "tok", Device: "dev", BeatMS: 2000, Beats: "client", Resume: "res"}
		r.feed(c, append(hello(m), data("first")...))
		if len(h.hellos) != 1 || h.hellos[0] != m {
			t.Errorf("Hello saw %+v", h.hellos)
		}
		if h.opens[c] != 1 || len(h.got) != 1 || h.got[0].payload != "first" {
			t.Errorf("opened %d times, frames %v", h.opens[c], h.got)
		}
		var order []string
		for _, f := range r.frames(c) {
			if f.Op == codec.OpWelcome {
				order = append(order, "WELCOME")
			} else {
				order = append(order, string(f.Payload))
			}
		}
		if want := []string{"from Hello", "WELCOME", "from Open"}; !slices.Equal(order, want) {
			t.Errorf("sent %q, want %q", order, want)
		}
	})
	t.Run("closes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := &helloRecorder{recorder: newRecorder()}
			h.onHello = func(c *Conn, m codec.Hello) error { c.Close(codec.CodeKicked, "not you"); return nil }
			r := newRig(t, Config{RequireHello: true}, h)
			c := r.open()
			r.feed(c, hello(codec.Hello{}))
			r.wantClose(c, Application, codec.CodeKicked)
			if n := len(r.frames(c)); n != 1 || h.opens[c] != 0 {
				t.Errorf("%d frames, opened %d times", n, h.opens[c])
			}
		})
	})
	t.Run("panics", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := &helloRecorder{recorder: newRecorder()}
			h.onHello = func(c *Conn, m codec.Hello) error { panic("oh") }
			r := newRig(t, Config{RequireHello: true}, h)
			c, other := r.open(), r.open()
			r.feed(c, hello(codec.Hello{}))
			r.wantClose(c, Internal, codec.CodeInternalError)
			r.alive(other, "a panic for another")
		})
	})
}

func TestRequireHello(t *testing.T) {
	t.Run("within 10 s, whatever else comes", func(t *testing.T) {
		for _, drip := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h := newRecorder()
				r := newRig(t, Config{RequireHello: true}, h)
				r.wait(1234 * time.Millisecond)
				from := time.Now()
				c := r.open()
				b := hello(codec.Hello{Token: strings.Repeat("x", 200)})
				for i := 0; drip && i < 99; i++ {
					r.wait(tick)
					r.feed(c, b[i:i+1])
				}
				r.alive(c, "within 10 s")
				r.wait(time.Until(from.Add(11 * time.Second)))
				within(t, "closed", from, r.wantClose(c, Incomplete, codec.CodeIncomplete).at, 10*time.Second)
				if h.opens[c] != 0 || h.closes[c] != 0 {
					t.Error("the handler heard of it")
				}
			})
		}
	})
	t.Run("in time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{RequireHello: true}, nil)
			c := r.open()
			r.wait(9900 * time.Millisecond)
			r.feed(c, hello(codec.Hello{}))
			from := time.Now()
			r.wait(30 * time.Second)
			r.alive(c, "after HELLO")
			r.wait(10 * time.Second)
			within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 37500*time.Millisecond)
		})
	})
	t.Run("timeout below 10 s", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := profile(t, "fast")
			cfg.RequireHello = true
			r := newRig(t, cfg, nil)
			from := time.Now()
			c := r.open()
			r.wait(11 * time.Second)
			within(t, "closed", from, r.wantClose(c, Incomplete, codec.CodeIncomplete).at, 10*time.Second)
		})
	})
	for name, b := range map[string][]byte{
		"beat": beat, "DATA": data("x"), "PING": codec.AppendPing(nil, nil), "CONFIG": wish(time.Second),
		"extension": codec.AppendFrame(nil, 0x40, nil),
		"REQ":       codec.AppendReq(nil, 1, "s", nil), "CLOSE": codec.AppendClose(nil, 3000, ""),
	} {
		t.Run("first is "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{RequireHello: true}, nil)
				c := r.open()
				r.feed(c, b, hello(codec.Hello{}))
				r.wantClose(c, ProtocolError, codec.CodeProtocolError)
				if len(r.rec.got) != 0 || r.rec.opens[c] != 0 || r.rec.closes[c] != 0 {
					t.Error("the handler heard of it")
				}
			})
		})
	}
}

// A wish that shortens the timeout takes effect although the deadline in the
// wheel was later, and each change reaches the socket.
func TestSetTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{}, nil)
		c := r.open()
		for _, w := range []time.Duration{15 * time.Second, 2 * time.Second, 2 * time.Second, 30 * time.Second, 0} {
			r.feed(c, wish(w))
		}
		want := []time.Duration{5 * time.Second, 75 * time.Second} // a CONFIG without a wish changes nothing
		if got := r.sock(c).timeouts; !slices.Equal(got, want) {
			t.Errorf("the socket was told %v, want %v", got, want)
		}
	})
}

// A CONFIG without a wish asks which values are in force, and changes nothing.
func TestConfigAsks(t *testing.T) {
	for name, payload := range map[string]string{"empty": "", "{}": "{}",
		"timeout only": `{"timeout_ms":5000}`, "zero": `{"beat_ms":0}`} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{}, nil)
				c := r.open()
				r.feed(c, hello(codec.Hello{BeatMS: 2000}))
				welcome(r, c)
				r.feed(c, codec.AppendFrame(nil, codec.OpConfig, []byte(payload)))
				m, err := codec.ParseConfig(one(r, c, codec.OpConfig).Payload)
				if err != nil || m.BeatMS != 2000 || m.TimeoutMS != 5000 {
					t.Errorf("%+v %v, want the values that HELLO got", m, err)
				}
				from := time.Now()
				r.wait(6 * time.Second)
				within(t, "expired", from, r.wantEnd(c, IdleTimeout, true).at, 5*time.Second)
			})
		})
	}
}

// Pings are no reason to wait longer for HELLO, also if there is always one to read.
func TestHelloLateDespitePings(t *testing.T) {
	onBodies(t, Config{RequireHello: true}, func(t *testing.T, r *edgeRig) {
		from := time.Now()
		c := r.open()
		r.do(func() { r.sock(c).setUnread(1) })
		for range 11 * 20 {
			r.sendFrames(c, masked(wsPing, "p"))
			r.wait(50 * time.Millisecond)
		}
		if d := r.wantEnd(c, Incomplete, false).at.Sub(from); d < 10*time.Second || d > 10*time.Second+lookAgain {
			t.Errorf("closed after %v", d)
		}
	})
}
