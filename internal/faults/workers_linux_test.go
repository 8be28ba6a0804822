package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"heartwheel/codec"
)

// A workerSet is a supervisor with workers. Its binary can be replaced.
type workerSet struct{ *chain }

func startWorkers(t *testing.T, n int, args ...string) *workerSet {
	t.Helper()
	return &workerSet{startChain(t, append([]string{"--workers", strconv.Itoa(n)}, args...)...)}
}

// A workerCheck is what /debug/check says of one process.
type workerCheck struct {
	Worker, PID int
	Draining    bool
	Connections int
}

// workers asks for the processes. What they are has to hold together.
func (f *workerSet) workers() []workerCheck {
	f.t.Helper()
	status, body, err := f.get("/debug/check")
	var c struct {
		OK          bool
		Connections int
		Workers     []workerCheck
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &c)
	}
	sum := 0
	for _, w := range c.Workers {
		sum += w.Connections
	}
	if err != nil || status != http.StatusOK || !c.OK || sum != c.Connections {
		f.t.Fatalf("/debug/check: %d %v %s", status, err, body)
	}
	return c.Workers
}

// perWorker reads the metrics of each worker: the values of one by that label.
func (f *workerSet) perWorker(name string) map[string]float64 {
	f.t.Helper()
	_, body, err := f.get("/metrics?per_worker=1")
	if err != nil {
		f.t.Fatal(err)
	}
	m, err := parseMetrics(body)
	if err != nil {
		f.t.Fatal(err)
	}
	by := map[string]float64{}
	for key, v := range m {
		base, labels, _ := strings.Cut(key, "{")
		if base != name {
			continue
		}
		_, worker, _ := strings.Cut(labels, `worker="`)
		worker, _, _ = strings.Cut(worker, `"`)
		by[worker] += v
	}
	return by
}

func (f *workerSet) await503(part string) {
	f.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		status, body, err := f.get("/readyz")
		if err == nil && status == http.StatusServiceUnavailable && strings.Contains(body, part) {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("/readyz: %d %s %v, not 503 with %q", status, body, err, part)
		}
	}
}

func (f *workerSet) awaitReady() {
	f.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		status, body, err := f.get("/readyz")
		if err == nil && status == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("/readyz: %d %s %v", status, body, err)
		}
	}
}

// awaitGone waits until none of the processes is there.
func awaitGone(t *testing.T, workers []workerCheck) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		i := slices.IndexFunc(workers, func(w workerCheck) bool {
			_, _ = syscall.Wait4(w.PID, nil, syscall.WNOHANG, nil) // it may have become ours: see startChain
			return syscall.Kill(w.PID, 0) == nil
		})
		if i < 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("worker %d, process %d, is still there", workers[i].Worker, workers[i].PID)
		}
	}
}

