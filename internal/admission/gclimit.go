package admission

import (
	"math"
	"runtime/debug"
	gometrics "runtime/metrics"
)

// goLimitShare is the share of a memory limit, in percent, that the garbage
// collector is to keep the process within: some points below levelSlow, so that no
// connection is refused for garbage.
const goLimitShare = 80

// A goLimit moves the memory limit of Go's runtime (GOMEMLIMIT) so that Go's own
// memory fits below goLimitShare beside what else the limit counts. Most of that
// is the kernel's part of each connection, so no fixed value would be right. It
// does nothing if something else has set the limit.
//
// The runtime's limit is soft, and while nothing allocates it costs nothing. It
// is never set so low that the collector would run for less than an eighth of
// the live heap: it could not win that much, and would take the processor from
// the loops.
type goLimit struct {
	owned   bool  // nothing else has set the limit
	set     int64 // what we set last; 0: nothing yet
	want    int64 // the least that any memory limit asks for
	slop    int64 // a difference that is not worth a change: each stops the world
	now     goMemory
	samples [6]gometrics.Sample
}

// goMemory is what Go's runtime holds, in bytes.
type goMemory struct {
	total int64  // what GOMEMLIMIT counts
	least int64  // what total could shrink to at a bearable cost
	idle  uint64 // of total: free, and not yet returned to the system
}

func (c *goLimit) init() {
	c.owned = debug.SetMemoryLimit(-1) == math.MaxInt64
	for i, name := range []string{
		"/memory/classes/total:bytes", "/memory/classes/heap/released:bytes", "/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/free:bytes", "/memory/classes/heap/unused:bytes", "/gc/heap/live:bytes",
	} {
		c.samples[i].Name = name
	}
}

// begin reads what Go holds, before the calls of consider for one sample.
func (c *goLimit) begin() {
	gometrics.Read(c.samples[:])
	v := func(i int) int64 { return int64(c.samples[i].Value.Uint64()) }
	total, live := v(0)-v(1), v(5)
	c.now = goMemory{total: total, least: total - v(2) - v(3) - v(4) + live + live/8, idle: uint64(v(3))}
	c.want, c.slop = math.MaxInt64, math.MaxInt64
}

// consider takes one memory limit into account.
func (c *goLimit) consider(use, limit uint64) {
	if limit >= noLimit || !c.owned {
		return
	}
	if goal := goShare(int64(use), int64(limit), c.now); goal < c.want {
		c.want, c.slop = goal, int64(limit/64)
	}
}

// goShare returns what Go's runtime may take of the limit.
func goShare(use, limit int64, g goMemory) int64 {
	others := max(0, use-g.total)
	return max(limit/100*goLimitShare-others, g.least)
}

// apply sets what the sample came to. It may wait for a collection to end.
func (c *goLimit) apply() {
	if !c.owned || c.want == math.MaxInt64 || max(c.want-c.set, c.set-c.want) < c.slop {
		return
	}
	c.set = c.want
	debug.SetMemoryLimit(c.set)
}

// restore undoes what apply has set.
func (c *goLimit) restore() {
	if c.set != 0 && debug.SetMemoryLimit(-1) == c.set {
		debug.SetMemoryLimit(math.MaxInt64)
	}
	c.set = 0
}
