package cli

import (
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithoutRepeats(t *testing.T) {
	const term, interrupt = syscall.SIGTERM, syscall.SIGINT
	for name, c := range map[string]struct {
		pause time.Duration // between the two
		two   [2]os.Signal
		want  int
	}{
		"a SIGTERM forwarded by a wrapper counts once": {time.Second - 1, [2]os.Signal{term, term}, 1},
		"a later one counts":                           {time.Second, [2]os.Signal{term, term}, 2},
		"so does Ctrl-C, however soon":                 {0, [2]os.Signal{interrupt, interrupt}, 2},
		"and Ctrl-C after SIGTERM":                     {0, [2]os.Signal{term, interrupt}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in := make(chan os.Signal, 2)
				out := withoutRepeats(in)
				in <- c.two[0]
				time.Sleep(c.pause)
				in <- c.two[1]
				close(in)
				got := 0
				for range out {
					got++
				}
				if got != c.want {
					t.Errorf("%d signals came through, want %d", got, c.want)
				}
			})
		})
	}
}
