package faults

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// A freeze is a server that is stopped for a while (SIGSTOP) and then goes on,
// and its peers. Some of them fall silent in the timeout before it is stopped,
// or while it is.
type freeze struct {
	beat, timeout, length time.Duration
	live, dead            int

	s    *serverProcess
	f    *fleetProcess
	seed uint64

	// Set before over is closed. Times are monotonic: it stopped after from and
	// went on after to, and by answered it had answered a request made then.
	from, to, answered int64
	delays             []delay // before the freeze; judge adds those after it
	after              *watcher
	err                error
	over               chan struct{}
}

// TestFreeze stops the real command for half its idle timeout up to four of
// them. No live peer is closed for it, and every dead one once it has been
// silent for the timeout, less the time that the server could not listen.
func TestFreeze(t *testing.T) {
	parallelSmoke(t)
	const parts = 2 // lengths are counted in halves of the timeout
	lengths := sized([]int{1, 2, 4}, []int{1, 2, 4, 8}, []int{1, 2, 4, 8})
	if size == long {
		for _, n := range lengths {
			z := &freeze{beat: 3 * time.Second, timeout: 7500 * time.Millisecond, live: 10_000, dead: 1000}
			z.length = z.timeout * time.Duration(n) / parts
			t.Run(z.length.String(), func(t *testing.T) {
				z.start(t)
				z.judge(t)
			})
		}
		return
	}
	// All at the same time, whatever -parallel says.
	var all []*freeze
	for _, n := range lengths {
		z := &freeze{beat: sized[time.Duration](400, 600, 0) * time.Millisecond,
			timeout: sized[time.Duration](1000, 1500, 0) * time.Millisecond,
			live:    sized(60, 300, 0), dead: sized(30, 60, 0)}
		z.length = z.timeout * time.Duration(n) / parts
		z.start(t)
		all = append(all, z)
	}
	for _, z := range all {
		t.Run(z.length.String(), z.judge)
	}
}

// start starts the server and the peers, and has the server stopped when that
// is due. The dead ones stop at moments spread over the timeout before that and
// the freeze.
func (z *freeze) start(t *testing.T) {
	t.Helper()
	z.seed, z.over = rand.Uint64(), make(chan struct{})
	z.s = startServer(t, binary(t), "--beat", z.beat.String(), "--timeout", z.timeout.String(),
		"--drain", sized("100ms", "1s", "1s"))
	spec := fleetSpec{Addr: z.s.addr, Conns: z.live + z.dead, Beat: z.beat, GiveUp: z.timeout + z.length +
		30*time.Second, Seed: z.seed}
	rnd := rand.New(rand.NewPCG(z.seed, 2))
	for range z.dead {
		spec.Stops = append(spec.Stops, z.beat+time.Duration(rnd.Int64N(int64(z.timeout+z.length))))
	}
	z.f = startFleetProcess(t, spec)
	z.f.wait("connected", limit)
	epoch := time.Now()
	w := watch(t, z.s)
	go func() {
		defer close(z.over)
		time.Sleep(time.Until(epoch.Add(z.beat + z.timeout)))
		z.delays = w.stop()
		z.err = z.stop()
	}()
}

// stop stops the server for length, and waits until it answers again.
func (z *freeze) stop() error {
	z.from = monotonic()
	if err := z.s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(z.length)
	z.to = monotonic()
	if err := z.s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	_, _, err := z.s.get("/metrics")
	z.answered = monotonic()
	z.after = watch(z.s.t, z.s)
	return err
}

// judge waits for the end, holds the server against its promises and stops it.
func (z *freeze) judge(t *testing.T) {
	t.Logf("seed %d", z.seed)
	<-z.over
	if z.err != nil {
		t.Fatal(z.err)
	}
	z.f.wait("settled", 2*limit)
	m := z.s.metrics()
	z.s.check()
	r := z.f.finish()
	z.delays = append(z.delays, z.after.stop()...)

	ds := z.detections(t, r)
	if r.Live != z.live {
		t.Errorf("%d peers were alive to the end, not %d", r.Live, z.live)
	}
	if closed := m.by("heartwheel_closed_total"); len(closed) != 1 || closed["idle_timeout"] != float64(z.dead) {
		t.Errorf("the server closed %v, not just %d for idle_timeout", closed, z.dead)
	}
	if code := z.s.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("after SIGTERM it ended with %s", z.s.cmd.ProcessState)
	}
	t.Logf("bound: %s (%s and what was measured)", spread(ds, bound), lateTicks*tick)
	figure(t, 3, "stopped for %s of T = %s: %d of %d live peers closed; %d dead ones closed after what was left of "+
		"their timeout by %s; averted %v",
		z.length, z.timeout, z.live-r.Live, z.live, len(ds), spread(ds, lateBy),
		m.by("heartwheel_expiry_averted_total"))
}

// detections holds each dead peer against the promise. The freeze does not count as
// silence, and a beat that was not answered before counts from its end. The last
// moment is widened by how long the server then took to answer, and by what was
// measured of its and the client's being late. What the server credits for other
// stalls is in the samples; the freeze is in none of them.
func (z *freeze) detections(t *testing.T, r *fleetReport) []*detection {
	t.Helper()
	if r.Latest >= z.timeout-z.beat {
		t.Skipf("too slow a machine to judge: the client did not beat for %s", r.Latest)
	}
	for _, wrong := range r.Wrong {
		t.Error(wrong)
	}
	var ds []*detection
	before, inFreeze, late := 0, 0, 0
	for _, s := range r.Silent {
		if s.Answered == 0 || s.Seen == 0 || s.How != "reset" {
			t.Errorf("a dead peer: answered %v, closed %v, by %q", s.Answered != 0, s.Seen != 0, s.How)
			continue
		}
		d := &detection{silence: s, timeout: z.timeout}
		first, last := d.due()
		if s.Seen < first {
			t.Errorf("a dead peer was closed %s before its timeout of %s was over",
				time.Duration(first-s.Seen), z.timeout)
		}
		due, credit := first, credited(z.delays, s.LastBeat, s.Before)
		switch {
		case s.LastBeat < z.to && s.Answered >= z.to:
			inFreeze++
			due = z.to + int64(z.timeout)
		case s.Answered < z.to && s.Seen >= z.from &&
			last+int64(lateTicks*tick+credit+heldUp(z.delays, first, z.from)) >= z.from:
			before++
			due += z.to - z.from
			last += z.to - z.from
		}
		d.lateBy = time.Duration(s.Seen - due)
		d.widened = time.Duration(last-due) + time.Duration(s.Seen-s.Before) +
			credit + heldUp(z.delays, due, s.Before)
		if s.Seen > z.from {
			d.widened += time.Duration(z.answered - z.to)
		}
		d.bound = lateTicks*tick + d.widened
		ds = append(ds, d)
		if d.lateBy <= d.bound {
			continue
		}
		if late++; late <= 10 {
			t.Errorf("a dead peer was closed %s after what was left of its timeout; the bound is %s, "+
				"%s of it from measurements",
				d.lateBy, d.bound, d.widened)
		}
	}
	if late > 10 {
		t.Errorf("and %d times more", late-10)
	}
	t.Logf("%d dead peers had beaten last before the freeze and were not closed yet, %d in it", before, inFreeze)
	if before == 0 || inFreeze == 0 {
		t.Error("the freeze did not come between the last beats of the dead peers")
	}
	return ds
}
