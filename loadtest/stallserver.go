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

// checkStoppable returns why these processes cannot be stopped.
func checkStoppable(pids []int) error {
	switch {
	case len(pids) == 0:
		return &PlanError{[]string{"fault " + engine.StallServer +
			": no process of this user on this machine listens at the target; " +
			"run the load test on the server's machine, as its user"}}
	case slices.Contains(pids, os.Getpid()):
		return &PlanError{[]string{"fault " + engine.StallServer +
			": the target is this process itself; test a server in another process"}}
	}
	return nil
}

// stopProcesses stops the processes at at, on epoll.Monotonic, for length. They run
// again when it returns.
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

// sleepUntil sleeps until at, on epoll.Monotonic. It returns false if ctx was done
// first.
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
