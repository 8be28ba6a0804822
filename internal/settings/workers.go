package settings

import (
	"errors"
	"fmt"
	"runtime"

	"heartwheel/internal/admission"
	"heartwheel/internal/config"
	"heartwheel/server"
)

// AutoWorkers is the value of workers for "auto".
const AutoWorkers = -1

// maxWorkers is far above what helps: more are a mistake.
const maxWorkers = 1000

// fillPercent is how full "auto" plans a worker, in percent of the connections
// that its descriptors allow. The kernel distributes connections by a hash: at n
// per worker, the fullest has about n + 3·√n, which is 2 % more at 20,000.
const fillPercent = 95

// checkWorkers checks what does not depend on this machine's limits. The error
// says what to write instead.
func checkWorkers(n, maxConnections int) error {
	switch {
	case n != 0 && runtime.GOOS != "linux":
		return errors.New("is possible on Linux only; leave it out")
	case n > maxWorkers:
		return fmt.Errorf("must lie between 0 (a single process) and %d, or write auto", maxWorkers)
	case n == AutoWorkers && maxConnections == 0:
		return errors.New("needs the number of connections; set max-connections too, or write a number")
	}
	return nil
}

// WorkersFor returns the number of workers that "auto" means for this number of
// connections, where a process may open this number of descriptors.
func WorkersFor(connections int, descriptors uint64) int {
	each := max(1, admission.RoomForConnections(descriptors)*fillPercent/100)
	return max(1, (connections-1)/each+1)
}

// supervisorFiles returns the number of descriptors that a supervisor of n workers
// needs: the listening sockets, and for each worker its control socket and that
// of the worker it replaces, the pipes of a start, and two ops connections.
func supervisorFiles(n, addresses int) int { return 64 + n*(addresses+8) }

// WorkerCount returns the number of workers, where a process may open this number
// of descriptors. The error says what to do.
func (r *Resolved) WorkerCount(descriptors uint64) (int, error) {
	n := r.Workers
	if n == AutoWorkers {
		n = WorkersFor(r.MaxConnections, descriptors)
	}
	need := supervisorFiles(n, len(r.ListenSockets()))
	if n > maxWorkers || uint64(need) > descriptors {
		fewer := min(maxWorkers, (int(min(descriptors, 1<<30))-64)/(len(r.ListenSockets())+8))
		return 0, fmt.Errorf("workers %s: %d workers need %d descriptors in the supervisor, which may open %d; "+
			"write at most %d, or raise the hard limit: ulimit -Hn %d, or LimitNOFILE= in a systemd unit",
			Table.ByKey("workers").Text(&r.Options), n, need, descriptors, max(fewer, 1), need)
	}
	if least := int64(n) * server.MinMemory; r.MemoryLimit > 0 && int64(r.MemoryLimit) < least {
		return 0, fmt.Errorf("memory-limit %s: is too little for %d workers; write at least %dMiB",
			config.FormatSize(r.MemoryLimit), n, least>>20)
	}
	return n, nil
}
