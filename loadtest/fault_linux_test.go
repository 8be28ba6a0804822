package loadtest

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/loadtest/report"
)

// Every kind of fault, against a real server in another process with T = 1.5 s.
func TestFaultsAreDetected(t *testing.T) {
	t.Parallel()
	own, err := startServer(nil, command)
	if err != nil {
		t.Fatal(err)
	}
	defer own.stop()
	pairs := []string{"target", "tcp://" + own.addr, "ops", "http://" + own.ops}
	for _, kind := range []string{"silent", "freeze", "partial", "drip", "reset", "halfclose", "garbage", "oversize"} {
		pairs = append(pairs, "fault", kind+":5@200ms")
	}
	// The bound lets every run end well in time; the errors are checked below.
	pairs = append(pairs, "connections", "100", "interval", "200ms", "duration", "4s", "bound", "2s", "loops", "2")
	r := doRun(t, nil, pairs...)
	r.want(t, report.Pass)
	if r.Detection.TimeoutMS != 1500 || r.Detection.TimeoutFrom != "WELCOME" || r.Detection.Injected != 40 ||
		r.Detection.Detected != 35 {
		t.Errorf("%+v", r.Detection)
	}
	// A server that runs is late by a few ms. It does not detect that it could not run for
	// up to three of its ticks; longer pauses it has measured, and credited to its peers.
	// This process may have been late to see the close, too.
	most := 300 + stalledMS(t, own) + 2*r.Generator.LagUS.Max/1000
	for _, f := range r.Detection.Faults {
		if f.Kind == "reset" {
			if f.Observable || f.Injected != 5 || f.Detected != 0 || !strings.Contains(f.Note, "as peer_reset") {
				t.Errorf("%+v", f)
			}
			continue
		}
		if f.Injected != 5 || f.Detected != 5 || f.ErrorMS.Min < 0 || f.ErrorMS.P50 > most {
			t.Errorf("%+v %+v", f, f.ErrorMS)
		}
	}
	// The 60 without a fault are open at the last measurement. The first one may come after
	// the faults that are detected at once.
	if s := r.Server; s == nil || s.ClosedByReason["idle_timeout"] != 20 || s.ClosedByReason["peer_reset"] != 5 ||
		s.ConnectionsMax < 60 || s.RSSAfterBytes == 0 || len(s.PIDs) != 1 {
		t.Errorf("%+v", s)
	}
}

// stalledMS is the longest time that a loop of the server could not run, by its own
// metrics.
func stalledMS(t *testing.T, own *ownServer) (most float64) {
	t.Helper()
	resp, err := newMetricsClient().Get("http://" + own.ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range strings.Lines(string(text)) {
		if name, _, seconds, ok := parseMetric(line); ok && name == "heartwheel_stalled_seconds_total" {
			found, most = true, max(most, 1000*seconds)
		}
	}
	if !found {
		t.Error("the server does not say for how long it could not run")
	}
	return most
}

// Runs against servers that detect faults wrongly.
func TestWrongDetections(t *testing.T) {
	t.Parallel()
	// A server that closes after 1.5 s of silence. That is wrong by more than a pause of
	// this machine, which would excuse it.
	closing := listen(t, func(_ int, c *net.TCPConn) {
		b := make([]byte, 64)
		for {
			_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	})
	for name, c := range map[string]struct {
		target, timeout string
		more            []string
		word            string
		reasons         []string
		ok              func(d *report.Detection) bool
	}{
		"never": {listen(t, echo), "300ms", nil, report.Failed, []string{"4 dead peers not detected"},
			func(d *report.Detection) bool {
				return d.Undetected == 4 && len(d.Faults[0].Examples) == 4 && d.ErrorMS == nil
			}},
		"early": {closing, "2300ms", nil, report.Failed, []string{"4 dead peers detected too early"},
			func(d *report.Detection) bool { return d.Early == 4 && d.ErrorMS.P50 <= -100 && d.ErrorMS.P50 >= -810 }},
		"late": {closing, "300ms", nil, report.Failed, []string{"4 dead peers detected later than the bound of 100 ms"},
			func(d *report.Detection) bool { return d.Late == 4 && d.ErrorMS.P50 >= 1180 }},
		"gate": {closing, "300ms", []string{"slo", "detect.max<=timeout+1ms"}, report.Breached,
			[]string{"gate detect.max<=timeout+1ms: measured"}, func(*report.Detection) bool { return true }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := doRun(t, nil, append([]string{"target", c.target, "timeout", c.timeout, "connections", "10",
				"interval", "100ms", "duration", "2500ms", "bound", "100ms", "fault", "silent:4@100ms"}, c.more...)...)
			r.want(t, c.word, c.reasons...)
			if d := r.Detection; !c.ok(d) {
				t.Errorf("%+v %+v", d, d.ErrorMS)
			}
		})
	}
}

func TestHerdAndReconnect(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "60", "interval", "200ms", "duration", "5s", "bound", "2s", "loops", "2",
		"fault", "herd:50%@100ms", "fault", "silent:10@300ms,+over=200ms,+reconnect", "fault",
		"reset:6@400ms,+reconnect")
	r.want(t, report.Pass)
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

// A server that is stopped for longer than T kills no live connection, and its late
// detections are excused.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "50", "interval", "200ms", "duration", "5s", "bound", "500ms", "fault",
		"stall-server:2s@300ms", "fault", "silent:5@200ms")
	r.want(t, report.Pass)
	if f := r.Detection.Faults[0]; !strings.Contains(f.Note, "stopped for 2s") || math.Abs(f.EndS-f.StartS-2) > 1e-6 {
		t.Errorf("%+v", f)
	}
	if r.Response.US.Max < 1.5e6 {
		t.Errorf("no frame waited for the server: %+v", r.Response.US)
	}
	_, err := Run(Options{Plan: testPlan(t, "target", listen(t, echo), "timeout", "1h", "fault", "stall-server:1s@1s"),
		Command: command, Stdout: io.Discard, Progress: io.Discard})
	if err == nil || !strings.Contains(err.Error(), "is this process itself") {
		t.Errorf("a server in this process is stopped: %v", err)
	}
}

