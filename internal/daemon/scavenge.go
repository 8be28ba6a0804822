package cli

import (
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// tidyEvery is the time between two looks of a tidier.
	tidyEvery = 2 * time.Second

	// quietBytes is what may be allocated between two looks that find it quiet:
	// the log, timers, a client or two.
	quietBytes = 64 << 10

	// tidyBytes is what has to have been allocated since the last time that
	// memory was given back, and tidyShare which part of what lives. They bound
	// what it costs: for each byte that is allocated the collector looks at 16.
	tidyBytes = 256 << 10
	tidyShare = 16
)

// A tidier gives memory back when it has become quiet: after many have connected
// there is garbage, and memory that Go's runtime keeps for the next, which nobody
// needs once they are there. One goroutine uses it.
type tidier struct {
	seen    uint64 // bytes allocated until the last look
	tidied  uint64 // and until memory was last given back
	samples [3]metrics.Sample
}

func newTidier() *tidier {
	t := new(tidier)
	for i, name := range []string{"/gc/gogc:percent", "/gc/heap/allocs:bytes", "/gc/heap/live:bytes"} {
		t.samples[i].Name = name
	}
	return t
}

// look gives memory back if it is due. Where GOGC says how much garbage may be,
// it does nothing.
func (t *tidier) look() {
	metrics.Read(t.samples[:])
	percent, allocated, live := t.samples[0].Value.Uint64(), t.samples[1].Value.Uint64(), t.samples[2].Value.Uint64()
	if percent == gcPercent && t.due(allocated, live) {
		debug.FreeOSMemory()
	}
}

// due takes what has been allocated in all and what lived at the last
// collection, and reports whether memory is to be given back now.
func (t *tidier) due(allocated, live uint64) bool {
	quiet := allocated-t.seen < quietBytes
	t.seen = allocated
	if !quiet || allocated-t.tidied < max(live/tidyShare, tidyBytes) {
		return false
	}
	t.tidied = allocated
	return true
}
