package loadtest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
)

// runs is a run with what was shown.
type runs struct {
	*Summary
	out, progress string
}

// doRun runs a plan. The lag of a slow machine makes no run invalid, unless the
// test is about that.
func doRun(t testing.TB, inHold func(chan<- os.Signal), pairs ...string) runs {
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
	s, err := Run(Options{Plan: p, Settings: settings, Version: "test", Command: command, Stdout: &out, Progress: progress, Signals: signals})
	if err != nil {
		t.Fatal(err)
	}
	if t.Failed() || testing.Verbose() {
		t.Log(out.String())
	}
	return runs{s, out.String(), progress.String()}
}

// A trigger does something at the last of the first few writes with a text.
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

func (r runs) want(t testing.TB, word string, reasons ...string) {
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

// plain is a server of goroutines: each connection is handled by serve, which
// gets its number. It returns the address.
func plain(t testing.TB, serve func(n int, c *net.TCPConn)) string {
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
			r := doRun(t, nil, "target", plain(t, echo), "connections", "100", "interval", "100ms", "duration", "1s", "frame", frame, "phase", phase, "loops", "2")
			r.want(t, Pass)
			// 10 rounds in the second, less one at the edges, and those of connecting.
			if f := r.Frames; f.Sent < 900 || f.Answered+f.Unanswered != f.Sent || f.PerSecond < 800 || f.PerSecond > 1100 {
				t.Errorf("%s %s: %+v", frame, phase, f)
			}
			if c := r.Connections; c.Established != 100 || c.AtEnd != 100 || c.TimeUS.Count != 100 {
				t.Errorf("%s %s: %+v", frame, phase, c)
			}
			if r.Response == nil || r.Service == nil || r.Response.US.Count != r.Service.US.Count || r.Response.US.Mean < r.Service.US.Mean {
				t.Errorf("%s %s: response %+v, service %+v", frame, phase, r.Response, r.Service)
			}
			if !strings.Contains(r.progress, "hold: 100 connections") || strings.Contains(r.progress, "\x1b") {
				t.Errorf("progress:\n%s", r.progress)
			}
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
		// With an interval shorter than d beats wait for those before: then the
		// empty ones have to be matched to their answers by their order.
		for _, interval := range []string{"100ms", "20ms"} {
			r := doRun(t, nil, "target", plain(t, slow), "connections", "3", "interval", interval, "duration", "600ms", "frame", frame)
			if r.Response == nil || r.Response.US.Min < 0.98*float64(d.Microseconds()) && interval == "100ms" || r.Service.US.P50 < 0.9*float64(d.Microseconds()) {
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
		// Longer than a frame may be without an answer: what stands still is found.
		r := doRun(t, nil, "target", plain(t, echo), "mode", "echo", "connections", "4", "duration", "1500ms", "inflight", c[0], "payload", c[1], "timeout", "1h")
		if r.Verdict.Word != Pass && r.Verdict.Word != Invalid { // a busy loop is what it is here
			t.Errorf("%v: %+v", c, r.Verdict)
		}
		if f := r.Frames; f.Answered < 10 || f.Wrong != 0 || f.Answered+f.Unanswered != f.Sent || f.OldestUnansweredMS > 900 {
			t.Errorf("%v: %+v", c, f)
		}
	}
}

func TestChurn(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "target", plain(t, echo), "mode", "churn", "connections", "200", "connect-rate", "400", "duration", "1s")
	r.want(t, Pass)
	if c := r.Connections; c.Asked < 100 || c.Asked > 400 || c.Established != c.Asked || r.Frames.Answered != int64(c.Asked-c.AtEnd) {
		t.Errorf("%+v %+v", c, r.Frames)
	}
	// A server that never answers fills all places.
	r = doRun(t, nil, "target", plain(t, func(n int, c *net.TCPConn) {
		if n < 2 { // the probe
			echo(n, c)
		}
		_, _ = io.Copy(io.Discard, c)
	}), "mode", "churn", "connections", "20", "connect-rate", "100", "duration", "1s", "connect-timeout", "300ms")
	r.want(t, Failed, "established")
	if f := r.Connections.Failures; len(f) != 2 || !strings.Contains(f[0].Error+f[1].Error, "no answer to the beat within 300ms") || !strings.Contains(f[0].Error+f[1].Error, "all 20 connections of the plan were still open") {
		t.Errorf("%+v", f)
	}
}

// answering is a plain server that answers what it reads with what answer makes
// of it; nothing ends the connection.
func answering(t testing.TB, answer func(n int, b []byte) []byte) string {
	return plain(t, func(n int, c *net.TCPConn) {
		b := make([]byte, 64<<10)
		for {
			k, err := c.Read(b)
			if err != nil {
				return
			}
			text := answer(n, b[:k:k])
			if text == nil {
				return
			}
			if _, err := c.Write(text); err != nil {
				return
			}
		}
	})
}

func TestWrongAnswers(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b[len(b)-1]++; return b }
	data := codec.AppendData(nil, []byte("x"))
	for _, c := range []struct {
		name    string
		answer  func(b []byte) []byte
		pairs   []string
		example string
	}{
		{"another frame", func(b []byte) []byte { return append(b, data...) }, nil, "data with 1 bytes"},
		{"one too many", func(b []byte) []byte { return append(b, b...) }, nil, "an empty frame came, which answers nothing"},
		{"not a frame", func([]byte) []byte { return []byte("HTTP/1.1 400\r\n") }, nil, "bytes that are not a frame: 48 54 54 50"},
		{"another pong", func(b []byte) []byte { b[4] = byte(codec.OpPong); return flip(b) }, []string{"frame", "ping"}, "pong with 16 bytes"},
		{"echo of others", flip, []string{"mode", "echo", "payload", "16"}, "data with 16 bytes"},
		{"echo not whole", func(b []byte) []byte {
			if len(b) == 69 { // one DATA frame, and nothing else
				b[40]++
			}
			return b
		}, []string{"mode", "echo"}, "data with 64 bytes"},
		{"ERROR", func([]byte) []byte { return codec.AppendError(nil, 4002, "not for you") }, []string{"frame", "ping"}, `ERROR 4002 "not for you"`},
		{"HELLO as it was", func(b []byte) []byte { return b }, []string{"hello", "true"}, "hello came where WELCOME should answer HELLO"},
		{"wrong CLOSE", func([]byte) []byte { return codec.AppendFrame(nil, codec.OpClose, []byte{1}) }, nil, "close"},
		{"op of nobody", func([]byte) []byte { return codec.AppendRes(nil, 1, 0, nil) }, nil, "res came, which nobody asked for"},
	} {
		target := answering(t, func(n int, b []byte) []byte {
			if n < 2 { // the probe
				return b
			}
			return c.answer(b)
		})
		r := doRun(t, nil, append([]string{"target", target, "connections", "5", "interval", "100ms", "duration", "300ms", "timeout", "1h"}, c.pairs...)...)
		if r.Frames.Wrong == 0 || !strings.Contains(r.Frames.WrongExample, c.example) || r.Verdict.ExitCode != 1 || !strings.Contains(r.out, r.Frames.WrongExample) {
			t.Errorf("%s: %d wrong, the first %q, want %q\n%s", c.name, r.Frames.Wrong, r.Frames.WrongExample, c.example, r.out)
		}
	}
}

