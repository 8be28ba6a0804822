package faults

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"testing"
	"time"
)

// resources are what must not grow.
type resources struct {
	files, goroutines int
}

// resources counts what the process with this id has, beside one request to
// its ops address. The goroutines of /metrics would be luck: they include those
// that collect it at the same time.
func (s *serverProcess) resources(pid int) resources {
	s.t.Helper()
	s.http.CloseIdleConnections()
	now := resources{files: openFiles(s.t, pid)}
	status, body, err := s.get("/debug/pprof/goroutine?debug=1")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %.300s", status, body)
	}
	if err == nil {
		_, err = fmt.Sscanf(body, "goroutine profile: total %d", &now.goroutines)
	}
	if err != nil {
		s.t.Fatalf("/debug/pprof/goroutine: %v", err)
	}
	return now
}

// atRest is what an idle server has: the least of several samples, as requests
// and their connections come between.
func (s *serverProcess) atRest(pid int) resources {
	s.t.Helper()
	least := resources{math.MaxInt, math.MaxInt}
	for range 20 {
		now := s.resources(pid)
		least = resources{min(least.files, now.files), min(least.goroutines, now.goroutines)}
		time.Sleep(20 * time.Millisecond)
	}
	return least
}

// awaitResources waits until the process has no more than most.
func (s *serverProcess) awaitResources(pid int, most resources) resources {
	s.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		now := s.resources(pid)
		if now.files <= most.files && now.goroutines <= most.goroutines {
			return now
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d descriptors and %d goroutines %s later; %d and %d before",
				now.files, now.goroutines, limit, most.files, most.goroutines)
		}
	}
}

// openFiles counts the descriptors of a process.
func openFiles(t testing.TB, pid int) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
