// Package flood is a closed-loop load generator: every connection keeps a fixed
// number of equal frames on its way. It does as little as possible for each, so
// that it is not the limit: one thread for each processor, epoll without Go's
// scheduler, one read and one write for each wake-up of a connection.
package flood

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"heartwheel/internal/epoll"
)

// A Job is a run of the generator.
type Job struct {
	Addr     string        // IP:PORT
	PID      int           // of the server, whose processor time is read
	Conns    int           // connections
	Inflight int           // frames on their way on each
	Size     int           // bytes in a frame after its length, 1 or more
	Warm     time.Duration // before measuring
	For      time.Duration // measuring
	CPUs     []int         // one thread on each
}

// A Result is what was measured between the warm-up and the end.
type Result struct {
	Frames    int64   `json:"frames"` // answered, whole
	Seconds   float64 `json:"seconds"`
	ServerCPU float64 `json:"server_cpu_s"`
	OwnCPU    float64 `json:"own_cpu_s"`
	Threads   int     `json:"threads"`
}

// header is the size of a frame's length; opData is the first byte of its body:
// DATA of heartwheel's protocol. Other servers do not look at it.
const (
	header = 4
	opData = 3
)

// readSize is how much is read at once: more than a socket usually holds.
const readSize = 256 << 10

// A worker is one thread with its connections.
type worker struct {
	job    *Job
	poller *epoll.Poller
	dialer *epoll.Dialer
	conns  []*conn // by number, the ID of their events
	frame  int     // bytes of a frame, length included
	// stream is frames enough that readSize bytes of it can begin at any byte of
	// a frame.
	stream []byte
	buf    []byte

	reads  uint
	frames int64 // answered since the start
}

// A conn is one connection. Both positions are bytes within a frame.
type conn struct {
	fd       int
	number   int32
	received int
	sent     int
	owed     int  // bytes that may be sent
	waiting  bool // for room in the socket
}

// Run connects, floods and measures. An error is of the server: it refused,
// closed a connection or sent back something else.
func Run(job Job) (*Result, error) {
	if job.Size < 1 || job.Conns < len(job.CPUs) || job.Inflight < 1 || len(job.CPUs) == 0 {
		return nil, fmt.Errorf("flood: impossible job %+v", job)
	}
	// Nothing is allocated while it runs; and a collection would stop the threads.
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(len(job.CPUs) + 2) // the threads never leave their processors to others
	var workers []*worker
	for i := range job.CPUs {
		w, err := newWorker(&job, job.Conns/len(job.CPUs)+min(1, max(0, job.Conns%len(job.CPUs)-i)))
		if err != nil {
			return nil, err
		}
		workers = append(workers, w)
	}
	start := time.Now()
	from, to := start.Add(job.Warm), start.Add(job.Warm+job.For)
	parts, errs := make([]part, len(workers)), make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() { parts[i], errs[i] = w.run(job.CPUs[i], from, to) })
	}
	wg.Wait()
	r := &Result{Threads: len(workers)}
	for i, p := range parts {
		if errs[i] != nil {
			return nil, errs[i]
		}
		r.Frames += p.frames
		r.Seconds = max(r.Seconds, p.seconds)
		r.OwnCPU += p.ownCPU
		r.ServerCPU = max(r.ServerCPU, p.serverCPU) // each saw all of it
	}
	return r, nil
}

func newWorker(job *Job, conns int) (*worker, error) {
	w := &worker{job: job, frame: header + job.Size, buf: make([]byte, readSize)}
	one := make([]byte, w.frame)
	one[0], one[1], one[2], one[3] = byte(job.Size>>24), byte(job.Size>>16), byte(job.Size>>8), byte(job.Size)
	for i := header; i < w.frame; i++ {
		one[i] = byte(i)
	}
	one[header] = opData
	for len(w.stream) < readSize+w.frame {
		w.stream = append(w.stream, one...)
	}
	addr, err := netip.ParseAddrPort(job.Addr)
	if err != nil {
		return nil, err
	}
	w.dialer = epoll.NewDialer(addr, nil)
	if w.poller, err = epoll.New(512); err != nil {
		return nil, err
	}
	for range conns {
		if err := w.connect(); err != nil {
			return nil, err
		}
	}
	return w, nil
}