// What comes in pieces is the same answer.
func TestAnswersInPieces(t *testing.T) {
	t.Parallel()
	target := plain(t, func(_ int, c *net.TCPConn) {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			for i := range n {
				if _, err := c.Write(b[i : i+1]); err != nil {
					return
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	for _, frame := range []string{"empty", "ping"} {
		doRun(t, nil, "target", target, "connections", "5", "interval", "100ms", "duration", "500ms", "frame", frame).want(t, Pass)
	}
}

func TestTargetsThatDoNotWork(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "tcp://" + ln.Addr().String()
	ln.Close()
	for _, c := range []struct{ name, target, want string }{
		{"nobody", nobody, "connection refused; is the server running there?"},
		{"no such name", "tcp://nowhere.invalid:1", "cannot find the target tcp://nowhere.invalid:1"},
		{"closes at once", answering(t, func(int, []byte) []byte { return nil }), "closes a connection at once, without an answer"},
		{"at its limit", plain(t, func(_ int, c *net.TCPConn) {
			_, _ = c.Write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded, Reason: "full"}))
			_, _ = io.Copy(io.Discard, c)
		}), `with 3020 "full"; it is at its connection limit`},
		{"wants a token", plain(t, func(_ int, c *net.TCPConn) {
			_, _ = c.Write(codec.AppendClose(nil, codec.CodeBadToken, "who?"))
			_, _ = io.Copy(io.Discard, c)
		}), "give --hello-token"},
	} {
		p := testPlan(t, "target", c.target)
		_, err := Run(Options{Plan: p, Command: command, Stdout: io.Discard, Progress: io.Discard})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestConnectionsThatFail(t *testing.T) {
	t.Parallel()
	closer := answering(t, func(n int, b []byte) []byte {
		if n < 2 || n%2 == 0 {
			return b
		}
		return nil
	})
	r := doRun(t, nil, "target", closer, "connections", "10", "interval", "100ms", "duration", "500ms")
	r.want(t, Failed, "5 of 10 connections established: 5 failed, 0 refused; most often: closed by the target at once")
	if c := r.Connections; c.Failures[0].Example == "" || c.AtEnd != 5 {
		t.Errorf("%+v", c)
	}
	mute := plain(t, func(n int, c *net.TCPConn) {
		if n == 0 { // the probe for T
			w := codec.AppendWelcome(nil, codec.Welcome{TimeoutMS: 60000})
			_, _ = c.Write(w)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	r = doRun(t, nil, "target", mute, "connections", "10", "hello", "true", "duration", "500ms", "connect-timeout", "200ms")
	r.want(t, Failed, "none of 10 connections was established")
	if f := r.Connections.Failures; len(f) != 1 || f[0].Error != "no WELCOME within 200ms" || f[0].Count != 10 {
		t.Errorf("%+v", f)
	}
	// A server at its limit: the probe is one too while it lasts.
	r = doRun(t, nil, "serve", "--small", "connections", "60", "interval", "100ms", "duration", "500ms")
	r.want(t, Failed, "established")
	if c := r.Connections; c.Refused != 10 || c.Established != 50 || c.AtEnd != 50 || r.FalseKills.Count != 0 {
		t.Errorf("%+v %+v", c, r.FalseKills)
	}
	r = doRun(t, nil, "target", closer, "connections", "2", "duration", "300ms", "source", "192.0.2.1")
	r.want(t, Failed, "none of 2 connections was established")
	if f := r.Connections.Failures; len(f) != 1 || !strings.Contains(f[0].Error, "give --source addresses of this machine") {
		t.Errorf("%+v", f)
	}
}

// A server that closes live connections, in several ways.
func TestCloses(t *testing.T) {
	t.Parallel()
	beat := codec.AppendBeat(nil)
	for _, c := range []struct {
		name        string
		last        []byte // sent before it closes
		timeout     string
		word        string
		reason      string
		kills, told int
		unexplained int
	}{
		{"without a word", nil, "1h", Failed, "2 false kills; the first: at ", 2, 0, 0},
		{"accused", codec.AppendClose(nil, codec.CodeProtocol, "bad op"), "1h", Failed, `end of stream, told 3501 "bad op"`, 2, 0, 0},
		{"drained", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}), "1h", Pass, "", 0, 2, 0},
		{"too often", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeBeatTooOften}), "1h", Failed, "2 connections closed with 3021", 0, 2, 0},
		{"T unknown", nil, "", Failed, "2 unexplained closes", 0, 0, 2},
	} {
		target := plain(t, func(n int, conn *net.TCPConn) {
			if n%2 == 0 { // the probe, and half of the others
				echo(n, conn)
				return
			}
			b := make([]byte, 64)
			for range 3 {
				if _, err := conn.Read(b); err != nil {
					return
				}
				if _, err := conn.Write(beat); err != nil {
					return
				}
			}
			_, _ = conn.Write(c.last)
		})
		pairs := []string{"target", target, "connections", "4", "interval", "100ms", "duration", "800ms"}
		if c.timeout != "" {
			pairs = append(pairs, "timeout", c.timeout)
		}
		r := doRun(t, nil, pairs...)
		told := 0
		for _, x := range r.Connections.Told {
			told += x.Count
		}
		if r.Verdict.Word != c.word || !strings.Contains(strings.Join(r.Verdict.Reasons, "\n"), c.reason) ||
			r.FalseKills.Count != c.kills || told != c.told || r.Unexplained.Count != c.unexplained || r.Connections.AtEnd != 2 {
			t.Errorf("%s: %+v kills %+v told %+v unexplained %+v", c.name, r.Verdict, r.FalseKills, r.Connections.Told, r.Unexplained)
		}
	}
}

// Every kind of fault against a real server in a process of its own, with
// T = 1.5 s.
func TestFaultsAreNoticed(t *testing.T) {
	t.Parallel()
	var pairs []string
	for _, kind := range []string{"silent", "freeze", "partial", "drip", "reset", "halfclose", "garbage", "oversize"} {
		pairs = append(pairs, "fault", kind+":5@200ms")
	}
	// The bound lets every run end well in time; what is asked of the errors is below.
	pairs = append(pairs, "connections", "100", "interval", "200ms", "duration", "4s", "bound", "2s", "loops", "2")
	r := doRun(t, nil, pairs...)
	r.want(t, Pass)
	if r.Detection.TimeoutMS != 1500 || r.Detection.TimeoutFrom != "WELCOME" || r.Detection.Injected != 40 || r.Detection.Detected != 35 {
		t.Errorf("%+v", r.Detection)
	}
	lag := r.Generator.LagUS.Max / 1000
	for _, f := range r.Detection.Faults {
		if f.Kind == "reset" {
			if f.Observable || f.Injected != 5 || f.Detected != 0 || !strings.Contains(f.Note, "as peer_reset") {
				t.Errorf("%+v", f)
			}
			continue
		}
		// Two ticks of the server, and as much more as this machine was busy.
		if f.Injected != 5 || f.Detected != 5 || f.ErrorMS.Min < 0 || f.ErrorMS.P50 > 200+2*lag {
			t.Errorf("%+v %+v", f, f.ErrorMS)
		}
	}
	if s := r.Server; s == nil || s.ClosedByReason["idle_timeout"] != 20 || s.ClosedByReason["peer_reset"] != 5 || s.ConnectionsMax < 90 || s.RSSAfterBytes == 0 || len(s.PIDs) != 1 {
		t.Errorf("%+v", s)
	}
}

// Ground truth against servers that get it wrong.
func TestFaultsThatAreNoticedWrongly(t *testing.T) {
	t.Parallel()
	against := func(target, timeout string, more ...string) runs {
		return doRun(t, nil, append([]string{"target", target, "timeout", timeout, "connections", "10", "interval", "100ms", "duration", "1300ms", "bound", "100ms",
			"fault", "silent:4@100ms"}, more...)...)
	}
	// after is a server that closes after so much silence.
	after := func(d time.Duration) string {
		return plain(t, func(_ int, c *net.TCPConn) {
			b := make([]byte, 64)
			for {
				_ = c.SetReadDeadline(time.Now().Add(d))
				n, err := c.Read(b)
				if err != nil {
					return
				}
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
			}
		})
	}
	r := against(plain(t, echo), "300ms")
	r.want(t, Failed, "4 dead peers not noticed")
	if d := r.Detection; d.Undetected != 4 || len(d.Faults[0].Examples) != 4 || d.ErrorMS != nil {
		t.Errorf("%+v", d)
	}
	r = against(after(400*time.Millisecond), "1s")
	r.want(t, Failed, "4 dead peers noticed too early")
	if d := r.Detection; d.Early != 4 || d.ErrorMS.P50 > -100 || d.ErrorMS.P50 < -610 {
		t.Errorf("%+v %+v", d, d.ErrorMS)
	}
	r = against(after(600*time.Millisecond), "300ms")
	r.want(t, Failed, "4 dead peers noticed later than the bound of 100 ms")
	if d := r.Detection; d.Late != 4 || d.ErrorMS.P50 < 280 {
		t.Errorf("%+v %+v", d, d.ErrorMS)
	}
	r = against(after(350*time.Millisecond), "300ms", "slo", "detect.max<=timeout+1ms")
	r.want(t, Breached, "gate detect.max<=timeout+1ms: measured")
}

func TestHerdAndReconnect(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "60", "interval", "200ms", "duration", "5s", "bound", "2s", "loops", "2",
		"fault", "herd:50%@100ms", "fault", "silent:10@300ms,+over=200ms,+reconnect", "fault", "reset:6@400ms,+reconnect")
	r.want(t, Pass)
	for i, n := range []int{30, 10, 6} {
		f := r.Detection.Faults[i]
		if b := f.Reconnect; b == nil || b.Asked != n || b.Established != n || b.TimeUS.Count != int64(n) {
			t.Errorf("%+v %+v", f, b)
		}
	}
	if c := r.Connections; c.Established != 60 || c.Reconnects != 46 || c.AtEnd != 60 {
		t.Errorf("%+v", c)
	}
}

// A server that is stopped for longer than T kills nobody, and is not blamed
// for what it could not notice.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "50", "interval", "200ms", "duration", "5s", "bound", "500ms", "fault", "stall-server:2s@300ms", "fault", "silent:5@200ms")
	r.want(t, Pass)
	if f := r.Detection.Faults[0]; !strings.Contains(f.Note, "stopped for 2s") || math.Abs(f.EndS-f.StartS-2) > 1e-6 {
		t.Errorf("%+v", f)
	}
	if r.Response.US.Max < 1.5e6 {
		t.Errorf("nobody waited for the server: %+v", r.Response.US)
	}
	_, err := Run(Options{Plan: testPlan(t, "target", plain(t, echo), "timeout", "1h", "fault", "stall-server:1s@1s"), Command: command, Stdout: io.Discard, Progress: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "is this process itself") {
		t.Errorf("a server in this process is stopped: %v", err)
	}
}

func TestHello(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "20", "hello-beat", "400ms", "hello-device", "d", "interval", "300ms", "duration", "3s", "bound", "1s", "fault", "silent:3@100ms")
	r.want(t, Pass)
	if d := r.Detection; d.TimeoutMS != 1500 || d.Detected != 3 {
		t.Errorf("%+v", d)
	}
	// The server beats: its beats are answered, but not by those who are silent.
	r = doRun(t, nil, "connections", "20", "hello-beats", "server", "duration", "3s", "bound", "1s", "fault", "silent:3@100ms", "fault", "freeze:3@100ms")
	r.want(t, Pass)
	if r.Frames.ServerBeats < 20*5/2 || r.Frames.Sent != 0 || r.Response != nil || r.Detection.Detected != 6 || r.Connections.AtEnd != 14 {
		t.Errorf("%+v %+v", r.Frames, r.Detection)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	for _, pairs := range [][]string{{}, {"processes", "2"}} {
		r := doRun(t, func(signals chan<- os.Signal) { signals <- os.Interrupt }, append(pairs, "connections", "20", "interval", "200ms", "duration", "1m", "fault", "garbage:2@200ms", "fault", "silent:2@50s", "bound", "1s")...)
		r.want(t, Interrupted, "these are the figures until then")
		if r.Verdict.ExitCode != 130 || r.Connections.Established != 20 || r.Frames.Answered < 20 || r.Detection.Detected != 2 || r.Detection.Undetected != 0 {
			t.Errorf("%+v", r.Summary)
		}
	}
}

func TestServerThatEnds(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "serve", "--die", "connections", "5", "interval", "200ms", "duration", "10s")
	r.want(t, Failed, "the server ended during the run: exit status 7", "cannot go on")
	_, err := Run(Options{Plan: testPlan(t), Command: func(args ...string) *exec.Cmd { return command("nothing") }, Stdout: io.Discard, Progress: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "did not start: no such role nothing") {
		t.Errorf("%v", err)
	}
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "processes", "3", "loops", "2", "connections", "100", "interval", "200ms", "duration", "3s", "bound", "1s", "fault", "silent:10%@100ms")
	r.want(t, Pass)
	if c := r.Connections; c.Established != 100 || c.TimeUS.Count != 100 || r.Detection.Detected != 10 || len(r.Generator.CPU) != 3 || r.Generator.RSSBytes < 3e6 {
		t.Errorf("%+v %+v %+v", c, r.Detection, r.Generator)
	}
	// All of them see the same schedule.
	if f := r.Frames; f.Sent < 900 || f.Answered+f.Unanswered != f.Sent || r.Service.US.Count < 500 {
		t.Errorf("%+v %+v", f, r.Service)
	}
}

