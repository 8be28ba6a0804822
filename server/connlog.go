package server

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"heartwheel/internal/admission"
)

// The connection log: at debug every open and close, at info what a peer did wrong
// and who was refused, at most one line of a kind in connLogEvery.
const connLogEvery = 10 * time.Second

// faultLogEvery is the least time between two lines about the same fault of the
// server or of its handler.
const faultLogEvery = time.Second

// A logLimiter limits the lines of one kind. Safe for concurrent use.
type logLimiter struct {
	last    atomic.Int64 // unix time in ns of the last line; 0: none yet
	skipped atomic.Uint64
}

// allow reports whether to log a line now, at most one each interval, and how many
// it has suppressed since the last one.
func (l *logLimiter) allow(interval time.Duration) (suppressed uint64, ok bool) {
	now, last := time.Now().UnixNano(), l.last.Load()
	since := now - last // negative: the clock was set back
	if last != 0 && since >= 0 && since < int64(interval) || !l.last.CompareAndSwap(last, now) {
		l.skipped.Add(1)
		return 0, false
	}
	return l.skipped.Swap(0), true
}

// log logs a line if allow says so. attrs, which is called only then, makes its
// attributes.
func (l *logLimiter) log(
	log *slog.Logger, level slog.Level, interval time.Duration, msg string, attrs func() []any,
) {
	suppressed, ok := l.allow(interval)
	if !ok {
		return
	}
	all := attrs()
	if suppressed > 0 {
		all = append(all, "suppressed", suppressed)
	}
	log.Log(context.Background(), level, msg, all...)
}

// connLog is a loop's part of the connection log. Loop only.
type connLog struct {
	opened  map[*Conn]int64        // when connections were opened, monotonic ns; only those logged
	offence [numReasons]logLimiter // by what the peer did
	proxy   logLimiter
	failed  logLimiter // the handler's errors
	panics  logLimiter
}

// logOpen logs a connection that has reached the loop.
func (l *loop) logOpen(c *Conn) {
	if !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	if l.connLog.opened == nil {
		l.connLog.opened = map[*Conn]int64{}
	}
	l.connLog.opened[c] = l.mono()
	l.log.Debug("connection opened", "conn", c.ID(), "addr", c.RemoteAddr().String())
}

// logClose logs a connection whose socket is about to be closed. bytes are what
// the kernel has counted.
func (l *loop) logClose(c *Conn) {
	opened, timed := l.connLog.opened[c]
	delete(l.connLog.opened, c)
	if !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	attrs := []any{"conn", c.ID(), "addr", c.RemoteAddr().String(), "reason", c.reason.String()}
	if timed {
		attrs = append(attrs, "duration", time.Duration(l.mono()-opened).Round(time.Millisecond).String())
	}
	if in, out, ok := l.io.traffic(c); ok {
		attrs = append(attrs, "bytes_in", in, "bytes_out", out)
	}
	l.log.Debug("connection closed", attrs...)
}

// logOffence logs that a connection is closed for what its peer did, or left undone.
func (l *loop) logOffence(c *Conn, n Notice) {
	if n.Reason < Incomplete || n.Reason > HelloLimit {
		return
	}
	if n.Reason == ProtocolError && n.Code != n.Reason.Code() {
		return // a PROXY header, which has a line of its own
	}
	l.connLog.offence[n.Reason].log(l.log, slog.LevelInfo, connLogEvery, "closing a connection for what its peer did",
		func() []any {
			detail := n.Text
			if n.cause != nil {
				detail = n.cause.Error()
			}
			return []any{"conn", c.ID(), "addr", c.RemoteAddr().String(), "reason", n.Reason.String(), "detail", detail}
		})
}

// logRefusal logs that a connection was not admitted.
func (s *Server) logRefusal(cause admission.Cause, peer net.Addr) {
	s.refusalLog[cause].log(s.log, slog.LevelInfo, connLogEvery, "connection refused", func() []any {
		return []any{"addr", peer.String(), "reason", cause.String()}
	})
}
