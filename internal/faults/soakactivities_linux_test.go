package faults

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"heartwheel/codec"
)

// An activity is done to a server again and again. It ends on its own each time.
type activity struct {
	name  string
	every time.Duration
	do    func(z *soak, s *soakServer) error
}

var soakActivities = []activity{
	{"connects and leaves", 40 * time.Millisecond, comeAndGo},
	{"silent peers", 400 * time.Millisecond, fallSilent},
	{"readers that never read", 2 * time.Second, func(_ *soak, s *soakServer) error { return dontRead(s, 4<<20) }},
	{"readers that stall", 2 * time.Second, func(_ *soak, s *soakServer) error { return dontRead(s, 200<<10) }},
	{"bad inputs", 200 * time.Millisecond, sendBad},
	{"floods of CONFIG", 500 * time.Millisecond, floodConfig},
	{"unfinished frames", 300 * time.Millisecond, leaveUnfinished},
	{"half-closes", 200 * time.Millisecond, endStream},
	{"dials of a flooding address", 10 * time.Millisecond, func(_ *soak,
		s *soakServer) error {
		return dialRefused(s, "127.0.0.2")
	}},
	{"dials of a flapping address", 150 * time.Millisecond,
		func(_ *soak, s *soakServer) error { return dialRefused(s, "127.0.0.3") }},
}

// repeat does it until the end, except while z quiesces.
func (z *soak) repeat(s *soakServer, d activity) {
	for {
		select {
		case <-z.quit:
			return
		case <-time.After(d.every):
		}
		z.busy.RLock()
		z.wg.Go(func() {
			defer z.busy.RUnlock()
			if err := d.do(z, s); err != nil && !s.goesOn(err) {
				z.isWrong("%s: %v", d.name, err)
			}
			z.mu.Lock()
			z.done[d.name]++
			z.mu.Unlock()
		})
	}
}

