//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heartwheel/bench/flood"
)

// Limits of waiting for a server.
const (
	listenTime  = 20 * time.Second // a JVM takes a while
	figuresTime = 20 * time.Second
)

// A server is a running contender.
type server struct {
	*process
	contender *contender
	serving   serving
	addr      string // HOST:PORT for clients
	ops       string // HOST:PORT of heartwheel's metrics
	answers   chan figures
}

// figures is what a server says of its runtime: package peer's Figures, as far
// as they are used.
type figures struct {
	HeapLive float64 `json:"heap_live"`        // bytes after a collection
	GCPause  float64 `json:"gc_pause_seconds"` // without that collection, like the next two
	GCCPU    float64 `json:"gc_cpu_seconds"`   // less that of processors which had nothing else to do
	GCCount  float64 `json:"gc_count"`
}

// A heard is what a server has told of itself while it started.
type heard struct{ addr, ops string }

// hear reads one line of a server. done is true once it listens. Pure.
func (h *heard) hear(line string) (done bool) {
	if addr, ok := strings.CutPrefix(line, "listening "); ok {
		h.addr = addr
		return true
	}
	var log struct{ Msg, Addr string } // heartwheel's log
	if json.Unmarshal([]byte(line), &log) != nil {
		return false
	}
	switch log.Msg {
	case "ops listening":
		h.ops = log.Addr
	case "listening":
		h.addr = log.Addr
		return true
	}
	return false
}

// serve starts the contender and waits until it listens.
func serve(ctx context.Context, c *contender, cpus []int, s serving) (*server, error) {
	srv := &server{contender: c, serving: s, answers: make(chan figures, 1)}
	listening := make(chan heard, 1)
	var h heard
	up := false
	onLine := func(line string) {
		if !up {
			if up = h.hear(line); up {
				listening <- h
			}
			return
		}
		var f figures
		if strings.HasPrefix(line, "{") && strings.Contains(line, `"heap_live"`) &&
			json.Unmarshal([]byte(line), &f) == nil {
			select {
			case srv.answers <- f:
			default:
			}
		}
	}
	var err error
	srv.process, err = start(ctx, cpus, []string{"GOMAXPROCS=" + strconv.Itoa(s.procs)},
		onLine, c.bin, c.arguments(s)...)
	if err != nil {
		return nil, err
	}
	select {
	case h := <-listening:
		srv.addr, srv.ops = h.addr, h.ops
		return srv, nil
	case <-srv.ended:
		return nil, fmt.Errorf("%s did not start: %w: %s", c.Name, orEnded(srv.err), srv.said(3))
	case <-time.After(listenTime):
		srv.kill()
		return nil, fmt.Errorf("%s did not listen within %s: %s", c.Name, listenTime, srv.said(3))
	case <-ctx.Done():
		srv.kill()
		return nil, context.Cause(ctx)
	}
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("ended")
	}
	return err
}

func (s *server) pid() int { return s.cmd.Process.Pid }

// cpu is the processor time it has used.
func (s *server) cpu() (time.Duration, error) { return flood.CPUTime(s.pid()) }

// figures asks the server for its runtime figures.
func (s *server) figures(ctx context.Context) (figures, error) {
	if s.contender.pkg == "" {
		return opsFigures(ctx, "http://"+s.ops)
	}
	if err := s.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return figures{}, err
	}
	select {
	case f := <-s.answers:
		return f, nil
	case <-s.ended:
		return figures{}, fmt.Errorf("%s ended when asked for its figures: %s", s.contender.Name, s.said(3))
	case <-time.After(figuresTime):
		return figures{}, fmt.Errorf("%s did not tell its figures within %s", s.contender.Name, figuresTime)
	case <-ctx.Done():
		return figures{}, context.Cause(ctx)
	}
}

// opsFigures has heartwheel collect garbage, and reads its metrics before and
// after.
func opsFigures(ctx context.Context, url string) (figures, error) {
	before, err := get(ctx, url+"/metrics")
	if err != nil {
		return figures{}, err
	}
	// The text form, as the other one costs a megabyte of heap, and collections.
	if _, err := get(ctx, url+"/debug/pprof/heap?gc=1&debug=1"); err != nil {
		return figures{}, err
	}
	after, err := get(ctx, url+"/metrics")
	if err != nil {
		return figures{}, err
	}
	var errs []error
	read := func(text, name string) float64 {
		v, err := metric(text, name)
		errs = append(errs, err)
		return v
	}
	f := figures{
		HeapLive: read(after, "go_gc_heap_live_bytes"),
		GCPause:  read(before, "go_gc_duration_seconds_sum"),
		GCCPU: read(before, "go_cpu_classes_gc_total_cpu_seconds_total") -
			read(before, "go_cpu_classes_gc_mark_idle_cpu_seconds_total"),
		GCCount: read(before, "go_gc_duration_seconds_count"),
	}
	return f, errors.Join(errs...)
}

func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, figuresTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return string(b), err
}

// metric is the value of the metric without labels in Prometheus' text form.
func metric(text, name string) (float64, error) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest), 64)
		}
	}
	return 0, fmt.Errorf("the metrics have no %s", name)
}
