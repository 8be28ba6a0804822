package faults

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// A throttling watches how long the kernel keeps a cgroup off the processor.
type throttling struct {
	group *cgroup
	quit  chan struct{}
	done  chan []delay
}

func watchThrottling(group *cgroup) *throttling {
	const period = 20 * time.Millisecond // a fifth of the quota's
	w := &throttling{group, make(chan struct{}), make(chan []delay, 1)}
	go func() {
		var all []delay
		for at, was := monotonic(), w.total(); ; {
			over := false
			select {
			case <-w.quit:
				over = true
			case <-time.After(period):
			}
			now, is := monotonic(), w.total()
			all = append(all, delay{from: at, to: now, waited: is - was})
			if at, was = now, is; over {
				w.done <- all
				return
			}
		}
	}()
	return w
}

// total is the time of all processors together.
func (w *throttling) total() time.Duration {
	return time.Duration(w.group.value("cpu.stat", "throttled_time"))
}

func (w *throttling) stop() []delay {
	close(w.quit)
	return <-w.done
}

// flood has n connections say DATA and a beat and wait for the echo, over and
// over, and so takes what the server's quota gives. stop returns how many
// rounds they made, and what went wrong with any.
func flood(t *testing.T, addr string, n int) (stop func() (rounds int64, errs []error)) {
	t.Helper()
	quit, failed := make(chan struct{}), make(chan error, n)
	var count atomic.Int64
	for range n {
		c := dial(t, addr)
		go func() {
			for {
				select {
				case <-quit:
					failed <- nil
					return
				default:
				}
				if err := c.echoErr(); err != nil {
					failed <- err
					return
				}
				count.Add(1)
			}
		}()
	}
	return func() (int64, []error) {
		close(quit)
		var errs []error
		for range n {
			if err := <-failed; err != nil {
				errs = append(errs, err)
			}
		}
		return count.Load(), errs
	}
}

// TestProcessorQuota is the other half of case 15: the server may use a quarter
// of one processor, and a flood takes all of that, so that the kernel keeps it
// off for most of the time. No live peer is killed for it, and the silent ones
// are found, later by no more than what was measured.
func TestProcessorQuota(t *testing.T) {
	const quota, period = 25_000, 100_000 // µs
	conns, stopping := sized(200, 400, 3000), sized(2*time.Second, 5*time.Second, 30*time.Second)
	beatEvery := sized(600*time.Millisecond, time.Second, 3*time.Second)
	timeout := sized(1500*time.Millisecond, 2500*time.Millisecond, 7500*time.Millisecond)
	silent := conns / 10
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	group := newCgroup(t, "cpu")
	group.set("cpu.cfs_period_us", period)
	s := startCommand(t, command([]*cgroup{group}, binary(t),
		serverArgs("--beat", beatEvery.String(), "--timeout", timeout.String())...))
	spec := fleetSpec{Addr: s.addr, Conns: conns, Beat: beatEvery, GiveUp: timeout + 30*time.Second, Seed: seed}
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range silent {
		spec.Stops = append(spec.Stops, time.Duration(rnd.Int64N(int64(stopping))))
	}
	group.set("cpu.cfs_quota_us", quota)
	f := startFleetProcess(t, spec)
	f.wait("connected", limit)
	w, off := watch(t, s), watchThrottling(group)
	start, before := time.Now(), s.metrics()
	stop := flood(t, s.addr, 16)

	f.wait("settled", stopping+spec.GiveUp+limit)
	m := s.metrics()
	took := time.Since(start)
	s.check()
	r := f.finish()
	rounds, errs := stop()
	delays, throttled := w.stop(), off.stop()

	ds := judge(t, r, append(delays, throttled...), beatEvery, timeout, nil)
	if r.Live != conns-silent {
		t.Errorf("%d peers were alive to the end, not %d", r.Live, conns-silent)
	}
	for _, err := range errs {
		t.Errorf("one of the flood: %v", err)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(silent) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, silent)
	}
	var kept time.Duration
	for _, b := range throttled {
		kept += b.waited
	}
	cpu := m.value("process_cpu_seconds_total") - before.value("process_cpu_seconds_total")
	figure(t, 15, "quota 25 %%: %.0f %% of a processor used in %s (%.1f × T), kept off it for "+
		"%s; %d echoes of the flood",
		100*cpu/took.Seconds(), took.Round(time.Millisecond), took.Seconds()/timeout.Seconds(),
		kept.Round(time.Millisecond), rounds)
	figure(t, 15, "%d live of %d, 0 wanted killed: %d; slowest answer %s, stalls %v of %.1f s, averted %v",
		r.Live, conns-silent, conns-silent-r.Live, r.Slowest.Round(time.Millisecond), m.sum("heartwheel_stalls_total"),
		m.sum("heartwheel_stalled_seconds_total"), m.by("heartwheel_expiry_averted_total"))
	figure(t, 15, "%d dead found after the timeout by: %s", silent, spread(ds, lateBy))
	figure(t, 15, "bound:                             %s", spread(ds, bound))
	if kept == 0 {
		t.Skip("the quota never kept the server off the processor: this machine is too slow to use up a quarter of one")
	}
}
