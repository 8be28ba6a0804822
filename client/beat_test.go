package client

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// The first beat comes after H × U(0.5, 1), the others after H ± 10 %.
func TestBeatTimes(t *testing.T) {
	for _, test := range []struct {
		draw float64
		want []float64
	}{
		{0, []float64{5, 14, 23, 32}},
		{0.5, []float64{7.5, 17.5, 27.5, 37.5}},
		{1, []float64{10, 21, 32}},
	} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.cfg.rand = func() float64 { return test.draw }
			c := r.connect()
			time.Sleep(40 * time.Second)
			wantTimes(t, "beats", r.peer().times(codec.OpBeat), test.want...)
			if b := c.Beats(); b.Sent != uint64(len(test.want)) || b.Answered != b.Sent ||
				b.Interval != 10*time.Second || b.Timeout != 25*time.Second {
				t.Errorf("figures %+v", b)
			}
			c.Close()
		})
	}
}

// Any frame that this side sends replaces a beat, also while the server sends.
func TestTrafficReplacesBeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.onFrame = func(p *peer, f codec.Frame) {
			if f.Op == codec.OpData {
				p.write(codec.AppendData(nil, f.Payload))
			}
		}
		r.cfg.OnData = func([]byte) {}
		c := r.connect()
		for range 20 {
			time.Sleep(4 * time.Second)
			if err := c.Send(t.Context(), []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		wantTimes(t, "beats", r.peer().times(codec.OpBeat))
		time.Sleep(25 * time.Second)
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 87.5, 97.5) // the gap of the first one, then 10 s
		c.Close()
	})
}

// Sending proves nothing: a silent server is asked, also while this side sends.
func TestSendingIsNoProofOfLife(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		talk := func(n int) {
			for range n {
				time.Sleep(2 * time.Second)
				_ = c.Send(t.Context(), []byte("x"))
			}
		}
		talk(15)
		synctest.Wait()
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 7.5, 17.5, 27.5)
		r.peer().setSilent(true)
		talk(15)
		synctest.Wait()
		var lost at[Event]
		for _, e := range r.states() {
			if e.what.State == Waiting {
				lost = e
			}
		}
		if lost.time != 47500*time.Millisecond || !errors.Is(lost.what.Err, ErrSilent) {
			t.Errorf("lost after %s: %v, want ErrSilent 10 s after the beat at 37.5 s", lost.time, lost.what.Err)
		}
		c.Close()
	})
}

// A server that is silent for 10 s after a beat is dead: not earlier, not later.
func TestSilentServerIsDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		time.Sleep(10 * time.Second) // the beat at 7.5 s was answered
		r.peer().setSilent(true)
		time.Sleep(17500*time.Millisecond - time.Nanosecond)
		synctest.Wait()
		if c.State() != Connected {
			t.Errorf("%s at %s: too early", c.State(), r.now())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if e := r.last(); e.what.State != Waiting || !errors.Is(e.what.Err, ErrSilent) || e.what.In != 2*time.Second {
			t.Errorf("at %s: %+v, want ErrSilent and 2 s, half of the server's spread", e.time, e.what)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		wantTimes(t, "dials", r.dialTimes(), 0, 29.5)
		if c.State() != Connected {
			t.Errorf("%s after the second dial", c.State())
		}
		c.Close()
	})
}

// One byte of any frame is an answer.
func TestAnyByteIsAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().setSilent(true)
		time.Sleep(17 * time.Second) // the beat was at 7.5 s
		r.peer().write([]byte{0})
		time.Sleep(10 * time.Second)
		if c.State() != Connected {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		time.Sleep(500*time.Millisecond - 1) // the beat of 17.5 s
		synctest.Wait()
		if c.State() != Connected {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if c.State() != Waiting {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		c.Close()
	})
}

// Where H is shorter than 10 s the first beat without an answer counts.
func TestSilentServerWithShortBeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.BeatMS, r.welcome.TimeoutMS = 3000, 7500
		c := r.connect()
		r.peer().setSilent(true)
		time.Sleep(12250*time.Millisecond - 1)
		synctest.Wait()
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 2.25, 5.25, 8.25, 11.25)
		if c.State() != Connected {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if c.State() != Waiting {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		c.Close()
	})
}

