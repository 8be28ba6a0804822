// Package logging keeps a log that blocks from blocking the process: what reads
// standard error may stop reading, and stay. It imports nothing of this module.
package logging

import (
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultLimit is how many bytes of the log may wait to be written.
const DefaultLimit = 1 << 20

// A Writer passes lines on to another writer from a goroutine of its own. Write
// never blocks: lines beyond the limit are dropped and counted. Safe for
// concurrent use.
type Writer struct {
	// Static after NewWriter.
	to    io.Writer
	limit int
	wake  chan struct{} // has a value when there may be something to do
	done  chan struct{} // closed when the goroutine has ended

	mu       sync.Mutex
	pending  []byte              // guarded by mu: whole lines
	dropped  uint64              // guarded by mu: calls of Write whose lines were lost
	reported uint64              // guarded by mu: of those, the ones reported
	line     func(uint64) []byte // guarded by mu
	closing  bool                // guarded by mu
}

// NewWriter returns a Writer to w. limit is in bytes; 0: DefaultLimit.
func NewWriter(w io.Writer, limit int) *Writer {
	if limit == 0 {
		limit = DefaultLimit
	}
	l := &Writer{to: w, limit: limit, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// ReportDropped makes l report lost lines once lines get through again: line
// returns what to write when n were lost. It must not write to l.
func (l *Writer) ReportDropped(line func(n uint64) []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line = line
}

// Write takes one line, or several, and copies them. It never fails.
func (l *Writer) Write(b []byte) (int, error) {
	l.mu.Lock()
	if l.closing || len(l.pending)+len(b) > l.limit {
		l.dropped++
	} else {
		l.pending = append(l.pending, b...)
	}
	l.mu.Unlock()
	l.signal()
	return len(b), nil
}

func (l *Writer) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Collector returns the metric heartwheel_log_dropped_total.
func (l *Writer) Collector() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "heartwheel_log_dropped_total",
		Help: "Log lines lost because standard error was blocked or broken.",
	}, func() float64 { return float64(l.Dropped()) })
}

// Dropped returns how many lines were lost.
func (l *Writer) Dropped() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

func (l *Writer) run() {
	defer close(l.done)
	var spare []byte
	for range l.wake {
		for {
			l.mu.Lock()
			b, closing := l.pending, l.closing
			l.pending = spare
			l.mu.Unlock()
			if len(b) == 0 {
				if closing {
					return
				}
				spare = b
				break
			}
			l.write(b)
			if spare = b[:0]; cap(spare) > l.limit/16 { // after a burst
				spare = nil
			}
		}
	}
}

// write writes b, and then how many lines were lost before.
func (l *Writer) write(b []byte) {
	_, err := l.to.Write(b)
	l.mu.Lock()
	if err != nil {
		l.dropped++
	}
	lost, line := l.dropped-l.reported, l.line
	if err != nil || line == nil {
		lost = 0
	}
	l.reported += lost
	l.mu.Unlock()
	if lost > 0 {
		_, _ = l.to.Write(line(lost)) // the count stays in Dropped
	}
}

// Close writes what is pending, for at most timeout. Lines that come later are
// lost.
func (l *Writer) Close(timeout time.Duration) {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	l.signal()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-l.done:
	case <-late.C:
	}
}
