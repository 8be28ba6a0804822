package server

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// answers opens a connection to Echo, feeds it b and returns what comes back.
func answers(t *testing.T, cfg Config, b ...[]byte) (*rig, *Conn) {
	t.Helper()
	r := newRig(t, cfg, Echo{})
	c := r.open()
	r.feed(c, b...)
	return r, c
}

func TestAnswers(t *testing.T) {
	frame := func(op codec.Op, p []byte) []byte { return codec.AppendFrame(nil, op, p) }
	full := bytes.Repeat([]byte{0xA5}, codec.MaxPing)
	big := data(strings.Repeat("x", codec.DefaultMaxFrame-1))
	noGateway := codec.AppendError(nil, codec.CodeNoGateway, "no gateway")
	for _, tc := range []struct {
		name     string
		in, want []byte
	}{
		{"beat", beat, beat},
		{"PING", codec.AppendPing(nil, nil), codec.AppendPong(nil, nil)},
		{"PING with 125 bytes", codec.AppendPing(nil, full), codec.AppendPong(nil, full)},
		{"PONG", codec.AppendPong(nil, full), nil},
		{"DATA", data("hello"), data("hello")},
		{"empty DATA", data(""), data("")},
		{"largest DATA", big, big},
		{"REQ", codec.AppendReq(nil, 7, "s", []byte("p")), noGateway},
		{"RES", codec.AppendRes(nil, 7, 0, []byte("p")), noGateway},
		{"SUBSCRIBE", codec.AppendSubscribe(nil, 7, "g"), noGateway},
		{"UNSUBSCRIBE", codec.AppendUnsubscribe(nil, 7, "g"), noGateway},
		{"PUBLISH", codec.AppendPublish(nil, "g", []byte("p")), noGateway},
		{"first extension", frame(0x40, []byte("x")), nil},
		{"last extension", frame(0x7F, nil), nil},
		{"a mixture", slices.Concat(data("1"), beat, codec.AppendPing(nil, []byte("2")), frame(0x50, nil), data("3"),
			codec.AppendSubscribe(nil, 1, "g"), beat),
			slices.Concat(data("1"), beat, codec.AppendPong(nil, []byte("2")), data("3"), noGateway, beat)},
	} {
		for _, cut := range []int{0, 1, 7} { // bytes at a time; 0: all at once
			t.Run(fmt.Sprintf("%s/%d", tc.name, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parts := [][]byte{tc.in}
					if cut > 0 {
						if len(tc.in) > 2000 {
							cut *= 1000
						}
						parts = slices.Collect(slices.Chunk(tc.in, cut))
					}
					r, c := answers(t, Config{}, parts...)
					r.alive(c, "after the frames")
					if got := r.sock(c).out; !bytes.Equal(got, tc.want) {
						t.Errorf("answer %.80x, want %.80x", got, tc.want)
					}
					if n := r.sock(c).writes; cut == 0 && n > 1 && len(tc.in) < 1000 {
						t.Errorf("answers to one read left in %d writes", n)
					}
				})
			})
		}
	}
}

