//go:build linux

// Command bench measures heartwheel beside the servers that a user would pick
// instead: go run . in this directory builds everything, runs everything, and
// writes results/RUN.json, results/table.md and results/index.html. It needs
// Linux and two processors.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"heartwheel/bench/report"
)

// options is what the flags say.
type options struct {
	quick      bool
	only       []string // workloads; empty: all
	peers      []string // contenders; empty: all, or quickPeers
	rounds     int
	out        string
	serverCPUs []int
	loadCPUs   []int
	procs      int // GOMAXPROCS of each server; 0: one more than serverCPUs
	seed       uint64
	loose      bool   // nothing is discarded
	micro      string // -benchtime of W8
	render     bool   // only write the page and the table anew from RUN.json
}

// quickPeers are those of -quick.
var quickPeers = []string{report.Subject, report.Floor, "goroutine"}

func main() {
	if len(os.Args) == 3 && os.Args[1] == floodCommand {
		if err := runFlood(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		cancel(fmt.Errorf("%w: %s", errInterrupted, <-signals))
		<-signals // a second one does not wait; the children die with this process
		os.Exit(130)
	}()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errInterrupted) {
			os.Exit(130)
		}
		os.Exit(1)
	}
}

var errInterrupted = errors.New("interrupted")

func parseOptions(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var only, peers, serverCPUs, loadCPUs string
	fs.BoolVar(&o.quick, "quick", false, "some two minutes: one round, small loads, three contenders; to see "+
		"that it works, not to publish")
	fs.StringVar(&only, "only", "", "workloads such as `W2,W5`; empty: all")
	fs.StringVar(&peers, "peers", "", "contenders such as `gnet,heartwheel`; empty: all, with -quick three")
	fs.IntVar(&o.rounds, "runs", 0, "`rounds`: each contender runs once in each; 0: 5, with -quick 1")
	fs.StringVar(&o.out, "out", "results", "`directory` for what is written")
	fs.StringVar(&serverCPUs, "server-cpus", "0", "`processors` of the servers")
	fs.StringVar(&loadCPUs, "load-cpus", "1", "`processors` of the load and the harness")
	fs.IntVar(&o.procs, "procs", 0, "GOMAXPROCS of every server; 0: one more than its processors")
	fs.Uint64Var(&o.seed, "seed", 1, "of the order of the runs, and of the peers that die")
	fs.BoolVar(&o.loose, "loose", false, "throw nothing away: to try the harness on a busy machine, not to publish")
	fs.StringVar(&o.micro, "benchtime", "", "-benchtime of W8; empty: 1s, with -quick 1x")
	fs.BoolVar(&o.render, "render", false, "measure nothing: write the page and the table anew from RUN.json")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is not a flag; see -help", fs.Arg(0))
	}
	o.only, o.peers = fields(only), fields(peers)
	var err1, err2 error
	o.serverCPUs, err1 = parseCPUs("server-cpus", serverCPUs)
	o.loadCPUs, err2 = parseCPUs("load-cpus", loadCPUs)
	return o, errors.Join(err1, err2, o.complete())
}

// complete checks the options and fills in what depends on others.
func (o *options) complete() error {
	if o.rounds < 0 || o.procs < 0 {
		return errors.New("-runs and -procs must not be negative")
	}
	for _, cpu := range o.serverCPUs {
		if slices.Contains(o.loadCPUs, cpu) {
			return fmt.Errorf("processor %d is for the servers and for the load: they would measure each other", cpu)
		}
	}
	for _, w := range o.only {
		if w != microWorkload && report.WorkloadByKey(w) == nil {
			return fmt.Errorf("-only %s: there are W1 to W10", w)
		}
	}
	var names []string
	for _, c := range contenders() {
		names = append(names, c.Name)
	}
	for _, p := range o.peers {
		if !slices.Contains(names, p) {
			return fmt.Errorf("-peers %s: there are %s", p, strings.Join(names, ", "))
		}
	}
	if o.rounds == 0 {
		o.rounds = 5
		if o.quick {
			o.rounds = 1
		}
	}
	if o.procs == 0 {
		o.procs = len(o.serverCPUs) + 1
	}
	if o.micro == "" {
		o.micro = "1s"
		if o.quick {
			o.micro = "20ms"
		}
	}
	if o.quick && len(o.peers) == 0 {
		o.peers = quickPeers
	}
	return nil
}

func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' })
}

// parseCPUs reads a list such as 0,2-3.
func parseCPUs(name, text string) ([]int, error) {
	var cpus []int
	for _, part := range fields(text) {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.Atoi(from)
		b, err2 := strconv.Atoi(to)
		if err1 != nil || err2 != nil || a < 0 || b < a || b > 1023 {
			return nil, fmt.Errorf("-%s %q: write processors such as 0 or 0,2-3", name, text)
		}
		for cpu := a; cpu <= b; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) == 0 {
		return nil, fmt.Errorf("-%s: is empty; write processors such as 0", name)
	}
	return cpus, nil
}

// say tells how it goes on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
