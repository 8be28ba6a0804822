package server

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// reserve is how many descriptors connections never take: those of listeners,
// loops, the ops port, and sockets on their way in or being refused.
func reserve(limit uint64) uint64 { return max(64, limit/50) }

// RaiseDescriptorLimit raises this process's limit of open descriptors to its
// hard value, and returns it. Safe for concurrent use.
func RaiseDescriptorLimit() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("server: cannot read the limit of open descriptors: %w", err)
	}
	if r.Cur < r.Max {
		raised := unix.Rlimit{Cur: r.Max, Max: r.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			return uint64(r.Cur), fmt.Errorf("server: cannot raise the limit of open descriptors from %d to its hard value %d: %w", r.Cur, r.Max, err)
		}
		r = raised
	}
	return uint64(r.Cur), nil
}

// growDescriptors makes the kernel's table of this process's descriptors large
// enough for n. While it grows step by step under load, every step, at 256, 512
// and so on, halts a process with several threads for 10 to 20 ms, as the kernel
// waits for a grace period.
func growDescriptors(n int64) {
	// Without the highest number there is no table of that size: then it grows later.
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(n)); err == nil {
		_ = unix.Close(fd)
	}
}

// connectionCap returns how many connections there may be: what the descriptor
// limit leaves, or what was asked for if that is less. A wish beyond it is
// clamped with a warning.
func connectionCap(wish int, limit uint64, log *slog.Logger) (int64, error) {
	spare := reserve(limit)
	if limit <= spare {
		return 0, fmt.Errorf("server: the limit of %d open descriptors leaves no room for connections after a reserve of %d; "+
			"raise it: ulimit -n %d, or LimitNOFILE= in a systemd unit", limit, spare, max(1024, wish+wish/40+64))
	}
	room := int64(min(limit-spare, 1<<31))
	if int64(wish) > room {
		log.Warn("max-connections is more than this process may open; it was lowered",
			"max-connections", wish, "now", room, "descriptors", limit, "reserve", spare,
			"fix", fmt.Sprintf("raise the hard limit: ulimit -Hn %d, or LimitNOFILE= in a systemd unit", wish+max(64, wish/49+1)))
		return room, nil
	}
	if wish > 0 {
		return int64(wish), nil
	}
	return room, nil
}

// RoomForConnections is how many connections a process may have with so many
// descriptors, at most 2³¹; 0 if there are too few even for a server alone.
func RoomForConnections(descriptors uint64) int {
	return int(min(descriptors-min(descriptors, reserve(descriptors)), 1<<31-1))
}

// admission counts connections against the cap, and those of all processes
// against the limit that they share. Safe for concurrent use.
type admission struct {
	cap     int64
	shared  *SharedCount // nil: this process is alone
	limit   int64        // of all processes
	live    atomic.Int64
	refused [numRefusals]atomic.Uint64
}

func (a *admission) admit() bool {
	if !a.enter() {
		a.refused[refusedOverloaded].Add(1)
		return false
	}
	return true
}

// enter takes a place if there is one. It never takes one too many, not even for
// a moment: somebody else might be refused for it.
func (a *admission) enter() bool {
	for n := a.live.Load(); n < a.cap; n = a.live.Load() {
		if !a.live.CompareAndSwap(n, n+1) {
			continue
		}
		if a.shared != nil && !a.shared.enter(a.limit) {
			a.live.Add(-1)
			return false
		}
		return true
	}
	return false
}

// full reports whether admit would refuse now.
func (a *admission) full() bool {
	return a.live.Load() >= a.cap || a.shared != nil && a.shared.Total() >= a.limit
}

func (a *admission) leave() {
	if a.shared != nil {
		a.shared.leave()
	}
	a.live.Add(-1)
}
