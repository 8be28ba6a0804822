//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"heartwheel/bench/flood"
	"heartwheel/bench/report"
)

var smoke = flag.Bool("smoke", false, "run TestSmoke, which takes most of a minute and two processors")

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == floodCommand { // TestSmoke's closed-loop generator
		if err := runFlood(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// script is a contender that is a shell script.
func script(t *testing.T, name, text string) *contender {
	c := &contender{bin: filepath.Join(t.TempDir(), name), pkg: "x"}
	c.Name = name
	if err := os.WriteFile(c.bin, []byte("#!/bin/sh\n"+text), 0o777); err != nil {
		t.Fatal(err)
	}
	return c
}

const listens = "echo listening 127.0.0.1:1; trap 'exit 0' TERM; while :; do sleep 0.01; done\n"

// TestRound checks that a contender that fails does not keep the others from
// running, that each runs once in each round, and that the order is shuffled.
func TestRound(t *testing.T) {
	var order []string
	c := newCell("W6", "W6-1", "", time.Second, time.Second)
	c.measure = func(ctx context.Context, _ *bench, r *running) (map[string]float64, error) {
		name := r.server.contender.Name
		order = append(order, name)
		switch name {
		case "dies":
			r.server.kill()
			return nil, errors.New("connection reset")
		case "swamped":
			return map[string]float64{"killed": 1}, fmt.Errorf("%w: late", errGenerator)
		}
		return map[string]float64{"killed": 3}, nil
	}
	b := &bench{
		opts: &options{serverCPUs: []int{0}, loadCPUs: []int{0}, procs: 1, rounds: 6,
			out: t.TempDir(), seed: 1, loose: true},
		contenders: []*contender{script(t, "good", listens), script(t, "dies", listens), script(t, "swamped", listens),
			script(t, "absent", "echo no such library >&2; exit 1\n")},
		cells: []*cell{c},
	}
	orders := map[string]bool{}
	for round := 1; round <= b.opts.rounds; round++ {
		order = nil
		b.round(t.Context(), round)
		orders[strings.Join(order, " ")] = true
		if slices.Sort(order); strings.Join(order, " ") != "dies good swamped" {
			t.Errorf("round %d: %v", round, order)
		}
	}
	if len(orders) < 2 {
		t.Errorf("the order is always %v", orders)
	}
	if n := len(b.results.Runs); n != 4*b.opts.rounds {
		t.Errorf("%d runs", n)
	}
	for _, r := range b.results.Runs {
		want := map[string]string{"good": "", "dies": "the server ended during the run", "swamped": "",
			"absent": "absent did not start: exit status 1: no such library"}[r.Contender]
		if !strings.HasPrefix(r.Failed, want) || (r.Failed == "") != (want == "") ||
			(r.Discarded != "") != (r.Contender == "swamped") {
			t.Errorf("%+v", r)
		}
		if r.Contender == "good" && r.Figures["killed"] != 3 {
			t.Errorf("%+v", r)
		}
	}
}

// TestInterrupted checks that a run which is cut short is not held against the
// contender.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := newCell("W6", "W6-1", "", time.Second, time.Second)
	c.measure = func(ctx context.Context, _ *bench, r *running) (map[string]float64, error) {
		cancel(errInterrupted)
		return nil, context.Cause(ctx)
	}
	b := &bench{opts: &options{serverCPUs: []int{0}, loadCPUs: []int{0}, procs: 1, out: t.TempDir()},
		contenders: []*contender{script(t, "a", listens), script(t, "b", listens)}, cells: []*cell{c}}
	b.round(ctx, 1)
	if len(b.results.Runs) != 0 {
		t.Errorf("%+v", b.results.Runs)
	}
}

// TestFloodProcess checks the way of a job into the generator's process and back.
func TestFloodProcess(t *testing.T) {
	b := &bench{opts: &options{loadCPUs: []int{0}}}
	srv := ownServer(t)
	srv.addr = "127.0.0.1:1" // where nothing listens
	err := b.flood(t.Context(), &running{server: srv}, flood.Job{Conns: 1, Inflight: 1, Size: 1,
		For: time.Millisecond}, &flood.Result{})
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v", err)
	}
}

// TestSmoke runs the whole of it with two contenders, in one cell of each kind.
func TestSmoke(t *testing.T) {
	if !*smoke {
		t.Skip("without -smoke")
	}
	if allCPUs < 2 {
		t.Skip("needs two processors")
	}
	out := t.TempDir()
	o, err := parseOptions([]string{"-quick", "-loose", "-peers", "heartwheel,gnet", "-only",
		"W1,W2,W3,W6", "-out", out})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, "RUN.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r report.Results
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 2*len(r.Cells) || len(r.Cells) < 4 || r.Environment.Kernel == "" || r.Environment.Commit == "" {
		t.Errorf("%d runs of %d cells: %+v", len(r.Runs), len(r.Cells), r.Environment)
	}
	for _, run := range r.Runs {
		if run.Failed != "" {
			t.Errorf("%s, %s: %s", run.Cell, run.Contender, run.Failed)
		}
	}
	for _, name := range []string{"index.html", "table.md"} {
		if info, err := os.Stat(filepath.Join(out, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if killed := r.Tables(); !slices.ContainsFunc(killed, func(t report.Table) bool {
		return t.Cell.Workload == "W6" &&
			t.Row(report.Subject).N == 1
	}) {
		t.Error("W6 has no figure")
	}
}
