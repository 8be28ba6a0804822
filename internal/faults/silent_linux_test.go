package faults

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSilentPeers holds many real connections against the real command at
// the times of the profile fast: all beat, a tenth of them falls silent at random moments.
// Each of those is closed within the promised bound and for that reason, and
// none of the others is.
func TestSilentPeers(t *testing.T) {
	parallelSmoke(t)
	beatEvery := sized(600*time.Millisecond, 3*time.Second, 3*time.Second)
	timeout := sized(1500*time.Millisecond, 7500*time.Millisecond, 7500*time.Millisecond)
	stopping := sized(2*time.Second, 10*time.Second, 10*time.Second) // they fall silent within this
	conns := sized(1000, 10_000, 10_000)
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if most := int(min(files.Max, 1<<20)) * 9 / 10; conns > most {
		t.Logf("only %d connections instead of %d: a process may open %d files", most, conns, files.Max)
		conns = most
	}
	silent := conns / 10
	seed := rand.Uint64()
	t.Logf("seed %d", seed)

	times := []string{"--profile", "fast"}
	if size == smoke {
		times = []string{"--beat", beatEvery.String(), "--timeout", timeout.String()}
	}
	s := startServer(t, binary(t), append(times, "--drain", "2s")...)
	empty := resident(t, s.pid())
	spec := fleetSpec{Addr: s.addr, Conns: conns, Beat: beatEvery, GiveUp: timeout + 30*time.Second, Seed: seed}
	rnd := rand.New(rand.NewPCG(seed, 2))
	for range silent {
		spec.Stops = append(spec.Stops, time.Duration(rnd.Int64N(int64(stopping))))
	}
	start := time.Now()
	f := startFleetProcess(t, spec)
	f.wait("connected", limit)
	connecting := time.Since(start)
	full := resident(t, s.pid())
	atFull := s.metrics()
	start = time.Now()
	w := watch(t, s)
	f.wait("settled", stopping+spec.GiveUp+limit)
	took := time.Since(start)

	// The others still beat.
	m := s.metrics()
	s.check()
	late := resident(t, s.pid())
	r := f.finish()
	delays := w.stop()

	ds := judge(t, r, delays, beatEvery, timeout, nil)
	if r.Live != conns-silent {
		t.Errorf("%d peers were alive to the end, not %d", r.Live, conns-silent)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(silent) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, silent)
	}
	if refused := m.by("heartwheel_refused_total"); len(refused) != 0 {
		t.Errorf("the server refused %v", refused)
	}
	for name, want := range map[string]int{
		"heartwheel_accepted_total": conns, "heartwheel_connections": conns - silent,
		"heartwheel_handler_panics_total": 0, "heartwheel_outbox_bytes": 0,
		"heartwheel_expiry_error_seconds_count": silent,
	} {
		if got := m.value(name); got != float64(want) {
			t.Errorf("%s is %v, not %d", name, got, want)
		}
	}
	checkLateness(t, m, ds)
	// Every beat has been answered by now, so the server has counted it.
	after := s.metrics()
	for _, direction := range []string{"in", "out"} {
		if got := after.value("heartwheel_frames_total", `direction="`+direction+`"`,
			`op="beat"`); got != float64(r.Beats) {
			t.Errorf("the server counts %v beats %s, the client %d", got, direction, r.Beats)
		}
	}
	if r.Answers != r.Beats {
		t.Errorf("%d answers to %d beats", r.Answers, r.Beats)
	}

	drain := time.Now()
	if code := s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", s.cmd.ProcessState)
	}

	cpu := m.value("process_cpu_seconds_total") - atFull.value("process_cpu_seconds_total")
	const in = `direction="in"`
	beats := m.value("heartwheel_frames_total", in, `op="beat"`) -
		atFull.value("heartwheel_frames_total", in, `op="beat"`)
	t.Logf("%d connections within %s, %d of them fell silent; %d beats, slowest answer %s, client away at most %s",
		conns, connecting.Round(time.Millisecond), silent, r.Beats, r.Slowest.Round(100*time.Microsecond),
		r.LongPass.Round(100*time.Microsecond))
	t.Logf("closed after the timeout by: %s", spread(ds, lateBy))
	t.Logf("bound:                       %s (%s and what was measured)", spread(ds, bound), lateTicks*tick)
	t.Logf("resident memory: %d B a connection when all were there (%d kB before), %d B for each of the %d left",
		(full-empty)/int64(conns), empty>>10, (late-empty)/int64(conns-silent), conns-silent)
	t.Logf("server processor time: %.2f s in %s, %.1f %% of one; %.1f µs a beat",
		cpu, took.Round(time.Millisecond), 100*cpu/took.Seconds(), 1e6*cpu/beats)
	t.Logf("averted %v, stalls %v, wheel rebuilds %v; drained in %s", m.by("heartwheel_expiry_averted_total"),
		m.sum("heartwheel_stalls_total"), m.value("heartwheel_wheel_rebuilds_total"),
		time.Since(drain).Round(time.Millisecond))
}

// checkLateness holds the server's own figures of how late it was against the
// promise, widened by the most that was measured for any peer.
func checkLateness(t *testing.T, m metrics, ds []*detection) {
	t.Helper()
	widest := time.Duration(0)
	for _, d := range ds {
		widest = max(widest, d.widened)
	}
	for _, bar := range m.buckets("heartwheel_expiry_error_seconds") {
		if bar.count > 0 && bar.low >= lateTicks*tick {
			if bar.low >= lateTicks*tick+widest {
				t.Errorf("the server was more than %s late %v times by its own account; nothing "+
					"measured says more than %s more",
					bar.low, bar.count, widest)
			} else {
				t.Logf("the server was more than %s late %v times by its own account; up to %s were "+
					"measured", bar.low, bar.count, widest)
			}
		}
	}
}
