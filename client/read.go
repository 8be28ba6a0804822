package client

import (
	"encoding/binary"
	"fmt"
	"time"

	"heartwheel/codec"
)

// read reads and handles frames until the connection ends. rest is what has
// arrived already.
func (c *Conn) read(rest []byte) {
	b := newReadBuffer(rest, c.cfg.MaxFrame)
	var end error // of the stream
	for {
		err := c.frames(&b)
		if err == nil && end != nil {
			err = &brokenError{end}
		}
		if err != nil {
			b.giveBack()
			c.mu.Lock()
			if c.web != nil {
				c.web.raw.giveBack()
				c.farewell = c.err == nil && !c.closing && !c.flushing && c.web.answerClose()
			}
			c.fail(err)
			c.mu.Unlock()
			c.save()
			c.mu.Lock()
			c.exit()
			return
		}
		c.wantMore()
		var n int
		n, end = c.nc.Read(b.free())
		c.took(n, end)
		if c.web != nil && c.web.pinged {
			c.onWebPing(c.web.ping)
		}
		c.save()
		b.added(n)
	}
}

// wantMore notes that the reader now waits for the server.
func (c *Conn) wantMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = true
	if c.keepalive.paused {
		c.keepalive.resume(c.now())
		c.arm()
	}
}

// took notes what a Read returned, and that the reader is busy with it. A WebSocket
// returns no bytes for some that have arrived.
func (c *Conn) took(n int, end error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	if n == 0 && end != nil {
		return
	}
	now := c.now()
	if c.keepalive.unanswered {
		c.answered(now - c.keepalive.askedAt)
	}
	c.keepalive.received(now)
	c.arm()
}

// frames handles every complete frame in b.
func (c *Conn) frames(b *readBuffer) error {
	for {
		f, n, err := codec.Decode(b.bytes(), c.cfg.MaxFrame)
		if err != nil {
			return fmt.Errorf("the server sent an invalid frame: %w", err)
		}
		if n == 0 {
			return b.makeRoom()
		}
		if err := c.frame(f); err != nil {
			return err
		}
		b.used(n)
	}
}

// frame handles one frame. An error ends the connection.
func (c *Conn) frame(f codec.Frame) error {
	switch f.Op {
	case codec.OpData:
		if c.cfg.OnData != nil {
			c.cfg.OnData(f.Payload)
		} else {
			c.in.put(f.Payload, c.inboxFull)
		}
	case codec.OpBeat:
		c.onBeat()
	case codec.OpPing:
		c.reply(func(b []byte) []byte { return codec.AppendPong(b, f.Payload) })
	case codec.OpPong:
		if len(f.Payload) == 4 {
			c.answer(pingKey(binary.BigEndian.Uint32(f.Payload)), 0, nil, nil)
		}
	case codec.OpRes:
		id, status, body, err := codec.ParseRes(f.Payload)
		if err != nil {
			return err
		}
		c.answer(requestKey(id), status, body, nil)
	case codec.OpReq:
		id, _, _, err := codec.ParseReq(f.Payload)
		if err != nil {
			return err
		}
		c.reply(func(b []byte) []byte { return codec.AppendRes(b, id, statusUnhandled, nil) })
	case codec.OpConfig:
		return c.onConfig(f.Payload)
	case codec.OpGoaway:
		return c.onGoaway(f.Payload)
	case codec.OpError:
		return c.onError(f.Payload)
	case codec.OpClose:
		code, reason, err := codec.ParseClose(f.Payload)
		if err != nil {
			return err
		}
		return &CodeError{code, reason}
	case codec.OpHello, codec.OpWelcome, codec.OpSubscribe, codec.OpUnsubscribe:
		return fmt.Errorf("the server sent %s where it is not allowed", f.Op)
	}
	return nil // PUBLISH and extensions are ignored
}

// statusUnhandled answers a REQ from the server: this client handles none.
const statusUnhandled = 1

// inboxFull notes that the reader waits for the application. It returns a channel
// that is closed when the connection ends.
func (c *Conn) inboxFull() (quit <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keepalive.pause()
	c.arm()
	return c.quit.wait()
}

