// Herd is many clients that connect, beat once, and wait for what the server
// says. With -reconnect each comes back whenever its connection ends, by the
// protocol's rules: the first time within -spread, then with full jitter from
// 0.5 s to 30 s, and after a GOAWAY not before the time that it names.
//
// It prints a report as a line of JSON when its standard input ends, once it
// knows of each connection what has become of it. Times are of the monotonic
// clock, in ns.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

const (
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
	dialing    = 64 // connections that are being made at a time
	patience   = 10 * time.Second
)

// A report is what came of all.
type report struct {
	GoawayAt []int64        // when each GOAWAY came
	EndedAt  []int64        // and each end of a connection
	Dials    int            // connections that were made
	Failed   int            // that could not be made
	In       int            // connected now
	Ends     map[string]int // how connections ended
	Late     time.Duration  // the most that a timer of this process was late
	Goaways  map[codec.Code]int
}

type herd struct {
	addr      string
	reconnect bool
	spread    time.Duration
	slots     chan struct{}

	in   atomic.Int64
	open atomic.Int64 // connections that are being made or not answered yet
	mu   sync.Mutex
	seen report // guarded by mu
}

func main() {
	h := &herd{slots: make(chan struct{}, dialing), seen: report{Ends: map[string]int{}, Goaways: map[codec.Code]int{}}}
	flag.StringVar(&h.addr, "addr", "", "server")
	flag.BoolVar(&h.reconnect, "reconnect", false, "come back")
	flag.DurationVar(&h.spread, "spread", 5*time.Second, "before the first attempt to come back")
	conns := flag.Int("conns", 0, "clients")
	source := flag.Int("source", 0, "network of their addresses: 127.SOURCE.0.0")
	flag.Parse()

	for i := range *conns {
		// Few to an address, so that ports never run short.
		go h.live(&net.TCPAddr{IP: net.IPv4(127, byte(*source), byte(1+i/5000), 1)})
	}
	go h.watchTimers()
	_, _ = io.Copy(io.Discard, os.Stdin)
	for end := time.Now().Add(patience); h.open.Load() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	h.mu.Lock()
	h.seen.In = int(h.in.Load())
	if err := json.NewEncoder(os.Stdout).Encode(&h.seen); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func monotonic() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // every Linux has it
	return ts.Nano()
}

// watchTimers notes how late this process runs.
func (h *herd) watchTimers() {
	const every = 5 * time.Millisecond
	for {
		start := time.Now()
		time.Sleep(every)
		h.note(func(r *report) { r.Late = max(r.Late, time.Since(start)-every) })
	}
}

func (h *herd) note(f func(*report)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.seen)
}

// live is one client.
func (h *herd) live(from *net.TCPAddr) {
	failures := 0
	for {
		after, wasIn := h.connection(from)
		if !h.reconnect {
			return
		}
		delay := h.spread
		if wasIn {
			failures = 0
		} else {
			delay = min(retryFirst<<min(failures, 6), retryMost)
			failures++
		}
		time.Sleep(after + time.Duration(rand.Float64()*float64(delay)))
	}
}

// connection makes one and returns when that has ended: after is what the
// server asked to wait, wasIn whether it was served at all.
func (h *herd) connection(from *net.TCPAddr) (after time.Duration, wasIn bool) {
	h.open.Add(1)
	known := sync.OnceFunc(func() { h.open.Add(-1) })
	defer known()
	h.slots <- struct{}{}
	c, err := (&net.Dialer{LocalAddr: from, Timeout: 10 * time.Second, KeepAlive: -1}).Dial("tcp", h.addr)
	<-h.slots
	if err != nil {
		h.note(func(r *report) { r.Failed++ })
		return 0, false
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetLinger(0)
	h.note(func(r *report) { r.Dials++ })
	_, err = c.Write(codec.AppendBeat(nil))
	for b := bufio.NewReaderSize(c, 512); err == nil; {
		var body []byte
		if body, err = frame(b); err != nil {
			break
		}
		now := monotonic()
		switch {
		case len(body) == 0:
			wasIn = true
			h.in.Add(1)
			defer h.in.Add(-1)
			known()
		case codec.Op(body[0]) == codec.OpGoaway:
			g, _ := codec.ParseGoaway(body[1:])
			after = time.Duration(g.AfterMS) * time.Millisecond
			h.note(func(r *report) {
				r.GoawayAt = append(r.GoawayAt, now)
				r.Goaways[g.Code]++
			})
		}
	}
	h.note(func(r *report) {
		r.EndedAt = append(r.EndedAt, monotonic())
		if errors.Is(err, io.EOF) {
			r.Ends["end of stream"]++
		} else {
			r.Ends["reset or other"]++
		}
	})
	return after, wasIn
}

// frame reads the body of one.
func frame(r io.Reader) ([]byte, error) {
	var head [codec.HeaderSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size, err := codec.FrameSize(head[:], 4096)
	if err != nil {
		return nil, err
	}
	body := make([]byte, size-codec.HeaderSize)
	_, err = io.ReadFull(r, body)
	return body, err
}
