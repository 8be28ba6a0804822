package loadtest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/loadtest/report"
)

// testRun is a run and its output.
type testRun struct {
	*report.Summary
	out, progress string
}

// doRun runs a plan. The lag of a slow machine makes no run invalid, unless a pair sets
// max-lag.
func doRun(t testing.TB, inHold func(chan<- os.Signal), pairs ...string) testRun {
	t.Helper()
	base := []string{"max-lag", "1m", "bound", "30s"}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "bound" {
			base = base[:2]
		}
	}
	p, settings, err := Build(flags(append(base, pairs...)...))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	signals := make(chan os.Signal, 1)
	progress := &trigger{text: "hold", after: 2, do: func() {
		if inHold != nil {
			inHold(signals)
		}
	}}
	s, err := Run(Options{Plan: p, Settings: settings, Version: "test", Command: command, Stdout: &out,
		Progress: progress, Signals: signals})
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() || testing.Verbose() {
		t.Log(out.String())
	}
	return testRun{s, out.String(), progress.String()}
}

// A trigger calls do at the last of the first few writes that contain text.
type trigger struct {
	bytes.Buffer
	text  string
	after int
	do    func()
}

func (w *trigger) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(w.text)) {
		if w.after--; w.after == 0 {
			w.do()
		}
	}
	return w.Buffer.Write(b)
}

func (r testRun) want(t testing.TB, word string, reasons ...string) {
	t.Helper()
	all := strings.Join(r.Verdict.Reasons, "\n")
	for _, want := range reasons {
		if !strings.Contains(all, want) {
			t.Errorf("no reason says %q", want)
		}
	}
	if r.Verdict.Word != word || len(reasons) == 0 != (all == "") {
		t.Errorf("want %s because of %q, but:\n%s", word, reasons, r.out)
	}
}

