package server

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

func TestLoopCheck(t *testing.T) {
	for _, tc := range []struct {
		name string
		want string // in the error
		// harm breaks something on the loop and returns what mends it.
		harm func(r *rig, c *Conn) (mend func())
	}{
		{"nothing", "", func(*rig, *Conn) func() { return func() {} }},
		{"a deadline too few", "armed", func(r *rig, c *Conn) func() {
			r.loop.wheel.Cancel(&c.timer)
			return func() { r.loop.wheel.Arm(&c.timer, r.loop.now, c.Timeout()) }
		}},
		{"a deadline too many", "armed", func(r *rig, c *Conn) func() {
			extra := r.loop.newConn(0, nil)
			r.loop.wheel.Arm(&extra.timer, r.loop.now, time.Minute)
			return func() { r.loop.wheel.Cancel(&extra.timer) }
		}},
		{"opened miscounted", "opened", func(r *rig, c *Conn) func() {
			r.loop.stats.opened++
			return func() { r.loop.stats.opened-- }
		}},
		{"closed miscounted", "closed", func(r *rig, c *Conn) func() {
			r.loop.stats.closed[Internal]++
			return func() { r.loop.stats.closed[Internal]-- }
		}},
		{"armed but new", "state 0", func(r *rig, c *Conn) func() {
			c.state = stateNew
			return func() { c.state = stateOpen }
		}},
		{"armed but closed", "state 5", func(r *rig, c *Conn) func() {
			c.state = stateClosed
			return func() { c.state = stateOpen }
		}},
		{"no socket", "state 2", func(r *rig, c *Conn) func() {
			s := c.sock
			c.sock = nil
			return func() { c.sock = s }
		}},
		{"of another loop", "state 2", func(r *rig, c *Conn) func() {
			l := c.loop
			c.loop = &loop{boot: "other"}
			return func() { c.loop = l }
		}},
		{"outbox bytes miscounted", "outboxes", func(r *rig, c *Conn) func() {
			r.loop.stats.outboxBytes--
			return func() { r.loop.stats.outboxBytes++ }
		}},
		{"an outbox lost", "outboxes", func(r *rig, c *Conn) func() {
			e := c.ext
			c.ext = nil
			return func() { c.ext = e }
		}},
		{"a slot later than its deadline", "wheel", func(r *rig, c *Conn) func() {
			last := c.timer.Last()
			c.timer.Touch(last - int64(30*time.Second))
			return func() { c.timer.Touch(last) }
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{}, nil)
				r.open()
				c := r.open()
				r.open()
				r.do(func() {
					r.sock(c).room = 2
					_ = c.Send(codec.OpData, []byte("waits"))
				})
				r.check()
				r.do(func() {
					mend := tc.harm(r, c)
					err := r.loop.check()
					if tc.want == "" && err != nil {
						t.Error(err)
					}
					if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
						t.Errorf("found %v, want an error with %q", err, tc.want)
					}
					mend()
				})
				r.check()
			})
		})
	}
}

// checked returns a Server that is nothing but the loops of rigs.
func checked(rigs ...*rig) *Server {
	a, err := admission.New(admission.Config{})
	if err != nil {
		panic(err)
	}
	s := &Server{wheel: rigs[0].wheel, admission: a}
	for i, r := range rigs {
		r.loop.index = i
		s.loops = append(s.loops, r.loop)
		r.do(func() {
			for range len(r.io.byConn) - r.gone {
				a.Admit(netip.Addr{})
			}
		})
	}
	return s
}

func TestServerCheck(t *testing.T) {
	setUp := func(t *testing.T) (*Server, *rig, *rig) {
		a, b := newRig(t, Config{Beat: time.Hour}, nil), newRig(t, Config{Beat: time.Hour}, nil)
		a.open()
		a.open()
		b.open()
		a.feed(a.open(), codec.AppendClose(nil, codec.CodePeerClosed, ""))
		s := checked(a, b)
		return s, a, b
	}
	has := func(t *testing.T, c Check, what string) {
		t.Helper()
		if c.OK || !strings.Contains(strings.Join(c.Problems, "\n"), what) {
			t.Errorf("%+v, want a problem with %q", c, what)
		}
	}
	t.Run("all is well", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, a, _ := setUp(t)
			a.loop.assigned.Add(1) // one is on its way
			s.admission.Admit(netip.Addr{})
			c := s.Check()
			if !c.OK || len(c.Problems) != 0 || c.Accepted != 4 || c.Closed != 1 || c.Sessions != 3 ||
				c.Connections != 4 || c.Entering != 1 {
				t.Errorf("%+v", c)
			}
			a.loop.assigned.Add(-1)
		})
	})
	t.Run("too many counted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, _ := setUp(t)
			s.admission.Admit(netip.Addr{})
			has(t, s.Check(), "4 connections are counted")
		})
	})
	t.Run("too few assigned", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, a, _ := setUp(t)
			a.loop.assigned.Add(-1)
			has(t, s.Check(), "on their way")
			a.loop.assigned.Add(1)
		})
	})
	t.Run("a loop is broken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, b := setUp(t)
			b.do(func() { b.loop.stats.outboxBytes++ })
			has(t, s.Check(), "event loop 1: outboxes")
			b.do(func() { b.loop.stats.outboxBytes-- })
		})
	})
	t.Run("a loop is stuck", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, b := setUp(t)
			stuck := make(chan struct{})
			go b.do(func() { <-stuck })
			synctest.Wait()
			has(t, s.Check(), "event loop 1 does not answer")
			st := s.Stats() // does not hang either
			if st.Accepted != 3 {
				t.Errorf("accepted %d by the loop that answers", st.Accepted)
			}
			close(stuck)
			b.wait(0)
			if c := s.Check(); !c.OK {
				t.Errorf("%+v", c)
			}
			if st := s.Stats(); st.Accepted != 4 || st.Closed["peer_closed"] != 1 {
				t.Errorf("%+v", st)
			}
		})
	})
	t.Run("a loop has ended", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, b := setUp(t)
			b.close()
			has(t, s.Check(), "event loop 1 does not answer")
		})
	})
}
