package client

import (
	"context"
	"sync/atomic"
	"time"
)

// A waiting is what blocking calls share: they wait for a channel, and while
// they do the application's heartbeat runs. Safe for concurrent use.
type waiting struct {
	beat  func()
	rate  time.Duration
	timer atomic.Pointer[time.Timer] // one that nobody uses now, for the next who waits
}

// await waits until ready or done gives, or ctx ends. Its result is ctx's error.
// ready or done may be nil.
func (w *waiting) await(ctx context.Context, ready, done <-chan struct{}) error {
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
			if err := ctx.Err(); err != nil { // the heartbeat has cancelled
				return err
			}
			t.Reset(w.rate)
		}
	}
}

// A call waits for an answer of the server.
type call struct {
	done   chan struct{} // has a token when the rest is filled in
	began  time.Duration
	took   time.Duration
	status uint8
	body   []byte
	err    error
}

// Keys of calls: what the answer is recognised by.
func requestKey(id uint32) uint64 { return uint64(id) }
func beatKey(n uint64) uint64     { return 1<<62 | n }
func pingKey(id uint32) uint64    { return 1<<63 | uint64(id) }
