package loadtest

import (
	"net/netip"
	"time"
)

// A job is what one process of the generator has to do. It travels to worker
// processes as JSON.
type job struct {
	Plan    Plan           `json:"plan"`
	First   int            `json:"first"` // the index of its first event loop
	Of      int            `json:"of"`    // event loops over all processes
	Target  netip.AddrPort `json:"target"`
	Sources []netip.Addr   `json:"sources"`
	Timeout time.Duration  `json:"timeout"` // T; 0: unknown
}

// A crew is the event loops of a run, wherever they are.
type crew struct {
	loops   int
	reports chan message // from all of them; one with Result, Error or Lost is a loop's last
	order   func(order)  // to all of them; never blocks for long
	kill    func()       // ends them at once; they may report no more
	wait    func() error // until nothing is left of them; after the last reports
}

// reportsKept is how many reports may wait for the run to take them: an event
// loop must not wait for a person's terminal.
const reportsKept = 4096

// localCrew is the loops of a generator of one process: this one.
func localCrew(j *job) (*crew, error) {
	c := &crew{loops: j.Of, reports: make(chan message, reportsKept)}
	orders, done, err := startLoops(j, c.reports)
	if err != nil {
		return nil, err
	}
	c.order = func(o order) {
		for _, in := range orders {
			in <- o // holds more orders than there are in a run
		}
	}
	c.kill = func() { c.order(order{Stop: true}) }
	c.wait = func() error { <-done; return nil }
	return c, nil
}
