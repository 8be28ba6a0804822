package loadtest

import (
	"context"
	"os"
	"slices"
	"syscall"
	"time"

	"heartwheel/internal/epoll"
	"heartwheel/loadtest/engine"
)

// stallable says whether these processes can be stopped.
func checkStoppable(pids []int) error {
	switch {
	case len(pids) == 0:
		return &PlanError{[]string{"fault " + engine.StallServer +
			": no process of this machine and this user listens at the target; run the load test where the server runs, as its user"}}
	case slices.Contains(pids, os.Getpid()):
		return &PlanError{[]string{"fault " + engine.StallServer +
			": what listens at the target is this process itself; test a server of another process"}}
	}
	return nil
}

// stall stops the processes at the time at, of the monotonic clock, for so
// long. Whatever happens they go on when it returns.
func stopProcesses(ctx context.Context, pids []int, at int64, length time.Duration) {
	if !sleepUntil(ctx, at) {
		return
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGSTOP)
	}
	sleepUntil(ctx, at+int64(length))
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
}

// sleepUntil sleeps until a time of the monotonic clock. It returns false if
// ctx was done first.
func sleepUntil(ctx context.Context, at int64) bool {
	timer := time.NewTimer(time.Duration(at - epoll.Monotonic()))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
