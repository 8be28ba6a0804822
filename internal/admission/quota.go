package admission

import (
	"fmt"
	"math"
	"sync/atomic"
	"unsafe"
)

// A SharedCount counts the connections of several processes, in memory that they
// share. Each process has a slot that only it writes, so that what a killed
// process has left can be taken out again: see Clear. Methods are safe for
// concurrent use.
type SharedCount struct {
	slots []countSlot
	own   *atomic.Int64
}

// SlotBytes is what each process takes of the memory.
const SlotBytes = 64

// A countSlot fills a cache line: counting in one does not disturb another.
type countSlot struct {
	n atomic.Int64
	_ [SlotBytes - 8]byte
}

// NewSharedCount counts in mem, which must be the same memory in each process,
// aligned to 8 bytes, all zero at first and mapped for as long as the count is
// used. slot is that of this process; no two processes may have the same at one
// time.
func NewSharedCount(mem []byte, slot int) (*SharedCount, error) {
	n := len(mem) / SlotBytes
	if slot < 0 || slot >= n {
		return nil, fmt.Errorf("slot %d of a shared count that has %d", slot, n)
	}
	c := &SharedCount{slots: unsafe.Slice((*countSlot)(unsafe.Pointer(unsafe.SliceData(mem))), n)}
	c.own = &c.slots[slot].n
	return c, nil
}

// Total returns how many connections all processes have.
func (c *SharedCount) Total() int64 {
	var n int64
	for i := range c.slots {
		n += c.slots[i].n.Load()
	}
	return n
}

// Clear takes out what a process that has ended has left in its slot.
func (c *SharedCount) Clear(slot int) { c.slots[slot].n.Store(0) }

// Quota returns the limit of all processes that count in c; 0: none. Each must ask
// for the same limit.
func (c *SharedCount) Quota(limit int) *SharedQuota {
	q := &SharedQuota{count: c}
	q.SetLimit(limit)
	return q
}

// A SharedQuota is the Quota of a SharedCount. Its methods are safe for concurrent
// use.
type SharedQuota struct {
	count *SharedCount
	limit atomic.Int64
}

// SetLimit sets another limit; 0: none. Connections beyond it stay.
func (q *SharedQuota) SetLimit(limit int) {
	if limit == 0 {
		limit = math.MaxInt
	}
	q.limit.Store(int64(limit))
}

// Enter implements Quota. If two processes ask for the last place at one time,
// both may be refused; there are never more than the limit.
func (q *SharedQuota) Enter() bool {
	q.count.own.Add(1)
	if q.count.Total() > q.limit.Load() {
		q.count.own.Add(-1)
		return false
	}
	return true
}

// Leave implements Quota.
func (q *SharedQuota) Leave() { q.count.own.Add(-1) }

// Full implements Quota.
func (q *SharedQuota) Full() bool { return q.count.Total() >= q.limit.Load() }
