//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"heartwheel/bench/flood"
)

// connectRate is how fast connections are opened where that is not what is
// measured, a second; connectRates has those of edges, half of what a processor can
// do.
const connectRate = 5000

var connectRates = map[string]int{"": connectRate, "ws": 2000, "tls": 300}

func connectTime(conns int) time.Duration { return time.Duration(conns) * time.Second / connectRate }

func (r *running) common(conns int, interval time.Duration) []string {
	return []string{"-c", fmt.Sprint(conns), "--connect-rate", fmt.Sprint(connectRates[r.cell.serving.scheme]),
		"--interval", interval.String()}
}

// idle is W1: hold connections that hardly beat, for long enough that what
// connecting has left is gone where it goes.
func idle(conns int, hold time.Duration) *cell {
	// Each has beaten once by the time that the memory is looked at, a second or
	// two before the end.
	interval := (hold + connectTime(conns)) / 2
	c := newCell("W1", fmt.Sprintf("W1-%d", conns), countTitle(conns)+" connections",
		hold+connectTime(conns)+2*time.Second, longTimeout)
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		// Neither a load nor a question before: what they leave of the heap would
		// hold connections for which no memory seems to be needed then.
		base, err := b.baseOf(ctx, r.server.contender, r.server.serving)
		if err != nil {
			return nil, err
		}
		before, err := residentOf(r.server.pid())
		if err != nil {
			return nil, err
		}
		var rss resident
		var after figures
		var endErr error
		asked := make(chan struct{})
		end := func() { // called while it reads the lines of the load: must not block it
			rss, endErr = residentOf(r.server.pid())
			go func() {
				defer close(asked)
				if endErr == nil {
					after, endErr = r.server.figures(ctx)
				}
			}()
		}
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{tolerant: true, args: r.common(conns, interval), for_: hold, most: 2*c.takes + 60*time.Second, end: end})
		if err != nil {
			return nil, err
		}
		select {
		case <-asked:
		case <-time.After(2 * figuresTime):
			return nil, errors.New("the load test never said that it held the connections")
		}
		if endErr != nil {
			return nil, endErr
		}
		if got.Connections.Established < conns || got.FalseKills.Count+got.Unexplained.Count > 0 {
			return nil, fmt.Errorf("%d of %d connections established, %d closed", got.Connections.Established, conns,
				got.FalseKills.Count+got.Unexplained.Count)
		}
		f := map[string]float64{
			"rss_per_conn": float64(rss.anon-before.anon) / float64(conns), "rss": float64(rss.all),
			"rss_before":    float64(before.all),
			"heap_per_conn": (after.HeapLive - base.HeapLive) / float64(conns),
			"gc_pause":      after.GCPause * 1e3, "gc_count": after.GCCount,
			"gc_cpu": after.GCCPU * 1e3, "cpu": got.cores() * 100,
		}
		if after.GCCount > 0 {
			f["gc_each"] = after.GCPause / after.GCCount * 1e6
		}
		return f, nil
	}
	return c
}

type baseKey struct {
	peer   *contender
	scheme string
}

// baseOf is the figures of the contender without connections, of a server of its
// own that is asked once.
func (b *bench) baseOf(ctx context.Context, peer *contender, s serving) (figures, error) {
	key := baseKey{peer, s.scheme}
	if f, ok := b.base[key]; ok {
		return f, nil
	}
	srv, err := serve(ctx, peer, b.opts.serverCPUs, s)
	if err != nil {
		return figures{}, err
	}
	defer srv.stop()
	f, err := srv.figures(ctx)
	if err == nil {
		b.base[key] = f
	}
	return f, err
}

// beats is W2: beats at a fixed rate.
func beats(conns int, interval, hold time.Duration) *cell {
	rate := int(float64(conns) / interval.Seconds())
	c := newCell("W2", fmt.Sprintf("W2-%d", rate), fmt.Sprintf("%s connections, %s beats a second",
		countTitle(conns), countTitle(rate)),
		hold+connectTime(conns)+2*time.Second, longTimeout)
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		if err := b.warm(ctx, r); err != nil {
			return nil, err
		}
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{args: r.common(conns, interval), for_: hold, most: 2*c.takes + 60*time.Second})
		if err != nil {
			return nil, err
		}
		if got.Response == nil || got.Frames.PerSecond < 0.9*float64(rate) {
			return nil, fmt.Errorf("only %.0f of %d beats a second were answered", got.Frames.PerSecond, rate)
		}
		us := got.Response.US
		return map[string]float64{
			"cpu_per_beat": got.cores() / got.Frames.PerSecond * 1e6, "cpu": got.cores() * 100,
			"p50": us.P50, "p99": us.P99, "p999": us.P999,
		}, nil
	}
	return c
}