// A worker that dies is reported, and the run goes on without it.
func TestWorkerThatDies(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	started := 0
	var victim *exec.Cmd
	p, settings, err := Build(flags("processes", "2", "connections", "20", "interval", "200ms", "duration", "3s", "max-lag", "1m"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	progress := &trigger{text: "hold", after: 1, do: func() {
		mu.Lock()
		defer mu.Unlock()
		_ = victim.Process.Kill()
	}}
	s, err := Run(Options{Plan: p, Settings: settings, Stdout: &out, Progress: progress, Command: func(args ...string) *exec.Cmd {
		cmd := command(args...)
		mu.Lock()
		defer mu.Unlock()
		if args[0] == WorkerCommand {
			if started++; started == 2 {
				victim = cmd
			}
		}
		return cmd
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Verdict.ExitCode != 1 || len(s.Errors) != 1 || s.Errors[0] != "worker process 1: signal: killed" || s.Frames.Answered == 0 {
		t.Errorf("%+v\n%s", s.Verdict, out.String())
	}
}

// The addresses are used in turn, and every connection ends by a reset, which
// leaves nothing in TIME_WAIT.
func TestSourcesAndResets(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	from := map[string]int{}
	resets := 0
	done := make(chan struct{}, 100)
	target := plain(t, func(n int, c *net.TCPConn) {
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
	doRun(t, nil, "target", target, "timeout", "1h", "connections", "60", "duration", "300ms", "source", "127.0.3.0/29", "source", "127.0.4.1").want(t, Pass)
	for range 60 {
		<-done
	}
	if len(from) != 7 || from["127.0.4.1"] != 8 || from["127.0.3.1"] != 9 || from["127.0.3.0"] != 0 || resets != 60 {
		t.Errorf("%v, %d resets", from, resets)
	}
}

// What each kind of fault does to its connection, as a server sees it.
func TestWhatFaultsDo(t *testing.T) {
	t.Parallel()
	type seen struct {
		bytes []byte // after the fault: the beats before are answered and left out
		err   error
		took  time.Duration // until the writes of a server that answers without being asked are stuck; 0: never
	}
	for kind, want := range map[string]func(s seen) bool{
		"silent":  func(s seen) bool { return len(s.bytes) == 0 && s.took == 0 },
		"freeze":  func(s seen) bool { return len(s.bytes) == 0 && s.took > 0 },
		"partial": func(s seen) bool { return bytes.Equal(s.bytes, half) && s.took == 0 },
		"drip": func(s seen) bool {
			return len(s.bytes) >= 2 && len(s.bytes) <= 4 && bytes.HasPrefix(dripped, s.bytes[:2])
		},
		"reset":     func(s seen) bool { return errors.Is(s.err, unix.ECONNRESET) },
		"halfclose": func(s seen) bool { return len(s.bytes) == 0 && s.err == io.EOF && s.took == 0 },
		"garbage":   func(s seen) bool { return bytes.Equal(s.bytes, garbage) },
		"oversize":  func(s seen) bool { return bytes.Equal(s.bytes, large) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			got := make(chan seen, 1)
			target := plain(t, func(n int, c *net.TCPConn) {
				if n == 0 {
					echo(n, c)
					return
				}
				var s seen
				// A connection that is up sends a beat every 100 ms. Without any for 1 s it has the fault.
				b := make([]byte, 64)
				begun := time.Now()
				for s.err == nil && time.Since(begun) < 3*time.Second {
					_ = c.SetReadDeadline(begun.Add(3 * time.Second))
					var k int
					k, s.err = c.Read(b)
					if k%4 == 0 && bytes.Count(b[:k], []byte{0}) == k {
						_, _ = c.Write(b[:k])
					} else {
						s.bytes = append(s.bytes, b[:k]...)
					}
				}
				// Does it still read? PONGs that nobody asked for fill the buffers if not.
				_ = c.SetWriteDeadline(time.Now().Add(time.Second))
				flood := bytes.Repeat(codec.AppendFrame(nil, 0x40, make([]byte, 1000)), 100)
				for range 100 {
					if _, err := c.Write(flood); errors.Is(err, os.ErrDeadlineExceeded) {
						s.took = time.Second
						break
					}
				}
				got <- s
				_, _ = io.Copy(io.Discard, c)
			})
			doRun(t, nil, "target", target, "timeout", "5s", "connections", "1", "interval", "100ms", "duration", "6s", "bound", "500ms", "fault", kind+":1@200ms")
			if s := <-got; !want(s) {
				t.Errorf("the server has seen % x, %v, stuck %v", s.bytes, s.err, s.took)
			}
		})
	}
}

func TestNoAnswerAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, frame := range []string{"empty", "ping"} {
		var n atomic.Int64
		target := answering(t, func(_ int, b []byte) []byte {
			if n.Add(1) > 10 {
				return []byte{}
			}
			return b
		})
		r := doRun(t, nil, "target", target, "timeout", "1h", "connections", "2", "interval", "100ms", "duration", "2500ms", "frame", frame)
		r.want(t, Failed, "frames had no answer at the end; the oldest waited for")
	}
}

// A connection costs at most 500 bytes of user memory, all that a loop has
// included. At 10,000 the histograms are 100 of them.
func TestMemoryPerConnection(t *testing.T) {
	n := 10000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(n)+500 {
		t.Skipf("this process may open %d files, and %d are needed", limit.Cur, n+500)
	}
	own, err := startServer([]string{"--long"}, command)
	if err != nil {
		t.Fatal(err)
	}
	defer own.stop()
	target, err := resolveTarget("tcp://" + own.addr)
	if err != nil {
		t.Fatal(err)
	}
	p := testPlan(t, "connections", strconv.Itoa(n), "connect-rate", "20k", "interval", "10s", "duration", "2s")
	before := heapNow()
	c, err := localCrew(&job{Plan: *p, Of: 1, Target: target, Timeout: time.Minute, Sources: sourceAddrs(defaultSources(target.Addr(), n), n)})
	if err != nil {
		t.Fatal(err)
	}
	start := monotonic() + int64(30*time.Millisecond)
	c.order(order{Start: start})
	var most, connected int64
	for {
		r := <-c.reports
		if r.Connected != nil {
			connected = int64(r.Connected.Established)
			c.order(order{Hold: monotonic()})
		}
		if r.Tick != nil && connected > 0 {
			most = max(most, heapNow()-before)
		}
		if r.Result != nil {
			break
		}
	}
	_ = c.wait()
	if connected != int64(n) {
		t.Fatalf("%d of %d were established", connected, n)
	}
	each := float64(most) / float64(n)
	t.Logf("%.0f bytes a connection, of which the conn itself is %d", each, unsafe.Sizeof(conn{}))
	if each > 500 || each < float64(unsafe.Sizeof(conn{})) {
		t.Errorf("%.0f bytes a connection, want at most 500", each)
	}
}

func heapNow() int64 {
	runtime.GC()
	return liveMemory()
}
