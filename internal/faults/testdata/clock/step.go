// This file is added to package time by a build with -overlay, for tests only:
// see toolchainFlags. It makes the wall clock of a process step once.

package time

import (
	"sync"
	"syscall"
)

// clockStep is what the environment asks for: FAULTS_CLOCK_STEP=5s,+60s
// is a step of 60 s ahead when the process is 5 s old, by the monotonic clock.
var clockStep struct {
	once    sync.Once
	age     int64 // ns
	seconds int64
}

// stepSeconds is what the wall clock of a process of that age, in ns, is ahead.
func stepSeconds(age int64) int64 {
	s := &clockStep
	s.once.Do(func() {
		text, ok := syscall.Getenv("FAULTS_CLOCK_STEP")
		if !ok {
			return
		}
		for i := range text {
			if text[i] != ',' {
				continue
			}
			at, err1 := ParseDuration(text[:i])
			by, err2 := ParseDuration(text[i+1:])
			if err1 == nil && err2 == nil && by%Second == 0 {
				s.age, s.seconds = int64(at), int64(by/Second)
				return
			}
		}
		panic("time: FAULTS_CLOCK_STEP must be like 5s,+60s, in whole seconds")
	})
	if age < s.age {
		return 0
	}
	return s.seconds
}
