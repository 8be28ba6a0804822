package loadtest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"heartwheel/codec"
	"heartwheel/loadtest/report"
)

// answering is a server that answers each frame with answer's result and never closes.
func answering(t testing.TB, answer func(n int, b []byte) []byte) string {
	return listen(t, func(n int, c *net.TCPConn) {
		b := make([]byte, 64<<10)
		for {
			// One frame at a time, however the bytes arrive
			if _, err := io.ReadFull(c, b[:codec.HeaderSize]); err != nil {
				return
			}
			k := codec.HeaderSize + int(binary.BigEndian.Uint32(b))
			if _, err := io.ReadFull(c, b[codec.HeaderSize:k]); err != nil {
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
	flip := func(b []byte) []byte {
		if len(b) > 4 { // not a beat of before hold
			b[len(b)-1]++
		}
		return b
	}
	data := codec.AppendData(nil, []byte("x"))
	for _, c := range []struct {
		name    string
		answer  func(b []byte) []byte
		pairs   []string
		example string
	}{
		{"another frame", func(b []byte) []byte { return append(b, data...) }, nil, "data with 1 bytes"},
		{"one too many", func(b []byte) []byte { return append(b, b...) }, nil, "unexpected empty frame"},
		{"not a frame", func([]byte) []byte { return []byte("HTTP/1.1 400\r\n") }, nil,
			"bytes that are not a frame: 48 54 54 50"},
		{"another pong", func(b []byte) []byte { b[4] = byte(codec.OpPong); return flip(b) }, []string{"frame", "ping"},
			"pong with 16 bytes"},
		{"echo of others", flip, []string{"mode", "echo", "payload", "16"}, "data with 16 bytes"},
		{"echo not whole", func(b []byte) []byte {
			if len(b) == 69 { // one DATA frame, and nothing else
				b[40]++
			}
			return b
		}, []string{"mode", "echo"}, "data with 64 bytes"},
		{"ERROR", func([]byte) []byte { return codec.AppendError(nil, 4002, "not for you") }, []string{"frame", "ping"},
			`ERROR 4002 "not for you"`},
		{"HELLO as it was", func(b []byte) []byte { return b }, []string{"hello", "true"},
			"hello in place of WELCOME"},
		{"wrong CLOSE", func([]byte) []byte { return codec.AppendFrame(nil, codec.OpClose, []byte{1}) }, nil, "close"},
		{"unexpected op", func([]byte) []byte { return codec.AppendRes(nil, 1, 0, nil) }, nil,
			"unexpected res"},
	} {
		target := answering(t, func(n int, b []byte) []byte {
			if n < 2 { // the probe
				return b
			}
			return c.answer(b)
		})
		r := doRun(t, nil, append([]string{"target", target, "connections", "5", "interval", "100ms", "duration",
			"300ms", "timeout", "1h"}, c.pairs...)...)
		if r.Frames.Wrong == 0 || !strings.Contains(r.Frames.WrongExample, c.example) || r.Verdict.ExitCode != 1 ||
			!strings.Contains(r.out, r.Frames.WrongExample) {
			t.Errorf("%s: %d wrong, the first %q, want %q\n%s", c.name, r.Frames.Wrong, r.Frames.WrongExample,
				c.example, r.out)
		}
	}
}

// Answers may arrive in pieces.
func TestAnswersInPieces(t *testing.T) {
	t.Parallel()
	target := listen(t, func(_ int, c *net.TCPConn) {
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
		doRun(t, nil, "target", target, "connections", "5", "interval", "100ms", "duration", "500ms", "frame",
			frame).want(t, report.Pass)
	}
}

// closedPort returns a target that refuses connections until the test ends: a socket
// that is bound and does not listen. One that has listened and was closed would go on
// for a moment in a process that another test is starting.
func closedPort(t *testing.T) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("tcp://127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
}

func TestTargetsThatDoNotWork(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, target, want string }{
		{"closed", closedPort(t), "connection refused; is the server running there?"},
		{"no such name", "tcp://nowhere.invalid:1", "cannot find the target tcp://nowhere.invalid:1"},
		{"closes at once", answering(t, func(int, []byte) []byte { return nil }),
			"closes a connection at once, without an answer"},
		{"at its limit", listen(t, func(_ int, c *net.TCPConn) {
			_, _ = c.Write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded, Reason: "full"}))
			_, _ = io.Copy(io.Discard, c)
		}), `with 3020 "full"; it is at its connection limit`},
		{"wants a token", listen(t, func(_ int, c *net.TCPConn) {
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
	r.want(t, report.Failed,
		"5 of 10 connections established: 5 failed, 0 refused; most often: closed by the target at once")
	if c := r.Connections; c.Failures[0].Example == "" || c.AtEnd != 5 {
		t.Errorf("%+v", c)
	}
	mute := listen(t, func(n int, c *net.TCPConn) {
		if n == 0 { // the probe for T
			w := codec.AppendWelcome(nil, codec.Welcome{TimeoutMS: 60000})
			_, _ = c.Write(w)
		}
		_, _ = io.Copy(io.Discard, c)
	})
	r = doRun(t, nil, "target", mute, "connections", "10", "hello", "true", "duration", "500ms", "connect-timeout",
		"200ms")
	r.want(t, report.Failed, "none of 10 connections was established")
	if f := r.Connections.Failures; len(f) != 1 || f[0].Error != "no WELCOME within 200ms" || f[0].Count != 10 {
		t.Errorf("%+v", f)
	}
	// A server at its limit: the probe takes a slot while it lasts.
	r = doRun(t, nil, "serve", "--small", "connections", "60", "interval", "100ms", "duration", "500ms")
	r.want(t, report.Failed, "established")
	if c := r.Connections; c.Refused != 10 || c.Established != 50 || c.AtEnd != 50 || r.FalseKills.Count != 0 {
		t.Errorf("%+v %+v", c, r.FalseKills)
	}
	r = doRun(t, nil, "target", closer, "connections", "2", "duration", "300ms", "source", "192.0.2.1")
	r.want(t, report.Failed, "none of 2 connections was established")
	if f := r.Connections.Failures; len(f) != 1 || !strings.Contains(f[0].Error,
		"give --source addresses of this machine") {
		t.Errorf("%+v", f)
	}
}

// The probe gives up its slot before the run needs it, also at a target that is slow to
// see the close.
func TestProbeLeavesItsPlace(t *testing.T) {
	t.Parallel()
	var open atomic.Int64
	target := listen(t, func(n int, c *net.TCPConn) {
		if open.Add(1) > 5 {
			_, _ = c.Write(codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded}))
			return
		}
		echo(n, c)
		time.Sleep(300 * time.Millisecond)
		open.Add(-1)
	})
	r := doRun(t, nil, "target", target, "connections", "5", "interval", "100ms", "duration", "300ms")
	r.want(t, report.Pass)
}

// A server that closes live connections, with several codes.
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
		more        []string
	}{
		{"without a word", nil, "1h", report.Failed, "2 false kills; the worst: at ", 2, 0, 0, nil},
		{"accused", codec.AppendClose(nil, codec.CodeProtocolError, "bad op"), "1h", report.Failed,
			`end of stream, code 3501 "bad op"`, 2, 0, 0, nil},
		{"drained as planned", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}), "1h", report.Pass, "",
			0, 2, 0, []string{"expect-drain", "true"}},
		{"drained", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining}), "1h", report.Failed,
			"2 unexplained closes", 0, 0, 2, nil},
		{"drained by CLOSE", codec.AppendClose(nil, codec.CodeDraining, "bye"), "1h", report.Failed,
			`2 unexplained closes; the worst: at `, 0, 0, 2, nil},
		{"open at the end", nil, "1h", report.Breached, "gate at_end>=99%: measured 2", 2, 0, 0,
			[]string{"slo", "at_end>=99%"}},
		{"sent", nil, "1h", report.Breached, "gate sent>=99%: measured", 2, 0, 0, []string{"slo", "sent>=99%"}},
		{"too often", codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeBeatTooOften}), "1h", report.Failed,
			"2 connections closed with 3021", 0, 2, 0, nil},
		{"T unknown", nil, "", report.Failed, "2 unexplained closes", 0, 0, 2, nil},
	} {
		target := listen(t, func(n int, conn *net.TCPConn) {
			if n%2 == 0 { // the probe, and half of the others
				echo(n, conn)
				return
			}
			b := make([]byte, len(beat))
			for range 3 {
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
				if _, err := conn.Write(beat); err != nil {
					return
				}
			}
			_, _ = conn.Write(c.last)
			_ = conn.CloseWrite() // with an unread beat, a close would be a reset
			_, _ = io.Copy(io.Discard, conn)
		})
		pairs := []string{"target", target, "connections", "4", "interval", "100ms", "duration", "800ms"}
		pairs = append(pairs, c.more...)
		if c.timeout != "" {
			pairs = append(pairs, "timeout", c.timeout)
		}
		r := doRun(t, nil, pairs...)
		told := 0
		for _, x := range r.Connections.Told {
			told += x.Count
		}
		if r.Verdict.Word != c.word || !strings.Contains(strings.Join(r.Verdict.Reasons, "\n"), c.reason) ||
			r.FalseKills.Count != c.kills || told != c.told || r.Unexplained.Count != c.unexplained ||
			r.Connections.AtEnd != 2 {
			t.Errorf("%s: %+v kills %+v told %+v unexplained %+v", c.name, r.Verdict, r.FalseKills, r.Connections.Told,
				r.Unexplained)
		}
	}
}

