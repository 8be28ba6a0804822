package engine

import (
	"net/netip"
	"os/exec"
	"time"
)

// A job is what one process of the generator has to do. It travels to worker
// processes as JSON.
type Job struct {
	Load    Load           `json:"load"`
	First   int            `json:"first"` // the index of its first event loop
	Of      int            `json:"of"`    // event loops over all processes
	Target  netip.AddrPort `json:"target"`
	Sources []netip.Addr   `json:"sources"`
	Timeout time.Duration  `json:"timeout"` // T; 0: unknown
}

// A Generator is the event loops of a run, in this process or in worker
// processes. Its methods are for one goroutine.
type Generator struct {
	loops    int
	messages chan Message // the last one of a loop has Result, Error or Lost
	send     func(Order)
	kill     func()
	wait     func()
}

// messagesKept is how many messages may wait for the run to read them: an event
// loop must not wait for a terminal.
const messagesKept = 4096

// Start starts the event loops of the load: in this process, or in worker
// processes if it has several. command makes the command line of a worker, which
// calls Worker. The loops wait for an order with Start.
func Start(j *Job, command func() *exec.Cmd) (*Generator, error) {
	if j.Load.Processes > 1 {
		return startProcesses(j, command)
	}
	g := &Generator{loops: j.Of, messages: make(chan Message, messagesKept)}
	orders, done, err := startLoops(j, g.messages)
	if err != nil {
		return nil, err
	}
	g.send = func(o Order) {
		for _, in := range orders {
			in <- o // holds more orders than there are in a run
		}
	}
	g.kill = func() { g.send(Order{Stop: true}) }
	g.wait = func() { <-done }
	return g, nil
}

// Loops is the number of event loops.
func (g *Generator) Loops() int { return g.loops }

// Messages are those of all loops. The last one of a loop has Result, Error or
// Lost.
func (g *Generator) Messages() <-chan Message { return g.messages }

// Send sends an order to all loops. It never blocks for long.
func (g *Generator) Send(o Order) { g.send(o) }

// Kill ends the loops at once; they may send no more.
func (g *Generator) Kill() { g.kill() }

// Wait waits until nothing of the loops is left: call it after their last
// messages, or after Kill.
func (g *Generator) Wait() { g.wait() }
