// This file is added to a copy of package timingwheel, for tests only: see
// faultyFlags. It makes the first timing wheel of a process fail once it is old
// enough.

//go:build go1.26

package timingwheel

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// theFault is what the environment asks for: FAULTS_WHEEL=stall,5s is a
// goroutine that stops when the process is 5 s old.
var theFault struct {
	kind  string        // stall, lockup or panic
	since time.Time     // when the process began
	age   time.Duration // when it happens
	first atomic.Pointer[TimingWheel]
	tell  sync.Once
	began atomic.Bool
}

func init() {
	theFault.since = time.Now()
	kind, age, _ := strings.Cut(os.Getenv("FAULTS_WHEEL"), ",")
	if d, err := time.ParseDuration(age); err == nil {
		theFault.kind, theFault.age = kind, d
	}
}

// faulty reports whether tw is to fail from now on. It says so in the log.
func (tw *TimingWheel) faulty() bool {
	if theFault.kind == "" || time.Since(theFault.since) < theFault.age || theFault.first.Load() != tw {
		return false
	}
	theFault.tell.Do(func() {
		fmt.Fprintf(os.Stderr, `{"time":%q,"level":"INFO","msg":"timing wheel fails","how":%q}`+"\n",
			time.Now().Format(time.RFC3339Nano), theFault.kind)
		theFault.began.Store(true)
	})
	return true
}

// started is called by Start.
func (tw *TimingWheel) started() { theFault.first.CompareAndSwap(nil, tw) }

// flushes is called by the wheel's goroutine before it fires a bucket. What
// blocks here does so for ever.
func (tw *TimingWheel) flushes() {
	if theFault.kind != "panic" && tw.faulty() {
		select {}
	}
}

// takes is called by AfterFunc.
func (tw *TimingWheel) takes() {
	switch {
	case theFault.kind == "lockup" && theFault.began.Load() && tw.faulty():
		select {}
	case theFault.kind == "panic" && tw.faulty():
		panic("timingwheel: a fault of the test")
	}
}
