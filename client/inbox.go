package client

import (
	"context"
	"encoding/binary"
	"sync"
)

// An inbox is a bounded queue of received messages; put blocks while it is full.
// Safe for concurrent use.
type inbox struct {
	limit int // bytes; a single message may be larger

	mu    sync.Mutex
	buf   []byte        // guarded by mu: messages, each behind its u32 length
	head  int           // guarded by mu: where the first one begins
	ready chan struct{} // guarded by mu: has a token if there may be a message; made by the first wait
	room  chan struct{} // guarded by mu: closed when there is room; made by the first wait
}

// keepBuffer is the capacity up to which an empty buffer is kept.
const keepBuffer = 1 << 10

// put copies a message in once there is room. Before it blocks it calls onFull;
// once the channel that returns is closed, put no longer waits for room.
func (in *inbox) put(msg []byte, onFull func() <-chan struct{}) {
	var done <-chan struct{}
	for over := false; ; {
		in.mu.Lock()
		if used := len(in.buf) - in.head; used == 0 || used+4+len(msg) <= in.limit || over {
			in.push(msg)
			in.mu.Unlock()
			return
		}
		if in.room == nil {
			in.room = make(chan struct{})
		}
		room := in.room
		in.mu.Unlock()
		if done == nil {
			done = onFull()
		}
		select {
		case <-room:
		case <-done:
			over = true
		}
	}
}

// push is called with mu held.
func (in *inbox) push(msg []byte) {
	if in.head > 0 && in.head >= len(in.buf)/2 { // at least half of it is free
		in.buf = in.buf[:copy(in.buf, in.buf[in.head:])]
		in.head = 0
	}
	in.buf = binary.BigEndian.AppendUint32(in.buf, uint32(len(msg)))
	in.buf = append(in.buf, msg...)
	in.signal()
}

// signal is called with mu held.
func (in *inbox) signal() {
	if in.ready != nil {
		select {
		case in.ready <- struct{}{}:
		default:
		}
	}
}

// take appends the first message to dst. If there is none, ready has a token once
// there may be one.
func (in *inbox) take(dst []byte) (msg []byte, ok bool, ready <-chan struct{}) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.buf) == in.head {
		if in.ready == nil {
			in.ready = make(chan struct{}, 1)
		}
		return dst, false, in.ready
	}
	n := int(binary.BigEndian.Uint32(in.buf[in.head:]))
	from := in.head + 4
	dst = append(dst, in.buf[from:from+n]...)
	in.head = from + n
	if in.head == len(in.buf) {
		in.head, in.buf = 0, in.buf[:0]
		if cap(in.buf) > keepBuffer {
			in.buf = nil
		}
	} else {
		in.signal() // for another waiting take
	}
	if in.room != nil {
		close(in.room)
		in.room = nil
	}
	return dst, true, nil
}

// receive returns the first message, appended to dst. It waits for one until done
// is closed, and then returns the error of ended.
func (in *inbox) receive(
	ctx context.Context, w *waiter, done <-chan struct{}, dst []byte, ended func() error,
) ([]byte, error) {
	for {
		msg, ok, ready := in.take(dst)
		if ok {
			return msg, nil
		}
		select {
		case <-done:
			if msg, ok, _ := in.take(dst); ok {
				return msg, nil
			}
			return dst, ended()
		default:
		}
		if err := w.await(ctx, ready, done); err != nil {
			return dst, err
		}
	}
}