// reply queues an answer to the server. Answers beyond maxReplies are dropped: a
// server that asks and does not read is found dead, see progressConn.
func (c *Conn) reply(frame func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || len(c.out) > c.cfg.SendBuffer+maxReplies {
		return
	}
	c.out = frame(c.out)
	c.write()
}

// maxReplies is how many bytes of answers may wait beyond SendBuffer.
const maxReplies = 64 << 10

// onBeat handles an empty frame.
func (c *Conn) onBeat() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keepalive.serverBeats {
		if !c.closing && len(c.out) <= c.cfg.SendBuffer+maxReplies {
			c.queueBeat()
		}
		return
	}
	c.beats.Answered++
	c.answerLocked(beatKey(c.beats.Answered), 0, nil, nil)
}

// onWebPing answers a ping of the WebSocket, which is a beat of a server that beats.
func (c *Conn) onWebPing(content []byte) {
	c.reply(func(b []byte) []byte {
		if c.keepalive.serverBeats {
			c.beats.Sent++
		}
		return appendPong(b, content)
	})
}

// onConfig adopts new times from the server.
func (c *Conn) onConfig(payload []byte) error {
	cfg, err := codec.ParseConfig(payload)
	if err == nil {
		err = checkTimes(cfg.BeatMS, cfg.TimeoutMS)
	}
	if err != nil {
		return fmt.Errorf("the server's CONFIG: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setBeat(cfg.BeatMS, cfg.TimeoutMS)
	c.setExpiry(cfg.ExpiresMS, c.now())
	c.arm()
	return nil
}

// onGoaway ends the connection if the code is final, or passes GOAWAY to the owner.
func (c *Conn) onGoaway(payload []byte) error {
	g, err := codec.ParseGoaway(payload)
	switch {
	case err != nil:
		return err
	case !g.Code.Reconnect():
		return &CodeError{g.Code, g.Reason}
	case c.owner != nil:
		c.mu.Lock()
		c.leaving = true
		c.mu.Unlock()
		c.owner.goaway(&g)
	}
	return nil
}

// onError ends the request that an ERROR belongs to. ERROR names none: without a
// gateway it is every pending request, otherwise the only one.
func (c *Conn) onError(payload []byte) error {
	code, text, err := codec.ParseError(payload)
	if err != nil {
		return err
	}
	said := &CodeError{code, text}
	c.mu.Lock()
	var asked []uint64
	for key := range c.calls {
		if key < 1<<32 {
			asked = append(asked, key)
		}
	}
	mine := len(asked) == 1 || code == codec.CodeNoGateway && len(asked) > 0
	if mine {
		for _, key := range asked {
			c.answerLocked(key, 0, nil, said)
		}
	}
	c.mu.Unlock()
	if !mine && c.cfg.OnError != nil {
		c.cfg.OnError(said)
	}
	return nil
}

// answer ends a call.
func (c *Conn) answer(key uint64, status uint8, body []byte, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answerLocked(key, status, body, err)
}

func (c *Conn) answerLocked(key uint64, status uint8, body []byte, err error) {
	w := c.calls[key]
	if w == nil {
		return // its call has given up
	}
	delete(c.calls, key)
	w.took = c.now() - w.began
	w.status, w.body, w.err = status, append([]byte(nil), body...), err
	w.done <- struct{}{}
}

// answered notes the time from a beat or PING to the first byte after it. Called
// with mu held.
func (c *Conn) answered(rtt time.Duration) {
	c.beats.RTT = rtt
	if c.adapt == nil {
		return
	}
	waits := c.adapt.asked
	c.unsaved = c.adapt.good(c.quiet, time.Now()) || c.unsaved
	if c.adapt.asked && !waits {
		c.out = codec.AppendConfig(c.out, codec.Config{BeatMS: c.adapt.interval().Milliseconds()})
		c.write()
	}
}

// save saves what adapt has learned, if anything.
func (c *Conn) save() {
	if c.adapt == nil {
		return
	}
	c.mu.Lock()
	unsaved := c.unsaved
	c.unsaved = false
	s := *c.adapt
	c.mu.Unlock()
	if unsaved {
		s.save()
	}
}