func TestRefusedBytes(t *testing.T) {
	header := func(n int) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	type refusal struct {
		name string
		b    []byte
		why  Reason
		code codec.Code
	}
	cases := []refusal{
		{"TLS", []byte{0x16}, ProtocolError, codec.CodeProtocolError},
		{"HTTP", []byte("G"), ProtocolError, codec.CodeProtocolError},
		{"little-endian", []byte{1, 0, 0, 0}, ProtocolError, codec.CodeProtocolError},
		{"0xFF", []byte{0xFF}, ProtocolError, codec.CodeProtocolError},
		{"oversize header", header(codec.DefaultMaxFrame + 1), FrameTooLarge, codec.CodeFrameTooLarge},
		{"oversize header and op", append(header(codec.DefaultMaxFrame+1), 3), FrameTooLarge, codec.CodeFrameTooLarge},
		{"largest header", header(codec.MaxFrameLimit), FrameTooLarge, codec.CodeFrameTooLarge},
		{"op 0x00", append(header(1), 0), ProtocolError, codec.CodeProtocolError},
		{"reserved op, body missing", append(header(100), 0x0F), ProtocolError, codec.CodeProtocolError},
		{"long PING", append(header(127), 1), ProtocolError, codec.CodeProtocolError},
		{"long PONG", append(header(127), 2), ProtocolError, codec.CodeProtocolError},
		{"WELCOME", codec.AppendWelcome(nil, codec.Welcome{}), ProtocolError, codec.CodeProtocolError},
		{"GOAWAY", codec.AppendGoaway(nil, codec.Goaway{Code: 3001}), ProtocolError, codec.CodeProtocolError},
		{"ERROR", codec.AppendError(nil, codec.CodeNotAllowed, "x"), ProtocolError, codec.CodeProtocolError},
		{"CLOSE of one byte", codec.AppendFrame(nil, codec.OpClose, []byte{1}), ProtocolError, codec.CodeProtocolError},
		{"CLOSE not UTF-8", codec.AppendFrame(nil, codec.OpClose, []byte{0x0B, 0xB8, 0xFF}),
			ProtocolError, codec.CodeProtocolError},
	}
	for _, op := range []codec.Op{0x0F, 0x10, 0x3F, 0x80, 0xC0, 0xFF} {
		cases = append(cases, refusal{fmt.Sprintf("op %#x", uint8(op)), codec.AppendFrame(nil, op, []byte("x")),
			ProtocolError, codec.CodeProtocolError})
	}
	for _, tc := range cases {
		for _, before := range [][]byte{nil, data("ok")} {
			t.Run(fmt.Sprintf("%s/behind=%v", tc.name, before != nil), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r, c := answers(t, Config{}, append(slices.Clone(before), tc.b...), data("never seen"))
					r.wantClose(c, tc.why, tc.code)
					all := r.frames(c)
					want := 1
					if before != nil {
						want = 2
					}
					if len(all) != want {
						t.Errorf("%d frames, want %d: %v", len(all), want, all)
					}
					if before != nil && string(all[0].Payload) != "ok" {
						t.Error("the answer to the frame before it is missing")
					}
					if n := r.stats().closed[tc.why]; n != 1 {
						t.Errorf("counted %d", n)
					}
				})
			})
		}
	}
}

// The limit is what the settings say, to the byte.
func TestMaxFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := answers(t, Config{MaxFrame: 300}, data(strings.Repeat("x", 299)))
		r.alive(c, "after the largest frame")
		r.feed(c, data(strings.Repeat("x", 300))[:4])
		r.wantClose(c, FrameTooLarge, codec.CodeFrameTooLarge)
	})
}

func TestPeerCloses(t *testing.T) {
	for name, b := range map[string][]byte{
		"with a code":          codec.AppendClose(nil, codec.CodePeerClosed, "bye"),
		"empty":                codec.AppendFrame(nil, codec.OpClose, nil),
		"with an unknown code": codec.AppendClose(nil, 9999, ""),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, c := answers(t, Config{}, slices.Concat(data("1"), beat, b, data("never seen")))
				r.wantEnd(c, PeerClosed, false)
				if got, want := r.sock(c).out, append(data("1"), beat...); !bytes.Equal(got, want) {
					t.Errorf("answers %x, want %x", got, want)
				}
			})
		})
	}
	t.Run("answers wait for a full socket", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			r.rec.onFrame = func(c *Conn, f codec.Frame) error { return c.Send(f.Op, f.Payload) }
			c := r.open()
			r.do(func() { r.sock(c).room = 3 })
			r.feed(c, slices.Concat(data("one"), data("two"), codec.AppendClose(nil, codec.CodePeerClosed, "")))
			r.alive(c, "with answers unsent")
			if n := r.rec.closes[c]; n != 0 {
				t.Errorf("%d close events", n)
			}
			r.do(func() { r.writable(c, 4) })
			r.alive(c, "with answers unsent")
			r.do(func() { r.writable(c, -1) })
			r.wantEnd(c, PeerClosed, false)
			if got, want := r.sock(c).out, append(data("one"), data("two")...); !bytes.Equal(got, want) {
				t.Errorf("answers %x, want %x", got, want)
			}
		})
	})
	t.Run("but not for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			r.rec.onFrame = func(c *Conn, f codec.Frame) error { return c.Send(f.Op, f.Payload) }
			c := r.open()
			r.do(func() { r.sock(c).room = 3 })
			from := time.Now()
			r.feed(c, slices.Concat(data("one"), codec.AppendClose(nil, codec.CodePeerClosed, "")))
			r.wait(3 * time.Second)
			within(t, "cut off", from, r.wantEnd(c, PeerClosed, true).at, closeGrace)
		})
	})
	t.Run("and nothing else is due meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{Timeout: 10 * time.Second}, nil)
			r.wait(time.Second)
			c := r.open()
			r.do(func() { r.sock(c).room = 3 })
			r.feed(c, data("long")[:6])
			r.wait(9500 * time.Millisecond)
			from := time.Now()
			posted(t, r, c, func(c *Conn) { c.Close(4500, "bye") })
			r.wait(time.Second) // its idle timeout and its frame's limit pass
			r.do(func() {
				if left := c.timer.Deadline() - r.loop.clock(); left <= 0 {
					t.Errorf("due all the time: next %v ago", time.Duration(-left))
				}
			})
			r.wait(2 * time.Second)
			within(t, "cut off", from, r.wantEnd(c, Application, true).at, closeGrace)
		})
	})
}

func TestFrameErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code codec.Code // of ERROR; 0: the connection is closed
	}{
		{"4002", &codec.Error{Code: codec.CodeNotAllowed, Text: "no"}, codec.CodeNotAllowed},
		{"4000", &codec.Error{Code: 4000, Text: "no"}, 4000},
		{"4499", &codec.Error{Code: 4499, Text: "no"}, 4499},
		{"wrapped", fmt.Errorf("because: %w", &codec.Error{Code: codec.CodeNotFound, Text: "no"}), codec.CodeNotFound},
		{"3500", &codec.Error{Code: codec.CodeBadToken, Text: "no"}, 0},
		{"4500", &codec.Error{Code: 4500, Text: "no"}, 0},
		{"any other", errors.New("no"), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{}, nil)
				r.rec.onFrame = func(*Conn, codec.Frame) error { return tc.err }
				c, other := r.open(), r.open()
				r.feed(c, data("x"))
				if tc.code == 0 {
					r.wantClose(c, Internal, codec.CodeInternalError)
				} else {
					r.alive(c, "after ERROR")
					if code, text, err := codec.ParseError(one(r, c, codec.OpError).Payload); code != tc.code ||
						text != "no" || err != nil {
						t.Errorf("ERROR %d %q %v", code, text, err)
					}
				}
				r.alive(other, "an error of another")
			})
		})
	}
	t.Run("panic", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{}, nil)
			r.rec.onFrame = func(c *Conn, f codec.Frame) error {
				_ = c.Send(codec.OpData, []byte("before"))
				panic("oh")
			}
			c, other := r.open(), r.open()
			r.feed(c, append(data("x"), data("y")...))
			r.wantClose(c, Internal, codec.CodeInternalError)
			if all := r.frames(c); len(all) != 2 || string(all[0].Payload) != "before" || len(r.rec.got) != 1 {
				t.Errorf("sent %v, got %v", all, r.rec.got)
			}
			r.feed(other, beat)
			one(r, other, codec.OpBeat)
			if n := r.stats().panics; n != 1 {
				t.Errorf("counted %d panics", n)
			}
		})
	})
}

