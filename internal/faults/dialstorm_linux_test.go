package faults

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"heartwheel/codec"
)

// A storm dials at a fixed rate, whatever becomes of it (an open loop). Each
// dial sends the empty frame, waits for it to come back and closes with a
// reset, which leaves no port waiting.
type storm struct {
	addr string
	due  chan time.Time
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once

	mu sync.Mutex
	r  stormReport // guarded by mu until done
}

// A stormReport is what came of the dials.
type stormReport struct {
	dials, connected int
	refused, reset   int
	excused          int           // closed in order before they spoke, being slow themselves
	slowest          time.Duration // from when a dial was due to its answer
	oversleep        time.Duration // the most that the pacer was late
	lasted           time.Duration
	wrong            []string // the first few things that went wrong
}

// stormDialers is how many dials may be under way at one time.
const stormDialers = 200

func startStorm(addr string, rate int) *storm {
	s := &storm{addr: addr, due: make(chan time.Time, 100_000), quit: make(chan struct{})}
	s.done.Add(1)
	go s.pace(time.Second / time.Duration(rate))
	for range stormDialers {
		s.done.Add(1)
		go func() {
			defer s.done.Done()
			for due := range s.due {
				s.one(due)
			}
		}()
	}
	return s
}

// pace hands out a dial for each interval that has passed.
func (s *storm) pace(interval time.Duration) {
	defer s.done.Done()
	defer close(s.due)
	start := time.Now()
	for next := start; ; next = next.Add(interval) {
		select {
		case <-s.quit:
			s.r.lasted = time.Since(start)
			return
		case <-time.After(time.Until(next)):
		}
		s.r.oversleep = max(s.r.oversleep, time.Since(next))
		s.due <- next
	}
}

// stop ends the dialling, waits for what is under way and reports. It may be
// called again.
func (s *storm) stop() *stormReport {
	s.once.Do(func() { close(s.quit) })
	s.done.Wait()
	return &s.r
}

// one dials once and counts what came of it.
func (s *storm) one(due time.Time) {
	began := time.Now()
	var spoke time.Time
	connected, err := false, error(nil)
	nc, err := net.DialTimeout("tcp", s.addr, limit)
	if err == nil {
		connected = true
		c := &conn{TCPConn: nc.(*net.TCPConn)}
		err = c.sendErr(beat)
		spoke = time.Now()
		if err == nil {
			err = answered(c)
		}
		c.reset()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.r.dials++
	if connected {
		s.r.connected++
	}
	s.r.slowest = max(s.r.slowest, time.Since(due))
	switch {
	case err == nil:
		return
	case errors.Is(err, syscall.ECONNREFUSED):
		s.r.refused++
	case connected && spoke.Sub(began) > drainHold && errors.Is(err, errTold):
		s.r.excused++
		return
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, io.EOF):
		s.r.reset++
	}
	if len(s.r.wrong) < 5 {
		s.r.wrong = append(s.r.wrong, fmt.Sprintf("a dial (%s until it had spoken): %v", spoke.Sub(began), err))
	}
}

// drainHold is how long a server with a drain of 2 s leaves a connection open
// at least after GOAWAY (6 % of it): a client that has not spoken by then was slow
// itself.
const drainHold = 2 * time.Second * 6 / 100

var errTold = errors.New("closed in order, before it was answered")

// answered waits for the empty frame. GOAWAY may come before it.
func answered(c *conn) error {
	for {
		f, err := c.frameErr()
		if err != nil {
			return err
		}
		switch f.Op {
		case codec.OpBeat:
			return nil
		case codec.OpGoaway:
		case codec.OpClose:
			return errTold
		default:
			return fmt.Errorf("got %s instead of the empty frame", f.Op)
		}
	}
}
