package engine

import (
	"testing"
	"time"
)

func TestClassify(t *testing.T) {
	const ms, s = int64(time.Millisecond), int64(time.Second)
	// A connection up since 10 s, whose last frame was sent at 20 s; T is 7.5 s.
	live := peerClose{at: 22 * s, lastFrame: 20 * s, established: 10 * s, answered: true, timeout: 7500 * ms,
		bound: 200 * ms}
	with := func(change func(c *peerClose)) peerClose { c := live; change(&c); return c }
	for _, c := range []struct {
		name        string
		closing     peerClose
		want        closeClass
		early, late bool // of a detection
	}{
		{"kept its beats", live, classFalseKill, false, false},
		{"just before T", with(func(c *peerClose) { c.at = 27500*ms - 1 }), classFalseKill, false, false},
		{"at T: the generator was late", with(func(c *peerClose) { c.at = 27500 * ms }), classLapse, false, false},
		{"T unknown", with(func(c *peerClose) { c.timeout = 0 }), classUnexplained, false, false},
		{"draining as expected", with(func(c *peerClose) { c.code, c.drains = 3001, true }), classTold, false, false},
		{"draining", with(func(c *peerClose) { c.code = 3001 }), classUnexplained, false, false},
		{"draining in place of WELCOME", with(func(c *peerClose) { c.code, c.established = 3001, 0 }), classTold,
			false, false},
		{"overloaded", with(func(c *peerClose) { c.code = 3020 }), classRefused, false, false},
		{"beats too often", with(func(c *peerClose) { c.code = 3021 }), classTold, false, false},
		{"wrong bytes", with(func(c *peerClose) { c.code = 3501 }), classFalseKill, false, false},
		{"silence", with(func(c *peerClose) { c.code = 3012 }), classFalseKill, false, false},
		{"not connected yet", with(func(c *peerClose) { c.established = 0 }), classImmediate, false, false},
		{"never answered, young", with(func(c *peerClose) { c.answered, c.established = false, c.at-999*ms }),
			classImmediate, false, false},
		{"never answered, old", with(func(c *peerClose) { c.answered, c.established = false, c.at-s }),
			classFalseKill, false, false},
		{"answered, young", with(func(c *peerClose) { c.established = c.at - 1 }), classFalseKill, false, false},

		{"dead, on time", with(func(c *peerClose) { c.fault, c.expect, c.at = true, 27500*ms, 27500*ms }),
			classDetected, false, false},
		{"dead, at the bound", with(func(c *peerClose) { c.fault, c.expect, c.at = true, 27500*ms, 27700*ms }),
			classDetected, false, false},
		{"dead, beyond the bound", with(func(c *peerClose) { c.fault, c.expect, c.at = true, 27500*ms, 27700*ms+1 }),
			classDetected, false, true},
		{"dead, but the generator was busy", with(func(c *peerClose) {
			c.fault, c.expect, c.at, c.slack = true, 27500*ms, 27750*ms, 50*ms
		}), classDetected, false, false},
		{"dead, too early", with(func(c *peerClose) { c.fault, c.expect, c.at = true, 27500*ms, 27500*ms-1 }),
			classDetected, true, false},
		{"dead, with a code", with(func(c *peerClose) { c.fault, c.expect, c.code = true, 22*s, 3501 }), classDetected,
			false, false},
		{"half a frame, with its code", with(func(c *peerClose) { c.fault, c.expect, c.code = true, 22*s, 3502 }),
			classDetected, false, false},
		{"dead, but the server drains", with(func(c *peerClose) { c.fault, c.expect, c.code = true, 22*s, 3001 }),
			classUnexplained, false, false},
		{"dead, but the server drains as expected", with(func(c *peerClose) {
			c.fault, c.expect, c.code, c.drains = true, 22*s, 3001, true
		}), classTold, false, false},
		{"dead, T unknown", with(func(c *peerClose) { c.fault, c.expect, c.timeout = true, 22*s, 0 }), classDetected,
			false, false},
		{"dead before its first answer", with(func(c *peerClose) {
			c.fault, c.expect, c.answered, c.established = true, 22*s, false, 21900*ms
		}), classDetected, false, false},
	} {
		got := c.closing.classify()
		if got != c.want {
			t.Errorf("%s: class %d, want %d", c.name, got, c.want)
		}
		if got == classDetected && (c.closing.early() != c.early || c.closing.late() != c.late) {
			t.Errorf("%s: early %v late %v", c.name, c.closing.early(), c.closing.late())
		}
	}
}

func TestCloseExample(t *testing.T) {
	c := peerClose{at: 22e9, lastFrame: 20e9, code: 3501}
	for _, w := range []struct{ reason, want string }{
		{"bad op", `at 12.000 s connection 7, 2000 ms after its last whole frame: reset, code 3501 "bad op"`},
		{"", `at 12.000 s connection 7, 2000 ms after its last whole frame: reset, code 3501 (protocol_error)`},
	} {
		if e := c.example(10e9, 7, "reset", w.reason); e.Text != w.want || e.SilentMS != 2000 || e.AtS != 12 {
			t.Errorf("%+v, want %s", e, w.want)
		}
	}
}