// activities lists how often each was done.
func (z *soak) activities() string {
	var all []string
	for name, n := range z.done {
		all = append(all, fmt.Sprintf("%d %s", n, name))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// visitor is one of a thousand addresses, each too rare to be refused.
func visitor() string {
	n := rand.IntN(1000)
	return fmt.Sprintf("127.91.%d.%d", n/250, 1+n%250)
}

// comeAndGo connects, is served or not, and leaves in one of several ways.
func comeAndGo(_ *soak, s *soakServer) error {
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	if rand.IntN(2) == 0 {
		if err := c.echoErr(); err != nil {
			return err
		}
	}
	return storms[rand.IntN(len(storms))].do(c.TCPConn)
}

// goesOn reports whether an error may be that of a visitor to a server that is
// being replaced: it gets GOAWAY in place of what it waits for. It is never
// refused.
func (s *soakServer) goesOn(err error) bool {
	return s.goodBinary && !errors.Is(err, syscall.ECONNREFUSED)
}

// fallSilent beats once, and wants to be reset, not before the timeout.
func fallSilent(_ *soak, s *soakServer) error {
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	sent := time.Now()
	if err := c.sendErr(beat); err != nil {
		return err
	}
	for {
		f, err := c.frameErr()
		switch {
		case err == nil && f.Op == codec.OpBeat:
		case errors.Is(err, syscall.ECONNRESET):
			if took := time.Since(sent); took < soakTimeout {
				return fmt.Errorf("reset after %s", took)
			}
			return nil
		default:
			return fmt.Errorf("got %s %q %v, not a reset", f.Op, f.Payload, err)
		}
	}
}

// dontRead asks for size bytes of echoes, beats and reads nothing. It has to be
// closed.
func dontRead(s *soakServer, size int) error {
	p := &slowPeer{segment: 1400}
	if err := dialSlowFrom(s.t, visitor(), s.addr, p); err != nil {
		return err
	}
	defer p.reset()
	_ = p.SetWriteDeadline(time.Now().Add(limit))
	frame := codec.AppendData(nil, make([]byte, slowPayload))
	var err error
	for n := 0; n < size && err == nil; n += len(frame) {
		_, err = p.Write(frame)
	}
	for err == nil {
		time.Sleep(soakBeat / 2)
		_, err = p.Write(beat)
	}
	if os.IsTimeout(err) {
		return err
	}
	return nil
}

// sendBad sends what is not the protocol and wants CLOSE with its code.
func sendBad(_ *soak, s *soakServer) error {
	kind := badKinds[rand.IntN(len(badKinds))]
	if kind.code == 0 || kind.after > soakTimeout {
		kind = badKinds[len(badKinds)-1]
	}
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	if err := c.sendErr(kind.input); err != nil {
		return err
	}
	f, err := c.frameErr()
	code, _, perr := codec.ParseClose(f.Payload)
	if err := errors.Join(err, perr); err != nil || f.Op != codec.OpClose || code != kind.code {
		return fmt.Errorf("%s: got %s %q %v, not close %d", kind.name, f.Op, f.Payload, err, kind.code)
	}
	if _, err = c.frameErr(); err != io.EOF {
		return fmt.Errorf("%s: %v, not the end", kind.name, err)
	}
	return nil
}

// floodConfig sends CONFIG without end, and reads the answers. It has to be closed
// with GOAWAY 3013.
func floodConfig(_ *soak, s *soakServer) error {
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		flood := bytes.Repeat(codec.AppendConfig(nil, codec.Config{BeatMS: soakBeat.Milliseconds()}), 1000)
		for range 100 { // it ends with the connection, long before that
			if c.sendErr(flood) != nil {
				return
			}
		}
	}()
	defer func() { c.reset(); <-sent }()
	for {
		f, err := c.frameErr()
		if err != nil {
			return fmt.Errorf("%w, not goaway %d", err, codec.CodeRateLimited)
		}
		if f.Op == codec.OpConfig {
			continue
		}
		g, err := codec.ParseGoaway(f.Payload)
		if f.Op != codec.OpGoaway || err != nil || g.Code != codec.CodeRateLimited {
			return fmt.Errorf("got %s %q", f.Op, f.Payload)
		}
		return nil
	}
}

// leaveUnfinished sends most of a frame, beats before it. It wants to be reset, not
// before the timeout: part of a frame is no sign of life.
func leaveUnfinished(_ *soak, s *soakServer) error {
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	began := time.Now()
	if err := c.echoErr(); err != nil {
		return err
	}
	frame := codec.AppendData(nil, make([]byte, 60<<10))
	if err := c.sendErr(frame[:len(frame)-1]); err != nil {
		return err
	}
	_, err = c.frameErr()
	if took := time.Since(began); !errors.Is(err, syscall.ECONNRESET) || took < soakTimeout {
		return fmt.Errorf("%v after %s, not a reset", err, took)
	}
	return nil
}

// endStream sends more than a socket takes and ends its stream. It wants the answer
// to all of it, and then the end.
func endStream(_ *soak, s *soakServer) error {
	c, err := dialFromErr(s.t, visitor(), s.addr)
	if err != nil {
		return err
	}
	defer c.reset()
	const frames = 200
	var all []byte
	for i := range frames {
		all = codec.AppendData(all, bytes.Repeat([]byte{byte(i)}, 1000))
	}
	if err := c.sendErr(all); err != nil {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.Int64N(int64(soakBeat / 2)))) // it reads late
	for i := range frames {
		f, err := c.frameErr()
		if err != nil || f.Op != codec.OpData || len(f.Payload) != 1000 || f.Payload[0] != byte(i) {
			return fmt.Errorf("frame %d of %d: got %s of %d B, %v", i, frames, f.Op, len(f.Payload), err)
		}
	}
	if f, err := c.frameErr(); err != io.EOF {
		return fmt.Errorf("after all: got %s %q %v, not the end", f.Op, f.Payload, err)
	}
	return nil
}