func TestHello(t *testing.T) {
	t.Parallel()
	r := doRun(t, nil, "connections", "20", "hello-beat", "400ms", "hello-device", "d", "interval", "300ms", "duration",
		"3s", "bound", "1s", "fault", "silent:3@100ms")
	r.want(t, report.Pass)
	if d := r.Detection; d.TimeoutMS != 1500 || d.Detected != 3 {
		t.Errorf("%+v", d)
	}
	// The server beats, and every peer but the faulty ones answers.
	r = doRun(t, nil, "connections", "20", "hello-beats", "server", "duration", "3s", "bound", "1s", "fault",
		"silent:3@100ms", "fault", "freeze:3@100ms")
	r.want(t, report.Pass)
	if r.Frames.ServerBeats < 20*5/2 || r.Frames.Sent != 0 || r.Response != nil || r.Detection.Detected != 6 ||
		r.Connections.AtEnd != 14 {
		t.Errorf("%+v %+v", r.Frames, r.Detection)
	}
}

// What each kind of fault does to its connection, as the server sees it.
func TestWhatFaultsDo(t *testing.T) {
	t.Parallel()
	type seen struct {
		bytes []byte // what is not the beats before
		err   error
		stuck bool // it does not read either
	}
	half := codec.AppendPing(nil, make([]byte, 16))[:11] // of 21 bytes
	dripped := []byte{0x00, 0x00, 0xfd, 0xe8}            // DATA of 65,000 bytes
	garbage := []byte{0xde, 0xad, 0xbe, 0xef, 0xde, 0xad, 0xbe, 0xef}
	large := []byte{0x00, 0xff, 0xff, 0xff}
	for kind, want := range map[string]func(s seen) bool{
		"silent":  func(s seen) bool { return len(s.bytes) == 0 && !s.stuck },
		"freeze":  func(s seen) bool { return len(s.bytes) == 0 && s.stuck },
		"partial": func(s seen) bool { return bytes.Equal(s.bytes, half) && !s.stuck },
		"drip": func(s seen) bool {
			return len(s.bytes) >= 2 && len(s.bytes) <= 4 && bytes.HasPrefix(dripped, s.bytes[:2])
		},
		"reset":     func(s seen) bool { return errors.Is(s.err, unix.ECONNRESET) },
		"halfclose": func(s seen) bool { return len(s.bytes) == 0 && s.err == io.EOF && !s.stuck },
		"garbage":   func(s seen) bool { return bytes.Equal(s.bytes, garbage) },
		"oversize":  func(s seen) bool { return bytes.Equal(s.bytes, large) },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			got := make(chan seen, 1)
			target := listen(t, func(n int, c *net.TCPConn) {
				if n == 0 {
					echo(n, c)
					return
				}
				var s seen
				// A beat every 100 ms is answered until the fault. Its first bytes, none of which look
				// like a beat, may arrive together with the last one.
				b, beat := make([]byte, 64), make([]byte, 4)
				_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
				for s.err == nil {
					var k int
					k, s.err = c.Read(b)
					s.bytes = append(s.bytes, b[:k]...)
					for s.err == nil && bytes.HasPrefix(s.bytes, beat) {
						s.bytes = s.bytes[len(beat):]
						_, s.err = c.Write(beat) // says of a reset what no read says then
					}
				}
				// Does it still read? If not, these frames fill the buffers.
				flood := bytes.Repeat(codec.AppendFrame(nil, 0x40, make([]byte, 1000)), 100)
				for range 100 {
					_ = c.SetWriteDeadline(time.Now().Add(time.Second))
					if _, err := c.Write(flood); err != nil {
						s.stuck = errors.Is(err, os.ErrDeadlineExceeded)
						break
					}
				}
				got <- s
				_, _ = io.Copy(io.Discard, c)
			})
			doRun(t, nil, "target", target, "timeout", "5s", "connections", "1", "interval", "100ms", "duration", "6s",
				"bound", "500ms", "fault", kind+":1@200ms")
			if s := <-got; !want(s) {
				t.Errorf("the server has seen % x, %v, stuck: %v", s.bytes, s.err, s.stuck)
			}
		})
	}
}
