package ops

import (
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"
)

// processStart stands for the start of this process, some milliseconds late.
var processStart = float64(time.Now().UnixNano()) / 1e9

// processMetrics has what Prometheus' own process collector has under the same
// names, but for the count of open descriptors: to get that it lists
// /proc/self/fd at each scrape, which allocates for every connection, and leaves
// 1.8 kB in the kernel's caches for each. heartwheel_connections says as much.
// Resident memory is known on Linux only.
type processMetrics struct{}

// ProcessMetrics collects what is said of this process as OpsHandler does.
func ProcessMetrics() prometheus.Collector { return processMetrics{} }

var (
	cpuDesc   = prometheus.NewDesc("process_cpu_seconds_total", "User and system CPU time spent.", nil, nil)
	rssDesc   = prometheus.NewDesc("process_resident_memory_bytes", "Resident memory size.", nil, nil)
	startDesc = prometheus.NewDesc("process_start_time_seconds", "Start of the process, in seconds since 1970.", nil,
		nil)
	maxDesc = prometheus.NewDesc("process_max_fds", "The limit of open descriptors.", nil, nil)
)

// Describe implements prometheus.Collector.
func (processMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{cpuDesc, rssDesc, startDesc, maxDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Safe for concurrent use.
func (processMetrics) Collect(ch chan<- prometheus.Metric) {
	var use unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &use) == nil {
		ch <- prometheus.MustNewConstMetric(cpuDesc, prometheus.CounterValue,
			float64(use.Utime.Nano()+use.Stime.Nano())/1e9)
	}
	if rss, ok := residentBytes(); ok {
		ch <- prometheus.MustNewConstMetric(rssDesc, prometheus.GaugeValue, rss)
	}
	ch <- prometheus.MustNewConstMetric(startDesc, prometheus.GaugeValue, processStart)
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		ch <- prometheus.MustNewConstMetric(maxDesc, prometheus.GaugeValue, float64(limit.Cur))
	}
}

// residentBytes reads the second field of /proc/self/statm (proc(5)), in pages.
func residentBytes() (float64, bool) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()), err == nil
}
