package loadtest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/loadtest/report"
)

// The last measurement of the server ends before the connections are reset, even if it is
// slow: the run's own closes are not in the figures.
func TestLastLookIsBeforeTheEnd(t *testing.T) {
	t.Parallel()
	var resets atomic.Int64
	target := listen(t, func(n int, c *net.TCPConn) {
		if _, err := io.Copy(c, c); err != nil && n > 0 { // 0 is the probe
			resets.Add(1)
		}
	})
	ops := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(500 * time.Millisecond) // the look begins 200 ms before the end
		fmt.Fprintf(w, "heartwheel_connections 5\nheartwheel_closed_total{reason=\"peer_reset\"} %d\n", resets.Load())
	}))
	defer ops.Close()
	r := doRun(t, nil, "target", target, "ops", ops.URL, "timeout", "1h", "connections", "5", "interval", "100ms",
		"duration", "800ms")
	r.want(t, report.Pass)
	if s := r.Server; s == nil || s.RSSAfterBytes == 0 || s.ClosedByReason != nil || r.Connections.AtEnd != 5 {
		t.Errorf("%+v", s)
	}
}
