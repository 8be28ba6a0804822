package loadtest

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

const someMetrics = `# HELP heartwheel_connections Connections open now.
# TYPE heartwheel_connections gauge
heartwheel_connections 12
heartwheel_closed_total{reason="idle_timeout"} %d
heartwheel_closed_total{reason="peer_reset"} 3
heartwheel_refused_total{reason="overloaded"} 1 1700000000000
heartwheel_loop_lag_seconds_bucket{loop="0",le="0.001"} %d
heartwheel_loop_lag_seconds_bucket{loop="0",le="0.01"} %d
heartwheel_loop_lag_seconds_bucket{loop="0",le="+Inf"} %d
heartwheel_loop_lag_seconds_sum{loop="0"} %g
heartwheel_loop_lag_seconds_count{loop="0"} %d
process_cpu_seconds_total 1.5
process_resident_memory_bytes 1.7e+07
go_goroutines 7

broken{ 1
nothing
`

func TestParseOps(t *testing.T) {
	parse := func(args ...any) *serverMetrics {
		s, err := parseMetrics(strings.NewReader(fmt.Sprintf(someMetrics, args...)))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := parse(2, 5, 5, 5, 0.005, 5)
	if a.connections != 12 || a.cpuSeconds != 1.5 || a.rss != 17e6 || a.closed["idle_timeout"] != 2 ||
		a.refused["overloaded"] != 1 {
		t.Errorf("%+v", a)
	}
	b := parse(9, 103, 105, 105, 0.105, 105) // 98 of 100 new ones within a ms
	if got := increases(a.closed, b.closed); !maps.Equal(got, map[string]int64{"idle_timeout": 7}) {
		t.Errorf("%v", got)
	}
	if increases(a.closed, a.closed) != nil {
		t.Error("nothing grew")
	}
	if mean, p99 := lagBetween(a, b); mean != 1000 || p99 != 10000 {
		t.Errorf("mean %g, p99 %g", mean, p99)
	}
	if mean, p99 := lagBetween(a, a); mean != 0 || p99 != 0 {
		t.Errorf("mean %g, p99 %g", mean, p99)
	}
	s, err := parseMetrics(strings.NewReader("process_cpu_seconds_total 1\n"))
	if err != nil || s.connections != -1 {
		t.Errorf("%+v %v", s, err)
	}
}

func TestParseProc(t *testing.T) {
	// The name may contain parentheses and spaces.
	stat := "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14 15 16 17 18 19 20 100 21"
	s, err := parseStat([]byte(stat))
	if err != nil || s.cpuSeconds != 2 || s.rss == 0 || s.rss%100 != 0 {
		t.Errorf("%+v %v", s, err)
	}
	if _, err := parseStat([]byte("42 (a) S 1")); err == nil {
		t.Error("a short line is taken")
	}
	// The inodes of /proc, their dentries and labels are left out.
	proc := "proc_inode_cache 3 4 696 1 1\ndentry 10 12 192 1 1\nlsm_inode_cache 5 6 32 1 1\n"
	if got := parseSlabinfo(proc); got != 7*192+2*32 {
		t.Errorf("%d bytes", got)
	}
	slab := "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\nTCP 10 20 2368 13 8 : tunables\n" +
		"filp 5 8 192 16 1\n"
	if got := parseSlabinfo(slab); got != 10*2368+5*192 {
		t.Errorf("%d bytes", got)
	}
}

// Measuring a server must not be most of its work.
func TestPause(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{0: time.Second, 50 * time.Millisecond: time.Second,
		500 * time.Millisecond: 10 * time.Second} {
		if got := sampleInterval(took); got != want {
			t.Errorf("after a look of %s a pause of %s, want %s", took, got, want)
		}
	}
}
