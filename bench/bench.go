//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"heartwheel/bench/peers/peer"
	"heartwheel/bench/report"
)

// microWorkload is the key of the micro benchmarks, which are not runs.
const microWorkload = "W8"

// A bench is the whole of it under way. It makes one run at a time.
type bench struct {
	opts       *options
	started    time.Time
	build      string // directory of the binaries
	heartwheel string // path of the binary, which is the load test too
	contenders []*contender
	cells      []*cell
	pem        string              // path of a certificate with its key
	base       map[baseKey]figures // without connections; see baseOf
	results    report.Results
}

// run builds, measures and writes. Whatever happens to a contender, the others
// go on; what was measured until then is written.
func run(ctx context.Context, o *options) error {
	if o.render {
		return render(o.out)
	}
	b := &bench{opts: o, started: time.Now(), base: map[baseKey]figures{}}
	b.choose()
	if err := os.MkdirAll(o.out, 0o777); err != nil {
		return err
	}
	var err error
	if b.build, err = os.MkdirTemp("", "heartwheel-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.build)
	if err := pinSelf(o.loadCPUs); err != nil {
		return err
	}
	b.environment(ctx)
	if err := b.writePEM(); err != nil {
		return err
	}
	if err := b.buildAll(ctx); err != nil {
		return err
	}
	runs, takes := b.estimate()
	say("%d runs, some %s", runs, takes.Round(time.Minute))
	for round := 1; round <= o.rounds && ctx.Err() == nil; round++ {
		b.round(ctx, round)
	}
	if b.wants(microWorkload) {
		b.micro(ctx)
	}
	b.results.Environment.TookS = time.Since(b.started).Seconds()
	b.results.Environment.Interrupted = ctx.Err() != nil
	if err := errors.Join(b.write(), render(o.out)); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// writePEM writes the certificate of heartwheel for TLS.
func (b *bench) writePEM() error {
	cert, key, err := peer.SelfSigned()
	if err != nil {
		return err
	}
	b.pem = filepath.Join(b.build, "tls.pem")
	return os.WriteFile(b.pem, append(cert, key...), 0o600)
}

// choose takes the contenders and cells that are asked for.
func (b *bench) choose() {
	for _, c := range contenders() {
		if len(b.opts.peers) == 0 || slices.Contains(b.opts.peers, c.Name) {
			b.contenders = append(b.contenders, c)
		}
	}
	for _, c := range cells(b.opts.quick) {
		if b.wants(c.Workload) {
			b.cells = append(b.cells, c)
		}
	}
}

func (b *bench) wants(workload string) bool {
	return len(b.opts.only) == 0 || slices.Contains(b.opts.only, workload)
}

// field returns the contenders of a cell.
func (b *bench) field(c *cell) (field []*contender) {
	for _, peer := range b.contenders {
		if (peer.Deadlines || !c.deaths) && peer.serves(c.serving.scheme) {
			field = append(field, peer)
		}
	}
	return field
}

// estimate is how many runs there will be, and how long they take.
func (b *bench) estimate() (runs int, d time.Duration) {
	for _, c := range b.cells {
		n := len(b.field(c)) * b.opts.rounds
		runs += n
		d += (c.takes + time.Second) * time.Duration(n)
	}
	return runs, d
}

// round runs every contender once in every cell where it belongs. Their order is
// another one in each cell and each round, and always the same for one seed.
func (b *bench) round(ctx context.Context, round int) {
	for i, c := range b.cells {
		order := b.field(c)
		rng := rand.New(rand.NewPCG(b.opts.seed, uint64(round)<<32|uint64(i)))
		rng.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
		for _, peer := range order {
			if ctx.Err() != nil {
				return
			}
			r := b.one(ctx, c, peer, round)
			if ctx.Err() != nil { // cut short: no fault of the contender
				return
			}
			b.results.Runs = append(b.results.Runs, r)
			say("round %d  %-12s %-17s %s", round, c.ID, peer.Name, outcome(&r))
		}
	}
}

// outcome is a run in a line.
func outcome(r *report.Run) string {
	switch {
	case r.Failed != "":
		return "FAILED: " + r.Failed
	case r.Discarded != "":
		return "discarded: " + r.Discarded
	}
	var parts []string
	cell, _, _ := strings.Cut(r.Cell, "-")
	for _, m := range report.WorkloadByKey(cell).Metrics {
		if v, ok := r.Figures[m.Key]; ok {
			parts = append(parts, fmt.Sprintf("%s %.4g", m.Key, v))
		}
	}
	return strings.Join(parts, ", ")
}

// one makes one run with a server of its own.
func (b *bench) one(ctx context.Context, c *cell, peer *contender, round int) report.Run {
	begin := time.Now()
	figures, err := b.measure(ctx, c, peer, round)
	r := judged(err)
	r.Cell, r.Contender, r.Round = c.ID, peer.Name, round
	r.AtS, r.TookS = begin.Sub(b.started).Seconds(), time.Since(begin).Seconds()
	if r.Failed == "" {
		r.Figures = figures // even if it is discarded, to see why
	}
	return r
}

// judged is a run that ended with err, or well.
func judged(err error) (r report.Run) {
	switch {
	case errors.Is(err, errGenerator), errors.Is(err, errForeign):
		r.Discarded = err.Error()
	case err != nil:
		r.Failed = err.Error()
	}
	return r
}

func (b *bench) measure(ctx context.Context, c *cell, peer *contender, round int) (map[string]float64, error) {
	s := c.serving
	s.procs, s.loops, s.pem = b.opts.procs, len(b.opts.serverCPUs), b.pem
	srv, err := serve(ctx, peer, b.opts.serverCPUs, s)
	if err != nil {
		return nil, err
	}
	defer srv.stop()
	dir := filepath.Join(b.opts.out, "runs", c.ID, fmt.Sprintf("%s-%d", peer.Name, round))
	if c.Workload != "W3" {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return nil, err
		}
	}
	others := b.watchForeign(srv)
	figures, err := c.measure(ctx, b, &running{server: srv, cell: c, dir: dir})
	select {
	case <-srv.ended:
		return nil, fmt.Errorf("the server ended during the run: %w: %s", orEnded(srv.err), srv.said(3))
	default:
	}
	if err != nil {
		return figures, err
	}
	return figures, others.judge(figures)
}

// micro is W8: the benchmarks of package micro, on the processors of the servers,
// once in each round.
func (b *bench) micro(ctx context.Context) {
	binary, err := filepath.Abs(filepath.Join(b.build, "micro.test"))
	if err == nil {
		err = b.goTool(ctx, "test", "-c", "-o", binary, "./micro")
	}
	var text bytes.Buffer
	for round := 1; round <= b.opts.rounds && err == nil; round++ {
		say("round %d  W8, the micro benchmarks", round)
		err = b.microRound(ctx, binary, &text)
	}
	if err != nil && ctx.Err() == nil {
		b.problem("W8, the micro benchmarks: %s", err)
	}
	if b.results.Micro, err = report.ParseBench(&text, b.opts.procs); err != nil {
		b.problem("W8, the micro benchmarks: %s", err)
	}
}

// microTime is how long one round of the micro benchmarks may take.
const microTime = 15 * time.Minute

func (b *bench) microRound(ctx context.Context, binary string, text *bytes.Buffer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, microTime, fmt.Errorf("a round did not end within %s", microTime))
	defer cancel()
	p, err := start(ctx, b.opts.serverCPUs, nil, func(line string) { text.WriteString(line + "\n") }, binary,
		"-test.run", "^$", "-test.bench", ".", "-test.benchmem", "-test.benchtime", b.opts.micro,
		"-test.cpu", fmt.Sprint(b.opts.procs))
	if err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, p.said(3))
	}
	return nil
}

func (b *bench) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	say("%s", text)
	b.results.Problems = append(b.results.Problems, text)
}

// write writes RUN.json.
func (b *bench) write() error {
	r := &b.results
	r.Schema = report.Schema
	for _, c := range b.contenders {
		r.Contenders = append(r.Contenders, c.Contender)
	}
	for _, c := range b.cells {
		r.Cells = append(r.Cells, c.Cell)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.opts.out, "RUN.json"), append(text, '\n'), 0o666)
}

// render writes table.md and index.html from RUN.json.
func render(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "RUN.json"))
	if err != nil {
		return err
	}
	var r report.Results
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("RUN.json: %w", err)
	}
	if r.Schema != report.Schema {
		return fmt.Errorf("RUN.json is of the form %q, not %q", r.Schema, report.Schema)
	}
	var table, page bytes.Buffer
	if err := errors.Join(r.WriteMarkdown(&table), r.WriteHTML(&page)); err != nil {
		return err
	}
	say("written to %s: RUN.json, table.md, index.html", dir)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "table.md"), table.Bytes(), 0o666),
		os.WriteFile(filepath.Join(dir, "index.html"), page.Bytes(), 0o666))
}
