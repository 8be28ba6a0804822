package client

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// adapting returns a rig whose client searches and whose server grants what is requested,
// clamped to low and top.
func adapting(t *testing.T, a *Adaptive, low, top time.Duration) *rig {
	r := newRig(t)
	r.cfg.Adaptive = a
	decide := func(requestMS int64) (beatMS, timeoutMS int64) {
		beatMS = min(max(requestMS, low.Milliseconds()), top.Milliseconds())
		return beatMS, beatMS * 5 / 2
	}
	r.greet = func(p *peer) {
		w := welcomed
		w.BeatMS, w.TimeoutMS = decide(requested(p)[0].Milliseconds())
		p.write(codec.AppendWelcome(nil, w))
	}
	r.onFrame = func(p *peer, f codec.Frame) {
		if f.Op == codec.OpConfig {
			var cfg codec.Config
			all := requested(p)
			cfg.BeatMS, cfg.TimeoutMS = decide(all[len(all)-1].Milliseconds())
			p.write(codec.AppendConfig(nil, cfg))
		}
	}
	return r
}

// requested returns the intervals that the client requested in HELLO and CONFIG.
func requested(p *peer) (all []time.Duration) {
	for _, f := range append(p.frames(codec.OpHello), p.frames(codec.OpConfig)...) {
		var ms int64
		if f.Op == codec.OpHello {
			h, err := codec.ParseHello(f.Payload)
			if err != nil {
				p.rig.t.Error(err)
			}
			ms = h.BeatMS
		} else {
			c, err := codec.ParseConfig(f.Payload)
			if err != nil {
				p.rig.t.Error(err)
			}
			ms = c.BeatMS
		}
		all = append(all, time.Duration(ms)*time.Millisecond)
	}
	return all
}

// requests returns those of all connections.
func (r *rig) requests() (all []time.Duration) {
	r.mu.Lock()
	peers := slices.Clone(r.peers)
	r.mu.Unlock()
	for _, p := range peers {
		all = append(all, requested(p)...)
	}
	return all
}

// losses returns how many connections were lost.
func (r *rig) losses() (n int) {
	for _, e := range r.states() {
		if e.what.State == Waiting {
			n++
		}
	}
	return n
}

// A forgetful is a connection through a NAT that drops its mapping, after which writes
// vanish, or through a proxy that closes it.
type forgetful struct {
	net.Conn
	after time.Duration // how much silence it survives
	close *time.Timer   // a proxy's; nil: a NAT

	mu   sync.Mutex
	last time.Time // guarded by mu: when a byte passed
	gone bool      // guarded by mu
}

// passes notes that bytes pass, and reports whether they do.
func (f *forgetful) passes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = f.gone || time.Since(f.last) >= f.after
	f.last = time.Now()
	if f.close != nil && !f.gone {
		f.close.Reset(f.after)
	}
	return !f.gone
}

func (f *forgetful) Write(b []byte) (int, error) {
	if !f.passes() {
		return len(b), nil
	}
	return f.Conn.Write(b)
}

func (f *forgetful) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	if n > 0 {
		f.passes()
	}
	return n, err
}

// forgetting is a Config.DialContext to the rig's server through a forgetful connection.
func (r *rig) forgetting(after time.Duration, proxy bool) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := r.dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		f := &forgetful{Conn: nc, after: after, last: time.Now()}
		if proxy {
			f.close = time.AfterFunc(after, r.peer().hangUp)
		}
		return f, nil
	}
}

// Through a NAT or proxy that drops a silent connection, the interval settles below that
// time at the cost of few connections, and then none is lost for 500 times as long.
func TestAdaptivePath(t *testing.T) {
	for _, path := range []struct {
		after time.Duration
		proxy bool
	}{
		{5 * time.Second, false}, {60 * time.Second, false}, {300 * time.Second, false},
		{5 * time.Second, true}, {60 * time.Second, true}, {300 * time.Second, true},
	} {
		most, least := 0, path.after
		for seed := range uint64(3) {
			bubble(t, func(t *testing.T) {
				r := adapting(t, &Adaptive{}, time.Second, time.Hour)
				var mu sync.Mutex
				random := rand.New(rand.NewPCG(seed, 5))
				r.cfg.rand = func() float64 {
					mu.Lock()
					defer mu.Unlock()
					return random.Float64()
				}
				r.cfg.DialContext = r.forgetting(path.after, path.proxy)
				c := r.connect()
				time.Sleep(100*path.after + 10*time.Minute)
				searching := r.losses()
				time.Sleep(500 * path.after)
				h := c.Beats().Interval
				if n := r.losses() - searching; n != 0 || c.State() != Connected || searching > mostLosses ||
					h*11/10 >= path.after || h < path.after*7/10 {
					t.Errorf("%+v, seed %d: beats every %s, %d lost before it had settled, %d later", path, seed, h,
						searching, n)
				}
				most, least = max(most, searching), min(least, h)
				c.Close()
			})
		}
		t.Logf("%+v: at most %d connections lost, beats every %s or less often", path, most, least)
	}
}
