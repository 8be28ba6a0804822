package cli

import (
	"errors"
	"fmt"
	"runtime"

	"heartwheel/server"
)

// autoWorkers is the number of workers that is written auto.
const autoWorkers = -1

// maxWorkers bounds the number of workers. What is beyond is a mistake.
const maxWorkers = 1000

// fillPercent is how full auto plans a worker, in percent of what its
// descriptors allow. The kernel deals connections out by a hash: with n to each
// worker the fullest has some 3·√n more, 2 % at 20,000.
const fillPercent = 95

// checkWorkers judges what can be judged without looking at this machine's
// limits. The error says what to write instead.
func checkWorkers(n, maxConnections int) error {
	switch {
	case n != 0 && runtime.GOOS != "linux":
		return errors.New("is possible on Linux only; leave it out")
	case n > maxWorkers:
		return fmt.Errorf("must lie between 0 (one process does it all) and %d, or write auto", maxWorkers)
	case n == autoWorkers && maxConnections == 0:
		return errors.New("needs to know how many connections are wanted; give max-connections too, or write a number")
	}
	return nil
}

// workersFor is how many workers auto comes to for the connections, with so
// many descriptors for each process.
func workersFor(connections int, descriptors uint64) int {
	each := max(1, server.RoomForConnections(descriptors)*fillPercent/100)
	return max(1, (connections-1)/each+1)
}

// supervisorFiles is how many descriptors a supervisor of n workers needs: the
// sockets, and for each worker the control sockets of it and of the one that it
// replaces, both pipes of a start, and two connections to ask it.
func supervisorFiles(n, addresses int) int { return 64 + n*(addresses+8) }

// decideWorkers is the number of workers that the settings come to here. The
// error says what to do.
func decideWorkers(r *resolved, descriptors uint64) (int, error) {
	n := r.workers
	if n == autoWorkers {
		n = workersFor(r.MaxConnections, descriptors)
	}
	need := supervisorFiles(n, len(r.WithDefaults().Listen))
	if n > maxWorkers || uint64(need) > descriptors {
		fewer := min(maxWorkers, (int(min(descriptors, 1<<30))-64)/(len(r.WithDefaults().Listen)+8))
		return 0, fmt.Errorf("workers %s: %d workers need %d descriptors in the process that watches over them, which may open %d; "+
			"write at most %d, or raise the hard limit: ulimit -Hn %d, or LimitNOFILE= in a systemd unit",
			settingByKey("workers").value(&r.options), n, need, descriptors, max(fewer, 1), need)
	}
	if least := int64(n) * server.MinMemory; r.MemoryLimit > 0 && int64(r.MemoryLimit) < least {
		return 0, fmt.Errorf("memory-limit %s: is too little for %d workers; write at least %dMiB", formatSize(r.MemoryLimit), n, least>>20)
	}
	return n, nil
}

// shares is how n workers share the processors: the event loops of each, unless
// loops says otherwise, and its GOMAXPROCS. That is never 1: a worker with one
// loop then takes nearly twice the processor time for a beat, though less while
// it is idle. Measured for four workers: 14 against 25 % of a core at 670 beats a
// second each, 9 against 13 at 330; for 56 that are idle, 33 against 15.
func shares(n, processors int) (loops, maxProcs int) {
	loops = max(1, processors/n)
	return loops, max(2, loops)
}