// dialRefused connects from an address that does so too often: it is served,
// refused with GOAWAY, or reset.
func dialRefused(s *soakServer, source string) error {
	c, err := dialFromErr(s.t, source, s.addr)
	if err != nil {
		if errors.Is(err, syscall.ECONNRESET) {
			err = nil
		}
		return err
	}
	defer c.reset()
	if c.sendErr(beat) != nil {
		return nil
	}
	f, err := c.frameErr()
	if err != nil || f.Op == codec.OpBeat {
		return nil
	}
	g, err := codec.ParseGoaway(f.Payload)
	if err != nil || f.Op != codec.OpGoaway || g.Code != codec.CodeRateLimited && g.Code != codec.CodeDraining {
		return fmt.Errorf("got %s %q", f.Op, f.Payload)
	}
	return nil
}

// A livePeer beats in time. It must not be closed, but by a drain.
type livePeer struct {
	z      *soak
	s      *soakServer
	source string
	tls    *tls.Config // nil: without
	ready  func()      // when it is served for the first time
	late   time.Duration
}

func (p *livePeer) run() {
	for first := true; ; first = false {
		c, err := p.dial()
		if err != nil {
			p.z.isWrong("a live peer cannot connect: %v", err)
			if first {
				p.ready()
			}
			return
		}
		draining, err := p.live(c, first)
		c.reset()
		if err == nil {
			return
		}
		p.closed(draining, err)
	}
}

func (p *livePeer) dial() (*conn, error) {
	if p.tls == nil {
		return dialFromErr(p.s.t, p.source, p.s.addr)
	}
	c, err := dialFromErr(p.s.t, p.source, p.s.addrs["tls"])
	if err == nil {
		c.tls = tls.Client(c.TCPConn, p.tls)
		_ = c.SetDeadline(time.Now().Add(limit))
		err = c.tls.Handshake()
	}
	return c, err
}

// closed notes the end of a connection, as it may be or as it may not.
func (p *livePeer) closed(draining bool, err error) {
	count := &p.z.killed
	switch {
	case draining && p.s.goodBinary:
		count = &p.z.reached
	case p.late >= soakTimeout-soakBeat:
		count = &p.z.excused
	default:
		p.z.isWrong("a live peer was closed: %v", err)
	}
	p.z.mu.Lock()
	*count++
	p.z.mu.Unlock()
}

// live beats until the end of the soak, when the error is nil, or of the
// connection. draining reports whether GOAWAY for a drain came.
func (p *livePeer) live(c *conn, first bool) (draining bool, err error) {
	p.late = 0
	for due := time.Now(); ; due = later(due, time.Now()) {
		time.Sleep(time.Until(due))
		p.late = max(p.late, time.Since(due)) // by this process's fault
		select {
		case <-p.z.quit:
			return draining, nil
		default:
		}
		// From here on, not from the answer: that may be read late.
		due = time.Now().Add(soakBeat)
		if err := c.sendErr(append(codec.AppendData(nil, []byte("live")), beat...)); err != nil {
			return draining, err
		}
		for answered := false; !answered; {
			f, err := c.frameErr()
			if err != nil {
				return draining, err
			}
			switch f.Op {
			case codec.OpBeat:
				answered = true
			case codec.OpGoaway:
				g, err := codec.ParseGoaway(f.Payload)
				if draining = err == nil && g.Code == codec.CodeDraining; !draining {
					return false, fmt.Errorf("goaway %+v %v", g, err)
				}
			case codec.OpClose:
				return draining, fmt.Errorf("close %q", f.Payload)
			case codec.OpData:
				if string(f.Payload) != "live" {
					return draining, fmt.Errorf("got %q, which it had not sent", f.Payload)
				}
			default:
				return draining, fmt.Errorf("got %s %q", f.Op, f.Payload)
			}
		}
		if first {
			first = false
			p.ready()
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
