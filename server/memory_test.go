package server

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"heartwheel/codec"
	"heartwheel/internal/admission"
)

const gib = 1 << 30

// A fakeMeter reports a part of one GiB as used. Safe for concurrent use.
type fakeMeter struct{ use atomic.Uint64 }

func (m *fakeMeter) Read() (use, limit uint64, err error) { return m.use.Load(), gib, nil }
func (*fakeMeter) Name() string                           { return "fake" }
func (*fakeMeter) Close()                                 {}
func (*fakeMeter) Shared() bool                           { return true }

// TestShortOfMemory: a server that is short of memory says so to new connections
// and to the balancer, and keeps those it has.
func TestShortOfMemory(t *testing.T) {
	cfg := Config{Listen: []string{"tcp://127.0.0.1:0"}, MemoryLimit: -1, Drain: 200 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler)}
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	if _, watched := s.admission.Memory(); watched {
		t.Fatal("a limit is watched although that is off")
	}
	meter := &fakeMeter{}
	s.admission.Watch([]admission.Meter{meter}, 1, s.accounts)
	stop := run(s)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	first := dial(t, s)
	_, _ = first.Write(beat)
	expect(t, first, beat)

	readyz := func() (int, string) {
		w := httptest.NewRecorder()
		s.OpsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
		return w.Code, w.Body.String()
	}
	await := func(full bool) {
		for end := time.Now().Add(patience); s.admission.MemoryFull() != full; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("full: %v", !full)
			}
		}
	}
	if code, _ := readyz(); code != http.StatusOK {
		t.Errorf("/readyz is %d with memory enough", code)
	}
	meter.use.Store(gib / 100 * 92)
	await(true)
	c := dial(t, s)
	expect(t, c, codec.AppendGoaway(nil, codec.Goaway{Code: codec.CodeOverloaded, Reason: "server is short of memory",
		AfterMS: 5000}))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after GOAWAY: %d, %v", n, err)
	}
	if code, body := readyz(); code != http.StatusServiceUnavailable || !strings.Contains(body, "memory is short") {
		t.Errorf("/readyz is %d %q", code, body)
	}
	_, _ = first.Write(beat)
	expect(t, first, beat)
	if st := s.Stats(); st.Refused["memory"] != 1 || st.Connections != 1 {
		t.Errorf("refused %v, %d connections", st.Refused, st.Connections)
	}
	w := httptest.NewRecorder()
	s.OpsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		"heartwheel_memory_rung 2\n", "heartwheel_ready 0\n", "heartwheel_memory_limit_bytes 1.073741824e+09\n",
		"heartwheel_memory_used_bytes 9.87842456e+08\n", `heartwheel_refused_total{reason="memory"} 1` + "\n",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("/metrics has no line %q", want)
		}
	}
	meter.use.Store(0)
	await(false)
	c = dial(t, s)
	_, _ = c.Write(beat)
	expect(t, c, beat)
}
