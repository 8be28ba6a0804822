package client

import (
	"context"
	"sync/atomic"
	"time"
)

// A waiter lets blocking calls wait for a channel while the application's
// OnHeartbeat runs. Safe for concurrent use.
type waiter struct {
	beat  func()
	rate  time.Duration
	timer atomic.Pointer[time.Timer] // an unused timer, or nil
}

// await waits until ready or done has a value or is closed, or ctx ends. It
// returns ctx's error. ready and done may be nil.
func (w *waiter) await(ctx context.Context, ready, done <-chan struct{}) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.beat == nil {
		select {
		case <-ready:
			return nil
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	t := w.timer.Swap(nil)
	if t == nil {
		t = time.NewTimer(w.rate)
	} else {
		t.Reset(w.rate)
	}
	defer func() {
		t.Stop()
		w.timer.Store(t)
	}()
	for {
		select {
		case <-ready:
			return nil
		case <-done:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			w.beat()
			if err := ctx.Err(); err != nil { // OnHeartbeat cancelled it
				return err
			}
			t.Reset(w.rate)
		}
	}
}

// A call waits for an answer from the server.
type call struct {
	done   chan struct{} // has a token when the fields below are set
	began  time.Duration
	took   time.Duration
	status uint8
	body   []byte
	err    error
}

// Keys match answers to calls.
func requestKey(id uint32) uint64 { return uint64(id) }
func beatKey(n uint64) uint64     { return 1<<62 | n }
func pingKey(id uint32) uint64    { return 1<<63 | uint64(id) }
