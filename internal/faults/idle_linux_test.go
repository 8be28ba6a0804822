package faults

import (
	"syscall"
	"testing"
	"time"
)

// TestIdle measures the processor time of servers without connections. It is a matter of
// processor time, not of latency, so other load changes little.
func TestIdle(t *testing.T) {
	if size == smoke {
		t.Skip("it takes ten seconds")
	}
	const lasts, bound = 10 * time.Second, 50 * time.Millisecond // 0.5 % of a core a process
	s := startServer(t, binary(t), "--memory-limit", "off")
	f := startWorkers(t, 2, "--memory-limit", "off")
	pids := map[string]int{"one process": s.pid(), "supervisor": f.pid()}
	for _, w := range f.workers() {
		pids["worker "+string(rune('0'+w.Worker))] = w.PID
	}
	time.Sleep(time.Second) // what the requests above have caused
	before := map[string]time.Duration{}
	for name, pid := range pids {
		before[name] = cpuTime(t, pid)
	}
	time.Sleep(lasts)
	for name, pid := range pids {
		took := cpuTime(t, pid) - before[name]
		if took > bound {
			t.Errorf("%s: %s of processor time in %s with nothing to do; the bound is %s", name, took, lasts, bound)
		}
		figure(t, 24, "%s: %s of processor time in %s without connections", name, took, lasts)
	}
	s.stop(syscall.SIGTERM)
	f.stop(syscall.SIGTERM)
}
