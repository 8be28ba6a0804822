package faults

import (
	"crypto/tls"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/internal/testcert"
)

var soakFor = flag.Duration("soak", 0, "how long the soak lasts (default 3s, 30s or 10m, by -form)")

const (
	soakBeat    = 600 * time.Millisecond
	soakTimeout = 1500 * time.Millisecond
	soakLive    = 50 // live peers of each server
	soakSecure  = 5  // of how many live peers one comes over TLS

	// soakGrowth is how much the memory in use may grow from the first to the
	// last third of what is measured, whatever its slope.
	soakGrowth = 0.10
)

// A soak is two servers to which everything is done at the same time. One is
// replaced again and again; the other, where each hand-over fails, goes on, and
// on it is seen whether anything grows.
type soak struct {
	t       *testing.T
	servers []*soakServer
	started time.Time
	quit    chan struct{}
	wg      sync.WaitGroup

	// Held for reading while something is done that is over soon. Holding it
	// for writing means that only the live peers are connected.
	busy sync.RWMutex

	mu       sync.Mutex
	done     map[string]int // by what was done
	wrong    []string       // the first few
	wrongN   int
	checks   int // of /debug/check that were clean
	killed   int // live peers
	excused  int // live peers that may have been closed, as this process was late
	reached  int // times that a live peer came again after a hand-over
	unjudged int // requests to ops beside which the server was stopped
}

// A soakServer is one of the two servers.
type soakServer struct {
	*chain
	goodBinary bool // that is found at a hand-over

	mu       sync.Mutex
	freezes  int // begun and ended: odd while it is stopped
	handOver int

	most    resources    // while it warmed up
	samples []soakMemory // after that
}

// TestSoak is case 21: all faults at the same time, at moderate rates, for long,
// over TCP and TLS.
// Every few seconds all stops but the live peers: each server then has no more
// descriptors and goroutines than while it warmed up, in the first quarter of the
// time. Its memory in use is taken there after forced collections.
//
// A slope is the median of those between any two samples (Theil and Sen). It is too
// steep if even the lower end of its 95 % interval is over 1 %/h of the memory in
// use. The live heap is held to that in the long form. The memory in use itself
// only where more than half an hour is measured: at first it settles, as stacks
// and heap pages are touched for the first time, and 1 %/h of 25 MiB is one page
// a minute. In the shorter forms it must not grow by more than soakGrowth.
func TestSoak(t *testing.T) {
	parallelSmoke(t)
	length, period := sized(3*time.Second, 30*time.Second, 10*time.Minute), sized[time.Duration](1, 4, 12)*time.Second
	least := sized(1, 3, 3) // samples compared with the warm-up, however slow the machine
	if *soakFor > 0 {
		length = *soakFor
	}
	z := startSoak(t)
	steady, replaced := z.servers[0], z.servers[1]
	for warm := true; time.Since(z.started) < length || len(steady.samples) <
		least; warm = time.Since(z.started) < length/4 {
		z.faults(period)
		z.quiesce(warm)
	}
	took := time.Since(z.started)
	close(z.quit)
	z.wg.Wait()
	cpu := z.cpu()
	for _, s := range z.servers {
		s.wantQuietLog(t)
		s.stopAll(t)
	}
	for _, wrong := range z.wrong {
		t.Error(wrong)
	}
	if more := z.wrongN - len(z.wrong); more > 0 {
		t.Errorf("and %d times more", more)
	}
	memory, growth := "memory not judged", 0.0 // by so few samples
	if size != smoke {
		memory, growth = judgeMemory(t, steady.samples)
	}
	figure(t, 21, "%s with %s, %d freezes, %d hand-overs and %d that failed: %d things "+
		"wrong, and of 2 × %d live peers "+
		"%d killed (%d times one came again after a hand-over, %d excused); %d × /debug/check clean; %s; at rest at "+
		"most %d files and %d goroutines; about %.0f %% of two processors",
		took.Round(time.Second), z.activities(), (steady.freezes+replaced.freezes)/2, replaced.handOver,
		steady.handOver, z.wrongN, soakLive, z.killed, z.reached, z.excused,
		z.checks, memory, steady.most.files, steady.most.goroutines, 50*cpu.Seconds()/took.Seconds())
	if growth > soakGrowth {
		t.Errorf("the memory in use has grown by %.1f %% from the first third to the last", 100*growth)
	}
}

func startSoak(t *testing.T) *soak {
	z := &soak{t: t, quit: make(chan struct{}), done: map[string]int{}}
	ca := testcert.New(t)
	cert, key := ca.IssueUntil(t, time.Now().Add(24*time.Hour), "server", "127.0.0.1")
	for _, good := range []bool{false, true} {
		s := &soakServer{goodBinary: good, chain: startChain(t, "--listen", "tcp://127.0.0.1:0",
			"--listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--beat", soakBeat.String(),
			"--timeout", soakTimeout.String(),
			"--write-stall", "2s", "--drain", "1s", "--address-rate", "20", "--address-burst",
			"20", "--address-max", "100",
			"--flap-limit", "30", "--ban-time", "3s")}
		if !good {
			s.installText(t, "#!/bin/sh\nexit 1\n")
		}
		z.servers = append(z.servers, s)
	}
	z.started = time.Now()
	var ready sync.WaitGroup
	for i, s := range z.servers {
		for n := range soakLive {
			ready.Add(1)
			p := &livePeer{z: z, s: s, source: fmt.Sprintf("127.92.%d.%d", i, 1+n), ready: ready.Done}
			if n%soakSecure == 0 {
				p.tls = &tls.Config{RootCAs: ca.Pool, ServerName: "127.0.0.1"}
			}
			z.wg.Go(p.run)
		}
		for _, d := range soakActivities {
			z.wg.Go(func() { z.repeat(s, d) })
		}
		z.wg.Go(func() { z.scrape(s) })
	}
	ready.Wait()
	return z
}

