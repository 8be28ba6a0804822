package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"heartwheel/codec"
)

// Send sends payload as DATA. It returns when the frame is in the output buffer,
// from where it is written at once and in order, and waits while that is full.
// payload is copied.
//
// After an error nothing of it was sent. Otherwise it is delivered at most once:
// a connection that is lost takes what it has not delivered with it.
func (c *Conn) Send(ctx context.Context, payload []byte) error {
	if err := c.fits(len(payload)); err != nil {
		return err
	}
	return c.queue(ctx, func(b []byte) []byte { return codec.AppendData(b, payload) }, codec.HeaderSize+1+len(payload))
}

// Request sends a request and waits for its answer, whose body is the caller's.
// subject, at most 255 bytes, says to what it goes; it may be empty. payload is
// copied. An answer with another status than 0 is a *StatusError, an ERROR of
// the server a *CodeError, and ErrLost a connection that ended before the answer
// came: whether the request was carried out is then not known. When ctx ends,
// the answer is not waited for any more, but the request is not taken back.
func (c *Conn) Request(ctx context.Context, subject string, payload []byte) ([]byte, error) {
	if len(subject) > codec.MaxSubject {
		return nil, fmt.Errorf("client: the subject has %d bytes, %d are allowed", len(subject), codec.MaxSubject)
	}
	if err := c.fits(4 + 1 + len(subject) + len(payload)); err != nil {
		return nil, err
	}
	size := codec.HeaderSize + 1 + 4 + 1 + len(subject) + len(payload)
	var key uint64
	w, err := c.ask(ctx, size, func(b []byte) ([]byte, uint64) {
		c.nextID++
		key = requestKey(c.nextID)
		return codec.AppendReq(b, c.nextID, subject, payload), key
	})
	if err != nil {
		return nil, err
	}
	switch {
	case w.err != nil:
		return nil, w.err
	case w.status != 0:
		return nil, &StatusError{w.status, w.body}
	}
	return w.body, nil
}

// Beat beats now and returns how long the answer took. Where the server beats it
// sends a PING instead, as an empty frame would be an answer.
func (c *Conn) Beat(ctx context.Context) (time.Duration, error) {
	w, err := c.ask(ctx, codec.HeaderSize, func(b []byte) ([]byte, uint64) {
		c.pulse.asking = true
		if c.pulse.server {
			c.nextID++
			return codec.AppendPing(b, binary.BigEndian.AppendUint32(nil, c.nextID)), pingKey(c.nextID)
		}
		c.beats.Sent++
		if !c.pulse.open {
			c.quiet = 0
		}
		return codec.AppendBeat(b), beatKey(c.beats.Sent)
	})
	if err != nil {
		return 0, err
	}
	return w.took, w.err
}

// Receive returns the payload of the next DATA, appended to dst, which may be
// nil. What had come before the connection ended is still returned.
func (c *Conn) Receive(ctx context.Context, dst []byte) ([]byte, error) {
	return c.in.receive(ctx, c.wait, c.Done(), dst, c.lost)
}

// fits checks the content of a frame against what the server accepts.
func (c *Conn) fits(content int) error {
	if 1+content > c.limit {
		return fmt.Errorf("%w: %d bytes, %d are accepted", ErrFrameTooLarge, 1+content, c.limit)
	}
	return nil
}

// lost is the error of a call when the connection has ended. Called with mu
// held, or after done.
func (c *Conn) lost() error {
	if c.closing {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrLost, c.err)
}

// notSent is the error of a call that found the connection ended before it sent
// anything.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// queue puts a frame of so many bytes into the output buffer once it has room.
func (c *Conn) queue(ctx context.Context, frame func([]byte) []byte, size int) error {
	if err := c.lockRoom(ctx, size); err != nil {
		return err
	}
	defer c.mu.Unlock()
	c.out = frame(c.out)
	c.write()
	return nil
}

// lockRoom returns with mu held when the output buffer has room for size bytes:
// all of them, or any if it is empty.
func (c *Conn) lockRoom(ctx context.Context, size int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		c.mu.Lock()
		if c.closing || c.err != nil {
			defer c.mu.Unlock()
			return notSent{c.lost()}
		}
		if len(c.out) == 0 || len(c.out)+size <= c.cfg.SendBuffer {
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		if err := c.wait.await(ctx, room, c.quit.wait()); err != nil {
			return err
		}
	}
}

// ask sends a frame and waits for what answers it. frame is called with mu held
// and returns the key of the answer.
func (c *Conn) ask(ctx context.Context, size int, frame func([]byte) ([]byte, uint64)) (*call, error) {
	if err := c.lockRoom(ctx, size); err != nil {
		return nil, err
	}
	w := &call{done: make(chan struct{}, 1), began: c.now()}
	var key uint64
	c.out, key = frame(c.out)
	if c.calls == nil {
		c.calls = make(map[uint64]*call)
	}
	c.calls[key] = w
	c.write()
	c.mu.Unlock()
	if err := c.wait.await(ctx, w.done, nil); err != nil {
		c.mu.Lock()
		delete(c.calls, key)
		c.mu.Unlock()
		return nil, err
	}
	return w, nil
}