// TestWorkersShare starts workers and deals connections out over them: how even
// that is, and that what the ops address says of all is the sum of what it says
// of each.
func TestWorkersShare(t *testing.T) {
	parallelSmoke(t)
	n, conns := sized(4, 6, 56), sized(200, 600, 8000)
	f := startWorkers(t, n, "--drain", "1s")
	start := f.awaitLine("that it listens", 0, func(l logLine) bool { return l.msg == "listening" }).took
	for _, w := range f.workers() {
		if w.Connections != 0 {
			t.Errorf("a new worker has %d connections", w.Connections)
		}
	}
	var all []*conn
	for range conns {
		c := dial(t, f.addr)
		c.echo()
		all = append(all, c)
	}
	m := f.metrics()
	for name, want := range map[string]float64{
		"heartwheel_connections": float64(conns), "heartwheel_accepted_total": float64(conns), "heartwheel_ready": 1,
		"heartwheel_workers": float64(n), "heartwheel_workers_ready": float64(n), "heartwheel_worker_restarts_total": 0,
	} {
		if got := m.value(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if got := m.value("heartwheel_frames_total", `direction="in"`, `op="beat"`); got != float64(conns) {
		t.Errorf("%v beats are counted, of %d", got, conns)
	}
	total := func(by map[string]float64) (sum float64) {
		for _, v := range by {
			sum += v
		}
		return sum
	}
	for _, name := range []string{"heartwheel_connections", "heartwheel_accepted_total",
		"heartwheel_frames_total", "heartwheel_bytes_total"} {
		by := f.perWorker(name)
		sum := total(by)
		got := m.value(name)
		if math.IsNaN(got) { // it has labels
			got = m.sum(name)
		}
		if got != sum {
			t.Errorf("%s is %v, and %v over the workers", name, got, sum)
		}
		if len(by) != n {
			t.Errorf("%s has the workers %v", name, by)
		}
	}
	const lag = "heartwheel_loop_lag_seconds_count" // it grows all the time
	low := total(f.perWorker(lag))
	if got, high := f.metrics().value(lag, `loop="0"`), total(f.perWorker(lag)); got < low || got > high || low == 0 {
		t.Errorf("the histograms of all hold %v values; those of each held %v, and then %v", got, low, high)
	}
	most, mean := 0.0, float64(conns)/float64(n)
	for _, v := range f.perWorker("heartwheel_connections") {
		most = max(most, v)
	}
	// Dealt out by chance the number of each has a deviation of √mean: seven of
	// them are met once in 10¹¹ workers.
	if bound := mean + 7*math.Sqrt(mean); most > bound {
		t.Errorf("one worker has %v of %d connections, the mean is %.0f and the bound %.0f", most, conns, mean, bound)
	}
	for _, c := range all {
		c.reset()
	}
	f.await("all have gone", func(m metrics) bool { return m.value("heartwheel_connections") == 0 })
	f.workers()
	if code := f.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	t.Logf("%d workers ready after %s; %d connections, the fullest worker %v, the mean %.1f",
		n, start, conns, most, mean)
}

// TestWorkerKilled kills one worker: only its clients lose their connection,
// connections that wait in its backlog are served by the next, and the shared limit
// does not count the dead.
func TestWorkerKilled(t *testing.T) {
	parallelSmoke(t)
	const n, room = 4, 80
	f := startWorkers(t, n, "--drain", "1s", "--max-connections", strconv.Itoa(room))
	good := startNeighbours(t, f.addr, room)
	full := dial(t, f.addr)
	full.wantGoaway(codec.CodeOverloaded)
	if got := f.metrics().value("heartwheel_connections_max"); got != room {
		t.Errorf("the limit of all is %v, want %d", got, room)
	}
	workers := f.workers()
	victim := workers[slices.IndexFunc(workers, func(w workerCheck) bool { return w.Connections > 0 })]

	f.installText(t, "#!/bin/sh\necho out of order >&2\nexit 3\n")
	skip := len(f.logLines())
	f.signal(t, victim.PID, syscall.SIGKILL)
	f.await503(fmt.Sprintf("worker %d is waiting to be restarted", victim.Worker))
	if got := f.metrics().value("heartwheel_ready"); got != 0 {
		t.Errorf("without one worker heartwheel_ready is %v", got)
	}
	// Some of these find their worker, a share waits in the sockets of the dead.
	var waiting []*conn
	for range victim.Connections {
		waiting = append(waiting, dial(t, f.addr))
	}
	f.awaitLine("a start in vain", skip, func(l logLine) bool {
		return strings.Contains(l.text, `"level":"ERROR"`) &&
			strings.Contains(l.text, fmt.Sprintf(`"worker":%d`, victim.Worker)) &&
			strings.Contains(l.text, `"next_in":"400ms"`) && strings.Contains(l.text, `"stderr":"out of order"`)
	})
	f.install(t, binary(t))
	f.awaitReady()
	for _, c := range waiting {
		c.echo()
	}
	full = dial(t, f.addr)
	full.wantGoaway(codec.CodeOverloaded)
	err := good.stop()
	lost := 0
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		lost = len(joined.Unwrap())
	}
	if lost != victim.Connections {
		t.Errorf("%d clients lost their connection, of %d that the killed worker had: %v",
			lost, victim.Connections, err)
	}
	m := f.metrics()
	if got := m.value("heartwheel_worker_restarts_total"); got < 2 {
		t.Errorf("%v restarts are counted", got)
	}
	if got := m.value("heartwheel_connections"); got != room {
		t.Errorf("%v connections, want %d", got, room)
	}
	for i, w := range f.workers() {
		if same := w.PID == workers[i].PID; same == (w.Worker == victim.Worker) {
			t.Errorf("worker %d was process %d and is %d", w.Worker, workers[i].PID, w.PID)
		}
	}
	if code := f.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	t.Logf("%d of %d connections lost with one of %d workers", lost, room, n)
}

// TestWorkersReplaced replaces all workers while clients come at a fixed rate:
// none is refused or reset, those that stay get GOAWAY, and no count is lost with
// the workers.
func TestWorkersReplaced(t *testing.T) {
	parallelSmoke(t)
	const drain = 2 * time.Second
	n, rate, stay := sized(3, 4, 16), sized(400, 400, 1000), sized(20, 40, 400)
	f := startWorkers(t, n, "--drain", drain.String())
	storm, paused := startStorm(f.addr, rate), meterPauses()
	defer storm.stop()
	before := f.workers()
	held := holdConns(t, f.addr, stay)
	f.install(t, binary(t))
	skip := len(f.logLines())
	f.signal(t, f.pid(), syscall.SIGUSR2)
	f.awaitLine("the replacement", skip, func(l logLine) bool { return l.msg == "replacing the workers" })
	f.signal(t, f.pid(), syscall.SIGUSR2)
	f.awaitLine("another SIGUSR2", skip, func(l logLine) bool {
		return l.msg ==
			"SIGUSR2 ignored: a rolling restart is under way"
	})
	done := f.awaitLine("the end of it", skip, func(l logLine) bool { return l.msg == "workers replaced" })
	for _, s := range held {
		if err := s.wait(); err != nil {
			t.Error(err)
		}
	}
	r := storm.stop()
	for _, wrong := range r.wrong {
		t.Error(wrong)
	}
	after := f.workers()
	for _, b := range before {
		if slices.ContainsFunc(after, func(a workerCheck) bool { return a.PID == b.PID }) {
			t.Errorf("worker %d, process %d, was not replaced", b.Worker, b.PID)
		}
	}
	if len(after) != n || slices.ContainsFunc(after, func(a workerCheck) bool { return a.Draining }) {
		t.Errorf("the workers are %v", after)
	}
	m := f.await("all have gone", func(m metrics) bool { return m.value("heartwheel_connections") == 0 })
	if got, want := m.value("heartwheel_accepted_total"), float64(r.connected+stay); got != want {
		t.Errorf("%v connections are counted, of %v", got, want)
	}
	if got := m.value("heartwheel_workers_replaced_total"); got != float64(n) {
		t.Errorf("%v replaced workers are counted, of %d", got, n)
	}
	if code := f.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	late := max(r.oversleep, r.slowest, longestPause(paused()))
	for _, line := range f.logLines()[skip:] {
		if line.warns(late) && !strings.Contains(line.msg, "SIGUSR2 ignored") {
			t.Errorf("the log says: %s", line.text)
		}
	}
	t.Logf("%d workers replaced in %s with --drain %s under %d dials: %d refused, %d reset, slowest answer %s", n,
		done.took, drain, r.dials, r.refused, r.reset, r.slowest.Round(time.Millisecond))
}

// TestReplacementStops: a new worker that does not get ready ends the
// replacement, and the others go on as they were.
func TestReplacementStops(t *testing.T) {
	parallelSmoke(t)
	f := startWorkers(t, 4, "--drain", "200ms")
	before := f.workers()
	f.installText(t, fmt.Sprintf("#!/bin/sh\ncase $HEARTWHEEL_INHERIT in *worker://2/*) echo out of order >&2; exit "+
		"3;; esac\nexec %s \"$@\"\n", binary(t)))
	f.signal(t, f.pid(), syscall.SIGUSR2)
	line := f.awaitLine("the end", 0, func(l logLine) bool {
		return strings.HasPrefix(l.msg,
			"the rest of the workers go on unchanged")
	})
	if !strings.Contains(line.text, `"replaced":2,"of":4`) {
		t.Error(line.text)
	}
	f.awaitLine("the reason", 0, func(l logLine) bool {
		return strings.HasPrefix(l.msg, "replacement stopped") && strings.Contains(l.text, `"stderr":"out of order"`)
	})
	for i, w := range f.workers() {
		if same := w.PID == before[i].PID; same != (w.Worker >= 2) {
			t.Errorf("worker %d was process %d and is %d", w.Worker, before[i].PID, w.PID)
		}
	}
	f.awaitReady()
	f.install(t, binary(t))
	f.signal(t, f.pid(), syscall.SIGUSR2)
	f.awaitLine("the next one", 0, func(l logLine) bool { return l.msg == "workers replaced" })
	if code := f.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// TestWorkersDrain: SIGTERM drains all workers at once, even if they get it too,
// and a second signal ends everything.
func TestWorkersDrain(t *testing.T) {
	parallelSmoke(t)
	const drain = 2 * time.Second
	f := startWorkers(t, 4, "--drain", drain.String())
	workers := f.workers()
	held := holdConns(t, f.addr, 40)
	for _, w := range workers { // as systemd does, and a terminal with ^C
		f.signal(t, w.PID, syscall.SIGTERM)
		f.signal(t, w.PID, syscall.SIGINT)
		f.signal(t, w.PID, syscall.SIGHUP)
		f.signal(t, w.PID, syscall.SIGUSR2)
	}
	dial(t, f.addr).echo()
	f.check()
	if code := f.stop(syscall.SIGTERM); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	for _, s := range held {
		if err := s.wait(); err != nil {
			t.Error(err)
		}
	}
	if syscall.Kill(workers[0].PID, 0) == nil {
		t.Error("a worker has outlived it")
	}

	f = startWorkers(t, 4, "--drain", "1m")
	workers = f.workers()
	holdConns(t, f.addr, 8)
	f.signal(t, f.pid(), syscall.SIGTERM)
	f.awaitLine("the drain", 0, func(l logLine) bool { return strings.HasPrefix(l.msg, "draining;") })
	f.await503("draining")
	if code := f.stop(syscall.SIGINT); code != 1 {
		t.Errorf("after a second signal it ended with %d", code)
	}
	awaitGone(t, workers)
}

// TestSupervisorKilled: its workers drain by themselves, and leave the port to
// the next at once.
func TestSupervisorKilled(t *testing.T) {
	parallelSmoke(t)
	const drain = 3 * time.Second
	addr := "tcp://" + holdPort(t)
	f := startWorkers(t, 3, "--listen", addr, "--drain", drain.String())
	workers := f.workers()
	held := holdConns(t, f.addr, 30)
	if err := f.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-f.ended
	for _, w := range workers {
		f.awaitLine(fmt.Sprintf("worker %d", w.Worker), 0, func(l logLine) bool {
			return strings.HasPrefix(l.msg, "the supervisor has ended: this worker drains") &&
				strings.Contains(l.text, fmt.Sprintf(`"worker":%d`, w.Worker))
		})
	}
	// They accept no more; the port is free as soon as the last has noticed.
	for end := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		c, err := net.DialTimeout("tcp", f.addr, limit)
		if errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
		if err == nil {
			c.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("connects are not refused: %v", err)
		}
	}
	next := startServer(t, binary(t), "--listen", addr, "--workers", "2")
	dial(t, next.addr).echo()
	for _, s := range held {
		if err := s.wait(); err != nil {
			t.Error(err)
		}
	}
	awaitGone(t, workers)
}
