package loadtest

import (
	"os"
	"runtime"
	"strings"
	"time"

	"heartwheel/loadtest/report"
)

// environment describes the machine and the target of the run.
func (r *run) environment() report.Environment {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	memory, _ := meminfo("MemTotal")
	return report.Environment{
		Version: r.Version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		Kernel: strings.TrimSpace(string(kernel)), CPUs: runtime.NumCPU(), MemoryBytes: memory,
		Processes: r.plan.Processes, Loops: r.plan.Loops, Target: r.plan.targetText(r.target), OwnServer: r.own != nil,
		Started: r.started.Format(time.RFC3339),
	}
}
