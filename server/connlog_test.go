package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// syncBuffer is a log that several goroutines write. Safe for concurrent use.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// lines returns the lines that contain all words.
func (s *syncBuffer) lines(words ...string) (found []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
lines:
	for line := range strings.Lines(s.b.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		found = append(found, line)
	}
	return found
}

func logTo(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// At debug every open and close is a line, with what an operator asks for.
func TestConnectionLog(t *testing.T) {
	var log syncBuffer
	s, stop := startUntil(t, Config{Loops: 1, Logger: logTo(&log, slog.LevelDebug)}, Echo{})
	c, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	sent := data("sixteen bytes ok")
	if _, err := c.Write(sent); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, len(sent))); err != nil {
		t.Fatal(err)
	}
	addr := c.LocalAddr().String()
	if _, err := c.Write(codec.AppendClose(nil, codec.CodePeerClosed, "")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, c)
	_ = c.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	opened := log.lines(`msg="connection opened"`, "addr="+addr, "conn="+s.boot)
	closed := log.lines(`msg="connection closed"`, "addr="+addr, "conn="+s.boot, "reason=peer_closed", "duration=")
	if len(opened) != 1 || len(closed) != 1 {
		t.Fatalf("opened %q, closed %q", opened, closed)
	}
	var in, out int
	if runtime.GOOS != "linux" {
		return // only there are bytes counted
	}
	_, counts, _ := strings.Cut(closed[0], " bytes_in=")
	if _, err := fmt.Sscanf(counts, "%d bytes_out=%d", &in, &out); err != nil {
		t.Fatal(err, closed)
	}
	if in < len(sent) || in > len(sent)+16 || out < len(sent) || out > len(sent)+16 {
		t.Errorf("%d bytes in and %d out, want %d and a CLOSE", in, out, len(sent))
	}
}

// At info neither is, and what peers do wrong is, a line in ten seconds for each
// kind, with the number of those between.
func TestOffencesAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		r := newRig(t, Config{RequireHello: true, Logger: logTo(&log, slog.LevelInfo)}, nil)
		offend := func() {
			r.feed(r.open(), []byte{5, 0, 0, 0})
			r.feed(r.open(), beat)
			r.feed(r.open(), hello(codec.Hello{V: 9}))
		}
		for range 5 {
			offend()
		}
		r.feed(r.open(), hello(codec.Hello{}), data("honest"))
		if lines := log.lines(); len(lines) != 2 {
			t.Fatalf("%d lines, want one for each kind: %q", len(lines), lines)
		}
		if l := log.lines("reason=protocol_error", "conn=boot-", "addr=192.0.2.1:", "not this protocol"); len(l) != 1 {
			t.Errorf("%q", log.lines())
		}
		if l := log.lines("reason=bad_version", "version 1"); len(l) != 1 {
			t.Errorf("%q", log.lines())
		}
		r.wait(connLogEvery)
		offend()
		if l := log.lines("reason=protocol_error", "suppressed=9"); len(l) != 1 {
			t.Errorf("%q", log.lines())
		}
		if l := log.lines("reason=bad_version", "suppressed=4"); len(l) != 1 {
			t.Errorf("%q", log.lines())
		}
	})
}

// Refusals are logged at info like offences.
func TestRefusalsAreLogged(t *testing.T) {
	var log syncBuffer
	s := start(t, Config{Loops: 1, AddressMax: 1, Logger: logTo(&log, slog.LevelInfo)}, Echo{})
	for range 4 {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.Write(beat); err != nil && !errors.Is(err, net.ErrClosed) {
			continue // refused already
		}
		_, _ = c.Read(make([]byte, 4))
	}
	if l := log.lines(`msg="connection refused"`, "addr=127.0.0.1:", "reason=address_limit"); len(l) != 1 {
		t.Errorf("%q", log.lines())
	}
}

// A handler that fails or panics for every frame does not flood the log.
func TestHandlerFaultsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log syncBuffer
		r := newRig(t, Config{Logger: logTo(&log, slog.LevelInfo)}, faulty{})
		many := func() {
			for range 10 {
				r.feed(r.open(), data("fail"))
				r.feed(r.open(), data("panic"))
			}
		}
		many()
		r.wait(faultLogEvery)
		many()
		for _, msg := range []string{"handler failed", "handler panicked"} {
			if l := log.lines(msg); len(l) != 2 || !strings.Contains(l[1], "suppressed=9") {
				t.Errorf("%q", l)
			}
		}
		if n := r.stats().panics; n != 20 {
			t.Errorf("%d panics counted", n)
		}
	})
}

// faulty fails or panics as the frame says.
type faulty struct{}

func (faulty) Open(*Conn) {}
func (faulty) Frame(_ *Conn, f codec.Frame) error {
	if string(f.Payload) == "panic" {
		panic("on purpose")
	}
	return errors.New("on purpose")
}
func (faulty) Close(*Conn, Reason) {}

// The clock may be set back: that mutes no log.
func TestLogLimiterClockSetBack(t *testing.T) {
	var l logLimiter
	l.last.Store(time.Now().Add(time.Hour).UnixNano())
	if _, ok := l.allow(time.Minute); !ok {
		t.Error("muted until the clock has caught up")
	}
	if _, ok := l.allow(time.Minute); ok {
		t.Error("allowed twice")
	}
}
