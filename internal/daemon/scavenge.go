package daemon

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// scavengeEvery is the time between two checks.
	scavengeEvery = 2 * time.Second

	// quietBytes is the most that a quiet process allocates between two checks:
	// the log, timers, a client or two.
	quietBytes = 64 << 10

	// At least scavengeBytes and a scavengeShare-th of the live heap must have been
	// allocated since memory was last returned. That bounds the cost: for each byte
	// allocated the collector looks at 16.
	scavengeBytes = 256 << 10
	scavengeShare = 16
)

// A scavenger returns memory to the system once the process is quiet: after many
// clients have connected there is garbage, and free memory that the runtime keeps
// for more of them. It is used by one goroutine.
type scavenger struct {
	seen      uint64 // bytes allocated until the last check
	scavenged uint64 // bytes allocated until memory was last returned
	samples   [3]metrics.Sample
}

func newScavenger() *scavenger {
	s := new(scavenger)
	for i, name := range []string{"/gc/gogc:percent", "/gc/heap/allocs:bytes", "/gc/heap/live:bytes"} {
		s.samples[i].Name = name
	}
	return s
}

// check returns memory if that is due. It does nothing where GOGC is set by the
// environment.
func (s *scavenger) check() {
	metrics.Read(s.samples[:])
	percent, allocated, live := s.samples[0].Value.Uint64(), s.samples[1].Value.Uint64(), s.samples[2].Value.Uint64()
	if percent == GCPercent && s.due(allocated, live) {
		debug.FreeOSMemory()
	}
}

// due reports whether to return memory now. allocated is the number of bytes
// allocated so far, live the live heap at the last collection.
func (s *scavenger) due(allocated, live uint64) bool {
	quiet := allocated-s.seen < quietBytes
	s.seen = allocated
	if !quiet || allocated-s.scavenged < max(live/scavengeShare, scavengeBytes) {
		return false
	}
	s.scavenged = allocated
	return true
}