// A server that says something else to every connection fills no memory and no report.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	target := listen(t, func(n int, c *net.TCPConn) {
		if n < 1 { // the probe
			echo(n, c)
			return
		}
		reason := strings.Repeat("x", 1000+n)
		if n%2 == 0 {
			reason = strconv.Itoa(n)
		}
		_, _ = c.Write(codec.AppendClose(nil, codec.CodeBadToken, reason))
		_ = c.CloseWrite()
		_, _ = io.Copy(io.Discard, c)
	})
	r := doRun(t, nil, "target", target, "timeout", "1h", "connections", "100", "hello",
		"true", "loops", "2", "duration",
		"300ms")
	failed := 0
	for _, f := range r.Connections.Failures {
		if failed += f.Count; len(f.Error) > 400 {
			t.Errorf("%d bytes: %s", len(f.Error), f.Error)
		}
	}
	if n := len(r.Connections.Failures); n < 2 || n > 21 || failed != 100 {
		t.Errorf("%d texts for %d failures", n, failed)
	}
}

// A server that beats by itself, without HELLO: it hears answers and nothing else.
func TestServerBeatsWithoutHello(t *testing.T) {
	t.Parallel()
	const interval, timeout = 200 * time.Millisecond, 1500 * time.Millisecond
	var unasked atomic.Int64
	beat := codec.AppendBeat(nil)
	target := listen(t, func(n int, c *net.TCPConn) {
		b := make([]byte, 64)
		_ = c.SetReadDeadline(time.Now().Add(interval)) // not before the first beat
		if k, _ := c.Read(b); k > 0 && n == 1 {
			return // the HELLO with which the probe asks for T
		} else if k > 0 {
			unasked.Add(1)
		}
		for {
			if _, err := c.Write(beat); err != nil {
				return
			}
			_ = c.SetReadDeadline(time.Now().Add(timeout))
			k, err := io.ReadFull(c, b[:len(beat)])
			if err != nil {
				return
			}
			if !bytes.Equal(b[:k], beat) {
				unasked.Add(1)
			}
			_ = c.SetReadDeadline(time.Now().Add(interval))
			if k, _ := c.Read(b); k > 0 {
				unasked.Add(1)
			}
		}
	})
	r := doRun(t, nil, "target", target, "server-beats", "true", "timeout", timeout.String(), "connections", "10",
		"interval", "50ms", "duration", "3s", "bound", "1s", "fault", "silent:3@100ms")
	r.want(t, report.Pass)
	if r.Frames.ServerBeats < 50 || r.Frames.Sent != 0 || r.Detection.Detected != 3 || r.Connections.AtEnd != 7 ||
		unasked.Load() != 0 {
		t.Errorf("%+v %+v, %d frames that were no answers", r.Frames, r.Detection, unasked.Load())
	}
}

