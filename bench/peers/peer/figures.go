package peer

import (
	"encoding/json"
	"io"
	"runtime"
	"runtime/metrics"
)

// Figures is what a server says about its runtime. What its own collections for
// HeapLive have cost is in none of them.
type Figures struct {
	HeapLive   uint64 `json:"heap_live"`   // bytes reachable, found by a collection for this question
	HeapInUse  uint64 `json:"heap_inuse"`  // bytes in spans in use, before that collection
	StackInUse uint64 `json:"stack_inuse"` // bytes
	Sys        uint64 `json:"sys"`         // bytes obtained from the system
	Goroutines int    `json:"goroutines"`  // threads, where there are no goroutines
	GCCount    uint32 `json:"gc_count"`    // collections since the start
	// CPU time of them, less that of processors which had nothing else to do
	GCCPU       float64 `json:"gc_cpu_seconds"`
	GCPause     float64 `json:"gc_pause_seconds"` // time that they stopped the world
	Connections int64   `json:"connections"`      // open; -1: not known
}

// A forcedGC knows what the collections of earlier answers have cost.
type forcedGC struct {
	cpu, pause float64 // seconds
}

// report writes the figures as one line of JSON.
func (f *forcedGC) report(w io.Writer) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := gcCPU()
	figures := Figures{
		HeapInUse:   before.HeapInuse,
		StackInUse:  before.StackInuse,
		Sys:         before.Sys,
		Goroutines:  runtime.NumGoroutine(),
		GCCount:     before.NumGC - before.NumForcedGC,
		GCCPU:       cpu - f.cpu,
		GCPause:     float64(before.PauseTotalNs)/1e9 - f.pause,
		Connections: Conns.Load(),
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	figures.HeapLive = after.HeapAlloc
	f.cpu += gcCPU() - cpu
	f.pause += float64(after.PauseTotalNs-before.PauseTotalNs) / 1e9
	_ = json.NewEncoder(w).Encode(figures)
}

// gcCPU returns the CPU time of all collections up to the end of the latest, in
// seconds.
func gcCPU() float64 {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64() - s[1].Value.Float64()
}
