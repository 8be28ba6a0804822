package server

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// A SharedCount counts the connections of several processes, in memory that
// they share. Each process has a line of it that only it writes, so that what a
// process that was killed has left can be taken out again: see Clear. Methods
// are safe for concurrent use.
type SharedCount struct {
	lines []sharedLine
	mine  *atomic.Int64
}

// A sharedLine fills a cache line: counting in one does not disturb another.
type sharedLine struct {
	n atomic.Int64
	_ [SharedLine - 8]byte
}

// SharedLine is what each process takes of the memory, in bytes.
const SharedLine = 64

// NewSharedCount counts in mem, which has to be the same memory in each
// process, aligned to 8 bytes, all zero at first and mapped for as long as the
// count is used. mine is the line of this process; no two may have the same at
// one time.
func NewSharedCount(mem []byte, mine int) (*SharedCount, error) {
	n := len(mem) / SharedLine
	if mine < 0 || mine >= n {
		return nil, fmt.Errorf("server: line %d of a shared count that has %d", mine, n)
	}
	c := &SharedCount{lines: unsafe.Slice((*sharedLine)(unsafe.Pointer(unsafe.SliceData(mem))), n)}
	c.mine = &c.lines[mine].n
	return c, nil
}

// Total is how many connections all processes have.
func (c *SharedCount) Total() int64 {
	var n int64
	for i := range c.lines {
		n += c.lines[i].n.Load()
	}
	return n
}

// Clear takes out what a process that has ended has left in its line.
func (c *SharedCount) Clear(line int) { c.lines[line].n.Store(0) }

// enter counts a connection unless there are limit already. Of two processes
// that would take the last place at one time both may be refused; there are
// never more than limit.
func (c *SharedCount) enter(limit int64) bool {
	c.mine.Add(1)
	if c.Total() > limit {
		c.mine.Add(-1)
		return false
	}
	return true
}

func (c *SharedCount) leave() { c.mine.Add(-1) }
