//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"heartwheel/bench/flood"
)

// errGenerator is wrapped by the errors that mean that the load, not the
// server, was the limit: such a run is discarded.
var errGenerator = errors.New("the generator was the limit")

// generatorBound, which is loadtest's own too, is the share of its processors from which on a generator may
// have been the limit.
const generatorBound = 0.95

// A loadSummary is what is read of loadtest's summary.json; see loadtest/report.Summary
// for what the members are.
type loadSummary struct {
	Verdict     struct{ Word string }
	Connections struct {
		Asked, Established, Failed int
		RateReal                   float64       `json:"rate_real"`
		TimeUS                     *distribution `json:"time_us"`
	}
	Frames struct {
		Sent, Answered, Wrong int64
		PerSecond             float64 `json:"per_second"`
	}
	Response *struct {
		US distribution `json:"us"`
	}
	Detection   *loadDetection
	FalseKills  struct{ Count int } `json:"false_kills"`
	Unexplained struct{ Count int } `json:"unexplained_closes"`
	Generator   struct {
		Limited bool
		Why     []string
	}
	Errors []string
}

type loadDetection struct {
	Injected, Detected, Undetected, Early, Late int
	Faults                                      []struct {
		Kind    string
		StartS  float64       `json:"start_s"`
		EndS    float64       `json:"end_s"`
		ErrorMS *distribution `json:"error_ms"`
	}
}

type distribution struct{ Min, Mean, P50, P90, P99, P999, Max float64 }

// A loadSecond is what is read of a line of timeseries.ndjson.
type loadSecond struct {
	T          float64       `json:"t_s"`
	Phase      string        `json:"phase"`
	ResponseUS *distribution `json:"response_us"`
}

// A load is a run of heartwheel loadtest against a server.
type load struct {
	args []string      // beside the target and what every run has
	for_ time.Duration // of its hold phase
	most time.Duration // that the whole of it may take
	// tolerant: the load's own lateness of up to 50 ms changes nothing of what is
	// measured: memory, or which connections are alive.
	tolerant bool
	// closed: in a closed loop the generator may be the limit, where what is measured
	// is the server's processor time for a frame.
	closed bool
	end    func() // called once, a second or two before the hold phase ends; nil: nothing
}

// A loaded is what a load came to.
type loaded struct {
	loadSummary
	seconds []loadSecond
	// Processor time of the server in the window, which lies within the hold
	// phase and is whole seconds.
	serverCPU, window time.Duration
}

// cores is the server's processor time in the window as a share of one core.
func (l *loaded) cores() float64 { return l.serverCPU.Seconds() / l.window.Seconds() }

// load runs heartwheel loadtest. It writes to dir, where summary.json
// and its output stay.
func (b *bench) load(ctx context.Context, srv *server, timeout time.Duration, dir string, l load) (*loaded, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.most, fmt.Errorf("the load test did not end within %s", l.most))
	defer cancel()
	args := append([]string{"loadtest", srv.serving.target(srv.addr), "--timeout", timeout.String(), "-d",
		l.for_.String(), "--out", dir, "--force",
		"--seed", fmt.Sprint(b.opts.seed), "--max-lag", b.maxLag(l).String()}, l.args...)
	if srv.serving.scheme == "tls" {
		args = append(args, "--insecure")
	}
	w := &window{srv: srv, end: l.end, endAfter: max(2, int(l.for_/time.Second)-1)}
	p, err := start(ctx, b.opts.loadCPUs, []string{fmt.Sprintf("GOMAXPROCS=%d", len(b.opts.loadCPUs)+1)},
		w.line, b.heartwheel, args...)
	if err != nil {
		return nil, err
	}
	err = p.wait(ctx)
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() != 64) { // 64: an impossible plan
		return nil, fmt.Errorf("%w: heartwheel %s: %s", err, strings.Join(args, " "), p.said(4))
	}
	got, err := readLoad(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: heartwheel %s: %s", err, strings.Join(args, " "), p.said(4))
	}
	if w.err != nil {
		return nil, w.err
	}
	got.serverCPU, got.window = w.lastCPU-w.firstCPU, w.last.Sub(w.first)
	return got, got.check(l.closed)
}

// maxLag is how late the load may be, the 99th percentile, in a run that counts.
func (b *bench) maxLag(l load) time.Duration {
	switch {
	case b.opts.loose:
		return time.Minute
	case l.tolerant:
		return 50 * time.Millisecond
	}
	return 5 * time.Millisecond
}

// check returns an error if the run says nothing about the server.
func (l *loaded) check(closed bool) error {
	switch {
	case l.Generator.Limited && !closed:
		return fmt.Errorf("%w: %s", errGenerator, strings.Join(l.Generator.Why, "; "))
	case len(l.Errors) > 0:
		return errors.New(strings.Join(l.Errors, "; "))
	case l.Frames.Wrong > 0:
		return fmt.Errorf("%d wrong answers", l.Frames.Wrong)
	case l.window <= 0:
		return errors.New("the hold phase was too short to measure in")
	}
	return nil
}

// readLoad reads what loadtest wrote, and removes all but the summary.
func readLoad(dir string) (*loaded, error) {
	l := &loaded{}
	text, err := os.ReadFile(filepath.Join(dir, "summary.json"))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &l.loadSummary); err != nil {
		return nil, fmt.Errorf("summary.json: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "timeseries.ndjson"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s loadSecond
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return nil, fmt.Errorf("timeseries.ndjson: %w", err)
		}
		l.seconds = append(l.seconds, s)
	}
	for _, name := range []string{"timeseries.ndjson", "events.ndjson", "report.html", "response.hgrm",
		"service.hgrm", "detection.hgrm"} {
		_ = os.Remove(filepath.Join(dir, name))
	}
	return l, lines.Err()
}

// worst is the largest p99 of the response of the seconds from..to, in µs.
func (l *loaded) worst(from, to float64) (us float64) {
	for _, s := range l.seconds {
		if s.T >= from && s.T <= to+1 && s.ResponseUS != nil {
			us = max(us, s.ResponseUS.P99)
		}
	}
	return us
}

// A window follows the lines that loadtest writes once a second, and reads the
// server's processor time at them. A line of the hold phase may come when that
// is just over, so the last one does not count.
type window struct {
	srv      *server
	end      func() // may be nil
	endAfter int    // lines of hold before end

	lines             int
	first, prior      time.Time
	firstCPU, prevCPU time.Duration
	last              time.Time // the line before the latest
	lastCPU           time.Duration
	frozen            bool
	err               error
}

func (w *window) line(line string) {
	_, phase, ok := strings.Cut(line, "s ")
	if !ok || !strings.HasPrefix(phase, "hold: ") || w.err != nil || w.frozen {
		return
	}
	now := time.Now()
	cpu, err := flood.CPUTime(w.srv.pid())
	if err != nil {
		w.err = err
		return
	}
	if w.lines++; w.lines == 1 {
		w.first, w.firstCPU = now, cpu
	} else {
		w.last, w.lastCPU = w.prior, w.prevCPU
	}
	w.prior, w.prevCPU = now, cpu
	if w.lines == w.endAfter && w.end != nil {
		w.last, w.lastCPU = now, cpu // what end does is not part of it
		w.frozen = true
		w.end()
	}
}
