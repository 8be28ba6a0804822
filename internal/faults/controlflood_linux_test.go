package faults

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// floodKinds are frames that small peers send as fast as they can. The server closes
// those of the first kind, which come back; the others it serves.
var floodKinds = []struct {
	name string
	some []byte
}{
	{"CONFIG", append(codec.AppendConfig(nil, codec.Config{BeatMS: 3000}),
		codec.AppendConfig(nil, codec.Config{BeatMS: 5000})...)},
	{"beat", beat},
	{"PING", codec.AppendFrame(nil, codec.OpPing, make([]byte, 8))},
	{"DATA", codec.AppendData(nil, make([]byte, 16))},
}

// TestControlFlood has peers send one kind of frame as fast as they can. Others
// notice nothing: the silent ones are found in time, beats are answered within 50 ms
// (p99), less what was measured of this machine, and newcomers served within 1 s, beside
// what an idle server takes in the same moments. Other work of the machine spoils a round
// for the latter two: one good round of four is enough.
func TestControlFlood(t *testing.T) {
	const rounds = 4
	parallelSmoke(t)
	for _, kind := range floodKinds[:sized(1, 4, 4)] {
		t.Run(kind.name, func(t *testing.T) {
			for round := 1; ; round++ {
				late := controlFlood(t, kind.name, kind.some)
				if late == "" || t.Failed() {
					return
				}
				if round == rounds {
					t.Fatalf("in none of %d rounds others were served in time; the last one:%s", rounds, late)
				}
				t.Logf("round %d:%s", round, late)
			}
		})
	}
}

// controlFlood is one round. It returns how others were not served in time.
func controlFlood(t *testing.T, kind string, some []byte) (slow string) {
	const mostBeat, mostNew = 50 * time.Millisecond, time.Second
	flooders, neighbours := sized(4, 16, 64), sized(16, 100, 200)
	live, dying, coming := sized(50, 1000, 5000), sized(20, 200, 2000), sized(20, 100, 400)
	beatEvery := sized(300*time.Millisecond, time.Second, 3*time.Second)
	timeout := sized(750*time.Millisecond, 2500*time.Millisecond, 7500*time.Millisecond)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	spec := fleetSpec{Addr: "", Conns: live + dying, Beat: beatEvery, GiveUp: timeout + 30*time.Second, Seed: seed}
	for range dying {
		spec.Stops = append(spec.Stops, time.Duration(rand.Int64N(int64(beatEvery)))+timeout/4)
	}
	s := startServer(t, binary(t), "--beat", beatEvery.String(), "--timeout", timeout.String(), "--drain", "1s")
	idle := startServer(t, binary(t), "--timeout", "10m", "--drain", "1s")
	spec.Addr = s.addr
	f := startFleetProcess(t, spec)
	others := startFleetProcess(t, fleetSpec{Addr: s.addr, Conns: neighbours, Beat: 200 * time.Millisecond,
		Seed: seed + 1, Trace: true})
	for _, f := range []*fleetProcess{f, others} {
		f.wait("connected", limit)
	}
	others.wait("settled", limit)

	w, lag := watch(t, s), ownLag()
	connects, endFlood := startFlooders(s.addr, flooders, slices.Repeat(some, 64<<10/len(some)))
	from := monotonic()
	var newcomers latencies
	var all sync.WaitGroup
	for i, to := range []string{s.addr, idle.addr} {
		all.Go(func() { newcomers[i] = comeOneByOne(t, to, coming, timeout) })
	}
	f.wait("settled", limit)
	all.Wait()
	to := monotonic()
	floods := connects.Load()
	endFlood()
	late := lag()
	m := s.metrics()
	r, near := f.finish(), others.finish()
	delays := w.stop()

	ds := judge(t, r, delays, beatEvery, timeout, nil)
	if r.Live != live {
		t.Errorf("%d peers were alive to the end, not %d", r.Live, live)
	}
	for _, wrong := range near.Wrong {
		t.Error(wrong)
	}
	raw, n := slowest99(near.Trace, from, to, func(a answer) time.Duration { return a.Took })
	own, _ := slowest99(near.Trace, from, to, func(a answer) time.Duration {
		return a.Took - a.Away - withoutProcessor(delays, a.Sent, a.Sent+int64(a.Took))
	})
	if n == 0 || own > mostBeat {
		slow += fmt.Sprintf(" 99 of 100 of %d beats of others were answered within %s, less what was measured of this "+
			"machine: %s; the bound is %s.", n, raw, own, mostBeat)
	}
	new99, newIdle := newcomers.p99()
	if new99 > mostNew+newIdle {
		slow += fmt.Sprintf(" newcomers were served within %s (p99); the bound is %s and the %s of an idle server.",
			new99, mostNew, newIdle)
	}
	closed := m.by("heartwheel_closed_total")
	if kind == "CONFIG" && closed["rate_limited"] == 0 {
		t.Errorf("no peer was closed as rate_limited, but %v", closed)
	}
	s.check()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}
	figure(t, 22, "%d peers that send %s (%d connects): %d of %d others silent, closed after the timeout by %s; "+
		"99 of 100 of %d beats of others answered within %s (less what was measured of this machine: %s); "+
		"%d newcomers p99 %s (idle server %s); this process up to %s late",
		flooders, kind, floods, dying, live+dying, spread(ds, lateBy), n, raw.Round(100*time.Microsecond),
		max(own, 0).Round(100*time.Microsecond), coming, new99, newIdle, late.Round(100*time.Microsecond))
	return slow
}

// startFlooders has n peers write block as fast as the server takes it, and read the
// answers. Those that are closed come back after 100 ms.
func startFlooders(addr string, n int, block []byte) (connects *atomic.Int64, stop func()) {
	connects = new(atomic.Int64)
	quit := make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				if c, err := net.DialTimeout("tcp", addr, limit); err == nil {
					connects.Add(1)
					floodOne(c, block, quit)
				}
				select {
				case <-quit:
					return
				case <-time.After(100 * time.Millisecond):
				}
			}
		})
	}
	return connects, func() { close(quit); all.Wait() }
}

// floodOne is one connection of a flooder.
func floodOne(c net.Conn, block []byte, quit <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c)
	}()
	go func() {
		select {
		case <-quit:
		case <-ended:
		}
		_ = c.Close()
	}()
	for {
		if _, err := c.Write(block); err != nil {
			break
		}
	}
	_ = c.Close()
	<-ended
}

// comeOneByOne has n peers connect, each as part of a stream that takes that long, and
// returns after what time each had its first answer.
func comeOneByOne(t *testing.T, addr string, n int, during time.Duration) (took []time.Duration) {
	var all sync.WaitGroup
	took = make([]time.Duration, n)
	for i := range n {
		all.Go(func() {
			time.Sleep(during * time.Duration(i) / time.Duration(n))
			start := time.Now()
			c, err := net.DialTimeout("tcp", addr, limit)
			if err != nil {
				t.Errorf("a newcomer: %v", err)
				return
			}
			defer func() { _ = c.Close() }()
			_ = c.SetDeadline(time.Now().Add(limit))
			_, _ = c.Write(beat)
			if _, err := io.ReadFull(c, make([]byte, len(beat))); err != nil {
				t.Errorf("a newcomer: %v", err)
			}
			took[i] = time.Since(start)
		})
	}
	all.Wait()
	return took
}