func TestBeatFloor(t *testing.T) {
	const floor = 500 * time.Millisecond
	cfg := Config{BeatFloor: floor, Spread: 3 * time.Second}
	ping := codec.AppendPing(nil, []byte("p"))
	for name, b := range map[string][]byte{"beats": beat, "pings": ping} {
		t.Run("three early "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, cfg, Echo{})
				c := r.open()
				r.wait(time.Second)
				r.feed(c, b) // the first is never early
				for range 2 {
					r.wait(floor - 10*time.Millisecond)
					r.feed(c, b)
					r.alive(c, "after two early beats")
				}
				if n := len(r.take(c)); n != 3 {
					t.Errorf("%d answers", n)
				}
				r.wait(floor - 10*time.Millisecond)
				r.feed(c, b)
				r.wantEnd(c, BeatTooOften, false)
				g, err := codec.ParseGoaway(one(r, c, codec.OpGoaway).Payload)
				if err != nil || g.Code != codec.CodeBeatTooOften || g.AfterMS != 3000 {
					t.Errorf("GOAWAY %+v %v", g, err)
				}
			})
		})
	}
	t.Run("in one read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := answers(t, cfg, slices.Concat(beat, beat, ping, beat, data("never seen")))
			r.wantEnd(c, BeatTooOften, false)
			var ops []codec.Op
			for _, f := range r.frames(c) {
				ops = append(ops, f.Op)
			}
			if want := []codec.Op{codec.OpBeat, codec.OpBeat, codec.OpPong, codec.OpGoaway}; !slices.Equal(ops, want) {
				t.Errorf("sent %v, want %v", ops, want)
			}
		})
	})
	t.Run("not in a row", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := answers(t, cfg)
			for range 20 {
				r.feed(c, beat, beat, beat) // two early ones
				r.wait(floor + 2*time.Millisecond)
			}
			r.alive(c, "with never three in a row")
		})
	})
	t.Run("at the floor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := answers(t, cfg)
			for range 50 {
				r.feed(c, beat)
				r.wait(floor + 2*time.Millisecond)
			}
			r.alive(c, "at the floor")
		})
	})
	t.Run("data is free", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := answers(t, cfg)
			for range 50 {
				r.feed(c, data("x"), codec.AppendPong(nil, nil))
			}
			r.alive(c, "after much data")
		})
	})
	t.Run("no floor", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r, c := answers(t, Config{}, bytes.Repeat(beat, 500))
			r.alive(c, "without a floor")
			if n := len(r.frames(c)); n != 500 {
				t.Errorf("%d answers", n)
			}
		})
	})
}

// What is counted is what went over the wire.
func TestFrameCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := slices.Concat(beat, beat, codec.AppendPing(nil, []byte("p")), data("abc"),
			codec.AppendFrame(nil, 0x41, []byte("z")))
		r, c := answers(t, Config{}, in, data("part")[:5])
		s := r.stats()
		out := r.sock(c).out
		if s.bytesIn != uint64(len(in)) || s.bytesOut != uint64(len(out)) {
			t.Errorf("bytes in %d, out %d; want %d, %d", s.bytesIn, s.bytesOut, len(in), len(out))
		}
		if s.framesIn[codec.OpBeat] != 2 || s.framesIn[codec.OpPing] != 1 || s.framesIn[codec.OpData] != 1 ||
			s.framesIn[opLabels-1] != 1 {
			t.Errorf("frames in %v", s.framesIn)
		}
		if s.framesOut[codec.OpBeat] != 2 || s.framesOut[codec.OpPong] != 1 || s.framesOut[codec.OpData] != 1 {
			t.Errorf("frames out %v", s.framesOut)
		}
	})
}

// Beats that a stall has held up come all at once. They were sent in time, and
// their sender is not closed for it.
func TestBeatFloorForgivesWhatWasHeldUp(t *testing.T) {
	for _, ours := range []bool{false, true} {
		name := map[bool]string{false: "in the network", true: "by this process"}[ours]
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{BeatFloor: time.Second}, Echo{})
				c := r.open()
				for range 5 {
					r.wait(1100 * time.Millisecond)
					r.feed(c, beat)
				}
				if ours {
					r.do(func() { time.Sleep(5500 * time.Millisecond) })
				} else {
					r.wait(5500 * time.Millisecond)
				}
				for range 5 {
					r.feed(c, beat)
				}
				r.alive(c, "five beats that had waited together")
				for n := 0; n < 5 && !r.end(c).closed; n++ { // one more is due, three are early
					r.feed(c, beat)
				}
				r.wantEnd(c, BeatTooOften, false)
			})
		})
	}
}
