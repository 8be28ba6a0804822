package server

import (
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"heartwheel/internal/testcert"
)

// Files that change are loaded without a signal; what is wrong with them is logged once,
// at the second look, and changes nothing.
func TestCertificatesChange(t *testing.T) {
	ca := testcert.New(t)
	first := time.Now().Add(100 * 24 * time.Hour).Truncate(time.Second)
	second := first.Add(100 * 24 * time.Hour)
	cert, key := ca.IssueUntil(t, first, "server", "localhost")
	var log syncBuffer
	// It does not run, so that nothing else looks.
	s, err := New(Config{Listen: []string{"tls://127.0.0.1:0", "wss://127.0.0.1:0/"},
		Logger: logTo(&log, slog.LevelInfo), Edge: Edge{Certificates: []Certificate{{Cert: cert, Key: key}}}}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	inUse := func() time.Time { return s.listeners[1].tls.Certificates()[0].NotAfter }
	w := newCertificateWatch(s)
	now := time.Now()
	w.look(now)
	if got := inUse(); !got.Equal(first) || len(log.lines("certificate")) > 0 {
		t.Errorf("it ends at %s, and the log says %s", got, log.lines("certificate"))
	}
	good, _ := os.ReadFile(key)
	ca.IssueUntil(t, second, "server", "localhost")
	next, _ := os.ReadFile(key)
	if err := os.WriteFile(key, good, 0o600); err != nil { // the certificate comes first
		t.Fatal(err)
	}
	for range 3 {
		w.look(now)
	}
	if lines := log.lines("ERROR", "have changed and are wrong"); len(lines) != 2 || // one a listener
		!strings.Contains(lines[0], "is not that of certificate") {
		t.Errorf("a certificate without its key is logged as %q", lines)
	}
	if got := inUse(); !got.Equal(first) {
		t.Errorf("it ends at %s", got)
	}
	if err := os.WriteFile(key, append(next, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	w.look(now)
	if got := inUse(); !got.Equal(second) || len(log.lines("certificate loaded again")) != 2 {
		t.Errorf("it ends at %s, want %s; %s", got, second, log.lines("certificate loaded again"))
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(s)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool {
		return f.GetName() == "heartwheel_tls_certificate_not_after_timestamp_seconds"
	})
	if i < 0 || len(families[i].Metric) != 1 {
		t.Fatalf("metric %d of %v", i, families)
	}
	m := families[i].Metric[0]
	if m.GetGauge().GetValue() != float64(second.Unix()) || m.Label[0].GetValue() != cert {
		t.Errorf("the metric is %v", m)
	}
}

// From 30 days before its end on a certificate is warned of once a day.
func TestCertificateEnds(t *testing.T) {
	ca := testcert.New(t)
	end := time.Now().Add(100 * 24 * time.Hour)
	cert, key := ca.IssueUntil(t, end, "server", "localhost")
	var log syncBuffer
	cfg := Config{Listen: []string{"tls://127.0.0.1:0", "tls://127.0.0.1:0"}, Logger: logTo(&log, slog.LevelInfo),
		Edge: Edge{Certificates: []Certificate{{Cert: cert, Key: key}}}}
	s, err := New(cfg, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w := newCertificateWatch(s)
	for _, tc := range []struct {
		before          time.Duration // its end
		warned, expired int           // lines in all
	}{
		{31 * 24 * time.Hour, 0, 0}, {30*24*time.Hour - time.Minute, 1, 0}, {30*24*time.Hour - time.Hour, 1, 0},
		{28 * 24 * time.Hour, 2, 0}, {time.Minute, 3, 0}, {-time.Minute, 3, 0}, {-25 * time.Hour, 3, 1},
	} {
		w.look(end.Add(-tc.before))
		warned, expired := len(log.lines("expires soon", cert)), len(log.lines("has expired", cert))
		if warned != tc.warned || expired != tc.expired {
			t.Errorf("%s before its end: %d and %d lines, want %d and %d",
				tc.before, warned, expired, tc.warned, tc.expired)
		}
	}
}

// The watch, which a drain waits for, does not wait for a Reload: that reads the files too.
func TestCertificatesChangeDuringReload(t *testing.T) {
	ca := testcert.New(t)
	cert, key := ca.IssueUntil(t, time.Now().Add(100*24*time.Hour), "server", "localhost")
	s, err := New(Config{Listen: []string{"tls://127.0.0.1:0"}, Logger: slog.New(slog.DiscardHandler),
		Edge: Edge{Certificates: []Certificate{{Cert: cert, Key: key}}}}, Echo{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ca.IssueUntil(t, time.Now().Add(200*24*time.Hour), "server", "localhost")
	s.reloadMu.Lock() // as Reload does while it fetches a JWK set
	looked := make(chan struct{})
	go func() { newCertificateWatch(s).look(time.Now()); close(looked) }()
	select {
	case <-looked:
	case <-time.After(5 * time.Second):
		t.Error("it waits for the reload")
	}
	s.reloadMu.Unlock()
	<-looked
	if !s.listeners[0].tls.Changed() {
		t.Error("the certificate was loaded beside the reload")
	}
}
