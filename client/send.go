package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"heartwheel/codec"
)

// Send sends payload as DATA. It returns once the frame is in the send buffer, and
// blocks while that is full. Frames are written in order. payload is copied.
//
// After an error nothing was sent. After nil the frame is delivered at most once:
// it may be lost with the connection.
func (c *Conn) Send(ctx context.Context, payload []byte) error {
	if err := c.fits(len(payload)); err != nil {
		return err
	}
	return c.queue(ctx, func(b []byte) []byte { return codec.AppendData(b, payload) }, codec.HeaderSize+1+len(payload))
}

// Request sends REQ and waits for the answer, whose body belongs to the caller.
// subject is the request's address, 0 to 255 bytes. payload is copied.
//
// A status other than 0 is returned as *StatusError, an ERROR as *CodeError. If the
// connection ends first, the error matches ErrLost, and the server may or may not
// have carried out the request. The end of ctx does not cancel it either.
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

// Beat beats now and returns the round-trip time. Where the server beats it sends
// PING, as an empty frame would be an answer.
func (c *Conn) Beat(ctx context.Context) (time.Duration, error) {
	w, err := c.ask(ctx, codec.HeaderSize, func(b []byte) ([]byte, uint64) {
		c.keepalive.inFlight = true
		if c.keepalive.serverBeats {
			c.nextID++
			return codec.AppendPing(b, binary.BigEndian.AppendUint32(nil, c.nextID)), pingKey(c.nextID)
		}
		c.beats.Sent++
		if !c.keepalive.unanswered {
			c.quiet = 0
		}
		return codec.AppendBeat(b), beatKey(c.beats.Sent)
	})
	if err != nil {
		return 0, err
	}
	return w.took, w.err
}

// Receive returns the payload of the next DATA, appended to dst, which may be nil.
// Frames that arrived before the connection ended are still returned.
func (c *Conn) Receive(ctx context.Context, dst []byte) ([]byte, error) {
	return c.in.receive(ctx, c.wait, c.Done(), dst, c.lost)
}

// fits checks the size of a frame's content against the server's max_frame.
func (c *Conn) fits(content int) error {
	if 1+content > c.limit {
		return fmt.Errorf("%w: %d bytes, %d are accepted", ErrFrameTooLarge, 1+content, c.limit)
	}
	return nil
}

// lost returns the error of a call whose connection has ended. Called with mu
// held, or after done.
func (c *Conn) lost() error {
	if c.closing {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrLost, c.err)
}

// notSent is the error of a call whose connection had ended before it sent
// anything: it is safe to repeat.
type notSent struct{ error }

func (e notSent) Unwrap() error { return e.error }

// queue appends a frame of size bytes to the send buffer once it has room.
func (c *Conn) queue(ctx context.Context, frame func([]byte) []byte, size int) error {
	if err := c.lockRoom(ctx, size); err != nil {
		return err
	}
	defer c.mu.Unlock()
	c.out = frame(c.out)
	c.write()
	return nil
}

// lockRoom returns with mu held once the send buffer has room for size bytes. An
// empty buffer has room for any size.
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

// ask sends a frame and waits for its answer. frame is called with mu held and
// returns the key of the answer.
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
