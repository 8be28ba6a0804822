package loadtest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"heartwheel/internal/epoll"
	"heartwheel/loadtest/report"

	"golang.org/x/sys/unix"
)

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, pairs := range [][]string{{}, {"processes", "2"}} {
		r := doRun(t, func(signals chan<- os.Signal) { signals <- os.Interrupt }, append(pairs, "connections", "20", "interval", "200ms", "duration", "1m", "fault", "garbage:2@200ms", "fault", "silent:2@50s", "bound", "1s")...)
		r.want(t, report.Interrupted, "these are the figures until then")
		if r.Verdict.ExitCode != 130 || r.Connections.Established != 20 || r.Frames.Answered < 20 || r.Detection.Detected != 2 || r.Detection.Undetected != 0 {
			t.Errorf("%+v", r.Summary)
		}
	}
}

func TestServerThatEnds(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "serve", "--die", "connections", "5", "interval", "200ms", "duration", "10s")
	r.want(t, report.Failed, "the server ended during the run: exit status 7", "cannot go on")
	_, err := Run(Options{Plan: testPlan(t), Command: func(args ...string) *exec.Cmd { return command("nothing") }, Stdout: io.Discard, Progress: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "did not start: no such role nothing") {
		t.Errorf("%v", err)
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "processes", "3", "loops", "2", "connections", "100", "interval", "200ms", "duration", "3s", "bound", "1s", "fault", "silent:10%@100ms")
	r.want(t, report.Pass)
	if c := r.Connections; c.Established != 100 || c.TimeUS.Count != 100 || r.Detection.Detected != 10 || len(r.Generator.CPU) != 3 || r.Generator.RSSBytes < 3e6 {
		t.Errorf("%+v %+v %+v", c, r.Detection, r.Generator)
	}
	// All of them see the same schedule.
	if f := r.Frames; f.Sent < 900 || f.Answered+f.Unanswered != f.Sent || r.Service.US.Count < 500 {
		t.Errorf("%+v %+v", f, r.Service)
	}
}

// A worker that dies is reported, and the run goes on without it.
func TestWorkerThatDies(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	started := 0
	var victim *exec.Cmd
	p, settings, err := Build(flags("processes", "2", "connections", "20", "interval", "200ms", "duration", "3s", "max-lag", "1m"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	progress := &trigger{text: "hold", after: 1, do: func() {
		mu.Lock()
		defer mu.Unlock()
		_ = victim.Process.Kill()
	}}
	s, err := Run(Options{Plan: p, Settings: settings, Stdout: &out, Progress: progress, Command: func(args ...string) *exec.Cmd {
		cmd := command(args...)
		mu.Lock()
		defer mu.Unlock()
		if args[0] == WorkerCommand {
			if started++; started == 2 {
				victim = cmd
			}
		}
		return cmd
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Verdict.ExitCode != 1 || len(s.Errors) != 1 || s.Errors[0] != "worker process 1: signal: killed" || s.Frames.Answered == 0 {
		t.Errorf("%+v\n%s", s.Verdict, out.String())
	}
}

// A connection costs at most 500 bytes of user memory, all that a loop has
// included. At 10,000 the histograms are 100 of them.
func TestMemoryPerConnection(t *testing.T) {
	n := 10000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n)+500 {
		t.Skipf("this process may open %d files, and %d are needed", limit.Cur, n+500)
	}
	own, err := startServer([]string{"--long"}, command)
	if err != nil {
		t.Fatal(err)
	}
	defer own.stop()
	target, err := resolveTarget("tcp://" + own.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := testPlan(t, "connections", strconv.Itoa(n), "connect-rate", "20k", "interval", "10s", "duration", "2s")
	before := heapNow()
	c, err := localCrew(&job{Plan: *p, Of: 1, Target: target, Timeout: time.Minute, Sources: sourceAddrs(defaultSources(target.Addr(), n), n)})
	if err != nil {
		t.Fatal(err)
	}
	start := epoll.Monotonic() + int64(30*time.Millisecond)
	c.order(order{Start: start})
	var most, connected int64
	for {
		r := <-c.reports
		if r.Connected != nil {
			connected = int64(r.Connected.Established)
			c.order(order{Hold: epoll.Monotonic(), Looked: true})
		}
		if r.Tick != nil && connected > 0 {
			most = max(most, heapNow()-before)
		}
		if r.Result != nil {
			break
		}
	}
	_ = c.wait()
	if connected != int64(n) {
		t.Fatalf("%d of %d were established", connected, n)
	}
	each := float64(most) / float64(n)
	t.Logf("%.0f bytes a connection, of which the conn itself is %d", each, unsafe.Sizeof(conn{}))
	if each > 500 || each < float64(unsafe.Sizeof(conn{})) {
		t.Errorf("%.0f bytes a connection, want at most 500", each)
	}
}

func heapNow() int64 {
	runtime.GC()
	return liveMemory()
}
