package server

import (
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"heartwheel/codec"
)

// Peers whose input takes long do not all get their turn before others get one.
func TestOthersBetweenHeavyPeers(t *testing.T) {
	const heavies, work = 32, time.Millisecond
	heavy, seen := 0, make(chan int, 1) // heavy is the loop's: callbacks since the last light one
	s := start(t, Config{Loops: 1}, hooks{frame: func(c *Conn, f codec.Frame) error {
		if len(f.Payload) < restBytes {
			seen <- heavy
			heavy = 0
			return nil
		}
		heavy++
		time.Sleep(work)
		return c.Send(codec.OpData, nil)
	}})
	frame, answer := codec.AppendData(nil, make([]byte, restBytes)), codec.AppendData(nil, nil)
	var all sync.WaitGroup
	var first sync.WaitGroup
	quit := make(chan struct{})
	for range heavies {
		c := dial(t, s)
		first.Add(1)
		all.Go(func() {
			for n := 0; ; n++ {
				_, _ = c.Write(frame)
				if _, err := io.ReadFull(c, make([]byte, len(answer))); err != nil {
					t.Errorf("a heavy peer, after %d answers: %v", n, err)
				}
				if n == 0 {
					first.Done()
				}
				select {
				case <-quit:
					return
				default:
				}
			}
		})
	}
	first.Wait()
	light := dial(t, s)
	var between []int
	for range 21 {
		_, _ = light.Write(data("light"))
		between = append(between, <-seen)
	}
	close(quit)
	all.Wait()
	slices.Sort(between[1:]) // the first counts from the start
	if median := between[len(between)/2]; median > heavies/3 {
		t.Errorf("between two frames of a light peer %d of %d heavy ones are served: %v", median, heavies, between[1:])
	}
	eventually(t, "none rests that sends nothing", func() bool {
		resting := -1
		s.ask(s.loops[0], func() { resting = len(s.engines[0].resting) })
		return resting == 0
	})
}
