package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"heartwheel/codec"
)

// TestProxyHeader: a PROXY header is closed with a code after which the client
// comes back, and logged with what to do, once a minute however many come.
func TestProxyHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, nil)
		defer r.close()
		lines := func() int { return strings.Count(log.String(), "turn them off there") }
		for _, header := range []string{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11"} {
			c := r.open()
			r.feed(c, []byte(header))
			r.wantClose(c, ProtocolError, codec.CodeInternalError)
		}
		if lines() != 1 {
			t.Errorf("two headers at a time are logged %d times, want once:\n%s", lines(), log.String())
		}
		r.wait(time.Minute + 1)
		c := r.open()
		r.feed(c, []byte("PROXY UNKNOWN\r\n"))
		r.wantClose(c, ProtocolError, codec.CodeInternalError)
		if lines() != 2 {
			t.Errorf("a minute later it is logged %d times in all, want twice", lines())
		}
	})
}
