package server

import (
	"fmt"
	"math/bits"
	"slices"
	"unsafe"
)

// Buffers of incomplete messages have sizes of powers of two from 4 KiB on, so that
// a growing one is copied a bounded number of times, and so have most blocks of
// outboxes. Up to 1 MiB they are used again: a peer that sends large messages needs
// one for nearly each read.
const (
	pooledMinBits = 12
	pooledMaxBits = 20
	poolMost      = 1 << 20 // bytes that wait for their next use beside those in use; more is left to the collector
)

// A pool keeps buffers of one loop for their next use. The zero value is empty, nil
// keeps nothing. Loop only.
type pool struct {
	free  [pooledMaxBits - pooledMinBits + 1][]*byte // by size
	bytes int
	extra int // bytes beyond poolMost that may be kept
}

// make returns an empty buffer of size bytes.
func (p *pool) make(size int) []byte {
	if class, ok := poolClass(size); ok && p != nil {
		if free := &p.free[class]; len(*free) > 0 {
			last := len(*free) - 1
			b := (*free)[last]
			(*free)[last] = nil
			*free = (*free)[:last]
			p.bytes -= size
			return unsafe.Slice(b, size)[:0]
		}
	}
	return make([]byte, 0, size)
}

// put takes the memory of b back.
func (p *pool) put(b []byte) {
	if class, ok := poolClass(cap(b)); ok && p != nil && p.bytes+cap(b) <= poolMost+p.extra {
		p.free[class] = append(p.free[class], unsafe.SliceData(b))
		p.bytes += cap(b)
	}
}

// allow has the pool keep up to extra bytes beyond poolMost, and leaves what is more to
// the collector, the largest first.
func (p *pool) allow(extra int) {
	p.extra = extra
	for class := len(p.free) - 1; p.bytes > poolMost+extra; {
		last := len(p.free[class]) - 1
		if last < 0 {
			class--
			continue
		}
		p.free[class][last] = nil
		p.free[class] = p.free[class][:last]
		p.bytes -= 1 << (class + pooledMinBits)
	}
}

// check re-derives the count of bytes.
func (p *pool) check() error {
	n := 0
	for class, free := range p.free {
		n += len(free) << (class + pooledMinBits)
	}
	if n != p.bytes || n > poolMost+p.extra {
		return fmt.Errorf("%d bytes wait for their next use, but %d are counted; the bound is %d", n, p.bytes,
			poolMost+p.extra)
	}
	return nil
}

// clear leaves all to the collector.
func (p *pool) clear() { *p = pool{} }

// poolClass returns which buffers of a pool have that size.
func poolClass(size int) (class int, ok bool) {
	n := bits.Len(uint(size)) - 1
	return n - pooledMinBits, size == 1<<max(n, 0) && pooledMinBits <= n && n <= pooledMaxBits
}

// grow returns b with room for n bytes more, and takes the memory of b back if it
// needs another.
func (p *pool) grow(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	size := bits.Len(uint(len(b) + n - 1))
	if size < pooledMinBits {
		return slices.Grow(b, n)
	}
	grown := append(p.make(1<<size), b...)
	p.put(b)
	return grown
}
