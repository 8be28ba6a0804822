package engine

import (
	"sync"

	"heartwheel/internal/epoll"

	"golang.org/x/sys/unix"
)

// startLoops starts the job's event loops. Each takes its orders from its own
// channel of those that are returned, and reports on out; after the last report
// of each, done is closed.
func startLoops(j *Job, out chan<- Message) (orders []chan Order, done <-chan struct{}, err error) {
	growDescriptors(j.Load.Connections*j.Load.Loops/j.Of + j.Load.Loops + 64)
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for k := range j.Load.Loops {
		in := make(chan Order, 8)
		orders = append(orders, in)
		l := newLoop(&j.Load, j.First+k, j.Of, epoll.NewDialer(j.Target, j.Sources), j.Timeout, in, out)
		wg.Go(l.run)
	}
	go func() { wg.Wait(); close(ended) }()
	return orders, ended, nil
}

// growDescriptors makes the kernel's table of this process's descriptors large
// enough for n. While it grows step by step under load, every step, at 256,
// 512 and so on, halts a process with several threads for 10 to 20 ms (the
// kernel waits for a grace period): connects would come late.
func growDescriptors(n int) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	// Without the highest number there is no table of that size; then the
	// connects fail anyway, and say so.
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(min(uint64(n), limit.Cur-1))); err == nil {
		unix.Close(fd)
	}
}