// Once every connection is gone the run ends and says so, and what T looks like.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	const silence = 400 * time.Millisecond
	target := listen(t, func(n int, c *net.TCPConn) {
		if n < 2 { // the probe
			echo(n, c)
			return
		}
		b := make([]byte, 64)
		for {
			_ = c.SetReadDeadline(time.Now().Add(silence))
			k, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:k]); err != nil {
				return
			}
		}
	})
	began := time.Now()
	r := doRun(t, nil, "target", target, "connections", "20", "interval", "2s", "duration", "1m", "bound", "1s",
		"slo", "sent>=99%")
	r.want(t, report.Breached, "gate sent>=99%", "unexplained closes")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the run took %s", took)
	}
	notes := strings.Join(r.Notes, "\n")
	if !strings.Contains(notes, "no connection was left 5") || !strings.Contains(notes, "looks like T = ") ||
		!strings.Contains(r.out, notes[:20]) ||
		r.Frames.Scheduled < 500 {
		t.Errorf("%q %+v\n%s", notes, r.Frames, r.out)
	}
	if list := r.Unexplained.Examples; len(list) < 3 ||
		!slices.IsSortedFunc(list, func(a, b report.CloseExample) int { return cmp.Compare(a.SilentMS, b.SilentMS) }) {
		t.Errorf("%+v", list)
	}
}

// A peer that was asked to go and may stay is no better off.
func TestDrainThatClosesNothing(t *testing.T) {
	t.Parallel()
	goaway := codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeDraining})
	target := answering(t, func(n int, b []byte) []byte {
		if n == 0 { // the probe
			return b
		}
		return append(b, goaway...)
	})
	r := doRun(t, nil, "target", target, "timeout", "1h", "connections", "3", "interval", "100ms", "duration", "300ms",
		"slo", "sent>=99%")
	r.want(t, report.Failed, "3 unexplained closes")
	if f := r.Frames; f.Scheduled < 6 || f.SentOnSchedule != f.Scheduled {
		t.Errorf("%+v", f)
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
		r := doRun(t, nil, "target", target, "timeout", "1h", "connections", "2", "interval", "100ms", "duration",
			"2500ms", "frame", frame)
		r.want(t, report.Failed, "frames had no answer at the end; the oldest waited for")
	}
}
