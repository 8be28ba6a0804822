package faults

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"heartwheel/codec"
)

// TestSlowUploads is the sending half of case 9. What is promised to a peer
// that sends slowly: it lives as long as each frame is complete within 10 s of
// its first byte, and one is within each idle timeout. How long all of them
// take does not matter. One frame that takes longer is closed with 3502.
func TestSlowUploads(t *testing.T) {
	t.Parallel()
	// The upload of many frames takes several timeouts, that of one less than
	// one timeout but most of the 10 s.
	uploads := []slowUpload{
		{name: "many frames", frame: 1000, frames: 60, takes: 8 * time.Second},
		{name: "one large frame", frame: 60_000, frames: 1, takes: 8 * time.Second,
			args: []string{"--timeout", "37500ms"}},
		{name: "one frame that takes too long", frame: 60_000, frames: 1, takes: 30 * time.Second,
			args: []string{"--timeout", "37500ms"}, code: codec.CodeIncomplete},
	}
	if size == long {
		uploads[0].frames, uploads[0].takes = 1000, 2*time.Minute
	}
	done := make(chan error, len(uploads))
	for _, u := range uploads {
		if u.args == nil {
			u.args = []string{"--beat", "1s", "--timeout", "1500ms"}
		}
		s := startServer(t, binary(t), append(u.args, "--drain", "1s")...)
		c := dial(t, s.addr)
		go func() { done <- u.send(c) }()
		defer s.check()
	}
	for range uploads {
		if err := <-done; errors.Is(err, errLate) {
			t.Skipf("too slow a machine to judge: %v", err)
		} else if err != nil {
			t.Error(err)
		}
	}
	figure(t, 9, "%d kB in %d frames over %s with a timeout of 1.5 s, and 60 kB in one frame over 8 s, came back "+
		"whole; one frame that took more than 10 s got %d",
		uploads[0].frame*uploads[0].frames/1000, uploads[0].frames, uploads[0].takes, codec.CodeIncomplete)
}

// A slowUpload is what one peer sends.
type slowUpload struct {
	name   string
	frame  int // bytes of data
	frames int
	takes  time.Duration // for all of them, at an even pace
	args   []string      // of the server
	code   codec.Code    // what ends it; 0: nothing does
}

// errLate says that a peer did not keep its own pace, and failed.
var errLate = errors.New("this machine kept the peer from sending")

// send sends everything 20 times a second, and looks at what comes back.
func (u *slowUpload) send(c *conn) error {
	const every = 50 * time.Millisecond
	text := strings.Repeat("heartwheel", u.frame/10)
	var all []byte
	for range u.frames {
		all = codec.AppendData(all, []byte(text))
	}
	came := make(chan error, 1)
	go func() { came <- u.receive(c, text) }()
	start, pieces, latest := time.Now(), int(u.takes/every), time.Duration(0)
	for i := range pieces {
		due := start.Add(time.Duration(i) * every)
		time.Sleep(time.Until(due))
		latest = max(latest, time.Since(due))
		if err := c.sendErr(all[len(all)*i/pieces : len(all)*(i+1)/pieces]); err != nil {
			break // what has come tells why
		}
		if len(came) > 0 {
			break
		}
	}
	err := <-came
	took := time.Since(start)
	switch {
	case err != nil && latest > time.Second:
		return fmt.Errorf("%s: %w for %s: %w", u.name, errLate, latest, err)
	case err != nil:
		return fmt.Errorf("%s: after %s: %w", u.name, took, err)
	case u.code != 0 && took < 10*time.Second:
		return fmt.Errorf("%s: closed after %s, not 10 s", u.name, took)
	}
	return nil
}

// receive wants what was sent, or the close.
func (u *slowUpload) receive(c *conn, text string) error {
	for i := range u.frames {
		f, err := c.frameErr()
		if err != nil {
			return err
		}
		if u.code != 0 {
			code, _, err := codec.ParseClose(f.Payload)
			if f.Op != codec.OpClose || err != nil || code != u.code {
				return fmt.Errorf("got %s %d %v, not close %d", f.Op, code, err, u.code)
			}
			return nil
		}
		if f.Op != codec.OpData || string(f.Payload) != text {
			return fmt.Errorf("frame %d came back as %s, %d bytes", i, f.Op, len(f.Payload))
		}
	}
	return nil
}