// saturated is the share of its processors from which on a server in a closed
// loop has been the limit itself, however busy the generator was. To throw away
// such runs too would throw away the fastest ones of the fastest servers.
const saturated = 0.97

// limited says whether a closed-loop generator was the limit, by the shares of
// their processors that it and the server used.
func limited(load, server float64) bool { return load > generatorBound && server < saturated }

// echo is W3: frames in a closed loop.
func echo(inflight, size, conns int, hold time.Duration) *cell {
	c := newCell("W3", fmt.Sprintf("W3-%dx%d", inflight, size),
		fmt.Sprintf("%d in flight, %s, %d connections", inflight, bytesTitle(size), conns),
		hold+time.Second, longTimeout)
	if window := inflight * (size + 4); window > 200<<10 {
		// heartwheel bounds what waits for a peer, 256 KiB by default, and here
		// more than that may be on its way. The others have no bound.
		c.serving.outbox = fmt.Sprintf("%dKiB", 2*window>>10)
	}
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		if err := b.warm(ctx, r); err != nil {
			return nil, err
		}
		var got flood.Result
		if err := b.flood(ctx, r, flood.Job{Conns: conns, Inflight: inflight, Size: size, Warm: hold / 4,
			For: hold}, &got); err != nil {
			return nil, err
		}
		frames := float64(got.Frames)
		if frames == 0 {
			return nil, errors.New("no frame was answered")
		}
		f := map[string]float64{
			"frames": frames / got.Seconds, "cpu_per_frame": got.ServerCPU / frames * 1e6,
			"server_cpu": got.ServerCPU / got.Seconds / float64(len(b.opts.serverCPUs)) * 100,
			"load_cpu":   got.OwnCPU / got.Seconds / float64(got.Threads) * 100,
		}
		if limited(f["load_cpu"]/100, f["server_cpu"]/100) && !b.opts.loose {
			return f, fmt.Errorf("%w: it used %.0f %% of its processor, the server %.0f %% of its own; %.0f frames a "+
				"second", errGenerator, f["load_cpu"], f["server_cpu"], f["frames"])
		}
		return f, nil
	}
	return c
}

// messages is the echo of W9 and W10: the load test's own closed loop, as the
// generator of W3 knows neither TLS nor WebSocket. It may be the limit, so it is
// processor time that counts.
func messages(inflight, size, conns int, hold time.Duration) *cell {
	c := newCell("W3", fmt.Sprintf("W3-%dx%d", inflight, size),
		fmt.Sprintf("%d in flight, %s, %d connections", inflight, bytesTitle(size), conns),
		hold+time.Second, longTimeout)
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir, load{closed: true, for_: hold,
			most: 2*c.takes + 60*time.Second, args: append(r.common(conns, time.Second), "--mode", "echo",
				"--inflight", fmt.Sprint(inflight), "--payload", fmt.Sprint(size))})
		if err != nil {
			return nil, err
		}
		if got.Frames.PerSecond == 0 {
			return nil, errors.New("no frame was answered")
		}
		return map[string]float64{"cpu_per_frame": got.cores() / got.Frames.PerSecond * 1e6,
			"frames": got.Frames.PerSecond, "server_cpu": got.cores() * 100}, nil
	}
	return c
}

// connects is W4: connect, beat, reset.
func connects(rate int, hold time.Duration) *cell {
	c := newCell("W4", "W4", countTitle(rate)+" a second", hold+2*time.Second, longTimeout)
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		if err := b.warm(ctx, r); err != nil {
			return nil, err
		}
		args := []string{"--mode", "churn", "-c", "1000", "--connect-rate", fmt.Sprint(rate)}
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{args: args, for_: hold, most: 2*c.takes + 60*time.Second})
		if err != nil {
			return nil, err
		}
		n := &got.Connections
		if n.TimeUS == nil || n.RateReal <= 0 {
			return nil, errors.New("nothing was connected")
		}
		return map[string]float64{
			"cpu_per_connect": got.cores() / n.RateReal * 1e6, "cpu": got.cores() * 100,
			"connect_p50": n.TimeUS.P50, "connect_p99": n.TimeUS.P99, "failed": float64(n.Failed),
			"handshakes": n.RateReal / got.cores(),
		}, nil
	}
	return c
}

// wave is W5: some die within a second.
func wave(conns int, timeout time.Duration) *cell {
	hold := 3*time.Second + timeout
	c := newCell("W5", fmt.Sprintf("W5-%d", conns), fmt.Sprintf("%s connections, T = %s", countTitle(conns), timeout),
		hold+connectTime(conns)+2*time.Second, timeout)
	c.deaths = true
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		args := append(r.common(conns, timeout/2), "--fault", "silent:10%@1s,+over=1s", "--fault", "partial:1%@2s")
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{args: args, for_: hold, most: 2*c.takes + 60*time.Second})
		if err != nil {
			return nil, err
		}
		return got.detection()
	}
	return c
}

