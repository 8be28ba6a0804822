package server

import (
	"math/bits"
	"slices"
	"sync"
	"unsafe"
)

// Buffers of incomplete messages have sizes of powers of two from 4 KiB on, so that
// a growing one is copied a bounded number of times. Up to 1 MiB they are pooled: a
// peer that sends large messages needs one for nearly each read.
const (
	pooledMinBits = 12
	pooledMaxBits = 20
)

var buffers [pooledMaxBits - pooledMinBits + 1]sync.Pool // of *byte

// growBuffer returns b with room for n bytes more, and reuses the memory of b.
func growBuffer(b []byte, n int) []byte {
	if len(b)+n <= cap(b) {
		return b
	}
	size := bits.Len(uint(len(b) + n - 1))
	if size < pooledMinBits {
		return slices.Grow(b, n)
	}
	var grown []byte
	if size <= pooledMaxBits {
		if p, ok := buffers[size-pooledMinBits].Get().(*byte); ok {
			grown = unsafe.Slice(p, 1<<size)[:0]
		}
	}
	if grown == nil {
		grown = make([]byte, 0, 1<<size)
	}
	grown = append(grown, b...)
	freeBuffer(b)
	return grown
}

// freeBuffer gives the memory of b back.
func freeBuffer(b []byte) {
	if size := bits.Len(uint(cap(b))) - 1; pooledMinBits <= size && size <= pooledMaxBits {
		buffers[size-pooledMinBits].Put(unsafe.SliceData(b))
	}
}
