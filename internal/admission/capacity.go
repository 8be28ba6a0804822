package admission

import (
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Quota is a limit on the connections of several processes. Its methods are
// safe for concurrent use.
type Quota interface {
	Enter() bool // counts one connection more, unless the limit is reached
	Leave()      // counts one less
	Full() bool  // reports whether Enter would fail now
}

// reserve is how many descriptors connections never take: those of listeners,
// loops, the ops port, and sockets on their way in or being refused.
func reserve(limit uint64) uint64 { return max(64, limit/50) }

// RaiseDescriptorLimit raises this process's limit of open descriptors to its
// hard value, and returns the limit in force; 0 if it cannot be read. Safe for
// concurrent use.
func RaiseDescriptorLimit() (uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("cannot read the limit of open descriptors: %w", err)
	}
	if r.Cur < r.Max {
		raised := unix.Rlimit{Cur: r.Max, Max: r.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			return uint64(r.Cur), fmt.Errorf("cannot raise the limit of open descriptors from %d to %d: %w",
				r.Cur, r.Max, err)
		}
		r = raised
	}
	return uint64(r.Cur), nil
}

// growDescriptors makes the kernel's table of this process's descriptors large
// enough for n. When it grows under load, each step, at 256, 512 and so on, halts
// a process with several threads for 10 to 20 ms, as the kernel waits for a grace
// period.
func growDescriptors(n int64) {
	// This fails if the limit is not above n; the table then grows later.
	if fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, int(n)); err == nil {
		_ = unix.Close(fd)
	}
}

// RoomForConnections returns how many connections a process may have with that
// many descriptors, at most 2³¹ − 1; 0 if there are too few for a server alone.
func RoomForConnections(descriptors uint64) int {
	return int(min(descriptors-min(descriptors, reserve(descriptors)), 1<<31-1))
}

// connectionLimit returns how many connections there may be: what the descriptor
// limit leaves, or want if that is less. More is lowered with a warning.
func connectionLimit(want int, descriptors uint64, log *slog.Logger) (int64, error) {
	spare := reserve(descriptors)
	if descriptors <= spare {
		return 0, fmt.Errorf("the limit of %d open descriptors leaves no room for connections after a reserve of %d; "+
			"raise it: ulimit -n %d, or LimitNOFILE= in a systemd unit", descriptors, spare, max(1024, want+want/40+64))
	}
	room := int64(min(descriptors-spare, 1<<31))
	if int64(want) > room {
		log.Warn("lowered the connection limit to what the descriptor limit allows",
			"wanted", want, "now", room, "descriptors", descriptors, "reserve", spare,
			"fix", fmt.Sprintf("raise the hard limit: ulimit -Hn %d, or LimitNOFILE= in a systemd unit",
				want+max(64, want/49+1)))
		return room, nil
	}
	if want > 0 {
		return int64(want), nil
	}
	return room, nil
}

// capacity counts connections against the limit of this process, and against the
// quota if there is one. Safe for concurrent use.
type capacity struct {
	quota Quota // static after init; nil: none

	max  atomic.Int64
	live atomic.Int64
}

// init takes the limits from cfg and from this process's descriptors.
func (c *capacity) init(cfg *Config, log *slog.Logger) error {
	c.quota = cfg.Quota
	return c.resize(cfg.MaxConnections, log)
}

// resize limits the connections to want, or to what this process's descriptors
// allow. More that are in stay.
func (c *capacity) resize(want int, log *slog.Logger) error {
	descriptors, err := RaiseDescriptorLimit()
	if descriptors == 0 {
		return err
	}
	if err != nil {
		log.Warn(err.Error())
	}
	if c.quota != nil { // without a warning: no process has to hold all of it
		want = min(want, RoomForConnections(descriptors))
	}
	limit, err := connectionLimit(want, descriptors, log)
	if err != nil {
		return err
	}
	if limit > c.max.Swap(limit) {
		growDescriptors(limit)
	}
	return nil
}

// enter counts one connection more unless there are max already. It never counts
// one too many, not even for a moment: another might be refused for it.
func (c *capacity) enter() bool {
	for n := c.live.Load(); n < c.max.Load(); n = c.live.Load() {
		if !c.live.CompareAndSwap(n, n+1) {
			continue
		}
		if c.quota != nil && !c.quota.Enter() {
			c.live.Add(-1)
			return false
		}
		return true
	}
	return false
}

// full reports whether enter would fail now.
func (c *capacity) full() bool {
	return c.live.Load() >= c.max.Load() || c.quota != nil && c.quota.Full()
}

func (c *capacity) leave() {
	if c.quota != nil {
		c.quota.Leave()
	}
	c.live.Add(-1)
}
