package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// samplePeriod is the distance between two looks at what holds a server up.
const samplePeriod = 250 * time.Millisecond

// A delay is what held a server up between two moments (monotonic).
type delay struct {
	from, to int64
	waited   time.Duration // its threads were ready to run but had no processor (all of them together)
	longest  time.Duration // the most that one of them waited
	stolen   time.Duration // the machine under this one took processors away (all of them together)
	stalled  time.Duration // what its loops say they could not run, and credited to the peers
	lag      time.Duration // the longest that a loop says it took to answer a call, to the edge of its histogram
}

// A watcher samples the delays of one server until it is stopped.
type watcher struct {
	t      testing.TB
	s      *serverProcess
	paused func() []delay
	quit   chan struct{}
	done   chan struct{}

	// Owned by its goroutine until done.
	all  []delay
	last reading
	errs []error
}

// A reading is the raw figures at one moment.
type reading struct {
	at      int64
	waited  map[string]time.Duration // by thread
	stolen  time.Duration
	metrics metrics
}

func watch(t testing.TB, s *serverProcess) *watcher {
	w := &watcher{t: t, s: s, paused: meterPauses(), quit: make(chan struct{}), done: make(chan struct{})}
	w.last = w.read()
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.quit:
				w.note()
				return
			case <-time.After(samplePeriod):
				w.note()
			}
		}
	}()
	return w
}

// stop takes the last sample and returns all, and the pauses of processors.
func (w *watcher) stop() []delay {
	w.t.Helper()
	close(w.quit)
	<-w.done
	if len(w.errs) > 0 {
		w.t.Fatalf("the server's load is not known: %v", w.errs[0])
	}
	w.all = append(w.all, w.paused()...)
	return w.all
}

func (w *watcher) note() {
	prev, next := w.last, w.read()
	w.last = next
	if prev.metrics == nil || next.metrics == nil {
		return
	}
	b := delay{from: prev.at, to: next.at, stolen: next.stolen - prev.stolen}
	b.wait(prev.waited, next.waited)
	const stalled, lag = "heartwheel_stalled_seconds_total", "heartwheel_loop_lag_seconds"
	b.stalled = seconds(next.metrics.sum(stalled) - prev.metrics.sum(stalled))
	before := prev.metrics.buckets(lag)
	for i, bar := range next.metrics.buckets(lag) {
		if bar.count > before[i].count {
			b.lag = bar.high
		}
	}
	if b.lag == forever {
		b.lag = seconds(next.metrics.sum(lag+"_sum") - prev.metrics.sum(lag+"_sum"))
	}
	w.all = append(w.all, b)
}

func (w *watcher) read() reading {
	r := reading{at: monotonic()}
	_, body, err := w.s.get("/metrics")
	if err == nil {
		r.metrics, err = parseMetrics(body)
	}
	if err != nil {
		w.errs = append(w.errs, err)
		return r
	}
	r.waited = waits(w.s.pid())
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 8 && fields[0] == "cpu" {
			hundredths, _ := strconv.ParseInt(fields[8], 10, 64)
			r.stolen = time.Duration(hundredths) * 10 * time.Millisecond
		}
	}
	return r
}

// waits is how long each thread of a process was ready to run so far, but had no
// processor.
func waits(pid int) map[string]time.Duration {
	waited := map[string]time.Duration{}
	// The second number is the time spent waiting on a run queue, in ns. A
	// kernel without it leaves us with what the server says itself.
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			if fields := strings.Fields(string(text)); len(fields) == 3 {
				ns, _ := strconv.ParseInt(fields[1], 10, 64)
				waited[file] = time.Duration(ns)
			}
		}
	}
	return waited
}

// wait adds how long the threads of a server waited between two results of waits.
func (b *delay) wait(before, after map[string]time.Duration) {
	for thread, d := range after {
		b.waited += d - before[thread]
		b.longest = max(b.longest, d-before[thread])
	}
}

// withoutAsking is heldUp for a server that cannot be asked just then: what the
// kernel says of it, and the pauses of processors, until its result is called.
func withoutAsking(s *serverProcess) func() time.Duration {
	paused, start, before := meterPauses(), monotonic(), waits(s.pid())
	return func() time.Duration {
		b := delay{from: start, to: monotonic()}
		b.wait(before, waits(s.pid()))
		return heldUp(append(paused(), b), b.from, b.to)
	}
}

func seconds(v float64) time.Duration { return time.Duration(v * 1e9) }

// heldUp is how much later than it promises a server may do what falls due
// between two moments. The samples at both ends count whole.
func heldUp(all []delay, from, to int64) time.Duration {
	var d time.Duration
	for _, b := range all {
		if b.from <= to && b.to >= from {
			d += b.waited + b.stolen + b.lag
		}
	}
	return d
}

// credited is how much of the time between two moments the server's clock of
// silence may have stood still.
func credited(all []delay, from, to int64) time.Duration {
	var d time.Duration
	for _, b := range all {
		if b.from <= to && b.to >= from {
			d += b.stalled
		}
	}
	return d
}

// resident returns the memory of a process that is in use, in bytes.
func resident(t testing.TB, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
