package server

import (
	"math/bits"

	"heartwheel/codec"
)

// An outbox holds the messages that a peer's socket did not take, in plaintext.
// Urgent ones overtake the others, but never a message that is half on the wire.
// Loop only.
//
// The queues hold whole messages back to back. The four bytes in front of each
// native frame tell where it ends; of others the lengths are kept beside them.
type outbox struct {
	sealed        []byte // comes before all else
	control, data queue
	half          *queue   // the queue whose first message is half written, or nil
	left          int      // bytes of that message still to write
	lengths       *lengths // of the whole messages in the queues; nil: native frames
	progress      progress
	watched       bool // waiting for the socket to become writable
	pool          *pool
}

type lengths struct{ control, data []int }

// len returns how many bytes wait. Of nil it is 0.
func (o *outbox) len() int {
	if o == nil {
		return 0
	}
	return len(o.sealed) + o.control.len() + o.data.len()
}

// memory returns how many bytes o keeps. Of nil it is 0.
func (o *outbox) memory() int {
	if o == nil {
		return 0
	}
	n := o.control.memory + o.data.memory + cap(o.sealed)
	if o.lengths != nil {
		n += (cap(o.lengths.control) + cap(o.lengths.data)) * bits.UintSize / 8
	}
	return n
}

// drop gives up all that waits.
func (o *outbox) drop() {
	if o == nil {
		return
	}
	o.control.clear(o.pool)
	o.data.clear(o.pool)
	*o = outbox{watched: o.watched, pool: o.pool}
}

// add queues one message, or what remains of one that is half written: left is
// then len(b), and 0 otherwise. It reports whether b fits into limit bytes; if
// not, nothing was added.
func (o *outbox) add(b []byte, urgent bool, left, limit int) bool {
	if o.control.len()+o.data.len()+len(b) > limit {
		return false
	}
	q := &o.data
	if urgent {
		q = &o.control
	}
	if left > 0 {
		o.half, o.left = q, left
	} else if o.lengths != nil {
		n := o.lengthsOf(q)
		*n = append(*n, len(b))
	}
	q.add(b, limit, o.pool)
	return true
}

// lengthsOf returns the lengths of the messages in q.
func (o *outbox) lengthsOf(q *queue) *[]int {
	if q == &o.control {
		return &o.lengths.control
	}
	return &o.lengths.data
}

// next returns bytes to write now, nil when there are none. They are valid until
// the next call of add or wrote.
func (o *outbox) next() []byte {
	switch {
	case o.half != nil:
		b := o.half.first()
		return b[:min(o.left, len(b))]
	case o.control.len() > 0:
		return o.control.first()
	case o.data.len() > 0:
		return o.data.first()
	}
	return nil
}

// wrote takes n bytes of what next returned off the queue.
func (o *outbox) wrote(n int) {
	if n == 0 {
		return
	}
	q := o.half
	if q == nil {
		if q = &o.control; q.len() == 0 {
			q = &o.data
		}
		o.left = o.unsent(q, n)
	} else {
		o.left -= n
	}
	if o.half = q; o.left == 0 {
		o.half = nil
	}
	q.drop(n, o.pool)
	if o.lengths != nil && o.control.len()+o.data.len() == 0 {
		*o.lengths = lengths{}
	}
}

// unsent returns how many bytes are missing of the message that the first n bytes
// of q end in: 0 if n is the end of one.
func (o *outbox) unsent(q *queue, n int) int {
	if o.lengths == nil {
		return q.unsent(n)
	}
	all, end := o.lengthsOf(q), 0
	for end < n {
		end += (*all)[0]
		*all = (*all)[1:]
	}
	return end - n
}

const (
	blockMost   = 32 << 10 // size of a queue's blocks except the first ones
	blockHeader = 24       // bytes that a block takes beside what is in it
)

// A queue is a FIFO of bytes. It keeps them in blocks, each about as large as all
// before it together, up to blockMost: when many peers stop reading at once,
// doubling and copying a buffer for each holds up the other connections of the
// loop (docs/decisions/outbox.md).
type queue struct {
	blocks [][]byte // none is empty
	head   int      // bytes of the first that have gone
	size   int
	memory int // of the blocks, by capacity
}

func (q *queue) len() int      { return q.size }
func (q *queue) first() []byte { return q.blocks[0][q.head:] }

// add appends b. The memory of the queue stays within limit, which must have
// room, and a block.
func (q *queue) add(b []byte, limit int, p *pool) {
	for len(b) > 0 {
		last := len(q.blocks) - 1
		if last < 0 || len(q.blocks[last]) == cap(q.blocks[last]) {
			n := 1 << (bits.Len(uint(max(q.size, len(b), 512))) - 1) // the allocator would round up
			q.blocks = append(q.blocks, p.make(min(n, blockMost, limit-q.size)))
			last++
			q.memory += cap(q.blocks[last]) + blockHeader
		}
		block := q.blocks[last]
		n := min(len(b), cap(block)-len(block))
		q.blocks[last] = append(block, b[:n]...)
		q.size += n
		b = b[n:]
	}
}

// unsent is outbox.unsent for native frames. The first n bytes lie in the first
// block.
func (q *queue) unsent(n int) int {
	end := 0
	for end < n {
		var header [codec.HeaderSize]byte
		have := copy(header[:], q.first()[end:])
		for i := 1; have < len(header); i++ { // it goes on in the next block
			have += copy(header[have:], q.blocks[i])
		}
		end += frameLen(header[:])
	}
	return end - n
}

// drop takes n bytes off the front, of the first block. An empty queue gives its
// memory back.
func (q *queue) drop(n int, p *pool) {
	q.size -= n
	switch q.head += n; {
	case q.size == 0:
		q.clear(p)
	case q.head == len(q.blocks[0]):
		q.memory -= cap(q.blocks[0]) + blockHeader
		p.put(q.blocks[0])
		q.blocks[0], q.blocks, q.head = nil, q.blocks[1:], 0
	}
}

// clear gives the memory of the queue back.
func (q *queue) clear(p *pool) {
	for _, b := range q.blocks {
		p.put(b)
	}
	*q = queue{}
}
