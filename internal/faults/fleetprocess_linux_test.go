package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// A fleetProcess is a fleet as a process of its own: the test binary once more.
// They talk in lines of JSON; the end of the child's standard input tells it to
// finish.
type fleetProcess struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.Closer
	events chan fleetEvent
}

type fleetEvent struct {
	Event  string // connected, settled, report or error
	Report *fleetReport
	Error  string
}

func init() {
	fleetMain = func(text string) int {
		out := json.NewEncoder(os.Stdout)
		fail := func(err error) int {
			_ = out.Encode(fleetEvent{Event: "error", Error: err.Error()})
			return 1
		}
		var spec fleetSpec
		if err := json.Unmarshal([]byte(text), &spec); err != nil {
			return fail(err)
		}
		f, err := startFleet(spec)
		if err != nil {
			return fail(err)
		}
		for _, next := range []struct {
			name    string
			reached <-chan struct{}
		}{{"connected", f.connected}, {"settled", f.settled}} {
			select {
			case <-next.reached:
				if err := out.Encode(fleetEvent{Event: next.name}); err != nil {
					return 1
				}
			case <-f.done:
				return fail(f.err)
			}
		}
		_, _ = io.Copy(io.Discard, os.Stdin)
		report, err := f.finish()
		if err != nil {
			return fail(err)
		}
		if err := out.Encode(fleetEvent{Event: "report", Report: report}); err != nil {
			return 1
		}
		time.Sleep(limit) // with the connections open, until it is killed
		return 0
	}
}

// startFleetProcess starts one. The test's end kills it.
func startFleetProcess(t testing.TB, spec fleetSpec) *fleetProcess {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleetProcess{t: t, cmd: exec.Command(self), events: make(chan fleetEvent, 4)}
	f.cmd.Env = append(ordinaryEnv(), fleetEnv+"="+string(text))
	f.cmd.Stderr = os.Stderr
	stdout, err := f.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if f.stdin, err = f.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := f.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(f.events)
		lines := bufio.NewReader(stdout)
		for dec := json.NewDecoder(lines); ; {
			var e fleetEvent
			if dec.Decode(&e) != nil {
				return
			}
			f.events <- e
		}
	}()
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		<-read
		_ = f.cmd.Wait()
	})
	return f
}

// wait waits for the next event, which has to be the named one.
func (f *fleetProcess) wait(event string, within time.Duration) *fleetReport {
	f.t.Helper()
	select {
	case e, ok := <-f.events:
		if !ok {
			f.t.Fatalf("the client process ended before it was %s", event)
		}
		if e.Event != event {
			f.t.Fatalf("the client process is %s, not %s: %s", e.Event, event, e.Error)
		}
		return e.Report
	case <-time.After(within):
		f.t.Fatal(fmt.Errorf("the client process was not %s within %s", event, within))
	}
	return nil
}

// finish ends the beating and returns the report. The connections stay open.
func (f *fleetProcess) finish() *fleetReport {
	f.t.Helper()
	if err := f.stdin.Close(); err != nil {
		f.t.Fatal(err)
	}
	return f.wait("report", limit)
}

// A runningFleet is a fleet on a goroutine of this process.
type runningFleet struct {
	*fleet
	cancel context.CancelFunc
	done   chan struct{}
	result *fleetReport // with err, read after done
	err    error
}

func startFleet(spec fleetSpec) (*runningFleet, error) {
	f, err := newFleet(spec)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &runningFleet{fleet: f, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.result, r.err = f.run(ctx)
	}()
	return r, nil
}

// wait waits for connected or settled.
func (r *runningFleet) wait(event <-chan struct{}, within time.Duration) error {
	select {
	case <-event:
		return nil
	case <-r.done:
		return errors.Join(errors.New("the fleet has ended"), r.err)
	case <-time.After(within):
		return fmt.Errorf("the fleet is not ready within %s", within)
	}
}

// finish ends the beating and returns the report.
func (r *runningFleet) finish() (*fleetReport, error) {
	r.cancel()
	<-r.done
	return r.result, r.err
}
