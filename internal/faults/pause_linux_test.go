package faults

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	pausePeriod = 10 * time.Millisecond // takes 2 % of one processor, 2 ms would take 7 %
	leastPause  = 5 * time.Millisecond  // less is ordinary
)

// pauses is what the processors of this machine were away, as the machine under
// it may have them be: not even a timer goes off there then, so that nothing in
// /proc shows it. One thread is bound to each and wakes all the time. It goes
// before all others, so that a busy processor does not make it late. Where that
// is refused, and where this process itself has too much to do, it may: the
// server then has to wait too, and so that counts as well.
var pauses struct {
	begin sync.Once

	awake []atomic.Int64 // by processor: when its thread woke last (monotonic)
	mu    sync.Mutex
	all   []delay // guarded by mu; stolen is from waking to waking
}

// meterPauses returns what tells all pauses since it was called.
func meterPauses() (since func() []delay) {
	pauses.begin.Do(beginPauses)
	start := monotonic()
	return func() []delay {
		now := monotonic()
		for i := range pauses.awake { // a thread that is away reports when it is back
			for pauses.awake[i].Load() < now {
				time.Sleep(pausePeriod / 2)
			}
		}
		pauses.mu.Lock()
		defer pauses.mu.Unlock()
		var all []delay
		for _, b := range pauses.all {
			if b.to >= start {
				all = append(all, b)
			}
		}
		return all
	}
}

func beginPauses() {
	var cpus unix.CPUSet
	if err := unix.SchedGetaffinity(0, &cpus); err != nil {
		panic(err) // every Linux has it
	}
	pauses.awake = make([]atomic.Int64, cpus.Count())
	var running sync.WaitGroup
	for cpu, i := 0, 0; i < len(pauses.awake); cpu++ {
		if !cpus.IsSet(cpu) {
			continue
		}
		awake := &pauses.awake[i]
		i++
		running.Add(1)
		go func() {
			runtime.LockOSThread()
			_ = aloneOn(0, cpu, 1)
			last := monotonic()
			running.Done()
			for {
				due := unix.NsecToTimespec(last + int64(pausePeriod))
				_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &due, nil)
				now := monotonic()
				if away := time.Duration(now - last); away > pausePeriod+leastPause {
					pauses.mu.Lock()
					pauses.all = append(pauses.all, delay{from: last, to: now, stolen: away})
					pauses.mu.Unlock()
				}
				awake.Store(now)
				last = now
			}
		}()
	}
	running.Wait()
}

// aloneOn binds a thread, 0 for this one, to a processor, where it goes before all
// others.
func aloneOn(thread, cpu int, priority uint32) error {
	var own unix.CPUSet
	own.Set(cpu)
	return errors.Join(unix.SchedSetaffinity(thread, &own),
		unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr,
			Policy: unix.SCHED_FIFO, Flags: unix.SCHED_FLAG_RESET_ON_FORK, Priority: priority}, 0))
}

// longestPause returns the longest of them.
func longestPause(all []delay) (longest time.Duration) {
	for _, b := range all {
		longest = max(longest, b.stolen)
	}
	return longest
}

// TestPausesAreSeen takes a processor from all others for a moment, which is
// what a pause looks like from inside.
func TestPausesAreSeen(t *testing.T) {
	if runtime.NumCPU() == 1 {
		t.Skip("this process would have no processor either")
	}
	paused := meterPauses()
	cmd := exec.Command("sh", "-c", "echo; while :; do :; done") // nothing stops it, as Go would
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := aloneOn(cmd.Process.Pid, 0, 2); err != nil {
		t.Skipf("a process that goes before all others is refused: %v", err)
	}
	start := time.Now()
	time.Sleep(50 * time.Millisecond)
	length := time.Since(start)
	_ = cmd.Process.Kill()
	if got := longestPause(paused()); got < length {
		t.Errorf("a processor was away for %s, and the most that is seen is %s", length, got)
	}
}
