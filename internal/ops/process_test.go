package ops

import (
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestProcessMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(processMetrics{})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	least := map[string]float64{
		"process_cpu_seconds_total":  1e-6,
		"process_start_time_seconds": 1.7e9, // November 2023
		"process_max_fds":            16,
	}
	if runtime.GOOS == "linux" {
		least["process_resident_memory_bytes"] = 1 << 20
	}
	for name, want := range least {
		if got[name] < want {
			t.Errorf("%s is %g, want at least %g", name, got[name], want)
		}
	}
	if len(got) != len(least) {
		t.Errorf("%d metrics %v, want %d", len(got), got, len(least))
	}
}
