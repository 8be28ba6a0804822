package server

import (
	"encoding/binary"

	"heartwheel/codec"
)

// An outbox holds the frames that a peer's socket did not take. Control frames
// overtake data, but never a frame that is half on the wire. Loop only.
//
// The queues hold whole frames back to back, so the four bytes in front of
// each frame tell where it ends and no list of frames is needed.
type outbox struct {
	control, data queue
	half          *queue // the queue whose first frame is half written, or nil
	left          int    // bytes of that frame still to write
	pace          pace
	watched       bool // waiting for the socket to become writable
}

func (o *outbox) len() int { return o.control.len() + o.data.len() }

// add queues frames, whole, or as a first one that is half written: left is
// then the number of its bytes at the front of b. It reports whether they fit
// into limit bytes; if not, nothing was added.
func (o *outbox) add(b []byte, control bool, left, limit int) bool {
	if o.len()+len(b) > limit {
		return false
	}
	q := &o.data
	if control {
		q = &o.control
	}
	if left > 0 {
		o.half, o.left = q, left
	}
	q.add(b, limit)
	return true
}

// next returns the bytes to write now, nil when there are none. They are valid
// until the next call of add or wrote.
func (o *outbox) next() []byte {
	switch {
	case o.half != nil:
		return o.half.bytes()[:o.left]
	case o.control.len() > 0:
		return o.control.bytes()
	case o.data.len() > 0:
		return o.data.bytes()
	}
	return nil
}

// wrote takes n bytes of what next returned off the queue.
func (o *outbox) wrote(n int) {
	q := o.half
	if q == nil {
		if q = &o.control; q.len() == 0 {
			q = &o.data
		}
		o.left = unsent(q.bytes(), n)
	} else {
		o.left -= n
	}
	if o.half = q; o.left == 0 {
		o.half = nil
	}
	q.drop(n)
}

// unsent returns how many bytes of the frame that n bytes of frames end in are
// missing: 0 if n is a frame's end.
func unsent(frames []byte, n int) int {
	end := 0
	for end < n {
		end += frameLen(frames[end:])
	}
	return end - n
}

// frameLen returns the length of the first of whole frames, header included.
func frameLen(frames []byte) int {
	return codec.HeaderSize + int(binary.BigEndian.Uint32(frames))
}

// frameOp returns the op of the first of whole frames.
func frameOp(frames []byte) codec.Op {
	if frameLen(frames) == codec.HeaderSize {
		return codec.OpBeat
	}
	return codec.Op(frames[codec.HeaderSize])
}

// A queue is bytes that come at one end and go at the other.
type queue struct {
	buf  []byte
	head int
}

func (q *queue) len() int      { return len(q.buf) - q.head }
func (q *queue) bytes() []byte { return q.buf[q.head:] }

// add appends b, and keeps the capacity within limit, which must have room.
func (q *queue) add(b []byte, limit int) {
	need := q.len() + len(b)
	switch {
	case len(q.buf)+len(b) <= cap(q.buf):
	case need <= cap(q.buf): // room enough once the gap at the front is closed
		q.buf = q.buf[:copy(q.buf, q.bytes())]
		q.head = 0
	default:
		grown := make([]byte, q.len(), min(max(need, 2*cap(q.buf), 512), max(limit, need)))
		copy(grown, q.bytes())
		q.buf, q.head = grown, 0
	}
	q.buf = append(q.buf, b...)
}

// drop takes n bytes off the front. An empty queue gives its memory back.
func (q *queue) drop(n int) {
	if q.head += n; q.head == len(q.buf) {
		*q = queue{}
	}
}
