package engine

import (
	"sync"

	"golang.org/x/sys/unix"

	"heartwheel/internal/epoll"
)

// startLoops starts the event loops of the job. Each has its own channel of orders
// and sends its messages to out; done is closed after the last message of all.
func startLoops(j *Job, out chan<- Message) (orders []chan Order, done <-chan struct{}, err error) {
	growDescriptors(j.Load.Connections*j.Load.Loops/j.Of + j.Load.Loops + 64)
	tls, err := j.Load.NewTLS()
	if err != nil {
		return nil, nil, err
	}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	for k := range j.Load.Loops {
		in := make(chan Order, 8)
		orders = append(orders, in)
		l := newLoop(&j.Load, j.First+k, j.Of, epoll.NewDialer(j.Target, j.Sources), j.Timeout, in, out)
		l.handshakes.client = tls
		wg.Go(l.run)
	}
	go func() { wg.Wait(); close(ended) }()
	return orders, ended, nil
}

// growDescriptors grows the kernel's descriptor table of this process to n at once.
// While connects grow it step by step, each step, at 256, 512 and so on, stops all
// threads for 10 to 20 ms (an RCU grace period), and connects are late.
func growDescriptors(n int) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	// If the highest number cannot be had, connects will fail and say why.
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(min(uint64(n), limit.Cur-1))); err == nil {
		unix.Close(fd)
	}
}