// faults lets everything happen for a while. Somewhere in it the servers are
// stopped for half their timeout up to two, and then told to hand over.
func (z *soak) faults(period time.Duration) {
	end := time.Now().Add(period)
	time.Sleep(time.Duration(rand.Int64N(int64(period) / 4)))
	for _, s := range z.servers {
		s.signal(z.t, s.current(), syscall.SIGSTOP)
		s.count(1)
	}
	time.Sleep(soakTimeout/2 + time.Duration(rand.Int64N(int64(soakTimeout*3/2))))
	for _, s := range z.servers {
		s.signal(z.t, s.current(), syscall.SIGCONT)
		s.count(1)
	}
	time.Sleep(time.Duration(rand.Int64N(int64(period) / 4)))
	for _, s := range z.servers {
		s.replace(z.t)
	}
	time.Sleep(time.Until(end))
}

// count adds to the freezes and returns how often the server has been stopped
// and continued.
func (s *soakServer) count(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freezes += n
	return s.freezes
}

// replace has it hand over, which fails if its binary is no good.
func (s *soakServer) replace(t *testing.T) {
	t.Helper()
	s.handOver++
	if s.goodBinary {
		s.chain.handOver(t)
		return
	}
	skip := len(s.logLines())
	s.signal(t, s.current(), syscall.SIGUSR2)
	s.awaitLine("the hand-over has failed", skip, func(l logLine) bool { return strings.Contains(l.msg, "failed") })
}

// quiesce waits until only the live peers are there, and compares.
func (z *soak) quiesce(warm bool) {
	z.t.Helper()
	z.busy.Lock()
	defer z.busy.Unlock()
	for _, s := range z.servers {
		for _, pid := range s.pids[:len(s.pids)-1] {
			s.awaitDrained(pid)
		}
		s.await("only the live peers are left", func(m metrics) bool {
			return m.value("heartwheel_connections") == soakLive && m.value("heartwheel_outbox_bytes") == 0
		})
		heap := s.liveHeap()
		s.check()
		if warm {
			now := s.atRest(s.current())
			s.most = resources{max(s.most.files, now.files), max(s.most.goroutines, now.goroutines)}
			continue
		}
		s.awaitResources(s.current(), s.most)
		s.samples = append(s.samples, soakMemory{time.Since(z.started), float64(resident(z.t, s.current())), heap})
	}
}

// liveHeap collects what is garbage, and returns what is left.
func (s *soakServer) liveHeap() (heap float64) {
	s.t.Helper()
	for range 2 { // what is pooled goes with the second
		status, body, err := s.get("/debug/pprof/heap?gc=1&debug=1")
		_, rest, _ := strings.Cut(body, "\n# HeapAlloc = ")
		if _, serr := fmt.Sscan(rest, &heap); err != nil || serr != nil {
			s.t.Fatalf("/debug/pprof/heap: %d %v %v", status, err, serr)
		}
	}
	return heap
}

// scrape asks all that the ops address has. Its invariants have to hold each
// time; only beside a stop of the server an answer may be late.
func (z *soak) scrape(s *soakServer) {
	for i := 0; ; i++ {
		select {
		case <-z.quit:
			return
		case <-time.After(100 * time.Millisecond):
		}
		path := []string{"/debug/check", "/metrics", "/healthz", "/readyz"}[i%4]
		before := s.count(0)
		status, body, err := s.get(path)
		switch after := s.count(0); {
		case before%2 != 0 || after != before:
			z.mu.Lock()
			z.unjudged++
			z.mu.Unlock()
		case err != nil || status != http.StatusOK:
			z.isWrong("%s: %d %v %.300s", path, status, err, body)
		case path == "/debug/check":
			z.mu.Lock()
			z.checks++
			z.mu.Unlock()
		}
	}
}

func (z *soak) isWrong(format string, args ...any) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.wrongN++; z.wrongN <= 10 {
		z.wrong = append(z.wrong, time.Since(z.started).Round(time.Millisecond).String()+": "+
			""+fmt.Sprintf(format, args...))
	}
}

// wantQuietLog wants no panic, and no errors but of the hand-overs that were
// to fail.
func (s *soakServer) wantQuietLog(t *testing.T) {
	t.Helper()
	for _, line := range s.logLines() {
		expected := !s.goodBinary && strings.Contains(line.msg, "hand-over failed")
		if line.msg == "" || strings.Contains(line.text, "panic") ||
			strings.Contains(line.text, `"level":"ERROR"`) && !expected {
			t.Errorf("the log says: %s", line.text)
		}
	}
}

// cpu is about what the soak has used of all processors: the server that goes
// on twice, and this process.
func (z *soak) cpu() time.Duration {
	var own unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &own) // of this process it cannot fail
	server := z.servers[0].metrics().value("process_cpu_seconds_total")
	if math.IsNaN(server) {
		server = 0
	}
	return 2*seconds(server) + time.Duration(own.Utime.Nano()+own.Stime.Nano())
}
