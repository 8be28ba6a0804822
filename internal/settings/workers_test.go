package cli

import (
	"strings"
	"testing"
	"time"

	"heartwheel/server"
)

func TestWorkersFor(t *testing.T) {
	for _, c := range []struct {
		connections int
		descriptors uint64
		want        int
	}{
		{1, 20_000, 1}, {18_620, 20_000, 1}, {18_621, 20_000, 2}, {300_000, 20_000, 17}, {1_000_000, 20_000, 54},
		{1_000_000, 1_048_576, 2}, {1000, 64, 1000}, {1000, 10, 1000},
	} {
		got := workersFor(c.connections, c.descriptors)
		if got != c.want {
			t.Errorf("%d connections with %d descriptors need %d workers, want %d", c.connections, c.descriptors, got, c.want)
		}
		if room := server.RoomForConnections(c.descriptors); room > 100 && got*room < c.connections {
			t.Errorf("%d connections do not fit into %d workers of %d", c.connections, got, room)
		}
	}
}

func TestDecideWorkers(t *testing.T) {
	for _, c := range []struct {
		flags       map[string]any
		descriptors uint64
		want        int
		wrong       string
	}{
		{map[string]any{"workers": "56"}, 20_000, 56, ""},
		{map[string]any{"workers": "auto", "max-connections": "1m"}, 20_000, 54, ""},
		{map[string]any{"workers": "auto", "max-connections": "100m"}, 20_000, 0, "workers auto: 5371 workers need"},
		{map[string]any{"workers": "100"}, 512, 0, "workers 100: 100 workers need 964 descriptors in the process that watches over them, which may open 512; write at most 49, or raise"},
		{map[string]any{"workers": "49"}, 512, 49, ""},
		{map[string]any{"workers": "100", "listen": "tcp://:1,tcp://:2"}, 1024, 0, "write at most 96"},
		{map[string]any{"workers": "8", "memory-limit": "128MiB"}, 20_000, 0, "memory-limit 128MiB: is too little for 8 workers; write at least 256MiB"},
		{map[string]any{"workers": "8", "memory-limit": "off"}, 20_000, 8, ""},
		{map[string]any{"workers": "8", "memory-limit": "256MiB"}, 20_000, 8, ""},
	} {
		r, err := resolve(flagLayer(c.flags))
		if err != nil {
			t.Fatal(err)
		}
		n, err := decideWorkers(r, c.descriptors)
		if n != c.want || (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%v with %d descriptors: %d, %v; want %d, %s", c.flags, c.descriptors, n, err, c.want, c.wrong)
		}
	}
}

func TestShares(t *testing.T) {
	for _, c := range []struct{ workers, processors, loops, maxProcs int }{
		{1, 2, 2, 2}, {2, 2, 1, 2}, {56, 2, 1, 2}, {4, 64, 16, 16}, {5, 64, 12, 12}, {1, 1, 1, 2},
	} {
		if loops, maxProcs := shares(c.workers, c.processors); loops != c.loops || maxProcs != c.maxProcs {
			t.Errorf("%d workers on %d processors have %d loops and GOMAXPROCS %d, want %+v", c.workers, c.processors, loops, maxProcs, c)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	want := []time.Duration{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000}
	for i, w := range want {
		if got := b.next(59 * time.Second); got != w*time.Millisecond {
			t.Errorf("after failure %d: %s, want %s", i+1, got, w*time.Millisecond)
		}
	}
	if got := b.next(time.Minute); got != restartMin {
		t.Errorf("after a minute of service: %s, want %s", got, restartMin)
	}
	if got := b.next(0); got != 2*restartMin {
		t.Errorf("and then: %s", got)
	}
}

// TestServeProcesses: what the load test takes into account of its server.
func TestServeProcesses(t *testing.T) {
	for flags, want := range map[string]int{
		"": 1, "--profile iot": 1, "--workers 56 --profile iot": 56, "--profile iot --workers=8": 8, "--workers": 1,
		"--workers many": 1, "--workers 0": 1, "--workers 2k": 2000,
	} {
		if got := serveProcesses(flags, 1); got != want {
			t.Errorf("%q are %d processes, want %d", flags, got, want)
		}
	}
	descriptors, _ := server.RaiseDescriptorLimit()
	if got, want := serveProcesses("--workers auto --max-connections 100m", 100_000_000), workersFor(100_000_000, descriptors); got != want {
		t.Errorf("auto is %d, want %d", got, want)
	}
}
