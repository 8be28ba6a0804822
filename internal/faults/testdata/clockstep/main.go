// Clockstep shows what a step of the wall clock does to time.Now, to
// time.Since and to a bare timing wheel. It is built with the overlay that
// makes the clock step, and prints one JSON object.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/RussellLuo/timingwheel"
)

type report struct {
	Wall  time.Duration `json:"wall"`  // what the wall clock says has passed since the start
	Mono  time.Duration `json:"mono"`  // what time.Since says
	Fired time.Duration `json:"fired"` // monotonic time at which the timer fired; 0: it has not
}

func main() {
	timer := flag.Duration("timer", 20*time.Second, "delay of the timer")
	limit := flag.Duration("limit", 25*time.Second, "how long to wait for it")
	flag.Parse()

	start := time.Now()
	tw := timingwheel.NewTimingWheel(20*time.Millisecond, 1024)
	tw.Start()
	var fired atomic.Int64
	done := make(chan struct{})
	tw.AfterFunc(*timer, func() {
		fired.Store(int64(time.Since(start)))
		close(done)
	})
	// A server's other timers keep the wheel turning.
	var again func()
	again = func() { tw.AfterFunc(100*time.Millisecond, again) }
	again()
	select {
	case <-done:
	case <-time.After(*limit):
	}
	now := time.Now()
	err := json.NewEncoder(os.Stdout).Encode(report{
		Wall: now.Round(0).Sub(start.Round(0)), Mono: now.Sub(start), Fired: time.Duration(fired.Load()),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
