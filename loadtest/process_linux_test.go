package loadtest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"heartwheel/loadtest/engine"
	"heartwheel/loadtest/report"
)

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, pairs := range [][]string{{}, {"processes", "2"}} {
		r := doRun(t, func(signals chan<- os.Signal) { signals <- os.Interrupt },
			append(pairs, "connections", "20", "interval", "200ms", "duration", "1m", "fault", "garbage:2@200ms",
				"fault", "silent:2@50s", "bound", "1s")...)
		r.want(t, report.Interrupted, "these are the figures until then")
		if r.Verdict.ExitCode != 130 || r.Connections.Established != 20 || r.Frames.Answered < 20 ||
			r.Detection.Detected != 2 || r.Detection.Undetected != 0 {
			t.Errorf("%+v", r.Summary)
		}
	}
}

func TestServerThatEnds(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "serve", "--die", "connections", "5", "interval", "200ms", "duration", "10s")
	r.want(t, report.Failed, "the server ended during the run: exit status 7", "cannot go on")
	_, err := Run(Options{Plan: testPlan(t), Command: func(args ...string) *exec.Cmd { return command("nothing") },
		Stdout: io.Discard, Progress: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "did not start: no such role nothing") {
		t.Errorf("%v", err)
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "processes", "3", "loops", "2", "connections", "100", "interval", "200ms", "duration", "3s",
		"bound", "1s", "fault", "silent:10%@100ms")
	r.want(t, report.Pass)
	if c := r.Connections; c.Established != 100 || c.TimeUS.Count != 100 || r.Detection.Detected != 10 ||
		len(r.Generator.CPU) != 3 || r.Generator.RSSBytes < 3e6 {
		t.Errorf("%+v %+v %+v", c, r.Detection, r.Generator)
	}
	// All processes follow the same schedule.
	if f := r.Frames; f.Sent < 900 || f.Answered+f.Unanswered != f.Sent || r.Service.US.Count < 500 {
		t.Errorf("%+v %+v", f, r.Service)
	}
}

// A worker that dies is reported, and the run goes on without it.
func TestWorkerThatDies(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	started := 0
	var victim *exec.Cmd
	p, settings, err := Build(flags("processes", "2", "connections", "20", "interval", "200ms", "duration", "3s",
		"max-lag", "1m"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	progress := &trigger{text: "hold", after: 1, do: func() {
		mu.Lock()
		defer mu.Unlock()
		_ = victim.Process.Kill()
	}}
	s, err := Run(Options{Plan: p, Settings: settings, Stdout: &out, Progress: progress,
		Command: func(args ...string) *exec.Cmd {
			cmd := command(args...)
			mu.Lock()
			defer mu.Unlock()
			if args[0] == engine.WorkerCommand {
				if started++; started == 2 {
					victim = cmd
				}
			}
			return cmd
		}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Verdict.ExitCode != 1 || len(s.Errors) != 1 || s.Errors[0] != "worker process 1: signal: killed" ||
		s.Frames.Answered == 0 {
		t.Errorf("%+v\n%s", s.Verdict, out.String())
	}
}
