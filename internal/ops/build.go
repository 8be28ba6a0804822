package ops

import (
	"runtime"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// Version is that of the module heartwheel in this program, such as v0.1.0;
// "(devel)" where the build did not record one.
func Version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == "heartwheel" && m.Version != "" {
				return m.Version
			}
		}
	}
	return "(devel)"
}

// BuildInfo collects heartwheel_build_info, which is 1 and has the version and
// Go's as labels.
func BuildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "heartwheel_build_info", Help: "1, with the versions of heartwheel and of Go.",
		ConstLabels: prometheus.Labels{"version": Version(), "goversion": runtime.Version()},
	}, func() float64 { return 1 })
}
