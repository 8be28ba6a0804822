//go:build linux

package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/bench/report"
)

// buildTime is how long one go build may take, downloads included.
const buildTime = 10 * time.Minute

// buildAll builds heartwheel, without which there is nothing to do, and every
// peer. A peer that cannot be built is left out.
func (b *bench) buildAll(ctx context.Context) error {
	b.heartwheel = filepath.Join(b.build, report.Subject)
	if err := b.goBuild(ctx, b.heartwheel, "..", "."); err != nil {
		return err
	}
	var kept []*contender
	for _, c := range b.contenders {
		c.bin = b.heartwheel
		if c.pkg != "" {
			c.bin = filepath.Join(b.build, filepath.Base(c.pkg))
			if err := b.goBuild(ctx, c.bin, ".", c.pkg); err != nil {
				b.problem("%s is left out: %s", c.Name, err)
				continue
			}
		}
		c.Version = version(c.bin, c.module)
		if c.check {
			if err := b.check(ctx, c); err != nil {
				b.problem("%s is left out: %s", c.Name, err)
				continue
			}
		}
		kept = append(kept, c)
	}
	b.contenders = kept
	return context.Cause(ctx)
}

// goBuild builds the package, from the directory.
func (b *bench) goBuild(ctx context.Context, bin, dir, pkg string) error {
	if _, err := os.Stat(bin); err == nil {
		return nil // two contenders share it
	}
	say("build %s", filepath.Base(bin))
	return b.goTool(ctx, "build", "-C", dir, "-o", bin, pkg)
}

// goTool runs the go command, on all processors.
func (b *bench) goTool(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, buildTime, fmt.Errorf("it did not end within %s", buildTime))
	defer cancel()
	all := make([]int, allCPUs)
	for i := range all {
		all[i] = i
	}
	p, err := start(ctx, all, nil, nil, "go", args...)
	if err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("go %s: %w: %s", strings.Join(args, " "), err, p.said(5))
	}
	return nil
}

// check asks a contender that needs more than Go whether it can run here, and
// for its version.
func (b *bench) check(ctx context.Context, c *contender) error {
	ctx, cancel := context.WithTimeoutCause(ctx, buildTime,
		fmt.Errorf("%s -check did not end within %s", c.Name, buildTime))
	defer cancel()
	p, err := start(ctx, b.opts.loadCPUs, nil, nil, c.bin, "-check")
	if err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, p.said(3))
	}
	c.Version = p.said(1)
	return nil
}

// version is that of the module which the binary is built on, and of Go's.
func version(bin, module string) string {
	info, err := buildinfo.ReadFile(bin)
	if err != nil {
		return "not known"
	}
	if module == "" {
		return info.GoVersion
	}
	for _, dep := range info.Deps {
		if dep.Path == module {
			return module[strings.LastIndex(strings.TrimSuffix(module, "/v2"), "/")+1:] + " " + dep.Version
		}
	}
	return "not known"
}

// environment fills in where the runs are made.
func (b *bench) environment(ctx context.Context) {
	o := b.opts
	e := &b.results.Environment
	*e = report.Environment{
		Started: b.started.Format(time.RFC3339), Go: runtime.Version(), Commit: commit(ctx),
		ServerCPUs: o.serverCPUs, LoadCPUs: o.loadCPUs, Procs: o.procs, Loops: len(o.serverCPUs),
		Rounds: o.rounds, Seed: o.seed, Quick: o.quick, Loose: o.loose, CPU: cpuModel(), CPUs: allCPUs,
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		e.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		e.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
		e.LoadAtStart = float64(info.Loads[0]) / 65536
	}
	if e.LoadAtStart > 0.5 {
		b.problem("The machine was not quiet: %.1f tasks were running in the minute before.", e.LoadAtStart)
	}
}

// cpuModel is the name of the processor, from /proc/cpuinfo.
func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// commit is the commit of this checkout, with a + if files were changed.
func commit(ctx context.Context) string {
	id, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "not known"
	}
	changed, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "-uno", "..").Output()
	if err == nil && len(changed) > 0 {
		return strings.TrimSpace(string(id)) + "+"
	}
	return strings.TrimSpace(string(id))
}

// allCPUs is how many processors there are, before this process is pinned.
var allCPUs = runtime.NumCPU()

// pinSelf moves every thread of the harness to the processors of the load, where
// it sleeps nearly always.
func pinSelf(cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin to processors %v: %w; this machine has %d: see -server-cpus and "+
				"-load-cpus", cpus, err, allCPUs)
		}
	}
	return nil
}