// listen starts a server of goroutines that handles connection n with serve. It returns
// the target.
func listen(t testing.TB, serve func(n int, c *net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				serve(n, c.(*net.TCPConn))
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "tcp://" + ln.Addr().String()
}

func echo(_ int, c *net.TCPConn) { _, _ = io.Copy(c, c) }

func TestBeats(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{"empty", "ping"} {
		for _, phase := range []string{"uniform", "sync"} {
			t.Run(frame+" "+phase, func(t *testing.T) {
				t.Parallel()
				r := doRun(t, nil, "target", listen(t, echo), "connections", "100", "interval", "100ms", "duration",
					"1500ms", "frame", frame, "phase", phase, "loops", "2")
				r.want(t, report.Pass)
				// 15 rounds, less one at the edges and those of connecting. The machine decides how
				// many of them are answered within the second that counts, but not more than were sent.
				if f := r.Frames; f.Sent < 1400 || f.Answered+f.Unanswered != f.Sent || f.PerSecond <= 0 ||
					f.PerSecond > 1100 {
					t.Errorf("%+v", f)
				}
				if c := r.Connections; c.Established != 100 || c.AtEnd != 100 || c.TimeUS.Count != 100 {
					t.Errorf("%+v", c)
				}
				if r.Response == nil || r.Service == nil || r.Response.US.Count != r.Service.US.Count ||
					r.Response.US.Mean < r.Service.US.Mean {
					t.Errorf("%s %s: response %+v, service %+v", frame, phase, r.Response, r.Service)
				}
				if !strings.Contains(r.progress, "hold: 100 connections") || strings.Contains(r.progress, "\x1b") {
					t.Errorf("progress:\n%s", r.progress)
				}
			})
		}
	}
}

// A server that answers late by D makes both latencies at least D.
func TestLatencyIsThatOfTheServer(t *testing.T) {
	t.Parallel()
	const d = 30 * time.Millisecond
	slow := func(_ int, c *net.TCPConn) {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			time.Sleep(d)
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	}
	for _, frame := range []string{"empty", "ping"} {
		// With an interval shorter than d, beats overlap: empty ones are then matched to their
		// answers by order.
		for _, interval := range []string{"100ms", "20ms"} {
			r := doRun(t, nil, "target", listen(t, slow), "connections", "3", "interval", interval, "duration", "600ms",
				"frame", frame)
			if r.Response == nil || r.Response.US.Min < 0.98*float64(d.Microseconds()) && interval == "100ms" ||
				r.Service.US.P50 < 0.9*float64(d.Microseconds()) {
				t.Errorf("%s every %s: response %+v service %+v", frame, interval, r.Response, r.Service)
			}
			if r.Frames.Wrong != 0 {
				t.Errorf("%s every %s: %s", frame, interval, r.Frames.WrongExample)
			}
		}
	}
}

func TestEcho(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{{"1", "16"}, {"8", "64"}, {"8", "60000"}, {"4", "300000"}} {
		r := doRun(t, nil, "target", listen(t, echo), "mode", "echo", "connections", "4", "duration", "300ms",
			"inflight", c[0], "payload", c[1], "timeout", "1h")
		if r.Verdict.Word != report.Pass && r.Verdict.Word != report.Invalid { // a busy loop is what it is here
			t.Errorf("%v: %+v", c, r.Verdict)
		}
		if f := r.Frames; f.Answered < 1 || f.Wrong != 0 || f.Answered+f.Unanswered != f.Sent {
			t.Errorf("%v: %+v", c, f)
		}
	}
}

func TestChurn(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "target", listen(t, echo), "mode", "churn", "connections", "200", "connect-rate", "400",
		"duration", "1s")
	r.want(t, report.Pass)
	// One connect is due at the start and 400 a second from there on; the times are
	// rounded. The real rate is higher if the first connect was late.
	most := 1.5 + 400*(r.Phases[0].EndS-r.Phases[0].StartS)
	if c := r.Connections; c.Asked < 1 || float64(c.Asked) > most || c.RateReal <= 0 || c.Established > c.Asked ||
		r.Frames.Answered == 0 || r.Frames.Answered > int64(c.Established) {
		t.Errorf("%+v %+v", c, r.Frames)
	}
	// A server that never answers fills all slots.
	r = doRun(t, nil, "target", listen(t, func(n int, c *net.TCPConn) {
		if n < 2 { // the probe
			echo(n, c)
		}
		_, _ = io.Copy(io.Discard, c)
	}), "mode", "churn", "connections", "20", "connect-rate", "100", "duration", "1s", "connect-timeout", "300ms")
	r.want(t, report.Failed, "established")
	var failures string
	for _, f := range r.Connections.Failures {
		failures += f.Error + "\n"
	}
	if f := failures; !strings.Contains(f, "no answer to the beat within 300ms") ||
		!strings.Contains(f, "all 20 connections of the plan were still open") {
		t.Errorf("failures: %s", f)
	}
}

// The source addresses are used in turn, and every connection ends by a reset, which
// leaves nothing in TIME_WAIT.
func TestSourcesAndResets(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	from := map[string]int{}
	resets := 0
	done := make(chan struct{}, 100)
	target := listen(t, func(n int, c *net.TCPConn) {
		if n == 0 { // the probe
			echo(n, c)
			return
		}
		_, err := io.Copy(c, c)
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		mu.Lock()
		from[host]++
		if errors.Is(err, unix.ECONNRESET) {
			resets++
		}
		mu.Unlock()
		done <- struct{}{}
	})
	doRun(t, nil, "target", target, "timeout", "1h", "connections", "60", "duration", "300ms", "source", "127.0.3.0/29",
		"source", "127.0.4.1").want(t, report.Pass)
	for range 60 {
		<-done
	}
	if len(from) != 7 || from["127.0.4.1"] != 8 || from["127.0.3.1"] != 9 || from["127.0.3.0"] != 0 || resets != 60 {
		t.Errorf("%v, %d resets", from, resets)
	}
}
