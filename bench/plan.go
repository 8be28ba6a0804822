//go:build linux

package main

import (
	"context"
	"fmt"
	"time"

	"heartwheel/bench/report"
)

// A cell is one thing to measure of every contender.
type cell struct {
	report.Cell
	takes   time.Duration // roughly, for each run
	serving serving       // but for procs and loops
	deaths  bool          // shows nothing of a contender without deadlines
	measure func(ctx context.Context, b *bench, r *running) (map[string]float64, error)
}

// A running is one run under way.
type running struct {
	server *server
	cell   *cell
	dir    string // for what the load writes
}

// Idle timeouts: that of profile standard where no peer dies, short ones where
// peers do, so that a run does not last for minutes. heartwheel's beat is at
// least a second, and its timeout at least 1.5 beats.
const (
	longTimeout  = 37500 * time.Millisecond
	shortTimeout = 2 * time.Second
	leastTimeout = 1500 * time.Millisecond // of -quick
)

// cells lists what is measured, in the order of the tables.
func cells(quick bool) []*cell {
	if quick {
		return []*cell{
			idle(2000, 3*time.Second),
			beats(2000, 250*time.Millisecond, 4*time.Second),
			echo(1, 16, 256, time.Second), echo(16, 1024, 256, time.Second), echo(64, 16<<10, 32, time.Second),
			connects(2000, 4*time.Second),
			wave(2000, leastTimeout), stall(1000, leastTimeout), expiry(4000, leastTimeout),
		}
	}
	list := []*cell{
		idle(1000, 8*time.Second), idle(10_000, 8*time.Second), idle(19_000, 8*time.Second),
		beats(10_000, time.Second, 4*time.Second), beats(5000, 200*time.Millisecond, 4*time.Second),
	}
	for _, size := range []int{16, 1024, 16 << 10} {
		conns := 256
		if size > 4096 {
			conns = 32 // else what is on its way is more than the sockets' memory
		}
		for _, inflight := range []int{1, 16, 64} {
			list = append(list, echo(inflight, size, conns, time.Second))
		}
	}
	list = append(list, connects(4000, 5*time.Second), wave(10_000, shortTimeout), stall(5000, shortTimeout),
		expiry(10_000, shortTimeout))
	return append(list, edges()...)
}

// edges lists W9 and W10: the same with TLS and with WebSocket. Processor time is
// that of the last seconds of each hold. Connections are no more than three rounds
// of everything in some eight minutes allow.
func edges() (list []*cell) {
	const hold = 3 * time.Second
	for _, e := range []struct {
		workload, scheme string
		idle             int // connections
	}{{"W9", "tls", 2000}, {"W10", "ws", 5000}} {
		rate := connectRates[e.scheme]
		add := func(what string, conns int, takes time.Duration, c *cell) {
			c.ID, c.Workload, c.Title = e.workload+"-"+c.ID, e.workload, what+", "+c.Title
			c.serving.scheme = e.scheme
			c.takes = takes + time.Duration(conns)*time.Second/time.Duration(rate)
			list = append(list, c)
		}
		add("idle", e.idle, hold, idle(e.idle, hold))
		add("beats", 500, hold+time.Second, beats(500, 200*time.Millisecond, hold+time.Second))
		add("connect, beat, close", 0, hold+time.Second, connects(rate, hold+time.Second))
		add("echo", 64, hold, messages(16, 16, 64, hold))
		add("echo", 32, hold, messages(4, 16<<10, 32, hold))
	}
	return list
}

func newCell(workload, id, title string, takes, timeout time.Duration) *cell {
	return &cell{Cell: report.Cell{ID: id, Workload: workload, Title: title}, takes: takes,
		serving: serving{timeout: timeout}}
}

func bytesTitle(n int) string {
	if n >= 1024 {
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

func countTitle(n int) string {
	if n >= 1000 && n%1000 == 0 {
		return fmt.Sprintf("%d,000", n/1000)
	}
	return fmt.Sprint(n)
}
