// Command netpoll is github.com/cloudwego/netpoll, as its docs/guide/guide_en.md
// has it: OnRequest reads with Next, which waits up to the read timeout for the
// rest of a frame, writes, flushes and releases.
//
// netpoll has no timeout for a peer that says nothing. Its idle timeout is the
// kernel's keep-alive (issue 61), which a peer that hangs answers as well as one
// that lives, and its read timeout runs only inside OnRequest. So there is a
// time.Timer for each connection besides, which nbio's author names there, too;
// it hangs on the context that OnPrepare returns.
package main

import (
	"context"
	"time"

	"github.com/cloudwego/netpoll"

	"heartwheel/bench/peers/peer"
)

// timerKey is the key of a connection's *time.Timer in its context.
type timerKey struct{}

func main() {
	o := peer.Start()
	// With gopool, its default: closing it, which the guide advises where stacks
	// do not grow, cost more here.
	if err := netpoll.Configure(netpoll.Config{PollerNum: o.Loops}); err != nil {
		peer.Fail(err)
	}
	ln, err := o.Listen()
	if err != nil {
		peer.Fail(err)
	}
	loop, err := netpoll.NewEventLoop(
		func(ctx context.Context, c netpoll.Connection) error {
			return answer(c, ctx.Value(timerKey{}).(*time.Timer), o.Timeout)
		},
		netpoll.WithOnPrepare(func(c netpoll.Connection) context.Context {
			peer.Conns.Add(1)
			t := time.AfterFunc(o.Timeout, func() { _ = c.Close() })
			_ = c.AddCloseCallback(func(netpoll.Connection) error {
				peer.Conns.Add(-1)
				t.Stop()
				return nil
			})
			return context.WithValue(context.Background(), timerKey{}, t)
		}),
		netpoll.WithReadTimeout(o.Timeout),
		netpoll.WithIdleTimeout(o.Timeout),
	)
	if err != nil {
		peer.Fail(err)
	}
	peer.Listening(ln.Addr().String())
	peer.Fail(loop.Serve(ln))
}

// answer echoes all frames that have arrived, and waits for the rest of the last
// one: OnRequest has to leave nothing behind.
func answer(c netpoll.Connection, t *time.Timer, timeout time.Duration) error {
	r, w := c.Reader(), c.Writer()
	for {
		head, err := r.Peek(peer.Header)
		if err != nil {
			return c.Close()
		}
		size, ok := peer.Size(head)
		if !ok {
			return c.Close()
		}
		frame, err := r.Next(size)
		if err != nil {
			return c.Close()
		}
		if _, err := w.WriteBinary(frame); err != nil {
			return c.Close()
		}
		if whole(r) {
			continue
		}
		// What was read may be written without a copy, so it is released after
		// it has been flushed.
		if err := w.Flush(); err != nil {
			return c.Close()
		}
		t.Reset(timeout)
		if err := r.Release(); err != nil {
			return c.Close()
		}
		if r.Len() == 0 {
			return nil
		}
	}
}

// whole reports whether the next frame can be read without waiting.
func whole(r netpoll.Reader) bool {
	if r.Len() < peer.Header {
		return false
	}
	head, err := r.Peek(peer.Header)
	if err != nil {
		return false
	}
	size, ok := peer.Size(head)
	return ok && r.Len() >= size
}
