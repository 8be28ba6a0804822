//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errForeign is wrapped by the errors that mean that something else used the
// processors: such a run is discarded too.
var errForeign = errors.New("something else used the processors")

// foreignBound is the share of the servers' or of the load's processors that
// others may use in a run that counts.
const foreignBound = 0.10

// foreign is the share of processors, 0 to 1, that other processes, the kernel's
// own and the hypervisor used since it was begun: time that was not idle, less
// what the servers and loads account for. A virtual machine that was not running
// counts as not idle.
type foreign struct {
	b      *bench
	srv    *server
	at     time.Time
	idle   [2]time.Duration // of the servers' processors and of the load's
	server time.Duration
	own    time.Duration // of the harness, and of the loads, which have ended
	err    error
}

func (b *bench) watchForeign(srv *server) *foreign {
	f := &foreign{b: b, srv: srv}
	f.read()
	return f
}

func (f *foreign) read() {
	f.at = time.Now()
	f.idle[0], f.err = idleTime(f.b.opts.serverCPUs)
	if f.err == nil {
		f.idle[1], f.err = idleTime(f.b.opts.loadCPUs)
	}
	if f.err == nil {
		f.server, f.err = f.srv.cpu()
	}
	f.own = 0
	for _, whose := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var use unix.Rusage
		if unix.Getrusage(whose, &use) == nil {
			f.own += time.Duration(use.Utime.Nano() + use.Stime.Nano())
		}
	}
}

// shares are those of the servers' processors and of the load's, from the
// beginning until now.
func (f *foreign) shares() (server, load float64, err error) {
	before := *f
	f.read()
	if err := errors.Join(before.err, f.err); err != nil {
		return 0, 0, err
	}
	wall := f.at.Sub(before.at).Seconds()
	share := func(cpus int, idle, known time.Duration) float64 {
		n := float64(cpus)
		return max(0, 1-(idle+known).Seconds()/(wall*n))
	}
	return share(len(f.b.opts.serverCPUs), f.idle[0]-before.idle[0], f.server-before.server),
		share(len(f.b.opts.loadCPUs), f.idle[1]-before.idle[1], f.own-before.own), nil
}

// judge adds the shares to the figures, in percent, and returns an error if one
// is beyond the bound.
func (f *foreign) judge(figures map[string]float64) error {
	server, load, err := f.shares()
	if err != nil {
		return err
	}
	figures["foreign_server_cpu"], figures["foreign_load_cpu"] = server*100, load*100
	if max(server, load) <= foreignBound || f.b.opts.loose {
		return nil
	}
	return fmt.Errorf("%w: %.0f %% of the servers', %.0f %% of the load's; the bound is %.0f %%", errForeign,
		server*100, load*100, foreignBound*100)
}

// idleTime is how long the processors have been idle, all together, from
// /proc/stat: idle and iowait, in hundredths of a second.
func idleTime(cpus []int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseIdle(string(text), cpus)
}

func parseIdle(text string, cpus []int) (sum time.Duration, err error) {
	found := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 6 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		cpu, err := strconv.Atoi(f[0][len("cpu"):])
		if err != nil || !slices.Contains(cpus, cpu) {
			continue
		}
		idle, err1 := strconv.ParseInt(f[4], 10, 64)
		wait, err2 := strconv.ParseInt(f[5], 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += time.Duration(idle+wait) * (time.Second / 100)
		found++
	}
	if found != len(cpus) {
		return 0, fmt.Errorf("/proc/stat knows %d of the processors %v", found, cpus)
	}
	return sum, nil
}