// A server that beats is answered; if it stops, it is asked.
func TestServerBeats(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.Beats = "server"
		r.cfg.ServerBeats = true
		c := r.connect()
		for range 3 {
			time.Sleep(10 * time.Second)
			r.peer().write(codec.AppendBeat(nil))
		}
		synctest.Wait()
		wantTimes(t, "answers", r.peer().times(codec.OpBeat), 10, 20, 30)
		wantTimes(t, "questions", r.peer().times(codec.OpPing))
		time.Sleep(16 * time.Second)
		wantTimes(t, "questions", r.peer().times(codec.OpPing), 45)
		r.peer().setSilent(true)
		time.Sleep(24*time.Second - 1)
		synctest.Wait()
		wantTimes(t, "questions", r.peer().times(codec.OpPing), 45, 60)
		if c.State() != Connected {
			t.Errorf("%s at %s", c.State(), r.now())
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if e := r.last(); !errors.Is(e.what.Err, ErrSilent) || e.time != 70*time.Second {
			t.Errorf("at %s: %v", e.time, e.what.Err)
		}
		if h := r.peer().frames(codec.OpHello); len(h) != 1 {
			t.Errorf("%d HELLOs", len(h))
		}
		c.Close()
	})
}

// CONFIG changes H at once.
func TestConfig(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.welcome.BeatMS, r.welcome.TimeoutMS = 60_000, 150_000
		c := r.connect()
		time.Sleep(time.Second)
		r.peer().write(codec.AppendConfig(nil, codec.Config{BeatMS: 2000, TimeoutMS: 5000}))
		time.Sleep(8500 * time.Millisecond)
		synctest.Wait()
		wantTimes(t, "beats", r.peer().times(codec.OpBeat), 2, 4, 6, 8)
		if b := c.Beats(); b.Interval != 2*time.Second || b.Timeout != 5*time.Second {
			t.Errorf("figures %+v", b)
		}
		r.peer().write(codec.AppendConfig(nil, codec.Config{BeatMS: 2000, TimeoutMS: 2000}))
		synctest.Wait()
		if e := r.last(); e.what.State != Waiting {
			t.Errorf("after a timeout as short as the beat: %s", e.what.State)
		}
		c.Close()
	})
}

// PING is answered with the same bytes; a REQ from the server is declined.
func TestAnswers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t)
		c := r.connect()
		r.peer().write(codec.AppendPing(nil, []byte("opaque")))
		r.peer().write(codec.AppendReq(nil, 7, "x", nil))
		synctest.Wait()
		if f := r.peer().frames(codec.OpPong); len(f) != 1 || string(f[0].Payload) != "opaque" {
			t.Errorf("PONGs %v", f)
		}
		if f := r.peer().frames(codec.OpRes); len(f) != 1 || string(f[0].Payload) != "\x00\x00\x00\x07\x01" {
			t.Errorf("RES %v", f)
		}
		c.Close()
	})
}

// Beat takes the answer of its own beat.
func TestBeatRoundTrip(t *testing.T) {
	for _, beats := range []string{"client", "server"} {
		bubble(t, func(t *testing.T) {
			r := newRig(t)
			r.welcome.Beats = beats
			c := r.connect()
			r.peer().setSilent(true)
			r.onFrame = func(p *peer, f codec.Frame) {
				switch f.Op {
				case codec.OpBeat:
					time.Sleep(30 * time.Millisecond)
					p.write(codec.AppendBeat(nil))
				case codec.OpPing:
					time.Sleep(30 * time.Millisecond)
					p.write(codec.AppendPong(nil, f.Payload))
				}
			}
			for range 3 {
				if rtt, err := c.Beat(t.Context()); err != nil || rtt != 30*time.Millisecond {
					t.Errorf("beats %s: %v, %v", beats, rtt, err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if _, err := c.Beat(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("beats %s: %v", beats, err)
			}
			c.Close()
		})
	}
}