// detection is what became of dead and live peers.
func (l *loaded) detection() (map[string]float64, error) {
	d := l.Detection
	if d == nil || len(d.Faults) == 0 {
		return nil, errors.New("the load test says nothing about faults")
	}
	f := map[string]float64{
		"undetected": float64(d.Undetected), "early": float64(d.Early), "late": float64(d.Late),
		"injected":    float64(d.Injected),
		"false_kills": float64(l.FalseKills.Count + l.Unexplained.Count),
	}
	if e := d.Faults[0].ErrorMS; e != nil {
		f["error_p50"], f["error_max"], f["error_min"] = e.P50, e.Max, e.Min
		f["off"] = max(e.Max, -e.Min)
		if e.Min >= 0 { // closing too early is not better for being less late
			f["error_p99"] = e.P99
		}
	}
	return f, nil
}

// stall is W6: the server is stopped for two timeouts.
func stall(conns int, timeout time.Duration) *cell {
	hold := 1500*time.Millisecond + 3*timeout
	c := newCell("W6", fmt.Sprintf("W6-%d", conns), fmt.Sprintf("%s connections, T = %s", countTitle(conns), timeout),
		hold+connectTime(conns)+2*time.Second, timeout)
	c.deaths = true
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		args := append(r.common(conns, timeout/2), "--fault", fmt.Sprintf("stall-server:%s@1s", 2*timeout))
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{tolerant: true, args: args, for_: hold, most: 2*c.takes + 60*time.Second})
		if err != nil {
			return nil, err
		}
		killed := float64(got.FalseKills.Count + got.Unexplained.Count)
		share := killed / float64(got.Connections.Established) * 100
		return map[string]float64{"killed": killed, "killed_share": share}, nil
	}
	return c
}

// expiry is W7: nine tenths die at once.
func expiry(conns int, timeout time.Duration) *cell {
	hold := 2500*time.Millisecond + timeout
	c := newCell("W7", fmt.Sprintf("W7-%d", conns), fmt.Sprintf("%s connections, T = %s", countTitle(conns), timeout),
		hold+connectTime(conns)+2*time.Second, timeout)
	c.deaths = true
	c.measure = func(ctx context.Context, b *bench, r *running) (map[string]float64, error) {
		args := append(r.common(conns, timeout/2), "--fault", "silent:90%@1s")
		got, err := b.load(ctx, r.server, c.serving.timeout, r.dir,
			load{args: args, for_: hold, most: 2*c.takes + 60*time.Second})
		if err != nil {
			return nil, err
		}
		f, err := got.detection()
		if err == nil {
			at := got.Detection.Faults[0].StartS // the first expires half a timeout later, the last T later
			f["live_p99"] = got.worst(at+timeout.Seconds()/2, at+timeout.Seconds()+1)
		}
		return f, err
	}
	return c
}

// warm lets the server run before it is measured: a little, and one that
// compiles itself for as long as that takes.
func (b *bench) warm(ctx context.Context, r *running) error {
	if r.server.serving.scheme != "" {
		return nil // no such server is slow to warm up, and the generator cannot speak to it
	}
	long := 200 * time.Millisecond
	if r.server.contender.slow {
		long = 5 * time.Second
	}
	return b.flood(ctx, r, flood.Job{Conns: 100, Inflight: 1, Size: 16, For: long}, &flood.Result{})
}

// flood runs the closed-loop generator in a process of its own.
func (b *bench) flood(ctx context.Context, r *running, job flood.Job, got *flood.Result) error {
	most := job.Warm + job.For + 20*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("the generator did not end within %s", most))
	defer cancel()
	job.Addr, job.PID, job.CPUs = r.server.addr, r.server.pid(), b.opts.loadCPUs
	text, err := json.Marshal(job)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var result string
	p, err := start(ctx, b.opts.loadCPUs, nil, func(line string) {
		if strings.HasPrefix(line, "{") {
			result = line
		}
	}, self, floodCommand, string(text))
	if err != nil {
		return err
	}
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("%w: %s", err, p.said(2))
	}
	if err := json.Unmarshal([]byte(result), got); err != nil {
		return fmt.Errorf("the generator said %q: %w", p.said(2), err)
	}
	return nil
}

// floodCommand makes this program the closed-loop generator, in a process of its own.
const floodCommand = "flood"

// runFlood is the whole of that process.
func runFlood(text string) error {
	var job flood.Job
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	result, err := flood.Run(job)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
