package cli

import (
	"os"
	"syscall"
	"time"
)

// repeatWindow is the time within which a second SIGTERM is the first one again:
// service managers and shell wrappers often signal a process and its group.
const repeatWindow = time.Second

// withoutRepeats passes on the signals of in, but for a SIGTERM within
// repeatWindow of one that it has passed on. It ends when in is closed.
func withoutRepeats(in <-chan os.Signal) <-chan os.Signal {
	out := make(chan os.Signal, cap(in))
	go func() {
		defer close(out)
		var last time.Time // of a SIGTERM that was passed on; zero: none
		for sig := range in {
			if sig == syscall.SIGTERM {
				if !last.IsZero() && time.Since(last) < repeatWindow {
					continue
				}
				last = time.Now()
			}
			out <- sig
		}
	}()
	return out
}
